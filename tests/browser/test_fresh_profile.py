"""A server without any model, as a newcomer has it: the editor offers to download what each shipped workflow needs."""

import json
from pathlib import Path

import pytest
from editor import Editor
from fpga.devtools.client import ComfyClient
from fpga.devtools.editor_workflows import PUBLIC_FILES
from fpga.devtools.server import ComfyServer

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
NOT_OFFERED = {
    "restore_with_codeformer": "the editor offers no files of GitHub; it shows where this one is",
    "rep_controlnet_pose": "needs a RepControlNet that you trained",
    "restore_faces_lora": "needs a LoRA of your character",
}


@pytest.fixture(scope="module")
def newcomer(editor, tmp_path_factory):
    with ComfyServer(tmp_path_factory.mktemp("empty")) as server:
        client = ComfyClient(server.address)
        client.set_setting("Comfy.TutorialCompleted", True)
        context = editor.page.context.browser.new_context(viewport={"width": 1920, "height": 1080})
        page = context.new_page()
        size = {"content-length": "1000000", "access-control-allow-origin": "*"}
        page.route("https://**", lambda route: route.fulfill(status=200, headers=size, body=""))  # sizes are asked for
        yield Editor(page, server.address, a_node="FPGA_LoadRepControlNet")
        context.close()


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_every_missing_file_can_be_downloaded(newcomer, file):
    text = file.read_text(encoding="utf-8")
    newcomer.load(json.loads(text))
    newcomer.page.get_by_role("button", name="View details").click()
    offered = newcomer.page.get_by_test_id("missing-model-download")
    named = {name for name, (_, place) in PUBLIC_FILES.items() if f'"{name}"' in text and "github.com" not in place}
    newcomer.page.wait_for_function(
        "number => document.querySelectorAll('[data-testid=missing-model-download]').length === number", arg=len(named)
    )
    labels = offered.evaluate_all("buttons => buttons.map(button => button.ariaLabel ?? button.textContent)")
    assert {label.removeprefix("Download ").strip() for label in labels} == named
    unknown = newcomer.page.get_by_text("Unknown").count()
    assert unknown == 0 or file.stem in NOT_OFFERED
