"""What every node must have: a help page, tooltips, search words, and translations that match its sockets."""

import json
import re
from pathlib import Path

import pytest
from comfy_api.v0_0_2 import io

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = ("en", "zh")
PAGES = sorted(page.stem for page in (ROOT / "web" / "docs").glob("*.md"))
"""Ids of the nodes by their help pages: known without ComfyUI, which the nodes themselves need."""

pytestmark = pytest.mark.comfyui


@pytest.fixture(scope="module")
def schemas() -> dict:
    from fpga.nodes import NODES

    return {schema.node_id: schema for schema in (node.define_schema() for node in NODES)}


@pytest.fixture(params=PAGES)
def schema(request, schemas):
    return schemas[request.param]


def test_every_node_has_a_help_page_and_every_help_page_a_node(schemas):
    assert schemas.keys() == set(PAGES)


def test_ids_and_names_follow_the_pack_s_rules(schema):
    assert re.fullmatch(r"FPGA_([A-Z][A-Za-z]+)+", schema.node_id)
    assert schema.display_name.isascii() and schema.display_name[0].isupper()
    assert schema.category.startswith("FPGA Portrait/")
    assert len(schema.description) > 40
    assert len(schema.search_aliases) >= 3


@pytest.mark.parametrize(
    "words",
    [
        *("portrait", "pulid", "two people", "multiple people", "repair face", "same person", "consistent character"),
        *("upscale face", "regional prompt", "character", "draw box", "face swap", "instantid", "likeness"),
    ],
)
def test_what_artists_search_for_is_found(schemas, words):
    """The editor looks for the words in names and search words."""
    texts = [text.lower() for schema in schemas.values() for text in (schema.display_name, *schema.search_aliases)]
    assert any(words in text for text in texts)


def test_every_socket_and_widget_has_a_tooltip(schema):
    for put in (*schema.inputs, *schema.outputs):
        assert put.tooltip and put.tooltip.endswith("."), f"{schema.node_id}: {put.id or put.display_name}"


def test_help_page_names_every_input_and_output(schema):
    page = (ROOT / "web" / "docs" / f"{schema.node_id}.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {schema.display_name}\n")
    for put in schema.inputs:
        assert put.id in page, f"the help page says nothing of the input {put.id}"
    for put in schema.outputs:
        assert put.display_name in page, f"the help page says nothing of the output {put.display_name}"
    assert "## Errors" in page


def grown(schema) -> dict[str, str]:
    """Tooltips of the inputs that grow, by the key with which the editor looks for them.

    The editor labels these inputs by itself, and finds their tooltip only if they have no translated name.
    """
    growing = [put for put in schema.inputs if isinstance(put, io.Autogrow.Input)]
    return {f"{put.id}_{name}": put.template.input.tooltip for put in growing for name in put.template.names}


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_cover_the_node_exactly(schema, language):
    entry = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))[schema.node_id]
    tooltips = {put.id: put.tooltip for put in schema.inputs} | grown(schema)
    assert entry["display_name"] and entry["description"]
    assert entry["inputs"].keys() == tooltips.keys()
    assert entry["outputs"].keys() == {str(index) for index in range(len(schema.outputs))}
    assert {name for name, put in entry["inputs"].items() if put.get("name")} == {put.id for put in schema.inputs}
    assert not any("name" in entry["inputs"][name] for name in grown(schema))
    assert all(put["tooltip"] for put in (*entry["inputs"].values(), *entry["outputs"].values()))
    assert all(put["name"] for put in entry["outputs"].values())
    if language == "en":
        assert entry["display_name"] == schema.display_name and entry["description"] == schema.description
        assert tooltips == {name: put["tooltip"] for name, put in entry["inputs"].items()}
        assert [put.tooltip for put in schema.outputs] == [put["tooltip"] for put in entry["outputs"].values()]


def test_the_chinese_editor_shows_no_english_category_or_type(schemas):
    main = json.loads((ROOT / "locales" / "zh" / "main.json").read_text(encoding="utf-8"))
    assert main["nodeCategories"].keys() == {part for schema in schemas.values() for part in schema.category.split("/")}
    types = {put.get_io_type() for schema in schemas.values() for put in (*schema.inputs, *schema.outputs)}
    assert main["dataTypes"].keys() == {name for name in types if name.startswith("FPGA_")}


@pytest.mark.parametrize("language", LANGUAGES)
def test_translations_name_no_node_that_is_gone(language, schemas):
    entries = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text(encoding="utf-8"))
    assert entries.keys() == schemas.keys()


def test_a_graph_may_leave_out_every_widget_that_has_a_default(schema):
    """Also those that a later version adds: what was saved before it stays valid."""
    from comfy_api.v0_0_2 import io

    widgets = [put for put in schema.inputs if isinstance(put, io.WidgetInput) and put.default is not None]
    assert [put.id for put in widgets if not put.optional] == []


def test_the_order_of_the_widgets_is_that_of_saved_workflows(schema):
    """The editor lists required widgets first, and saves values by position: only the first ones may be required."""
    from comfy_api.v0_0_2 import io

    widgets = [put for put in schema.inputs if isinstance(put, io.WidgetInput) and not put.force_input]
    assert widgets == sorted(widgets, key=lambda put: put.optional)


def test_a_widget_that_is_left_out_has_the_schema_s_default():
    from comfy_api.v0_0_2 import io
    from fpga.nodes.defaults import with_defaults

    class Echo(io.ComfyNode):
        @classmethod
        def define_schema(cls):
            inputs = [io.Int.Input("a"), io.Int.Input("b", default=2), io.Combo.Input("c", options=["x"], default="x")]
            return io.Schema(node_id="Echo", inputs=inputs, outputs=[])

        @classmethod
        def execute(cls, a, b, c="y"):
            return a, b, c

    node = with_defaults(Echo)
    assert node.execute(a=1) == (1, 2, "x")
    assert node.execute(1, 3) == (1, 3, "x")
    assert node.execute(a=1, b=4, c="z") == (1, 4, "z")
