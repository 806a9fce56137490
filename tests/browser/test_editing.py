"""Whatever an artist does to a graph, the nodes whose inputs grow keep every wire, in both renderers."""

import pytest
from fpga.devtools.client import api_node

GRAPH = {
    **{str(n): api_node("FPGA_LoadIdentity", f"Person {n}", file=f"{n}.safetensors") for n in (1, 2, 3)},
    **{str(n + 3): api_node("LoadImage", f"Photo {n}", image="portrait_photo.png") for n in (1, 2, 3)},
    "7": api_node("FPGA_LoadFaceAnalysis", pack="buffalo_l", provider="auto", download_if_missing=False),
    "8": api_node("FPGA_DetectFaces", image=["4", 0], face_analysis=["7", 0], order="largest_first", min_size_px=0),
    "9": api_node("FPGA_MakeCast", faces=["8", 0], image=["4", 0], width=512, height=512, assign="order", grow=0.1),
    "10": api_node("FPGA_EncodeIdentity", face_analysis=["7", 0], name="Anna"),
}
GRAPH["9"]["inputs"] |= {f"identities.identity_{n}": [str(n), 0] for n in (1, 2, 3)}
GRAPH["10"]["inputs"] |= {f"images.photo_{n}": [str(n + 3), 0] for n in (1, 2, 3)}
GROWING = ("FPGA_EncodeIdentity", "FPGA_MakeCast")
COPY, PASTE = "app.canvas.copyToClipboard()", "app.canvas.pasteFromClipboard({})"
SELECT = "app.canvas.selectItems(app.graph.nodes.filter(node => {}))"
ALL, ONLY_GROWING = SELECT.format("true"), SELECT.format(f"{list(GROWING)}.includes(node.type)")


def wires(prompt: dict) -> list[tuple]:
    """Returns the wires into each growing node of a prompt: the inputs, with the titles of their sources."""
    growing = [node for node in prompt.values() if node["class_type"] in GROWING]
    return sorted(
        (
            node["class_type"],
            *sorted(
                (name, prompt[v[0]]["_meta"]["title"]) for name, v in node["inputs"].items() if isinstance(v, list)
            ),
        )
        for node in growing
    )


@pytest.fixture
def graph(either_editor):
    """The editor with a cast of three people and an identity from three photos."""
    either_editor.load_prompt(GRAPH)
    assert wires(either_editor.prompt()) == wires(GRAPH)
    return either_editor


def test_saving_and_loading(graph):
    graph.load(graph.page.evaluate("app.graph.serialize()"))
    assert wires(graph.prompt()) == wires(GRAPH)


def test_pasting_everything(graph):
    graph.page.evaluate(f"() => {{ {ALL}; {COPY}; {PASTE.format('')} }}")
    assert wires(graph.prompt()) == sorted(wires(GRAPH) * 2)


def test_pasting_with_the_wires_from_outside(graph):
    paste = PASTE.format("{connectInputs: true}")
    graph.page.evaluate(f"() => {{ {ONLY_GROWING}; {COPY}; {paste} }}")
    assert wires(graph.prompt()) == sorted(wires(GRAPH) * 2)


def test_undo_and_redo(graph):
    graph.remember()
    graph.page.evaluate("() => app.graph.remove(app.graph.nodes.find(node => node.title === 'Person 2'))")
    graph.wait_for_frames()
    graph.remember()
    without = wires(graph.prompt())
    assert without != wires(GRAPH)
    graph.command("Comfy.Undo")
    assert wires(graph.prompt()) == wires(GRAPH)
    graph.command("Comfy.Redo")
    assert wires(graph.prompt()) == without


def test_a_subgraph_and_back(graph):
    graph.page.evaluate(f"() => {{ {ONLY_GROWING}; app.graph.convertToSubgraph(app.canvas.selectedItems) }}")
    assert wires(graph.prompt()) == wires(GRAPH)
    graph.load(graph.page.evaluate("app.graph.serialize()"))
    assert wires(graph.prompt()) == wires(GRAPH)
    graph.page.evaluate("() => app.graph.unpackSubgraph(app.graph.nodes.find(node => node.subgraph))")
    assert wires(graph.prompt()) == wires(GRAPH)


@pytest.mark.parametrize("mode", [2, 4], ids=["mute", "bypass"])
def test_switching_off_and_on(graph, mode):
    switch = "mode => app.graph.nodes.filter(node => node.type.startsWith('FPGA_')).forEach(n => { n.mode = mode })"
    graph.page.evaluate(switch, mode)
    graph.load(graph.page.evaluate("app.graph.serialize()"))
    assert wires(graph.prompt()) == []
    graph.page.evaluate(switch, 0)
    assert wires(graph.prompt()) == wires(GRAPH)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("change", ["mode = 2", "disconnectOutput(0)"], ids=["muted", "unplugged"])
def test_a_person_who_is_taken_away_leaves_the_others_where_they_are(graph, change, number):
    graph.page.evaluate(f"() => {{ app.graph.nodes.find(node => node.title === 'Person {number}').{change} }}")
    graph.wait_for_frames()
    without = [
        (kind, *((name, source) for name, source in sources if source != f"Person {number}"))
        for kind, *sources in wires(GRAPH)
    ]
    assert wires(graph.prompt()) == without


def test_collapsing(graph):
    graph.page.evaluate("() => app.graph.nodes.forEach(node => node.collapse())")
    graph.load(graph.page.evaluate("app.graph.serialize()"))
    assert wires(graph.prompt()) == wires(GRAPH)


def test_a_graph_from_before_the_growing_inputs_came_last(graph):
    """Earlier versions declared them first. Saved graphs have the inputs in that order."""
    saved = graph.page.evaluate("app.graph.serialize()")
    for node in saved["nodes"]:
        node.get("inputs", []).sort(key=lambda put: "." not in put["name"])
        for slot, put in enumerate(node.get("inputs", [])):
            for link in saved["links"]:
                link[4] = slot if link[0] == put["link"] else link[4]
    graph.load(saved)
    assert wires(graph.prompt()) == wires(GRAPH)
    graph.page.evaluate(f"() => {{ {ALL}; {COPY}; {PASTE.format('')} }}")
    assert wires(graph.prompt()) == sorted(wires(GRAPH) * 2)
