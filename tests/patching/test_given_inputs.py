"""Every node refuses, by name, numbers that its widgets do not allow, and plain values on its sockets."""

import math

import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.nodes import NODES
from fpga.nodes.faces import DetectFaces, DrawLandmarks
from fpga.nodes.given import check_inputs, ranges, sockets

CASES = [(node, name) for node in NODES for name in ranges(node)]


def test_the_numbers_of_the_nodes_are_known():
    assert len(CASES) > 60
    assert ranges(DrawLandmarks)["line_width"] == (0.1, 10.0)


@pytest.mark.parametrize(("node", "name"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_numbers_out_of_range_are_refused_and_those_in_range_are_not(node, name):
    least, most = ranges(node)[name]
    for value in (math.nan, math.inf, -math.inf, least - 1, most + 1):
        if not least <= value <= most:
            with pytest.raises(InvalidInputError, match=rf"set {name} to a number from .* it is "):
                check_inputs(node, {name: value})
    check_inputs(node, {name: least})
    check_inputs(node, {name: most})


def test_nodes_check_their_numbers_whether_they_are_named_or_not():
    image = torch.zeros(1, 16, 16, 3)
    nobody = {"frames": [[]], "image_size": (16, 16)}
    with pytest.raises(InvalidInputError, match="set min_size_px to a number from 0 to 16384; it is nan"):
        DetectFaces.execute(image, "detector", math.nan, face_landmarks=nobody)
    with pytest.raises(InvalidInputError, match="min_size_px"):
        DetectFaces.execute(image=image, order="detector", min_size_px=-1, face_landmarks=nobody)
    DetectFaces.execute(image, "detector", 0, face_landmarks=nobody)


@pytest.mark.parametrize("node", NODES, ids=lambda node: node.__name__)
def test_a_plain_value_on_a_socket_is_refused_and_an_object_is_not(node):
    for name, is_needed in sockets(node).items():
        for value in (5, 0.5, "text", True):
            with pytest.raises(InvalidInputError, match=f"connect {name} to another node"):
                check_inputs(node, {name: value})
        check_inputs(node, {name: object()})
        if is_needed:
            with pytest.raises(InvalidInputError, match=f"connect {name} to another node; it is empty"):
                check_inputs(node, {name: None})
        else:
            check_inputs(node, {name: None})
