"""The page of `fpga-portrait dataset review` with a thousand pictures, in a real browser."""

import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from built_sets import sha_of, write_set
from fpga.fpga_core.dataset.decisions import Choice, latest, read_decisions

PACK = Path(__file__).resolve().parents[2]
NUM = 1000
READY = "document.querySelectorAll('figure').length === 1000 && document.activeElement.tagName === 'FIGURE'"
HAVE_PICTURES = """() => [...document.querySelectorAll("figure")].every(figure => {
    const { top, bottom } = figure.getBoundingClientRect()
    return bottom < 0 || top > innerHeight || figure.firstChild.naturalWidth > 0
})"""


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("set")
    write_set(folder, NUM)
    return folder


@pytest.fixture
def open_page(built, editor):
    """Starts the command, and opens the address that it prints."""
    started = []

    def opened():
        words = [sys.executable, str(PACK), "dataset", "review", str(built), "--reviewer", "Ann"]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        # The page forbids eval, with which the tests look into it.
        page = editor.page.context.browser.new_page(viewport={"width": 1400, "height": 900}, bypass_csp=True)
        started.append((process, page))
        page.goto(process.stdout.readline().split()[-1])
        page.wait_for_function(READY)
        return page

    yield opened
    for process, page in started:
        page.close()
        process.terminate()
        process.wait(10)
        process.stdout.close()


def choices(folder: Path) -> dict[str, Choice]:
    file = folder / "decisions-Ann.jsonl"
    words = latest(read_decisions(file) if file.exists() else ())
    return {sha: by["Ann"] for sha, by in words.items() if "Ann" in by}


def test_a_thousand_pictures_are_decided_by_keyboard(open_page, built):
    """Keys, undo, a page at a time, and scrolling without waiting; another start goes on where the last one ended."""
    page = open_page()
    for key in ("d", "ArrowRight", "k", "d", "u", "ArrowDown", "d"):
        page.keyboard.press(key)
    across = page.evaluate("getComputedStyle(document.querySelector('main')).gridTemplateColumns.split(' ').length")
    page.get_by_text("3 of 1000 decided: 1 kept, 2 dropped").wait_for()
    # The undone decision leaves the keyboard on its picture, the fourth.
    expected = {sha_of(0): Choice.DROP, sha_of(2): Choice.KEEP, sha_of(3 + across): Choice.DROP}
    wait_for(lambda: choices(built) == expected)
    page.wait_for_function(HAVE_PICTURES, timeout=5000)
    page.mouse.wheel(0, 100_000)
    page.wait_for_function("scrollY > 5000")
    page.wait_for_function(HAVE_PICTURES, timeout=5000)
    before = page.evaluate("performance.now()")
    for _ in range(60):
        page.keyboard.press("p")
    page.get_by_text("1000 of 1000 decided: 998 kept, 2 dropped").wait_for()
    assert page.evaluate("performance.now()") - before < 60_000
    wait_for(lambda: Counter(choices(built).values()) == {Choice.KEEP: 998, Choice.DROP: 2})

    again = open_page()
    again.get_by_text("1000 of 1000 decided: 998 kept, 2 dropped").wait_for()
    assert again.evaluate("document.querySelectorAll('figure.drop').length") == 2


def wait_for(is_so) -> None:
    for _ in range(200):
        if is_so():
            return
        time.sleep(0.05)
    assert is_so()
