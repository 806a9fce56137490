"""Whether a model can restore faces, and what is known of its family if it can."""

from __future__ import annotations

from comfy.model_patcher import ModelPatcher

from ...errors import PatchConflictError, UnsupportedModeError
from ..acceleration.deepcache import carries_deepcache
from ..families import FAMILIES, ModelFamily, find_family

TOKEN_MERGERS = {"HyperTile": "HyperTile", "TomePatchModel": "Tome Patch Model (token merging)"}
"""Node classes whose attention patches rearrange tokens, and their display names."""


def family_of(model: ModelPatcher) -> ModelFamily:
    """Returns the family of a model.

    Raises:
        UnsupportedModeError: it belongs to none.
    """
    net, family = model.get_model_object("diffusion_model"), find_family(model)
    if family is None:
        raise UnsupportedModeError(
            f"restore faces with another model: the connected one is of the family {type(model.model).__name__} "
            f"({type(net).__name__}), and this node needs a checkpoint of {_supported()}, or a fine-tune of one"
        )
    return family


def _supported() -> str:
    return ", ".join(family.name for family in FAMILIES.values())


def check_restoring_model(model: ModelPatcher) -> None:
    """Raises unless a model's self-attention can be recorded and replayed.

    Raises:
        UnsupportedModeError: the model belongs to no family, or predicts in another way than its family.
        PatchConflictError: an earlier node merges tokens or skips steps.
    """
    family, sampling = family_of(model), model.get_model_object("model_sampling")
    if not isinstance(sampling, family.noise):
        raise UnsupportedModeError(
            f"the connected model predicts in a way that cannot be inverted here ({type(sampling).__name__}); restore "
            f"faces with checkpoints of {_supported()}"
        )
    transformer_options = model.model_options.get("transformer_options", {})
    if "easycache" in transformer_options:
        name = getattr(transformer_options["easycache"], "name", "EasyCache")
        raise PatchConflictError(
            f"the connected model skips steps ({name}), so a restoration cannot follow its inversion step by step; "
            f"connect the model from before {name}, or bypass that node"
        )
    if carries_deepcache(model):
        raise PatchConflictError(
            "the connected model reuses features of earlier steps (DeepCache), so a restoration cannot follow its "
            "inversion step by step; connect the model from before Apply DeepCache, or set its interval to 1"
        )
    patches = transformer_options.get("patches", {})
    for patch in (*patches.get("attn1_patch", ()), *patches.get("attn1_output_patch", ())):
        node = TOKEN_MERGERS.get(getattr(patch, "__qualname__", "").partition(".")[0])
        if node is not None:
            raise PatchConflictError(
                f"the connected model merges or rearranges tokens ({node}), so features of one step do not fit those "
                f"of another; connect the model from before {node}, or bypass that node"
            )
