"""What the editor needs of a shipped workflow besides its graph: model files to download, and groups to read."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
MODEL_FILES = (".safetensors", ".bin", ".pth", ".ckpt")
TRAINED_BY_THE_USER = "fpga_repcontrolnet_sd15.safetensors"


@pytest.fixture(params=WORKFLOWS, ids=lambda file: file.stem)
def workflow(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def test_every_public_file_can_be_downloaded(workflow):
    """The editor offers what a node's `properties.models` lists, by the name that its widget holds."""
    for node in workflow["nodes"]:
        named = {str(value) for value in node.get("widgets_values") or () if str(value).endswith(MODEL_FILES)}
        offered = {model["name"]: model for model in node["properties"].get("models", ())}
        assert set(offered) == named - {TRAINED_BY_THE_USER}, node["title"]
        for name, model in offered.items():
            assert model["url"].startswith("https://") and model["url"].endswith(f"/{name}")
            assert model["directory"]


def test_every_node_is_in_one_group_or_is_a_note(workflow):
    boxes = {group["title"]: group["bounding"] for group in workflow["groups"]}
    assert list(boxes)[-1] == "3 Result"
    for node in workflow["nodes"]:
        (x, y), (width, height) = node["pos"], node["size"]
        around = [
            title
            for title, (left, top, across, down) in boxes.items()
            if left <= x and top <= y and x + width <= left + across and y + height <= top + down
        ]
        assert len(around) == (0 if node["type"] == "MarkdownNote" else 1), node["title"]
