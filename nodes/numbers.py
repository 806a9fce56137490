"""One check of the numbers that every node is given."""

import functools
import inspect
import math
from collections.abc import Mapping

from comfy_api.v0_0_2 import io

from ..fpga_core.errors import InvalidInputError


def checking_numbers(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Makes a node refuse numbers outside the range of its widgets, by name.

    ComfyUI lets NaN through a widget's min and max, and checks nothing that arrives over a link.
    """
    inner = node.execute.__func__
    names = list(inspect.signature(node.execute).parameters)

    @functools.wraps(inner)
    def execute(cls, *args, **kwargs) -> io.NodeOutput:
        check_numbers(node, {**dict(zip(names, args, strict=False)), **kwargs})
        return inner(cls, *args, **kwargs)

    node.execute = classmethod(execute)
    return node


def check_numbers(node: type[io.ComfyNode], values: Mapping[str, object]) -> None:
    """Raises InvalidInputError if a number is not finite, or out of the range of its widget."""
    for name, (least, most) in ranges(node).items():
        value = values.get(name)
        if isinstance(value, (int, float)) and not (least <= value <= most and math.isfinite(value)):
            raise InvalidInputError(f"set {name} to a number from {least:g} to {most:g}; it is {value:g}")


@functools.cache
def ranges(node: type[io.ComfyNode]) -> dict[str, tuple[float, float]]:
    """Returns the smallest and largest value of each number widget, by its name."""
    widgets = [entry for entry in node.define_schema().inputs if isinstance(entry, (io.Float.Input, io.Int.Input))]
    limits = {}
    for widget in widgets:
        least = -math.inf if widget.min is None else widget.min
        limits[widget.id] = (least, math.inf if widget.max is None else widget.max)
    return limits
