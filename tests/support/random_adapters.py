"""Identity adapter files with random weights in the exact public layouts, and identities to go with them.

The layouts are written down here a second time, from the published code, and share nothing with the pack's reader.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch

EMBEDDING_DIM = 512
BUFFALO_L = "4c06341c33c2ca1f86781dab0e829f88ad5b64be9fba56e56bc9ebdefc619e43"
ANTELOPEV2 = "4ab1d6435d639628a6f3e5008dd4f929edf4c4124b1a7169e1048f9fef534cdf"


@dataclass(frozen=True)
class Architecture:
    """What adapter files depend on; `widths` has one entry per transformer block: down, up, middle last."""

    token_dim: int
    widths: tuple[int, ...]
    perceiver_dim: int
    clip_dim: int


ARCHITECTURES = MappingProxyType(
    {
        "sd15": Architecture(768, (320,) * 2 + (640,) * 2 + (1280,) * 5 + (640,) * 3 + (320,) * 3 + (1280,), 768, 1280),
        "sdxl": Architecture(2048, (640,) * 4 + (1280,) * 50 + (640,) * 6 + (1280,) * 10, 1280, 1280),
        "small_sd": Architecture(768, (32,) * 2 + (64,) * 2 + (128,) * 5 + (64,) * 3 + (32,) * 3 + (128,), 1280, 768),
        "tiny": Architecture(64, (32, 64, 64, 64, 32, 32, 64), 64, 48),  # unet_configs.TINY_UNET
    }
)

TINY_UNET_CONFIG = MappingProxyType(
    {
        "context_dim": 64,
        "model_channels": 32,
        "channel_mult": [1, 2, 2],
        "num_res_blocks": [1, 1, 1],
        "transformer_depth": [1, 1, 0],
        "transformer_depth_middle": 1,
        "transformer_depth_output": [1, 1, 1, 1, 0, 0],
    }
)
"""Where `unet_configs.TINY_UNET` has its transformer blocks; a test holds the two equal."""

Nested = dict[str, dict[str, torch.Tensor]]


class Weights:
    """Draws named random tensors, scaled so that activations keep their size."""

    def __init__(self, seed: int, dtype: torch.dtype, device: str) -> None:
        self.tensors: dict[str, torch.Tensor] = {}
        self.generator = None if device == "meta" else torch.Generator(device).manual_seed(seed)
        self.options = {"device": device, "dtype": dtype}

    def draw(self, name: str, *shape: int, scale: float, offset: float = 0.0) -> None:
        if self.generator is None:
            self.tensors[name] = torch.empty(shape, **self.options)
        else:
            drawn = torch.randn(shape, generator=self.generator, device=self.options["device"])
            self.tensors[name] = (drawn * scale + offset).to(self.options["dtype"])

    def linear(self, name: str, rows: int, columns: int, bias: bool = False) -> None:
        self.draw(f"{name}.weight", rows, columns, scale=columns**-0.5)
        if bias:
            self.draw(f"{name}.bias", rows, scale=0.1)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width, scale=0.1, offset=1.0)
        self.draw(f"{name}.bias", width, scale=0.1)

    def face_projection(self, token_dim: int, num_tokens: int) -> None:
        self.linear("proj.0", 2 * EMBEDDING_DIM, EMBEDDING_DIM, bias=True)
        self.linear("proj.2", token_dim * num_tokens, 2 * EMBEDDING_DIM, bias=True)
        self.norm("norm", token_dim)

    def perceiver(self, prefix: str, feature_dim: int, dim: int, token_dim: int, depth: int = 4) -> None:
        self.linear(f"{prefix}proj_in", dim, feature_dim, bias=True)
        self.linear(f"{prefix}proj_out", token_dim, dim, bias=True)
        self.norm(f"{prefix}norm_out", token_dim)
        for layer in range(depth):
            attention, feed_forward = f"{prefix}layers.{layer}.0", f"{prefix}layers.{layer}.1"
            self.norm(f"{attention}.norm1", dim)
            self.norm(f"{attention}.norm2", dim)
            self.linear(f"{attention}.to_q", dim, dim)
            self.linear(f"{attention}.to_kv", 2 * dim, dim)
            self.linear(f"{attention}.to_out", dim, dim)
            self.norm(f"{feed_forward}.0", dim)
            self.linear(f"{feed_forward}.1", 4 * dim, dim)
            self.linear(f"{feed_forward}.3", dim, 4 * dim)


def _attention(architecture: Architecture, weights: Weights, lora_rank: int) -> dict[str, torch.Tensor]:
    token_dim = architecture.token_dim
    for block, width in enumerate(architecture.widths):
        own, cross = 2 * block, 2 * block + 1
        weights.linear(f"{cross}.to_k_ip", width, token_dim)
        weights.linear(f"{cross}.to_v_ip", width, token_dim)
        for number, context_dim in ((own, width), (cross, token_dim)) if lora_rank else ():
            for part, columns in (("q", width), ("k", context_dim), ("v", context_dim), ("out", width)):
                weights.linear(f"{number}.to_{part}_lora.down", lora_rank, columns)
                weights.linear(f"{number}.to_{part}_lora.up", width, lora_rank)
    return weights.tensors


def _adapter(name: str, draw_network, seed: int, lora_rank: int, dtype: torch.dtype, device: str) -> Nested:
    architecture = ARCHITECTURES[name]
    network = Weights(seed, dtype, device)
    draw_network(network, architecture)
    return {
        "image_proj": network.tensors,
        "ip_adapter": _attention(architecture, Weights(seed + 1, dtype, device), lora_rank),
    }


def faceid(architecture="sd15", seed=0, lora_rank=128, num_tokens=4, dtype=torch.float32, device="cpu") -> Nested:
    """`ip-adapter-faceid_*`: ArcFace only, with its LoRA inside."""
    return _adapter(
        architecture, lambda net, arch: net.face_projection(arch.token_dim, num_tokens), seed, lora_rank, dtype, device
    )


def faceid_portrait(architecture="sd15", seed=0, dtype=torch.float32, device="cpu") -> Nested:
    """`ip-adapter-faceid-portrait_*`: 16 tokens for each photo, no LoRA."""
    return faceid(architecture, seed, 0, 16, dtype, device)


def faceid_plus(architecture="sd15", seed=0, lora_rank=128, dtype=torch.float32, device="cpu") -> Nested:
    """`ip-adapter-faceid-plus_*` and `-plusv2_*`, whose tensors are the same: ArcFace, CLIP, and the LoRA inside."""

    def draw(net: Weights, arch: Architecture) -> None:
        net.face_projection(arch.token_dim, 4)
        net.perceiver("perceiver_resampler.", arch.clip_dim, arch.token_dim, arch.token_dim)

    return _adapter(architecture, draw, seed, lora_rank, dtype, device)


def plus_face(architecture="sd15", seed=0, dtype=torch.float32, device="cpu", feature_dim=None) -> Nested:
    """`ip-adapter-plus-face_*`: CLIP only, 16 tokens, no LoRA."""

    def draw(net: Weights, arch: Architecture) -> None:
        net.draw("latents", 1, 16, arch.perceiver_dim, scale=arch.perceiver_dim**-0.5)
        net.perceiver("", feature_dim or arch.clip_dim, arch.perceiver_dim, arch.token_dim)

    return _adapter(architecture, draw, seed, 0, dtype, device)


def instantid(architecture="sdxl", seed=0, dtype=torch.float32, device="cpu") -> Nested:
    """InstantID's `ip-adapter.bin` and `ip-adapter-faceid-portrait_sdxl_unnorm.bin`: one feature, the embedding."""
    return plus_face(architecture, seed, dtype, device, feature_dim=EMBEDDING_DIM)


def flat(nested: Nested) -> dict[str, torch.Tensor]:
    """The same tensors as a `.safetensors` file names them."""
    return {f"{group}.{name}": tensor for group, tensors in nested.items() for name, tensor in tensors.items()}


def read_adapter(file, name="adapter.bin", **options):
    """The pack's reader, which knows the tiny architecture here beside the real ones."""
    from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
    from fpga.fpga_core.identity.attention_layouts import KNOWN_LAYOUTS, attention_layout

    layouts = (*KNOWN_LAYOUTS, attention_layout("tiny", TINY_UNET_CONFIG))
    return read_identity_adapter(file, None, name, layouts=layouts, **options)


def fpga_adapter(
    architecture="sd15", seed=0, clip_model=None, trained_null=True, recogniser=BUFFALO_L, branch_hash=None
):
    """The pack's own `IdentityAdapter`, made from scratch; `export.write_fpga_adapter` writes it."""
    from fpga.fpga_core.identity.adapters import IdentityAdapter, Negative
    from fpga.fpga_core.identity.recipes import AdapterKind
    from fpga.fpga_core.identity.resampler_loading import load_face_projection

    arch = ARCHITECTURES[architecture]
    network = Weights(seed, torch.float32, "cpu")
    network.face_projection(arch.token_dim, 4)
    if clip_model is not None:
        network.perceiver("perceiver_resampler.", arch.clip_dim, arch.token_dim, arch.token_dim)
    network_tensors = dict(network.tensors)
    network.draw("null", 1, 4, arch.token_dim, scale=1.0)
    return IdentityAdapter(
        name="random FPGA adapter",
        kind=AdapterKind.FPGA,
        base=architecture,
        resampler=load_face_projection(network_tensors, "random FPGA adapter", ""),
        branch_hash=branch_hash,
        recogniser=recogniser,
        clip_model=clip_model,
        negative=Negative.TRAINED_NULL if trained_null else Negative.SAME_TOKENS,
        null=network.tensors["null"] if trained_null else None,
    )


NO_CLIP: Mapping[str, int] = MappingProxyType({})


def random_identity(name="someone", seed=0, num_photos=1, recognisers=(BUFFALO_L,), clip=NO_CLIP, clip_tokens=5):
    """An `Identity` with random embeddings (about 20 long, as ArcFace's are); `clip` maps model keys to widths."""
    from fpga.fpga_core.identity.identity import Identity

    generator = torch.Generator().manual_seed(seed)
    return Identity(
        name=name,
        embeddings={key: torch.randn(num_photos, EMBEDDING_DIM, generator=generator) for key in recognisers},
        clip_hidden={
            key: torch.randn(num_photos, clip_tokens, width, generator=generator) for key, width in clip.items()
        },
        clip_null={key: torch.randn(1, clip_tokens, width, generator=generator) for key, width in clip.items()},
    )
