"""The settings of a restoration, as they come from the nodes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from ..errors import InvalidInputError
from ..faces.drawing import FaceStyle
from ..faces.face import Face
from ..shapes import Extent
from .feature_cache import CacheMode
from .fusion import FusionSettings, StyleSource
from .matching import MatchBy


@dataclass(frozen=True, kw_only=True)
class CropSettings:
    """How faces are cropped and masked.

    Attributes:
        size_px: side of the crops, usually the model's native size.
        size_limit_px: only faces whose longer side is shorter are taken; 0 takes every face.
        margin: extension of the face's box on every side, as a fraction of its longer side.
        is_upright: turn every face upright by its eyes, or none; None = those that are tilted too far for a model.
        mask_grow: dilation of the masks, as a fraction of the face's longer side.
        mask_feather: width of their soft edge beyond that, as a fraction of the same.
        identity_region: where the identity acts: the face, scaled by this factor; 0 = where the face is fused.
    """

    size_px: int = 512
    size_limit_px: float = 100.0
    margin: float = 0.38
    is_upright: bool | None = None
    mask_grow: float = 0.04
    mask_feather: float = 0.08
    identity_region: float = 1.45

    def __post_init__(self) -> None:
        if self.size_px < 64 or self.size_px % 8:
            raise InvalidInputError(f"the crop size is {self.size_px} px; it must be a multiple of 8, at least 64")

    def takes(self, face: Face, picture: Extent) -> bool:
        """Returns whether a face is small enough, and inside its picture."""
        is_small = self.size_limit_px == 0 or face.size_px < self.size_limit_px
        return is_small and face.box.clipped(picture).area > 0


class InvertWith(str, Enum):
    """What the model is told of a crop while it is inverted.

    What it is told and the crop does not show, the inverted noise must take back: given sharp landmarks of a blurred
    face, it says "no eyes here" afterwards, and the restoration obeys.
    """

    NOTHING = "nothing"
    """No words: the prompt's embedding is zero."""

    PROMPT = "prompt"
    """The prompt alone."""

    PROMPT_AND_LANDMARKS = "prompt_and_landmarks"
    """Also the drawing of the landmarks, as line 2 of Alg. 1 has it."""

    EVERYTHING = "everything"
    """Also the identity."""


@dataclass(frozen=True, kw_only=True)
class InversionSettings:
    """How a picture is inverted, and what is kept of the run.

    Attributes:
        invert_with: what the model is told of it.
        repetitions: fixed-point repetitions: model calls per step after the first.
        mode: whether whole maps are kept, or statistics, or what fits.
        budget_mib: the most memory that the cache can use.
        is_half: whether to keep maps in half precision.
    """

    invert_with: InvertWith = InvertWith.PROMPT
    repetitions: int = 1
    mode: CacheMode = CacheMode.AUTO
    budget_mib: int = 2048
    is_half: bool = True


class Preset(str, Enum):
    """Settings that belong together."""

    RECOMMENDED = "recommended"
    """Every setting as it is set; the defaults are the recommendation."""

    AS_IN_THE_PAPER = "as in the paper"
    """What `as_in_the_paper` names is as there, whatever is set."""


class IdentityIn(str, Enum):
    """Where an identity acts."""

    UNET = "unet"
    CONTROLNET = "controlnet"
    BOTH = "both"


RECOMMENDED_FUSION = FusionSettings(end_percent=0.6)
"""The style of the broken face, in the noisier steps. They decide what should stay: light, colours, surroundings. The
last ones draw details, which a face of few pixels has lost: its moments there are those of a blur, and would blur."""


@dataclass(frozen=True, kw_only=True)
class RestoreSettings:
    """How faces are restored.

    Attributes:
        preset: whether all settings count, or the paper's replace some.
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

    preset: Preset = Preset.RECOMMENDED
    steps: int = 30
    cfg: float = 5.0
    scheduler: str = "normal"
    seed: int = 0
    crop: CropSettings = CropSettings()
    inversion: InversionSettings = InversionSettings()
    fusion: FusionSettings = RECOMMENDED_FUSION
    identity_strength: float = 1.0
    identity_in: IdentityIn = IdentityIn.UNET
    match_by: MatchBy = MatchBy.AUTO
    hint_style: FaceStyle = FaceStyle.OPENPOSE
    are_colors_matched: bool = False
    retry_below: float = 0.0
    max_retries: int = 3

    @property
    def effective(self) -> RestoreSettings:
        """The settings that count, by the preset."""
        return self if self.preset is Preset.RECOMMENDED else as_in_the_paper(self)


PAPER_REMARK = (
    "as in the paper: style_source face, style_strength 1, start_percent 0, end_percent 1, identity_region 0 and "
    "invert_with prompt_and_landmarks, whatever is set"
)


def as_in_the_paper(settings: RestoreSettings) -> RestoreSettings:
    """Settings with what section 3.2 of the paper says.

    The inversion sees the landmarks, the identity acts inside the mask, and every step gives the face the style of the
    broken one.
    """
    fusion = replace(
        settings.fusion, style_source=StyleSource.FACE, style_strength=1.0, start_percent=0.0, end_percent=1.0
    )
    return replace(
        settings,
        preset=Preset.RECOMMENDED,
        crop=replace(settings.crop, identity_region=0.0),
        inversion=replace(settings.inversion, invert_with=InvertWith.PROMPT_AND_LANDMARKS),
        fusion=fusion,
    )
