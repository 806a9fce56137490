"""Lets graphs leave out every widget that has a default."""

import functools
import inspect
from collections.abc import Callable

from comfy_api.v0_0_2 import io


def with_defaults(node: type[io.ComfyNode]) -> type[io.ComfyNode]:
    """Makes the widgets of a node optional if they have a default, and gives it to the node's functions.

    A graph in API format then stays valid if a later version adds a widget.
    """
    described = vars(node)["define_schema"].__func__

    @functools.wraps(described)
    def define_schema(cls) -> io.Schema:
        schema = described(cls)
        for widget in schema.inputs:
            widget.optional = widget.optional or has_default(widget)
        return schema

    node.define_schema = classmethod(define_schema)
    defaults = {widget.id: widget.default for widget in define_schema(node).inputs if has_default(widget)}
    for name in ("execute", "fingerprint_inputs"):
        if name in vars(node):
            setattr(node, name, classmethod(filled_in(vars(node)[name].__func__, defaults)))
    return node


def has_default(entry: io.Input) -> bool:
    """Returns whether an input is a widget with a default."""
    return isinstance(entry, io.WidgetInput) and entry.default is not None


def filled_in(function: Callable, defaults: dict[str, object]) -> Callable:
    """Returns a class's function that takes the defaults for what it is not given."""
    names = list(inspect.signature(function).parameters)

    @functools.wraps(function)
    def called(cls, *args, **kwargs):
        given = {*names[: 1 + len(args)], *kwargs}
        left_out = {name: default for name, default in defaults.items() if name in names and name not in given}
        return function(cls, *args, **left_out, **kwargs)

    return called
