"""Files that repeat each other agree."""

import re
from fnmatch import fnmatch
from pathlib import Path

import pytest
from sources import CORE, PURE, name

ROOT = Path(__file__).resolve().parents[2]


def requirement_lines(file: Path) -> list[str]:
    return [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip() and line[0] != "#"]


def pyproject() -> dict:
    tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no TOML reader")
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_pyproject_and_requirements_ask_for_the_same():
    assert pyproject()["project"]["dependencies"] == requirement_lines(ROOT / "requirements.txt")


def test_requirements_pin_nothing_that_comfyui_pins():
    """Only lower bounds: an exact or upper bound could make pip downgrade what ComfyUI needs."""
    for line in requirement_lines(ROOT / "requirements.txt"):
        assert not re.search(r"==|<|~=", line.partition(";")[0]), line


def test_every_tool_is_among_the_frozen_versions():
    frozen = {
        line.partition("==")[0].lower().replace("_", "-")
        for line in requirement_lines(ROOT / "devtools" / "constraints.txt")
    }
    assert set(requirement_lines(ROOT / "devtools" / "requirements.txt")) <= frozen


def test_the_registry_gets_what_it_asks_for():
    """By its specification: a short name without "ComfyUI", a version in three parts, a publisher, a repository."""
    project, comfy = pyproject()["project"], pyproject()["tool"]["comfy"]
    assert re.fullmatch(r"(?!.*comfyui)[a-z](?:[a-z0-9]|[-_.](?=[a-z0-9])){1,98}", project["name"])
    assert re.fullmatch(r"\d+\.\d+\.\d+", project["version"])
    assert project["license"] == {"file": "LICENSE"}
    assert project["urls"]["Repository"].startswith("https://github.com/")
    assert comfy["PublisherId"] and comfy["DisplayName"]
    assert re.fullmatch(r">=\d+\.\d+\.\d+", comfy["requires-comfyui"])


def test_the_version_is_the_same_everywhere():
    version = pyproject()["project"]["version"]
    assert f'\n__version__ = "{version}"\n' in (ROOT / "__init__.py").read_text(encoding="utf-8")
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")


def test_pyright_is_strict_on_the_pure_core_and_complete_elsewhere():
    settings = pyproject()["tool"]["pyright"]
    strict = [pattern if "*" in pattern else f"{pattern}/*" for pattern in settings["strict"]]
    assert [name(file) for file in PURE if not any(fnmatch(name(file), pattern) for pattern in strict)] == []
    assert {rule for rule, value in settings.items() if value is False} == {"reportMissingImports"}
    assert "executionEnvironments" not in settings
    assert [name(file) for file in CORE if re.search(r"# pyright: (?!ignore\[)", file.read_text("utf-8"))] == []


def test_the_licence_is_the_whole_apache_2():
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Version 2.0, January 2004" in text
    assert all(f"   {number}. " in text for number in range(1, 10))
    assert "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    "page", ["README.md", *(str(page.relative_to(ROOT)) for page in sorted((ROOT / "docs").rglob("*.md")))]
)
def test_pages_name_files_that_exist(page):
    """Checks every path from the root in backticks, and every relative link."""
    text = (ROOT / page).read_text(encoding="utf-8")
    folders = "|".join(entry.name for entry in ROOT.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    named = re.findall(rf"`((?:{folders})/[\w./-]*)`", text)
    linked = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    missing = [path for path in named if not (ROOT / path).exists()]
    missing += [link for link in linked if not (ROOT / page).parent.joinpath(link).exists()]
    assert missing == []


REPOSITORY = "https://github.com/fpga-portrait/fpga-portrait/blob/main/"
LEFT_OUT = requirement_lines(ROOT / ".comfyignore")
PAGES_OF_THE_ARCHIVE = [
    page
    for page in ("README.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md"))))
    if page not in LEFT_OUT
]


def test_what_the_archive_leaves_out_is_there():
    assert [pattern for pattern in LEFT_OUT if not [*ROOT.glob(pattern)]] == []


@pytest.mark.parametrize("page", PAGES_OF_THE_ARCHIVE)
def test_pages_of_the_archive_lead_into_it_or_to_the_repository(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [*re.findall(r"\]\(([^)#\s]+)", text), *re.findall(r"^\[.+\]: (\S+)", text, re.MULTILINE)]
    inside = [((ROOT / page).parent / link).relative_to(ROOT).as_posix() for link in links if "://" not in link]
    left_out = [path for path in inside if any(fnmatch(f"{path}/", f"{pattern.rstrip('/')}/*") for pattern in LEFT_OUT)]
    gone = [link for link in links if link.startswith(REPOSITORY) and not (ROOT / link[len(REPOSITORY) :]).exists()]
    assert (left_out, gone) == ([], [])


def test_pages_are_wrapped():
    """At 100 characters, except for tables, pictures and the addresses of links."""
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "web").rglob("*.md")):
        lines = [line for line in page.read_text(encoding="utf-8").splitlines() if len(line) > 100]
        assert [line for line in lines if not re.match(r"\s*(\||!\[|\[.+\]: )", line)] == [], page.name
