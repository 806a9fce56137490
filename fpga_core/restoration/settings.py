"""The settings of a restoration, as they come from the nodes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from ..errors import InvalidInputError
from ..faces.drawing import FaceStyle
from ..faces.face import Face
from ..shapes import Extent
from .cache_plan import CacheMode
from .fusion import FusionSettings
from .matching import MatchBy


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How faces are cropped and masked.

    Attributes:
        size_px: side of the crops, usually the model's native size.
        size_limit_px: only faces whose longer side is shorter are taken; 0 takes every face.
        margin: extension of the face's box on every side, as a fraction of its longer side.
        is_upright: whether to turn tilted faces upright.
        mask_grow: dilation of the masks, as a fraction of the face's longer side.
        mask_feather: width of their soft edge beyond that, as a fraction of the same.
    """

    size_px: int = 512
    size_limit_px: float = 100.0
    margin: float = 0.5
    is_upright: bool = False
    mask_grow: float = 0.04
    mask_feather: float = 0.08

    def __post_init__(self) -> None:
        if self.size_px < 64 or self.size_px % 8:
            raise InvalidInputError(f"the crop size is {self.size_px} px; it must be a multiple of 8, at least 64")

    def takes(self, face: Face, picture: Extent) -> bool:
        """Returns whether a face is small enough, and inside its picture."""
        is_small = self.size_limit_px == 0 or face.size_px < self.size_limit_px
        return is_small and face.box.clipped(picture).area > 0


@dataclass(frozen=True, kw_only=True)
class InversionSettings:
    """How a picture is inverted, and what is kept of the run.

    Attributes:
        repetitions: fixed-point repetitions: model calls per step after the first.
        mode: whether complete maps or statistics are kept.
        budget_mib: the most memory that the cache can use.
        is_half: whether to keep maps in half precision.
    """

    repetitions: int = 1
    mode: CacheMode = CacheMode.FULL
    budget_mib: int = 2048
    is_half: bool = True


class IdentityIn(str, Enum):
    """Where an identity acts."""

    UNET = "unet"
    CONTROLNET = "controlnet"
    BOTH = "both"


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How faces are restored.

    Attributes:
        steps, cfg, scheduler: sampling settings of the restoration; the inversion runs the same steps without guidance.
        seed: seed of the noise that retries add.
        crop: which faces are taken, and how they are cropped and masked.
        inversion: how the faces are inverted.
        fusion: style source, strengths, ranges.
        identity_strength: 1 is the strength that the adapter was trained with.
        identity_in: the model, the ControlNet, or both.
        match_by: how faces are matched with identities.
        hint_style: how to draw landmarks for the control.
        are_colors_matched: whether to match crops to the colours of the original before pasting.
        retry_below: faces with a lower FaceSim are restored again; 0 turns retries off.
        max_retries: the most retries for each face.
    """

    steps: int = 30
    cfg: float = 5.0
    scheduler: str = "normal"
    seed: int = 0
    crop: CropSettings = CropSettings()
    inversion: InversionSettings = InversionSettings()
    fusion: FusionSettings = FusionSettings()
    identity_strength: float = 1.0
    identity_in: IdentityIn = IdentityIn.UNET
    match_by: MatchBy = MatchBy.AUTO
    hint_style: FaceStyle = FaceStyle.OPENPOSE
    are_colors_matched: bool = False
    retry_below: float = 0.0
    max_retries: int = 3
