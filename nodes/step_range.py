"""The widgets that limit a node to part of the sampling."""

from comfy_api.v0_0_2 import io


def step_range(start: str, end: str, *, optional: bool = False) -> list[io.Input]:
    """The widgets `start_percent` and `end_percent`, as in ComfyUI's own nodes.

    Args:
        start, end: their tooltips.
        optional: whether graphs may leave them out.
    """
    widgets = (("start_percent", 0.0, start), ("end_percent", 1.0, end))
    return [
        io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.001, optional=optional, tooltip=tooltip)
        for name, default, tooltip in widgets
    ]
