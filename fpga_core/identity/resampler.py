"""The networks that turn the encoders' output for a face into identity tokens.

Their parameters have the names of the published files and of the pack's own, so that a state dict loads as it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

HEAD_DIM = 64
FEED_FORWARD_RATIO = 4
PROJECTION_DIM = 1024
"""The inner width of the published face projections, twice that of an embedding."""


class FaceProjection(nn.Module):
    """Maps a face embedding to tokens with a two-layer perceptron and a norm over each token.

    Source: `MLPProjModel` of IP-Adapter FaceID, `norm(W2 gelu(W1 e + b1) + b2)`.
    """

    def __init__(self, embedding_dim: int, *, token_dim: int, num_tokens: int, inner_dim: int = PROJECTION_DIM) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.token_dim = token_dim
        self.proj = nn.Sequential(
            nn.Linear(embedding_dim, inner_dim), nn.GELU(), nn.Linear(inner_dim, token_dim * num_tokens)
        )
        self.norm = nn.LayerNorm(token_dim)

    def forward(self, embedding: Tensor) -> Tensor:
        """(batch, embedding_dim) to (batch, num_tokens, token_dim)."""
        return self.norm(self.proj(embedding).unflatten(-1, (self.num_tokens, -1)))


class PerceiverAttention(nn.Module):
    """Attention of latents to features and to themselves.

    Source: `PerceiverAttention` of IP-Adapter: keys and values of `cat(norm1(features), norm2(latents))`, queries of
    `norm2(latents)`; the rows of `to_kv` are the keys', then the values'.
    """

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        inner_dim = num_heads * HEAD_DIM
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner_dim, bias=False)
        self.to_kv = nn.Linear(dim, inner_dim * 2, bias=False)
        self.to_out = nn.Linear(inner_dim, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        """(batch, num_features, dim) and (batch, num_latents, dim) to (batch, num_latents, dim)."""
        latents = self.norm2(latents)
        q = self.to_q(latents)
        k, v = self.to_kv(torch.cat([self.norm1(features), latents], dim=1)).chunk(2, dim=-1)
        # (batch, tokens, heads * 64) -> (batch, heads, tokens, 64)
        q, k, v = (part.unflatten(-1, (-1, HEAD_DIM)).transpose(1, 2) for part in (q, k, v))
        attended = functional.scaled_dot_product_attention(q, k, v)
        return self.to_out(attended.transpose(1, 2).flatten(2))


def feed_forward(dim: int) -> nn.Sequential:
    """The feed-forward layer of a perceiver block, with its norm and without biases."""
    inner_dim = dim * FEED_FORWARD_RATIO
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, inner_dim, bias=False), nn.GELU(), nn.Linear(inner_dim, dim, bias=False)
    )


class Perceiver(nn.Module):
    """Resamples any number of features to as many tokens as there are latents.

    Source: `FacePerceiverResampler` of IP-Adapter: `proj_in`, blocks of attention and feed-forward layers with
    residuals, `proj_out`, `norm_out`.
    """

    def __init__(self, feature_dim: int, *, dim: int, token_dim: int, num_heads: int, depth: int = 4) -> None:
        super().__init__()
        self.proj_in = nn.Linear(feature_dim, dim)
        self.proj_out = nn.Linear(dim, token_dim)
        self.norm_out = nn.LayerNorm(token_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, num_heads), feed_forward(dim)]) for _ in range(depth)
        )

    def resample(self, latents: Tensor, features: Tensor) -> Tensor:
        """(batch, num_tokens, dim) and the output of `proj_in`, (batch, num_features, dim), to (.., token_dim)."""
        for block in self.layers:
            attention, feed = cast("Iterable[nn.Module]", block)
            latents = attention(features, latents) + latents
            latents = feed(latents) + latents
        return self.norm_out(self.proj_out(latents))


class FeatureResampler(Perceiver):
    """A perceiver with its own learned latents, for plus-face (CLIP features) and InstantID (one embedding as feature).

    Source: `Resampler` of IP-Adapter Plus.
    """

    def __init__(
        self, feature_dim: int, *, dim: int, token_dim: int, num_heads: int, num_tokens: int, depth: int = 4
    ) -> None:
        super().__init__(feature_dim, dim=dim, token_dim=token_dim, num_heads=num_heads, depth=depth)
        self.num_tokens = num_tokens
        self.token_dim = token_dim
        self.feature_dim = feature_dim
        self.latents = nn.Parameter(torch.randn(1, num_tokens, dim) / dim**0.5)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, num_features, feature_dim) to (batch, num_tokens, token_dim)."""
        return self.gather(self.proj_in(features))

    def gather(self, features: Tensor) -> Tensor:
        """The output of `proj_in`, (batch, num_features, dim), to (batch, num_tokens, token_dim)."""
        return self.resample(self.latents.expand(features.shape[0], -1, -1), features)


class FacePlusProjection(FaceProjection):
    """Maps a face embedding to tokens, which then gather structure from CLIP features.

    Source: `ProjPlusModel` of IP-Adapter FaceID-Plus: `x = norm(proj(e))`, `r = perceiver(x, features)`; version 1
    returns `r`, version 2 returns `x + s r`.
    """

    def __init__(
        self,
        embedding_dim: int,
        *,
        feature_dim: int,
        token_dim: int,
        num_heads: int,
        num_tokens: int,
        depth: int = 4,
        inner_dim: int = PROJECTION_DIM,
    ) -> None:
        super().__init__(embedding_dim, token_dim=token_dim, num_tokens=num_tokens, inner_dim=inner_dim)
        self.feature_dim = feature_dim
        self.perceiver_resampler = Perceiver(
            feature_dim, dim=token_dim, token_dim=token_dim, num_heads=num_heads, depth=depth
        )

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] (it reads features, too)
        self, embedding: Tensor, features: Tensor, *, shortcut: bool = True, scale: float = 1.0
    ) -> Tensor:
        """Makes the tokens of one face per row.

        Args:
            embedding: (batch, embedding_dim).
            features: CLIP hidden states, (batch, num_features, feature_dim).
            shortcut: whether the tokens of the embedding are added (version 2).
            scale: weight `s` of the structure relative to the shortcut; version 1 has none.
        Returns:
            (batch, num_tokens, token_dim).
        """
        return self.with_structure(super().forward(embedding), features, shortcut=shortcut, scale=scale)

    def with_structure(self, tokens: Tensor, features: Tensor, *, shortcut: bool = True, scale: float = 1.0) -> Tensor:
        """As `forward`, from the tokens of the embeddings, (batch, num_tokens, token_dim)."""
        perceiver = self.perceiver_resampler
        structure = perceiver.resample(tokens, perceiver.proj_in(features))
        return tokens + scale * structure if shortcut else structure


Resampler = FaceProjection | FeatureResampler
"""Either kind of network. FacePlusProjection is a FaceProjection."""
