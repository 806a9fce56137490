"""What a node found stays on it: after a run, after a reload, and when its result comes from the cache."""

import pytest
from editor import Editor
from fpga.devtools.client import api_node

GRAPH = {
    "1": api_node("LoadImage", image="person_1.png"),
    "2": api_node("FPGA_LoadFaceAnalysis", pack="buffalo_l", provider="auto", download_if_missing=False),
    "3": api_node("FPGA_EncodeIdentity", face_analysis=["2", 0], name="Anna", **{"images.photo_1": ["1", 0]}),
    "4": api_node("FPGA_EncodeIdentity", face_analysis=["2", 0], name="Bea", **{"images.photo_1": ["1", 0]}),
    "5": api_node(
        "FPGA_MakeCast",
        width=512,
        height=512,
        **{"identities.identity_1": ["3", 0], "identities.identity_2": ["4", 0]},
    ),
    "6": api_node("PreviewImage", images=["5", 1]),
}
WARNING = "2 people share the whole picture, so their faces will mix"


def shifted(prompt: dict, by: int) -> dict:
    """The same graph with other ids, as it would be in another workflow."""
    return {
        str(int(node_id) + by): node
        | {
            "inputs": {
                name: [str(int(value[0]) + by), value[1]] if isinstance(value, list) else value
                for name, value in node["inputs"].items()
            }
        }
        for node_id, node in prompt.items()
    }


@pytest.fixture
def ran(either_editor):
    """After a run of every node: the server forgets what it ran for the page of the other renderer."""
    either_editor.forget_results()
    either_editor.load_prompt(GRAPH)
    either_editor.run()
    return either_editor


def test_a_report_and_its_warnings_are_on_the_node(ran):
    reports = ran.reports()
    assert WARNING in reports["FPGA_MakeCast"]
    assert "Anna: the whole picture" in reports["FPGA_MakeCast"]
    assert "buffalo_l" in reports["FPGA_LoadFaceAnalysis"]
    ran.bring_to_front("FPGA_MakeCast", place=(200, 300))
    warning = ran.page.locator(".fpga-warning", has_text=WARNING)
    warning.wait_for(state="visible")
    red, green, blue = ran.color_of(warning)
    assert red > green > blue + 50  # amber


def test_the_box_has_a_name_and_room_for_its_text(ran):
    ran.bring_to_front("FPGA_MakeCast", place=(200, 300))
    box = ran.page.get_by_role("status", name="Report").filter(has_text=WARNING)
    box.wait_for(state="visible")
    assert box.evaluate("box => box.scrollHeight - box.clientHeight") <= 1


def test_reports_survive_a_reload(ran):
    before = ran.reports()
    saved = ran.page.evaluate("app.graph.serialize()")
    ran.reload()
    ran.load(saved)
    ran.wait_for_report("FPGA_MakeCast")
    assert ran.reports() == before


def test_a_cached_run_shows_the_reports_of_the_nodes_that_did_not_run(ran):
    """In a fresh page and a workflow with other ids: the server does not send them again."""
    before = ran.reports()
    ran.reload()
    ran.load_prompt(shifted(GRAPH, 20))
    ran.run()
    ran.wait_for_report("FPGA_MakeCast")
    assert ran.reports() == before


def test_another_browser_shows_the_reports_of_the_same_graph(ran, server):
    """When the graph is opened, and when it is run there, where every node is cached."""
    before, saved = ran.reports(), ran.page.evaluate("app.graph.serialize()")
    context = ran.page.context.browser.new_context(viewport=ran.page.viewport_size)
    try:
        other = Editor(context.new_page(), server.address, a_node="FPGA_LoadRepControlNet")
        other.load(saved)
        other.wait_for_report("FPGA_MakeCast")
        assert other.reports() == before
        other.page.evaluate("localStorage.removeItem('fpga-portrait.reports')")
        other.reload()
        other.load_prompt(shifted(GRAPH, 40))
        other.run()
        other.wait_for_report("FPGA_MakeCast")
        assert other.reports() == before
    finally:
        context.close()


def test_a_node_that_was_set_otherwise_does_not_show_the_old_report(ran):
    saved = ran.page.evaluate("app.graph.serialize()")
    for node in saved["nodes"]:
        if node["type"] == "FPGA_MakeCast":
            node["widgets_values"][0] = 640
    ran.reload()
    ran.load(saved)
    ran.wait_for_report("FPGA_EncodeIdentity")
    assert "FPGA_MakeCast" not in ran.reports()


FOLD = """() => {
    app.canvas.selectItems(app.graph.nodes.filter(node => node.type !== 'PreviewImage'))
    const { node } = app.graph.convertToSubgraph(app.canvas.selectedItems)
    node.title = "Folded"
    app.canvas.deselectAll()
}"""


def outside(editor: Editor) -> str:
    """What is shown beneath a subgraph, as soon as it says what Make Cast found."""
    box = editor.page.locator(".fpga-outside").filter(has_text="Anna: the whole picture")
    box.wait_for(state="visible")
    return box.inner_text()


def test_what_nodes_inside_a_subgraph_found_is_shown_beneath_it(ran):
    """After a run, after a reload, and when all of it comes from the cache; the warnings are announced as well."""
    ran.page.evaluate(FOLD)
    ran.forget_results()
    ran.run()
    ran.page.get_by_role("alert").filter(has_text=WARNING).first.wait_for(state="visible")
    shown = outside(ran)
    assert WARNING in shown and "FPGA_MakeCast" in shown and "buffalo_l" in shown
    saved = ran.page.evaluate("app.graph.serialize()")
    ran.reload()
    ran.load(saved)
    assert sorted(outside(ran).splitlines()) == sorted(shown.splitlines())
    ran.page.evaluate("localStorage.removeItem('fpga-portrait.reports')")
    ran.reload()
    ran.load(saved)
    ran.run()
    assert sorted(outside(ran).splitlines()) == sorted(shown.splitlines())
    node, box = ran.page.evaluate(
        """() => {
            const { pos, size } = app.graph.nodes.find(node => node.subgraph)
            const [x, y] = app.canvas.ds.convertOffsetToCanvas([pos[0], pos[1] + size[1]])
            const box = document.querySelector(".fpga-outside").getBoundingClientRect()
            const { left, top } = app.canvas.canvas.getBoundingClientRect()
            return [[x, y], [box.left - left, box.top - top]]
        }"""
    )
    assert abs(node[0] - box[0]) < 3 and -3 < box[1] - node[1] < 40
    ran.page.evaluate("app.graph.clear()")
    ran.page.locator(".fpga-outside").wait_for(state="detached")
