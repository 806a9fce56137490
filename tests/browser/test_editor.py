"""The pack in ComfyUI's editor, in a real browser: nodes, tooltips, help pages and workflows."""

import json
from pathlib import Path

import pytest
from shipped_workflows import REDUCTION, as_shipped

ROOT = Path(__file__).resolve().parents[2]
NODE_IDS = sorted(page.stem for page in (ROOT / "web" / "docs").glob("*.md"))
WORKFLOWS = sorted((ROOT / "workflows").glob("*.json"))
BLUEPRINTS = sorted((ROOT / "subgraphs").glob("*.json"))


@pytest.fixture(scope="module")
def nodes(client):
    return client.object_info()


def words(text: str) -> list[str]:
    """Returns the words of a text without Markdown markup."""
    return [word for word in "".join(c if c.isalnum() else " " for c in text).split() if word]


def test_the_editor_opens_without_an_error_of_ours(editor):
    assert [error for error in editor.errors if "fpga" in error.lower()] == []


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_a_node_can_be_placed_and_explains_itself(editor, nodes, node_id):
    node = editor.create(node_id)
    described = nodes[node_id]
    inputs = {**described["input"].get("required", {}), **described["input"].get("optional", {})}
    assert node["title"] == described["display_name"]
    assert words(editor.title_tooltip()) == words(described["description"])
    # An input that grows is shown as its first slot, "identities.identity_1".
    assert {name.partition(".")[0] for name in node["inputs"]} == set(inputs)
    for name, place in node["inputs"].items():
        if name in inputs:
            assert words(editor.tooltip_at(*place)) == words(inputs[name][1]["tooltip"])
    for place, tooltip in zip(node["outputs"], described["output_tooltips"], strict=True):
        assert words(editor.tooltip_at(*place)) == words(tooltip)


@pytest.mark.parametrize("node_id", NODE_IDS)
def test_a_help_page_opens(editor, nodes, node_id):
    editor.create(node_id)
    shown = set(words(editor.help_text(nodes[node_id]["display_name"])))
    page = set(words((ROOT / "web" / "docs" / f"{node_id}.md").read_text(encoding="utf-8")))
    assert len(page - shown) <= 0.05 * len(page), page - shown  # link targets and table rules are not shown


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_shipped_workflow_opens_runs_and_shows_its_picture(either_editor, file):
    editor = either_editor
    workflow = json.loads(file.read_text(encoding="utf-8"))
    assert editor.load(workflow) == []
    assert editor.num_nodes() == len(workflow["nodes"])
    for name, value in {"steps": 2, "crop_size_px": 128, "repetitions": 0, "download_if_missing": False}.items():
        editor.set_widgets(name, value)
    for name in ("width", "height"):
        editor.divide_widgets(name, REDUCTION)
    editor.run()
    assert all(min(size) >= 8 for size in editor.wait_for_pictures())
    editor.wait_for_frames(10)
    assert editor.overlapping() == []


@pytest.mark.parametrize("file", BLUEPRINTS, ids=lambda file: file.stem)
def test_a_blueprint_opens_with_what_an_artist_changes(either_editor, file):
    alone = json.loads(file.read_text(encoding="utf-8"))
    assert either_editor.load(alone) == []
    (node,) = alone["nodes"]
    shown = either_editor.page.evaluate("app.graph.nodes[0].widgets.map(widget => widget.label ?? widget.name)")
    assert shown == [slot.get("label") or slot["name"] for slot in node["inputs"] if "widget" in slot]
    assert {"prompt", "seed", "checkpoint"} <= set(shown)


@pytest.mark.parametrize("file", WORKFLOWS, ids=lambda file: file.stem)
def test_a_shipped_workflow_is_the_api_files_graph(editor, file):
    source = as_shipped(file.stem)
    editor.load(json.loads(file.read_text(encoding="utf-8")))
    shown = unfolded(editor.prompt())
    assert {node_id: node["class_type"] for node_id, node in shown.items()} == {
        node_id: node["class_type"] for node_id, node in source.items()
    }
    for node_id, node in source.items():
        found = shown[node_id]["inputs"]
        assert {name: found.get(name) for name in node["inputs"]} == node["inputs"], node["_meta"]["title"]
    assert editor.notes() == [node["_meta"]["note"] for node in source.values() if "note" in node["_meta"]]


def unfolded(prompt: dict) -> dict:
    """The prompt with the ids that nodes inside a folded part have there: 4 for 18:4."""

    def inner(value: object) -> object:
        return [value[0].rpartition(":")[2], value[1]] if isinstance(value, list) else value

    return {
        node_id.rpartition(":")[2]: node | {"inputs": {name: inner(value) for name, value in node["inputs"].items()}}
        for node_id, node in prompt.items()
    }


def test_a_missing_node_is_noticed(editor):
    """Checks an assumption of the workflow test."""
    node = {"id": 1, "type": "NoSuchNode", "pos": [0, 0], "size": [100, 50], "flags": {}, "order": 0, "mode": 0}
    assert editor.load({"nodes": [node], "links": [], "groups": [], "version": 0.4}) == ["NoSuchNode"]


def test_a_run_shows_its_picture(editor):
    """Checks an assumption of the workflow test, without a model."""
    link = [1, 1, 0, 2, 0, "IMAGE"]
    place = {"size": [200, 100], "flags": {}, "mode": 0}
    source = {"id": 1, "type": "EmptyImage", "pos": [0, 0], "order": 0, "widgets_values": [64, 48, 1, 255], **place}
    source["outputs"] = [{"name": "IMAGE", "type": "IMAGE", "links": [1]}]
    preview = {"id": 2, "type": "PreviewImage", "pos": [400, 0], "order": 1, **place}
    preview["inputs"] = [{"name": "images", "type": "IMAGE", "link": 1}]
    assert editor.load({"nodes": [source, preview], "links": [link], "groups": [], "version": 0.4}) == []
    editor.run()
    assert editor.wait_for_pictures() == [(64, 48)]
