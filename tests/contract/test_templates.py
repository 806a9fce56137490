"""What the editor needs of a shipped workflow besides its graph: model files to download, groups, and folded parts."""

import json
from pathlib import Path

import pytest
from fpga.fpga_core.identity.adapter_download import PUBLISHED_ADAPTERS

ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
MODEL_FILES = (".safetensors", ".bin", ".pth", ".ckpt")
TRAINED_BY_THE_USER = {"fpga_repcontrolnet_sd15.safetensors", "your_character_z_image.safetensors"}


@pytest.fixture(params=WORKFLOWS, ids=lambda file: file.stem)
def workflow(request):
    return json.loads(request.param.read_text(encoding="utf-8"))


def folded(workflow: dict) -> list[dict]:
    return (workflow.get("definitions") or {}).get("subgraphs", [])


def all_nodes(workflow: dict) -> list[dict]:
    """The nodes of a workflow, and those inside its folded parts."""
    return [*workflow["nodes"], *(node for part in folded(workflow) for node in part["nodes"])]


def test_every_public_file_can_be_downloaded(workflow):
    """The editor offers what a node's `properties.models` lists, by the name that its widget holds."""
    for node in all_nodes(workflow):
        named = {str(value) for value in node.get("widgets_values") or () if str(value).endswith(MODEL_FILES)}
        if any(node["type"] == part["id"] for part in folded(workflow)):
            continue  # it shows widgets of nodes inside
        offered = {model["name"]: model for model in node["properties"].get("models", ())}
        if node["type"] == "FPGA_LoadIdentityAdapter":
            assert named <= set(PUBLISHED_ADAPTERS) and node["widgets_values"][-1] is True  # download_if_missing
            continue  # the node downloads it
        assert set(offered) == named - TRAINED_BY_THE_USER, node["title"]
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


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("single_identity", 9),
        ("people_in_their_places", 14),
        ("multi_identity_cast", 16),
        ("posed_identity", 12),
        ("restore_faces", 10),
        ("face_swap", 9),
        ("generate_and_restore", 15),
    ],
)
def test_few_nodes_are_seen(name, most):
    shown = json.loads((ROOT / "workflows" / f"{name}.json").read_text(encoding="utf-8"))
    assert sum(node["type"] != "MarkdownNote" for node in shown["nodes"]) <= most
    assert len(folded(shown)) == 1


@pytest.mark.parametrize("file", sorted((ROOT / "subgraphs").glob("*.json")), ids=lambda file: file.stem)
def test_a_blueprint_is_one_node_and_the_part_of_a_workflow(file):
    alone = json.loads(file.read_text(encoding="utf-8"))
    (node,), (part,) = alone["nodes"], folded(alone)
    assert node["type"] == part["id"] and node["title"] == part["name"] == file.stem
    assert part["description"]
    assert alone["links"] == [] and all(slot["link"] is None for slot in node["inputs"])
    assert [slot["name"] for slot in node["inputs"]] == [slot["name"] for slot in part["inputs"]]
    workflows = [json.loads(path.read_text(encoding="utf-8")) for path in WORKFLOWS]
    same = [kinds(other) for workflow in workflows for other in folded(workflow) if other["name"] == part["name"]]
    assert kinds(part) in same


def kinds(part: dict) -> list[tuple]:
    """The nodes of a folded part, with their settings."""
    return sorted((node["type"], node.get("title", ""), str(node.get("widgets_values"))) for node in part["nodes"])
