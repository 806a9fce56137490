"""People, casts and identity adapters of the size of the tiny model, with seeded random weights."""

import torch
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.adapters import IdentityAdapter, LowRank
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.people import KeyValue
from fpga.fpga_core.identity.recipes import AdapterKind
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.identity.resampler import FaceProjection
from fpga.fpga_core.patching.unet import cross_attention_layers
from fpga.fpga_core.shapes import Extent

TOKEN_DIM = 64
CANVAS = Extent(512, 512)


def person(seed: int) -> Identity:
    embedding = 20 * torch.randn(1, 512, generator=torch.Generator().manual_seed(seed))
    return Identity(f"person {seed}", {BUFFALO_L: embedding})


def member(seed: int, box: tuple[float, float, float, float] | None = None, strength: float = 1.0) -> CastMember:
    """A person in a box (fractions), or in the whole picture."""
    return CastMember(person(seed), None if box is None else Region.from_box(Box(*box)), strength=strength)


def cast(*members: CastMember, canvas: Extent = CANVAS) -> Cast:
    return Cast(tuple(members), canvas)


def tiny_adapter(model=None, seed: int = 0, num_tokens: int = 4, lora_rank: int = 0, **options) -> IdentityAdapter:
    """A FaceID-style adapter for the tiny model: its own projections where `model` is given, else the model's."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator) / shape[-1] ** 0.5

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        resampler = FaceProjection(512, token_dim=TOKEN_DIM, num_tokens=num_tokens)
    projections = lora = None
    if model is not None:
        layers = cross_attention_layers(model.model.diffusion_model)
        widths = {slot: layer.to_q.out_features for slot, layer in layers.items()}
        projections = {
            slot: KeyValue(random(width, TOKEN_DIM), random(width, TOKEN_DIM)) for slot, width in widths.items()
        }
        if lora_rank:
            lora = {
                f"{slot.module_path}.attn2.{name}": LowRank(random(lora_rank, columns), random(width, lora_rank))
                for slot, width in widths.items()
                for name, columns in (("to_q", width), ("to_k", TOKEN_DIM), ("to_v", TOKEN_DIM), ("to_out.0", width))
            }
    return IdentityAdapter(
        name="tiny",
        kind=AdapterKind.FACEID,
        base="tiny",
        resampler=resampler,
        projections=projections,
        lora=lora,
        recogniser=BUFFALO_L,
        **options,
    )
