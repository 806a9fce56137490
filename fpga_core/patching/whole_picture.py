"""Finds patches of other packs that belong to a whole picture, and would act at the wrong place in a crop of it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ..errors import PatchConflictError

ACTS_ANYWHERE = "hypernetwork_patch"
"""The host's hypernetworks change what a layer reads, wherever the picture is."""

MAX_DEPTH = 4
"""How deep masks are looked for in the objects of other packs."""

CONTROLS = ("double_block", "noise_refiner")
"""Kinds of patches by which transformers are controlled: the host's model patches hold the picture to follow."""


def check_no_whole_picture_patches(model: ModelPatcher) -> None:
    """Raises if another pack's patches tie prompts or pictures to places of the whole picture.

    These are patches before and after cross attention, with which packs prompt regions; attention and blocks of other
    packs that hold masks; and model patches that hold a picture. A crop cannot be told from a whole picture there.

    Raises:
        PatchConflictError: the model carries such a patch; the message names it.
    """
    options = model.model_options.get("transformer_options", {})
    patches = options.get("patches", {})
    around = [*patches.get("attn2_patch", ()), *patches.get("attn2_output_patch", ())]
    found = [patch for patch in around if not _qualname(patch).endswith(ACTS_ANYWHERE)]
    replaced = options.get("patches_replace", {})
    replacements = [*replaced.get("attn2", {}).values(), *replaced.get("dit", {}).values()]
    replacements.append(options.get("optimized_attention_override"))
    found += [patch for patch in replacements if next(_named(patch, MAX_DEPTH, ("mask",)), None) is not None]
    controls = [patch for kind in CONTROLS for patch in patches.get(kind, ())]
    found += [patch for patch in controls if next(_named(patch, MAX_DEPTH, ("mask", "image")), None) is not None]
    if found:
        raise PatchConflictError(
            f"the connected model carries a patch that belongs to the whole picture and would act at the wrong place "
            f"in a face: {name_of(found[0])}. Connect the model from before that node, and describe the faces in "
            "face_prompt"
        )


def name_of(patch: object) -> str:
    """Returns what a patch is called, and the pack that it comes from if that can be told."""
    module = getattr(patch, "__module__", None) or type(patch).__module__
    pack = re.search(r"custom_nodes[/\\.]([^/\\.]+)", module)
    name = _qualname(patch).replace(".<locals>", "")
    return f"'{name}' of {pack[1] if pack else module}"


def _qualname(patch: object) -> str:
    return getattr(patch, "__qualname__", None) or type(patch).__qualname__


def _named(held: Any, depth: int, words: Sequence[str], name: str = "") -> Iterator[Tensor]:  # noqa: ANN401
    """Yields the tensors in an object whose names contain one of the words."""
    if isinstance(held, Tensor):
        if any(word in name.lower() for word in words):
            yield held
        return
    if depth == 0:
        return
    parts: list[tuple[str, Any]] = []
    if isinstance(held, Mapping):
        parts = [(str(key), value) for key, value in held.items()]
    elif isinstance(held, Sequence) and not isinstance(held, str | bytes):
        parts = [(name, value) for value in held]
    elif callable(held) or hasattr(held, "__dict__"):
        code, cells = getattr(held, "__code__", None), getattr(held, "__closure__", None) or ()
        closed = zip(code.co_freevars, (cell.cell_contents for cell in cells), strict=True) if code else ()
        parts = [*vars(held).items(), *closed] if hasattr(held, "__dict__") else [*closed]
        parts += [("", bound) for bound in [getattr(held, "__self__", None)] if bound is not None]
    for part_name, part in parts:
        yield from _named(part, depth - 1, words, part_name)
