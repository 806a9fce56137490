"""Boxes in a graph: drawn on a canvas by ComfyUI's node, or written into it over the API."""

from types import SimpleNamespace

from fpga.fpga_core.shapes import Extent
from fpga.nodes.cast import boxes_canvas


def canvas_of(**nodes: dict):
    """The size that Make Cast sees in the prompt, after ComfyUI has taken literal lists out of their wrapping."""
    return boxes_canvas(SimpleNamespace(prompt=nodes))


def cast(boxes) -> dict:
    return {"class_type": "FPGA_MakeCast", "inputs": {"boxes": boxes}}


DRAWN = {"class_type": "CreateBoundingBoxes", "inputs": {"width": 640, "height": 512}}
WRITTEN = [{"x": 1, "y": 2, "width": 30, "height": 40}]


def test_a_drawn_canvas_is_known():
    assert canvas_of(boxes=DRAWN, cast=cast(["boxes", 0])) == Extent(640, 512)


def test_boxes_that_are_written_have_no_canvas():
    for boxes in (WRITTEN, [[1, 2, 30, 40]], []):
        assert canvas_of(cast=cast(boxes)) is None
    assert canvas_of(boxes=DRAWN, cast=cast(["boxes", 0]), other=cast(WRITTEN)) is None
