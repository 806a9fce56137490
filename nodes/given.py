"""One check of what every node is given, before it runs."""

import functools
import inspect
import math
from collections.abc import Mapping

from comfy_api.v0_0_2 import io

from ..fpga_core.errors import InvalidInputError


def checking_inputs(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Makes a node refuse, by name, numbers outside the range of its widgets, and plain values on its sockets.

    ComfyUI lets NaN through a widget's min and max, checks nothing that arrives over a link, and takes a number or a
    text for any socket of a graph that comes over the API.
    """
    inner = node.execute.__func__
    names = list(inspect.signature(node.execute).parameters)

    @functools.wraps(inner)
    def execute(cls, *args, **kwargs) -> io.NodeOutput:
        check_inputs(node, {**dict(zip(names, args, strict=False)), **kwargs})
        return inner(cls, *args, **kwargs)

    node.execute = classmethod(execute)
    return node


def check_inputs(node: type[io.ComfyNode], values: Mapping[str, object]) -> None:
    """Raises InvalidInputError if a number is not finite or out of range, or a socket holds a plain value."""
    for name, (least, most) in ranges(node).items():
        value = values.get(name)
        if isinstance(value, (int, float)) and not (least <= value <= most and math.isfinite(value)):
            raise InvalidInputError(f"set {name} to a number from {least:g} to {most:g}; it is {value:g}")
    for name, is_needed in sockets(node).items():
        value = values.get(name)
        if isinstance(value, (int, float, str)):
            raise InvalidInputError(f"connect {name} to another node, or leave it unconnected; it is set to '{value}'")
        if is_needed and name in values and value is None:
            raise InvalidInputError(f"connect {name} to another node; it is empty")


@functools.cache
def ranges(node: type[io.ComfyNode]) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest value of each number widget, by its name."""
    widgets = [entry for entry in node.define_schema().inputs if isinstance(entry, (io.Float.Input, io.Int.Input))]
    limits = {}
    for widget in widgets:
        least = -math.inf if widget.min is None else widget.min
        limits[widget.id] = (least, math.inf if widget.max is None else widget.max)
    return limits


@functools.cache
def sockets(node: type[io.ComfyNode]) -> dict[str, bool]:
    """Returns the inputs that only a link can fill, with whether the node needs them."""
    filled_by_links = [entry for entry in node.define_schema().inputs if not isinstance(entry, io.WidgetInput)]
    return {entry.id: not entry.optional for entry in filled_by_links}
