"""Identity adapter files, recognised by their tensors. Where these leave two kinds, the name is a hint.

A public file holds two groups of tensors: `image_proj` (the network that makes the tokens) and `ip_adapter` (the parts
of the model's attention layers). They are nested dictionaries (`.bin`) or prefixes (`.safetensors`). docs/formats.md
has the table. `export` reads the pack's own files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from enum import Enum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, cast

import torch
from torch import Tensor

from ..checkpoints import check_keys, check_shapes, list_names
from ..errors import BaseModelError, CheckpointKeyError, InvalidInputError, UnknownFormatError
from .adapters import IdentityAdapter, LowRank
from .attention_layouts import KNOWN_LAYOUTS, AttentionLayout
from .export import is_fpga_adapter, read_fpga_adapter
from .identity import EMBEDDING_DIM
from .people import KeyValue
from .recipes import RECIPES, AdapterKind
from .resampler import Resampler
from .resampler_loading import file_shape, has_perceiver, load_face_projection, load_feature_resampler

FACEID_TOKENS = 4
NETWORK, LAYERS = "image_proj.", "ip_adapter."
KNOWN_FILES = "an IP-Adapter FaceID, plus-face, InstantID or FPGA adapter file"


class Variant(str, Enum):
    """Which of two adapters a file is, if both have the same tensors."""

    AUTO = "auto"
    """What the file's name says; if it says nothing, FaceID-PlusV2 and InstantID."""
    PLUS_V1 = "plus_v1"
    PLUS_V2 = "plus_v2"
    INSTANTID = "instantid"
    PORTRAIT_UNNORM = "portrait_unnorm"


VARIANT_KINDS: Mapping[Variant, AdapterKind] = MappingProxyType(
    {
        Variant.PLUS_V1: AdapterKind.FACEID_PLUS,
        Variant.PLUS_V2: AdapterKind.FACEID_PLUS_V2,
        Variant.INSTANTID: AdapterKind.INSTANTID,
        Variant.PORTRAIT_UNNORM: AdapterKind.FACEID_PORTRAIT_UNNORM,
    }
)
"""The adapter kind that the choice of a variant gives."""


NAME_HINTS: Mapping[AdapterKind, tuple[str, ...]] = MappingProxyType(
    {
        AdapterKind.FACEID_PLUS_V2: ("plusv2", "plus-v2", "plus_v2"),
        AdapterKind.FACEID_PLUS: ("faceid-plus", "faceid_plus", "faceidplus"),
        AdapterKind.INSTANTID: ("instantid", "instant-id", "instant_id"),
        AdapterKind.FACEID_PORTRAIT_UNNORM: ("unnorm", "faceid-portrait", "faceid_portrait"),
    }
)
"""What published and copied files are called, the first that fits. It only counts between kinds with equal tensors."""


def read_identity_adapter(
    state: Mapping[str, Any],
    metadata: Mapping[str, str] | None,
    name: str,
    *,
    variant: Variant = Variant.AUTO,
    use_lora: bool = True,
    structure_strength: float = 1.0,
    layouts: Sequence[AttentionLayout] = KNOWN_LAYOUTS,
) -> IdentityAdapter:
    """Recognises an identity adapter, the pack's own or a public one, and checks every tensor.

    Args:
        state: what the file holds, nested or flat.
        metadata: text entries of the file's header; None or empty if the file type has none.
        name: the file's name in messages. It is a hint if the tensors leave two kinds and `variant` is AUTO.
        variant: which adapter it is, if the tensors leave two.
        use_lora: whether to keep the LoRA inside a FaceID file.
        structure_strength: weight of the CLIP features in FaceID-PlusV2, `s`.
        layouts: architectures that a public adapter can be for.
    Returns:
        The adapter; its tensors are those of `state`.
    Raises:
        UnknownFormatError: the pack does not know the layout of the tensors.
        CheckpointKeyError, CheckpointShapeError: tensors are missing, do not belong, or have a wrong shape.
        CheckpointReadError: the tensors have changed since the file was written.
        BaseModelError: the adapter is for another architecture.
        InvalidInputError: the file cannot be that variant.
    """
    if is_fpga_adapter(state, metadata or {}):
        if variant is not Variant.AUTO:
            raise InvalidInputError(f"'{name}' is an FPGA adapter, which has no variants; set the variant to 'auto'")
        return read_fpga_adapter(state, metadata or {}, name)
    network, layers = _split_groups(state, name)
    has_lora = any("_lora." in key for key in layers)
    resampler, kinds = _recognise_network(network, has_lora, name)
    kind, choice = _choose_kind(kinds, variant, name)
    layout = _choose_layout(resampler.token_dim, layers, layouts=layouts, name=name)
    lora_layers = _lora_layers(layout) if has_lora else {}
    _check_layers(layers, layout, lora_layers=lora_layers, name=name)
    lora = {
        path: LowRank(layers[f"{key}.down.weight"], layers[f"{key}.up.weight"])
        for key, (path, _) in lora_layers.items()
    }
    return IdentityAdapter(
        name=name,
        kind=kind,
        base=layout.base,
        resampler=resampler,
        projections=MappingProxyType(
            {
                slot: KeyValue(layers[f"{2 * number + 1}.to_k_ip.weight"], layers[f"{2 * number + 1}.to_v_ip.weight"])
                for number, slot in enumerate(layout.widths)
            }
        ),
        lora=MappingProxyType(lora) if has_lora and use_lora else None,
        recogniser=RECIPES[kind].recogniser,
        structure_strength=structure_strength,
        choice=choice,
    )


def _split_groups(state: Mapping[str, Any], name: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Returns the tensors of the groups `image_proj` and `ip_adapter`, without the names of the groups."""
    flat: dict[str, Any] = {}
    for key, value in state.items():
        group = cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else None
        flat |= {key: value} if group is None else {f"{key}.{part}": tensor for part, tensor in group.items()}
    network, layers = (
        {key.removeprefix(group): tensor for key, tensor in flat.items() if str(key).startswith(group)}
        for group in (NETWORK, LAYERS)
    )
    if not network and not layers and any("lora" in str(key) for key in flat):
        raise UnknownFormatError(
            f"'{name}' is a LoRA, not an identity adapter; load the file of the FaceID adapter, which contains the "
            "same LoRA"
        )
    for group, tensors in ((NETWORK, network), (LAYERS, layers)):
        if not tensors:
            raise UnknownFormatError(
                f"'{name}' holds no '{group}' tensors, so it is not an identity adapter (it holds "
                f"{list_names(map(str, flat)) or 'nothing'}); choose {KNOWN_FILES}"
            )
    if strangers := [str(key) for key in flat if not str(key).startswith((NETWORK, LAYERS))]:
        raise CheckpointKeyError(
            f"'{name}' holds tensors that do not belong in an identity adapter: {list_names(strangers)}; the file is "
            "damaged: download it again"
        )
    for key, tensor in flat.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
            raise UnknownFormatError(
                f"'{key}' in '{name}' is {kind}, not a floating-point tensor; the file is damaged: download it again"
            )
    return network, layers


def _recognise_network(
    network: Mapping[str, Tensor], has_lora: bool, name: str
) -> tuple[Resampler, tuple[AdapterKind, ...]]:
    """Returns the resampler and the kinds that the file can be, the likelier first."""
    for marker, what in (
        ("proj.weight", "a plain IP-Adapter, which follows the style of a picture rather than a face"),
        ("proj.3.weight", "an IP-Adapter full-face"),
    ):
        if marker in network:
            raise UnknownFormatError(f"'{name}' is {what}; choose {KNOWN_FILES}")
    if has_perceiver(network):
        resampler = load_face_projection(network, name, NETWORK)
        return resampler, (AdapterKind.FACEID_PLUS_V2, AdapterKind.FACEID_PLUS)
    if "latents" in network:
        resampler = load_feature_resampler(network, name, NETWORK)
        if resampler.feature_dim == EMBEDDING_DIM:
            return resampler, (AdapterKind.INSTANTID, AdapterKind.FACEID_PORTRAIT_UNNORM)
        return resampler, (AdapterKind.PLUS_FACE,)
    if "proj.2.weight" in network:
        resampler = load_face_projection(network, name, NETWORK)
        is_faceid = has_lora or resampler.num_tokens == FACEID_TOKENS
        return resampler, (AdapterKind.FACEID if is_faceid else AdapterKind.FACEID_PORTRAIT,)
    raise UnknownFormatError(
        f"the '{NETWORK}' tensors of '{name}' have a layout that the pack does not know ({list_names(network)}); "
        f"choose {KNOWN_FILES}"
    )


def _choose_kind(kinds: tuple[AdapterKind, ...], variant: Variant, name: str) -> tuple[AdapterKind, str]:
    """Returns the kind of a file, and how it was chosen; nothing is said if the tensors leave only one."""
    if variant is not Variant.AUTO:
        if VARIANT_KINDS[variant] not in kinds:
            possible = [Variant.AUTO, *(choice for choice, kind in VARIANT_KINDS.items() if kind in kinds)]
            raise InvalidInputError(
                f"'{name}' is {kinds[0].value} by its tensors and cannot be '{variant.value}'; set the variant to "
                + " or ".join(choice.value for choice in possible)
            )
        return VARIANT_KINDS[variant], f"read as {VARIANT_KINDS[variant].value}, as variant says"
    if len(kinds) == 1:
        return kinds[0], ""
    hinted = next((kind for kind, hints in NAME_HINTS.items() if kind in kinds and _mentions(name, hints)), None)
    kind = hinted or kinds[0]
    (other,) = (candidate for candidate in kinds if candidate is not kind)
    why = "its name says so" if hinted else "that is the more common one"
    choice = next(choice for choice, candidate in VARIANT_KINDS.items() if candidate is other)
    return kind, (
        f"read as {kind.value}, because {why}; its tensors also fit {other.value}: if it is that one, set variant to "
        f"{choice.value}"
    )


def _mentions(name: str, hints: tuple[str, ...]) -> bool:
    """Returns whether a file's name, without its folders, holds one of some hints; or else one of its folders does."""
    *folders, file = name.lower().replace("\\", "/").split("/")
    return any(hint in part for hint in hints for part in (file, *folders))


def _choose_layout(
    token_dim: int, layers: Mapping[str, Tensor], *, layouts: Sequence[AttentionLayout], name: str
) -> AttentionLayout:
    """Returns the architecture with a `token_dim` wide context; of several, the one with as many blocks as the file.

    A file for a narrower model of that architecture is read at the width of most of its layers. Whether it fits the
    connected model is checked when it is applied.
    """
    fitting = [layout for layout in layouts if layout.token_dim == token_dim]
    if not fitting:
        known = ", ".join(f"{layout.base} ({layout.token_dim})" for layout in layouts)
        raise BaseModelError(
            f"the tokens of '{name}' are {token_dim} wide, which fits no architecture that the pack supports: {known}; "
            "choose an adapter for one of these"
        )
    num_blocks = sum(key.endswith(".to_k_ip.weight") for key in layers)
    layout = next((layout for layout in fitting if len(layout.widths) == num_blocks), fitting[0])
    ratios = Counter(
        Fraction(layers[key].shape[0], width)
        for number, width in enumerate(layout.widths.values())
        if (key := f"{2 * number + 1}.to_k_ip.weight") in layers and layers[key].ndim == 2
    )
    return layout.scaled(ratios.most_common(1)[0][0]) if ratios else layout


def _check_layers(
    layers: Mapping[str, Tensor],
    layout: AttentionLayout,
    *,
    lora_layers: Mapping[str, tuple[str, tuple[int, int]]],
    name: str,
) -> None:
    """Raises unless `layers` are the projections and the LoRA of every attention layer, in the right shapes.

    The attention layers are numbered in the order of diffusers' `attn_processors`, two per transformer block: even
    numbers are self attention, and odd ones are cross attention.
    """
    expected: dict[str, torch.Size] = {}
    for number, width in enumerate(layout.widths.values()):
        for part in ("k", "v"):
            expected[f"{LAYERS}{2 * number + 1}.to_{part}_ip.weight"] = torch.Size((width, layout.token_dim))
    for key, (_, (num_rows, num_columns)) in lora_layers.items():
        rank = file_shape(layers, f"{key}.down.weight", num_axes=2, name=name)[0]
        expected[f"{LAYERS}{key}.down.weight"] = torch.Size((rank, num_columns))
        expected[f"{LAYERS}{key}.up.weight"] = torch.Size((num_rows, rank))
    found = {LAYERS + key: tensor for key, tensor in layers.items()}
    check_keys(name, found, expected)
    check_shapes(name, found, expected)


def _lora_layers(layout: AttentionLayout) -> dict[str, tuple[str, tuple[int, int]]]:
    """Maps `<number>.to_q_lora` and so on to (path of the layer in ComfyUI's UNet, (rows, columns) of its weight)."""
    layers: dict[str, tuple[str, tuple[int, int]]] = {}
    for number, (slot, width) in enumerate(layout.widths.items()):
        for key, attention, context_dim in (
            (2 * number, "attn1", width),
            (2 * number + 1, "attn2", layout.token_dim),
        ):
            path = f"{slot.module_path}.{attention}"
            layers[f"{key}.to_q_lora"] = (f"{path}.to_q", (width, width))
            layers[f"{key}.to_k_lora"] = (f"{path}.to_k", (width, context_dim))
            layers[f"{key}.to_v_lora"] = (f"{path}.to_v", (width, context_dim))
            layers[f"{key}.to_out_lora"] = (f"{path}.to_out.0", (width, width))
    return layers
