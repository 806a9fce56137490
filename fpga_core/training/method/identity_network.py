"""The identity part of what is trained: the resampler, the tokens of nobody, and own projections if wanted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...block_slots import Attention, BlockSlot
from ...errors import InvalidInputError
from ...identity.adapters import IdentityAdapter, Negative
from ...identity.people import KeyValue
from ...identity.recipes import AdapterKind
from ...identity.resampler import HEAD_DIM, PROJECTION_DIM, FacePlusProjection, FaceProjection
from ...identity.resampler_loading import load_face_projection
from ..data.batch import EMBEDDING_DIM, TrainingBatch
from .seeding import seeded

NEW_IN_IDENTITY = ("identity.resampler.", "identity.null_tokens")
"""The parameters of the part called `identity` that start from random weights."""


class Projections(str, Enum):
    """The key and value projections that read identity tokens."""

    SHARED = "shared"
    """Those of the text, in every layer, as in the paper's Eq. 1."""
    OWN = "own"
    """The adapter's own projections, which start as copies of those of the text, as in IP-Adapter."""


@dataclass(frozen=True, kw_only=True)
class IdentityRecipe:
    """What an identity adapter reads, and how it is read.

    Attributes:
        recogniser: SHA-256 of the ONNX file of the recogniser whose embeddings the batches hold.
        clip_model: key of the CLIP-Vision model whose features the batches hold; empty if none are read.
        clip_dim: width of those features.
        num_tokens: tokens per identity.
        projections: the projections that read the tokens.
        inner_dim: width of the layer between embedding and tokens.
    Raises:
        InvalidInputError: there is no recogniser, or CLIP-Vision has a key without a width or a width without a key.
    """

    recogniser: str
    clip_model: str = ""
    clip_dim: int = 0
    num_tokens: int = 4
    projections: Projections = Projections.SHARED
    inner_dim: int = PROJECTION_DIM

    def __post_init__(self) -> None:
        if not self.recogniser:
            raise InvalidInputError("an identity adapter must name its recogniser; give the hash of its ONNX file")
        if bool(self.clip_model) != (self.clip_dim > 0) or min(self.num_tokens, self.inner_dim) < 1:
            raise InvalidInputError(
                f"the CLIP-Vision model is '{self.clip_model}', {self.clip_dim} wide, for {self.num_tokens} tokens "
                f"through a layer {self.inner_dim} wide; give both its key and its width, or neither, with at least "
                "one token and a layer width of at least 1"
            )


class IdentityNetwork(nn.Module):
    """Makes identity tokens, and their keys and values, while it is trained.

    Args:
        recipe: what the adapter reads.
        layers: the cross attentions of the network that reads the tokens.
        seed: seed of the initial weights.
    Source: FPGA section 3.1.
    """

    def __init__(self, recipe: IdentityRecipe, layers: Mapping[BlockSlot, Attention], *, seed: int = 0) -> None:
        super().__init__()
        self.recipe = recipe
        self._slots = tuple(layers)
        token_dim = int(next(iter(layers.values())).to_k.in_features)
        with seeded(seed):
            if recipe.clip_dim:
                num_heads = max(token_dim // HEAD_DIM, 1)
                self.resampler: FaceProjection = FacePlusProjection(
                    EMBEDDING_DIM,
                    feature_dim=recipe.clip_dim,
                    token_dim=token_dim,
                    num_heads=num_heads,
                    num_tokens=recipe.num_tokens,
                    inner_dim=recipe.inner_dim,
                )
            else:
                self.resampler = FaceProjection(
                    EMBEDDING_DIM, token_dim=token_dim, num_tokens=recipe.num_tokens, inner_dim=recipe.inner_dim
                )
        # Zero through a projection without bias: nobody adds nothing, until something better is learnt.
        self.null_tokens = nn.Parameter(torch.zeros(1, recipe.num_tokens, token_dim))
        self.projections = nn.ParameterDict()
        if recipe.projections is Projections.OWN:
            for slot, attention in layers.items():
                for kind, base in (("key", attention.to_k), ("value", attention.to_v)):
                    self.projections[_name(slot, kind)] = nn.Parameter(base.weight.detach().float().clone())

    @torch.no_grad()
    def take(self, adapter: IdentityAdapter) -> None:
        """Takes over the parameters of a trained adapter, to train it further.

        Args:
            adapter: one that this pack trained.
        Raises:
            InvalidInputError: it is of another kind, or has another recogniser, CLIP-Vision model or shape.
        """
        recipe = self.recipe
        found = (adapter.kind, adapter.recogniser, adapter.clip_model or "", adapter.projections is not None)
        wanted = (AdapterKind.FPGA, recipe.recogniser, recipe.clip_model, recipe.projections is Projections.OWN)
        trained, own = adapter.resampler.state_dict(), self.resampler.state_dict()
        if found != wanted or {k: v.shape for k, v in trained.items()} != {k: v.shape for k, v in own.items()}:
            raise InvalidInputError(
                f"'{adapter.name}' cannot be trained further: it must be an adapter of this pack with the recogniser, "
                "CLIP-Vision model, projections and layer width of this training; give another file, or start without "
                "one"
            )
        self.resampler.load_state_dict(trained)
        if adapter.null is not None:
            self.null_tokens.copy_(adapter.null)
        for slot, key_value in (adapter.projections or {}).items():
            for kind, weight in (("key", key_value.key), ("value", key_value.value)):
                self.projections[_name(slot, kind)].copy_(weight)

    def tokens(self, batch: TrainingBatch, is_dropped: Tensor) -> Tensor:
        """Each picture's identity tokens, or the tokens of nobody.

        Args:
            batch: the embeddings and CLIP features come from here.
            is_dropped: whose identity is dropped, (batch,) bool.
        Returns:
            (batch, num_tokens, token_dim).
        Raises:
            InvalidInputError: the batch has no CLIP features, or has some of a different width.
        """
        inputs = [functional.normalize(batch.embeddings, dim=-1)]
        if self.recipe.clip_dim:
            found = "none" if batch.clip_features is None else str(batch.clip_features.shape[-1])
            if batch.clip_features is None or batch.clip_features.shape[-1] != self.recipe.clip_dim:
                raise InvalidInputError(
                    f"the identity network reads CLIP-Vision features {self.recipe.clip_dim} wide, but those of the "
                    f"data are {found}; encode the data with the model {self.recipe.clip_model}"
                )
            inputs.append(batch.clip_features)
        tokens = self.resampler(*inputs)
        return torch.where(is_dropped.to(tokens.device)[:, None, None], self.null_tokens.to(tokens.dtype), tokens)

    def key_value(self, slot: BlockSlot, attention: Attention, tokens: Tensor) -> KeyValue:
        """Returns keys and values of tokens in one layer, (batch, num_tokens, inner_dim) each.

        Args:
            slot: the layer.
            attention: its cross attention; its projections are used unless the network has its own.
            tokens: (batch, num_tokens, token_dim).
        """
        if self.recipe.projections is Projections.SHARED:
            return KeyValue(attention.to_k(tokens), attention.to_v(tokens))
        key, value = (
            functional.linear(tokens, self.projections[_name(slot, kind)].to(tokens.dtype)) for kind in ("key", "value")
        )
        return KeyValue(key, value)

    def as_adapter(self, name: str, *, base: str, branch_hash: str | None, dtype: torch.dtype) -> IdentityAdapter:
        """Returns the trained adapter, which shares nothing with this network.

        Args:
            name: its name in messages.
            base: architecture that it was trained on.
            branch_hash: hash of the RepControlNet branch that it was trained with, or None.
            dtype: dtype of its tensors.
        """
        state = {key: tensor.detach().to("cpu", dtype, copy=True) for key, tensor in self.state_dict().items()}
        prefix = "resampler."
        network = {key.removeprefix(prefix): tensor for key, tensor in state.items() if key.startswith(prefix)}
        own = None
        if self.recipe.projections is Projections.OWN:
            own = {
                slot: KeyValue(*(state[f"projections.{_name(slot, kind)}"] for kind in ("key", "value")))
                for slot in self._slots
            }
        return IdentityAdapter(
            name=name,
            kind=AdapterKind.FPGA,
            base=base,
            resampler=load_face_projection(network, name, prefix),
            projections=own,
            branch_hash=branch_hash,
            recogniser=self.recipe.recogniser,
            clip_model=self.recipe.clip_model or None,
            negative=Negative.TRAINED_NULL,
            null=state["null_tokens"],
        )


@dataclass(frozen=True, eq=False)
class ReadIdentity:
    """The identity in each picture of a batch.

    Attributes:
        network: the network that makes its keys and values.
        tokens: (batch, num_tokens, token_dim).
        masks: face regions, (batch, 1, height, width) latent pixels; the identity acts nowhere else.
    """

    network: IdentityNetwork
    tokens: Tensor
    masks: Tensor


def _name(slot: BlockSlot, kind: str) -> str:
    return f"{slot.block}_{slot.number}_{slot.index}_{kind}"
