"""The pack in a real ComfyUI server: it loads, and serves its nodes, help pages, translations and workflows."""

import json
from pathlib import Path

import pytest
from fpga.devtools.client import PromptError, api_node
from fpga.devtools.server import PACK_NAME

ROOT = Path(__file__).resolve().parents[2]
DOCS = sorted((ROOT / "web" / "docs").glob("*.md"))


@pytest.fixture(scope="module")
def nodes(client):
    """The pack's nodes as the server describes them."""
    return {node_id: node for node_id, node in client.object_info().items() if node_id.startswith("FPGA_")}


def test_the_pack_loads_without_a_complaint(server):
    log = server.log_text().partition("To see the GUI go to")[0]  # what follows is what the tests' graphs provoked
    assert "IMPORT FAILED" not in log
    assert "could not be loaded" not in log
    assert "Traceback" not in log
    assert f"custom_nodes/{PACK_NAME}" in log.replace("\\", "/")


def test_every_node_of_the_pack_is_there(nodes):
    from fpga.nodes import NODES

    assert set(nodes) == {node.GET_SCHEMA().node_id for node in NODES}
    assert {node["python_module"] for node in nodes.values()} == {f"custom_nodes.{PACK_NAME}"}


def test_every_node_and_socket_is_explained(nodes):
    """Descriptions, categories and tooltips reach the client, not only the schema."""
    silent = []
    for node_id, node in nodes.items():
        assert node["category"].startswith("FPGA Portrait/"), node_id
        inputs = {**node["input"].get("required", {}), **node["input"].get("optional", {})}
        silent += [f"{node_id}.{name}" for name, (_, options) in inputs.items() if not options.get("tooltip")]
        silent += [f"{node_id} output {i}" for i, tip in enumerate(node["output_tooltips"] or []) if not tip]
        assert len(node["output_tooltips"] or []) == len(node["output"]), node_id
        silent += [] if node["description"] else [node_id]
    assert silent == []


def test_every_node_has_a_help_page(nodes):
    assert {page.stem for page in DOCS} == set(nodes)


@pytest.mark.parametrize("page", DOCS, ids=lambda page: page.stem)
def test_help_pages_are_served(client, page):
    """Where the editor looks for them: /extensions/<pack>/docs/<node id>.md."""
    assert client.get(f"/extensions/{PACK_NAME}/docs/{page.name}").content == page.read_bytes()


def test_web_extensions_are_served(client):
    scripts = [file.relative_to(ROOT / "web").as_posix() for file in (ROOT / "web").rglob("*.js")]
    served = [path for path in client.get("/extensions").json() if path.startswith(f"/extensions/{PACK_NAME}/")]
    assert sorted(served) == sorted(f"/extensions/{PACK_NAME}/{script}" for script in scripts)


@pytest.mark.parametrize("language", ["en", "zh"])
def test_translations_name_every_node_and_socket(client, nodes, language):
    translated = client.get("/i18n").json()[language]["nodeDefs"]
    missing = []
    for node_id, node in nodes.items():
        entry = translated.get(node_id, {})
        names = [*node["input"].get("required", {}), *node["input"].get("optional", {})]
        missing += [f"{node_id}.{name}" for name in names if not entry.get("inputs", {}).get(name, {}).get("tooltip")]
        outputs = range(len(node["output"]))
        missing += [
            f"{node_id} output {i}" for i in outputs if not entry.get("outputs", {}).get(str(i), {}).get("name")
        ]
        missing += [f"{node_id}.{key}" for key in ("display_name", "description") if not entry.get(key)]
    assert missing == []
    assert {node_id for node_id in translated if node_id.startswith("FPGA_")} == set(nodes)


def test_shipped_workflows_appear_as_templates(client):
    shipped = {file.stem for file in (ROOT / "workflows").glob("*.json")}
    assert set(client.get("/workflow_templates").json().get(PACK_NAME, [])) == shipped


def test_blueprints_are_found(client):
    found = [part["name"] for part in client.get("/global_subgraphs").json().values() if PACK_NAME in str(part["info"])]
    assert sorted(found) == sorted(file.stem for file in (ROOT / "subgraphs").glob("*.json"))


def test_a_graph_runs_and_its_picture_arrives(client):
    graph = {
        "1": api_node("EmptyImage", width=24, height=16, batch_size=2, color=0x3264C8),
        "2": api_node("PreviewImage", images=["1", 0]),
    }
    run = client.run(graph)
    pictures = client.images(run, "2")
    assert [picture.size for picture in pictures] == [(24, 16)] * 2
    assert pictures[0].convert("RGB").getpixel((3, 5)) == (0x32, 0x64, 0xC8)
    assert run.executed == ("1", "2")


def test_a_refused_graph_says_what_the_server_says(client):
    graph = {"1": api_node("EmptyImage", width=0, height=16, batch_size=1, color=0)}
    graph["2"] = api_node("PreviewImage", images=["1", 0])
    with pytest.raises(PromptError, match="node 1 EmptyImage: Value 0 smaller than min"):
        client.run(graph)


def test_a_failing_node_says_what_went_wrong(client):
    pattern = {"string": "a", "regex_pattern": "(", "replace": "", "case_insensitive": True, "multiline": False}
    graph = {
        "1": api_node("RegexReplace", **pattern, dotall=False, count=0),
        "2": api_node("PreviewAny", source=["1", 0]),
    }
    with pytest.raises(PromptError, match="node 1 RegexReplace: .*unterminated subpattern"):
        client.run(graph)


@pytest.mark.parametrize("file", sorted((ROOT / "workflows" / "api").glob("*.json")), ids=lambda file: file.stem)
def test_api_workflows_use_known_nodes(client, file):
    graph = json.loads(file.read_text(encoding="utf-8"))
    assert {node["class_type"] for node in graph.values()} <= set(client.object_info())
