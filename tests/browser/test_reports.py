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


def test_warnings_inside_a_subgraph_are_announced(ran):
    ran.page.evaluate(
        """() => {
            app.canvas.selectItems(app.graph.nodes.filter(node => node.type !== 'PreviewImage'))
            app.graph.convertToSubgraph(app.canvas.selectedItems)
        }"""
    )
    ran.run()
    ran.page.get_by_role("alert").filter(has_text=WARNING).first.wait_for(state="visible")
