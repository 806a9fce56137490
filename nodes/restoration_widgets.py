"""Widgets that several restoration nodes share, and the settings they give."""

import comfy.samplers
from comfy_api.v0_0_2 import io

from ..fpga_core.faces.drawing import FaceStyle
from ..fpga_core.restoration.feature_cache import CacheMode
from ..fpga_core.restoration.fusion import FusionSettings, StyleSource
from ..fpga_core.restoration.matching import MatchBy
from ..fpga_core.restoration.settings import (
    CropSettings,
    IdentityIn,
    InversionSettings,
    InvertWith,
    Preset,
    RestoreSettings,
)

CATEGORY = "FPGA Portrait/restoration"

UPRIGHT = {"auto": None, "on": True, "off": False}
"""The choices of `upright`."""

LAST_LAYER = 999
"""The widget value that stands for the last layer of any model."""


def fraction(name: str, default: float, tooltip: str) -> io.Input:
    return io.Float.Input(name, default=default, min=0.0, max=1.0, step=0.01, tooltip=tooltip, advanced=True)


def inversion_inputs() -> list[io.Input]:
    """Returns the widgets for how the inversion runs and what it keeps."""
    return [
        io.Int.Input(
            "repetitions",
            default=1,
            min=0,
            max=16,
            advanced=True,
            tooltip=(
                "How often each inversion step is repeated. Each repetition makes the inversion more exact and costs "
                "one model call without guidance."
            ),
        ),
        io.Combo.Input(
            "cache_mode",
            options=CacheMode,
            default=CacheMode.AUTO,
            advanced=True,
            tooltip=(
                "What the cache keeps of self-attention. full: complete maps, which replay the background; about 660 "
                "MiB per face at 512 pixels and 30 steps with SD1.5, and tens of GiB with transformers. statistics: "
                "means and deviations only; about 8 MiB. auto: full if a face fits the budget, otherwise statistics."
            ),
        ),
        io.Int.Input(
            "cache_budget_mib",
            default=2048,
            min=1,
            max=1048576,
            advanced=True,
            tooltip=(
                "The most memory that the cache can use, in MiB. Restore Faces splits the faces into batches that fit."
            ),
        ),
    ]


def inversion_settings(widgets: dict) -> InversionSettings:
    """Returns the settings of the widgets of `inversion_inputs`."""
    return InversionSettings(
        invert_with=InvertWith(widgets.get("invert_with", InvertWith.PROMPT)),
        repetitions=widgets["repetitions"],
        mode=CacheMode(widgets["cache_mode"]),
        budget_mib=widgets["cache_budget_mib"],
    )


def upright_choice(upright: str | bool) -> str:
    """Returns the choice for a value of `upright`, which is a switch in older graphs."""
    if isinstance(upright, bool):
        return "on" if upright else "off"
    return upright


def upright_is_known(upright: str | bool) -> bool | str:
    """Returns True if a value of `upright` is valid, also in an older graph, and otherwise a message."""
    return upright_choice(upright) in UPRIGHT or f"upright is {upright!r}; choose auto, on or off"


def preset_inputs() -> list[io.Input]:
    """Returns newer inputs of Restore Faces. They are optional and come last, so that older graphs run."""
    return [
        io.Clip.Input(
            "clip",
            optional=True,
            tooltip=(
                "The model's CLIP. If it is connected, each person's description is said in their own crops. Each "
                "description makes the steps slower."
            ),
        ),
        io.Combo.Input(
            "preset",
            options=Preset,
            default=Preset.RECOMMENDED,
            optional=True,
            tooltip=(
                "recommended: uses the widgets as they are set; their defaults are the recommended settings. as in "
                "the paper: overrides some widgets with the paper's settings: the style of the broken face in all "
                "steps, landmarks in the inversion, and the identity only inside the mask. The report lists them."
            ),
        ),
        io.Combo.Input(
            "invert_with",
            options=InvertWith,
            default=InvertWith.PROMPT,
            optional=True,
            advanced=True,
            tooltip=(
                "What guides the model while it looks for the noise of a crop. prompt: only the prompt, which is best "
                "for broken faces, because landmarks and an identity that the crop does not show distort its noise. "
                "prompt_and_landmarks: as in the paper. everything: also the identity. nothing: not even the prompt."
            ),
        ),
        io.Float.Input(
            "identity_region",
            default=CropSettings.identity_region,
            min=0.0,
            max=5.0,
            step=0.05,
            optional=True,
            advanced=True,
            tooltip=(
                "Where the identity acts: the face, enlarged by this factor about its centre. Adapters are trained on "
                "heads, which are about 1.45 times as large. 0: only inside the mask."
            ),
        ),
    ]


def sampling_inputs() -> list[io.Input]:
    """Returns the widgets for the steps of the inversion and of the restoration."""
    return [
        io.Int.Input(
            "steps",
            default=30,
            min=1,
            max=1000,
            tooltip=(
                "The number of steps of the inversion, and of the restoration. Models for few steps, such as turbo "
                "models, need only theirs."
            ),
        ),
        io.Float.Input(
            "cfg",
            default=5.0,
            min=0.0,
            max=100.0,
            step=0.1,
            advanced=True,
            tooltip=(
                "The guidance scale of the restoration. The inversion runs without guidance. Set 1 for FLUX.1 and for "
                "models for few steps."
            ),
        ),
        io.Combo.Input(
            "scheduler",
            options=comfy.samplers.SCHEDULER_NAMES,
            default="normal",
            advanced=True,
            tooltip="How the noise levels are spread over the steps.",
        ),
        io.Int.Input(
            "seed",
            default=0,
            min=0,
            max=0xFFFFFFFFFFFFFFFF,
            control_after_generate=io.ControlAfterGenerate.fixed,
            tooltip="The seed of the noise that retries add. The first try is the same for every seed.",
        ),
    ]


def fusion_inputs(default: FusionSettings) -> list[io.Input]:
    """Returns the widgets for what is fused, when, and how strongly."""
    return [
        io.Combo.Input(
            "style_source",
            options=StyleSource,
            default=default.style_source,
            advanced=True,
            tooltip=(
                "Where the restored face takes its colours from (AdaIN). face: from the broken face. off: from the "
                "prompt and the identity, for a face swap. surroundings: from the area around the face, as the "
                "paper's algorithm literally says."
            ),
        ),
        fraction(
            "style_strength", 1.0, "How far the face takes on these colours, from 0 (not at all) to 1 (entirely)."
        ),
        fraction(
            "attention_strength",
            1.0,
            (
                "How strongly the fusion acts on self-attention: the style inside the mask, the recorded picture "
                "outside it. 0 turns it off."
            ),
        ),
        fraction("latent_strength", 1.0, "How strongly the fusion acts on the latent after each step. 0 turns it off."),
        fraction(
            "start_percent",
            0.0,
            "The point in the restoration at which the fusion starts. 0 is the first, noisiest step.",
        ),
        fraction(
            "end_percent",
            default.end_percent,
            (
                "The point in the restoration at which the fusion ends. 1 is the last step. Early steps decide light "
                "and shape, late steps decide details."
            ),
        ),
        io.Int.Input(
            "first_layer",
            default=0,
            min=0,
            max=LAST_LAYER,
            advanced=True,
            tooltip="The first self-attention layer to fuse, counted from 0 in the order in which they run.",
        ),
        io.Int.Input(
            "last_layer",
            default=LAST_LAYER,
            min=0,
            max=LAST_LAYER,
            advanced=True,
            tooltip=f"The last self-attention layer to fuse. SD1.5 has layers 0 to 15; {LAST_LAYER} means the last.",
        ),
    ]


def fusion_settings(widgets: dict) -> FusionSettings:
    """Returns the settings of the widgets of `fusion_inputs`."""
    return FusionSettings(
        style_source=StyleSource(widgets["style_source"]),
        style_strength=widgets["style_strength"],
        attention_strength=widgets["attention_strength"],
        latent_strength=widgets["latent_strength"],
        start_percent=widgets["start_percent"],
        end_percent=widgets["end_percent"],
        first_layer=widgets["first_layer"],
        last_layer=widgets["last_layer"],
    )


def crop_inputs(size_px: int, size_tooltip: str) -> list[io.Input]:
    """The widgets that say which faces are taken, and how they are cropped and masked."""
    return [
        io.Int.Input("crop_size_px", default=size_px, min=0, max=2048, step=8, advanced=True, tooltip=size_tooltip),
        io.Float.Input(
            "size_limit_px",
            default=100.0,
            min=0.0,
            max=8192.0,
            step=1.0,
            tooltip="Only faces whose longer side is shorter than this are processed. 0 processes every face.",
        ),
        io.Float.Input(
            "margin",
            default=0.38,
            min=0.0,
            max=3.0,
            step=0.01,
            advanced=True,
            tooltip=(
                "How much of the surroundings each crop shows on every side, as a fraction of the face's longer side."
            ),
        ),
        io.Combo.Input(
            "upright",
            options=list(UPRIGHT),
            default="auto",
            advanced=True,
            tooltip=(
                "Turns tilted faces upright in their crops, and back again when they are pasted. auto: faces that are "
                "tilted by more than 25 degrees, upside-down ones included. on: every face. off: none. Needs landmarks."
            ),
        ),
        io.Float.Input(
            "mask_grow",
            default=0.04,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip=(
                "How far the mask extends beyond the face, as a fraction of the face's longer side. Raise it if "
                "remains of the old face show."
            ),
        ),
        io.Float.Input(
            "mask_feather",
            default=0.08,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip=(
                "Width of the soft edge around the grown mask, as a fraction of the face's longer side. Raise it if "
                "the edge of the mask shows."
            ),
        ),
    ]


def crop_settings(widgets: dict, native_size_px: int = 0) -> CropSettings:
    """The settings that the widgets of `crop_inputs` give. A size of 0 stands for the native size."""
    return CropSettings(
        size_px=widgets["crop_size_px"] or native_size_px,
        size_limit_px=widgets["size_limit_px"],
        margin=widgets["margin"],
        is_upright=UPRIGHT[upright_choice(widgets["upright"])],
        mask_grow=widgets["mask_grow"],
        mask_feather=widgets["mask_feather"],
        identity_region=widgets.get("identity_region", CropSettings.identity_region),
    )


def restore_settings(widgets: dict, native_size_px: int) -> RestoreSettings:
    """The settings that the widgets of Restore Faces give."""
    return RestoreSettings(
        preset=Preset(widgets.get("preset", Preset.RECOMMENDED)),
        steps=widgets["steps"],
        cfg=widgets["cfg"],
        scheduler=widgets["scheduler"],
        seed=widgets["seed"],
        crop=crop_settings(widgets, native_size_px),
        inversion=inversion_settings(widgets),
        fusion=fusion_settings(widgets),
        identity_strength=widgets["identity_strength"],
        identity_in=IdentityIn(widgets["identity_in"]),
        match_by=MatchBy(widgets["match_by"]),
        hint_style=FaceStyle(widgets["landmark_style"]),
        are_colors_matched=widgets["match_colors"],
        retry_below=widgets["retry_below"],
        max_retries=widgets["max_retries"],
    )
