"""What a node tells the editor after a run: its report, and warnings, which the editor shows in a colour."""

from collections.abc import Sequence

Report = dict[str, tuple[str, ...]]
"""The `ui` of a node's output. The editor shows `text` on the node, as it does for ComfyUI's own nodes."""


def report(text: str, warnings: Sequence[str] = ()) -> Report:
    """Returns what the editor shows on a node.

    Args:
        text: what was done, in lines.
        warnings: what the user should look at, one sentence each; they are not repeated in the text.
    """
    return {"text": (text,), "warnings": tuple(warnings)}
