"""Make Cast's canvas, drawn on with the mouse, in both renderers. What it says is read off the queued prompt."""

import pytest
from fpga.devtools.client import api_node

NAMES = ("Anna", "Bea", "Carl")
GRAPH = {
    **{str(n): api_node("LoadImage", image=f"person_{n}.png") for n in (1, 2, 3)},
    "4": api_node("FPGA_LoadFaceAnalysis", pack="buffalo_l", provider="auto", download_if_missing=False),
    **{
        str(4 + n): api_node(
            "FPGA_EncodeIdentity", face_analysis=["4", 0], name=name, **{"images.photo_1": [str(n), 0]}
        )
        for n, name in enumerate(NAMES, 1)
    },
    "8": api_node("FPGA_MakeCast", width=600, height=400),
    "9": api_node("FPGA_DrawLandmarks", skeleton=["8", 5], what="body"),
    "10": api_node("PreviewImage", images=["9", 0]),
    "11": api_node("PreviewImage", images=["8", 1]),
}
GRAPH["8"]["inputs"] |= {f"identities.identity_{n}": [str(4 + n), 0] for n in (1, 2, 3)}
SURFACE = ".fpga-canvas svg"


class Canvas:
    """The canvas on the page, in fractions of the picture."""

    def __init__(self, editor):
        self.editor, self.page = editor, editor.page

    def on_page(self, x: float, y: float) -> tuple[float, float]:
        left, top, width, height = self.page.evaluate(
            """selector => {
                const surface = document.querySelector(selector)
                const {a, d, e, f} = surface.getScreenCTM()
                const {width, height} = surface.viewBox.baseVal
                return [e, f, a * width, d * height]
            }""",
            SURFACE,
        )
        return left + x * width, top + y * height

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2)
        self.page.mouse.move(*self.on_page(*start))
        self.page.mouse.down()
        self.page.mouse.move(*self.on_page(*middle))
        self.page.mouse.move(*self.on_page(*end))
        self.page.mouse.up()

    @property
    def people(self) -> dict[str, dict]:
        """What the queued prompt says of each person."""
        cast = next(node for node in self.editor.prompt().values() if node["class_type"] == "FPGA_MakeCast")
        return {person["name"]: person for person in cast["inputs"]["drawing"]["people"]}


@pytest.fixture
def canvas(either_editor):
    """A canvas with three people, each drawn by dragging a head."""
    either_editor.load_prompt(GRAPH)
    either_editor.bring_to_front("FPGA_MakeCast", place=(200, 300))
    canvas = Canvas(either_editor)
    either_editor.wait_until_still(SURFACE)
    for number in range(3):
        left = 0.1 + 0.3 * number
        canvas.drag((left, 0.1), (left + 0.1, 0.3))
    return canvas


def test_three_people_are_drawn_with_the_names_of_the_encoded_people(canvas):
    assert list(canvas.people) == list(NAMES)
    for number, person in enumerate(canvas.people.values()):
        assert person["head"] == pytest.approx([0.1 + 0.3 * number, 0.1, 0.1, 0.2], abs=0.01)
        assert len(person["pose"]) == 18
        centre_x, nose, neck = person["head"][0] + 0.05, person["pose"][0], person["pose"][1]
        assert nose[0] == pytest.approx(centre_x, abs=0.01) and 0.1 < nose[1] < 0.3 < neck[1]


def test_a_head_moves_with_its_body_and_a_joint_alone(canvas):
    before = canvas.people["Bea"]
    canvas.drag((0.42, 0.12), (0.52, 0.22))
    moved = canvas.people["Bea"]
    assert moved["head"] == pytest.approx([0.5, 0.2, 0.1, 0.2], abs=0.01)
    for old, new in zip(before["pose"], moved["pose"], strict=True):
        assert new == pytest.approx([old[0] + 0.1, old[1] + 0.1], abs=0.01)
    elbow = 3
    canvas.drag(tuple(moved["pose"][elbow]), (0.35, 0.05))
    posed = canvas.people["Bea"]
    assert posed["pose"][elbow] == pytest.approx([0.35, 0.05], abs=0.01)
    assert [p for n, p in enumerate(posed["pose"]) if n != elbow] == [
        p for n, p in enumerate(moved["pose"]) if n != elbow
    ]
    assert canvas.people["Anna"]["head"] == pytest.approx([0.1, 0.1, 0.1, 0.2], abs=0.01)


def test_names_bodies_and_people_can_be_changed_and_removed(canvas):
    page = canvas.page
    page.mouse.click(*canvas.on_page(0.72, 0.12))
    page.get_by_role("combobox", name="Name").fill("Dora")
    assert list(canvas.people) == ["Anna", "Bea", "Dora"]
    page.get_by_role("checkbox", name="Body").uncheck()
    assert canvas.people["Dora"]["pose"] == []
    page.get_by_role("button", name="Remove").click()
    assert list(canvas.people) == ["Anna", "Bea"]
    page.mouse.click(*canvas.on_page(0.12, 0.12))
    page.keyboard.press("Delete")
    assert list(canvas.people) == ["Bea"]
    assert canvas.editor.num_nodes() == len(GRAPH)


def test_a_drawing_is_undone_saved_and_pasted(canvas):
    drawn = canvas.people
    canvas.editor.command("Comfy.Undo")
    assert list(canvas.people) == ["Anna", "Bea"]
    canvas.editor.command("Comfy.Redo")
    assert canvas.people == drawn
    canvas.editor.load(canvas.page.evaluate("app.graph.serialize()"))
    assert canvas.people == drawn


def test_a_drawing_runs_and_gives_places_and_skeleton(canvas):
    canvas.editor.forget_results()
    canvas.editor.run()
    assert canvas.editor.reports()["FPGA_MakeCast"].splitlines() == [
        "#1 Anna: head 1",
        "#2 Bea: head 2",
        "#3 Carl: head 3",
    ]
    sizes = canvas.page.evaluate(
        """() => Promise.all(Object.values(app.nodeOutputs).flatMap(output => output.images ?? []).map(async image => {
            const reply = await app.api.fetchApi('/view?' + new URLSearchParams(image))
            const {width, height} = await createImageBitmap(await reply.blob())
            return [width, height]
        }))"""
    )
    assert [600, 400] in sizes
