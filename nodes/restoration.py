"""DIIR nodes: repair the small faces of any picture, and the parts of it for people who build their own."""

import comfy.samplers
import latent_preview
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.faces.drawing import FaceStyle
from ..fpga_core.patching.restoration.face_conditioning import choose_control
from ..fpga_core.patching.restoration.face_run import IdentityIn
from ..fpga_core.patching.restoration.faces import native_size_px, restore_faces
from ..fpga_core.patching.restoration.samplers import invert_latent, restoration_sampler
from ..fpga_core.restoration.cache_plan import CacheMode
from ..fpga_core.restoration.face_crops import known_faces
from ..fpga_core.restoration.matching import MatchBy
from .restoration_widgets import (
    CATEGORY,
    crop_inputs,
    crop_settings,
    fusion_inputs,
    fusion_settings,
    inversion_inputs,
    restore_settings,
)
from .sockets import (
    CastSocket,
    FaceAnalysisSocket,
    FaceParserSocket,
    FacesSocket,
    IdentityAdapterSocket,
    InversionSocket,
    RepControlNetSocket,
)


class InvertLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_InvertLatent",
            display_name="Invert Latent",
            category=CATEGORY,
            description=(
                "Finds the noise from which a model generates a given picture (DDIM inversion), and records the run "
                "for Restoration Sampler. Works with SD1.5, SD2 and SDXL models."
            ),
            search_aliases=["ddim inversion", "unsampler", "noise inversion", "diir", "reverse sampling", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="The model that shall restore the picture."),
                io.Conditioning.Input(
                    "positive", tooltip="What the picture shows. The inversion runs without guidance."
                ),
                io.Latent.Input("latent", tooltip="The picture, encoded by the model's VAE."),
                io.Sigmas.Input("sigmas", tooltip="The whole schedule, the same as the sampler's; it must end at 0."),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="What is to be restored; needed here only where cache_mode is statistics.",
                ),
                *inversion_inputs(),
            ],
            outputs=[
                io.Latent.Output(display_name="latent", tooltip="The inverted noise; sample it without adding noise."),
                InversionSocket.Output(display_name="inversion", tooltip="The recorded run, for Restoration Sampler."),
                io.Float.Output(
                    display_name="residual",
                    tooltip="Largest relative error of any step; below 0.01 the way back is nearly exact.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, model, positive, latent, sigmas, repetitions, cache_mode, cache_budget_mib, mask=None
    ) -> io.NodeOutput:
        callback = latent_preview.prepare_callback(model, len(sigmas) - 1)
        inverted, inversion = invert_latent(
            model, positive, latent["samples"], sigmas, repetitions, CacheMode(cache_mode), cache_budget_mib, mask,
            callback=callback,
        )  # fmt: skip
        return io.NodeOutput({**latent, "samples": inverted}, inversion, inversion.residual)


class RestorationSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_RestorationSampler",
            display_name="Restoration Sampler",
            category=CATEGORY,
            description=(
                "A sampler that regenerates what is inside the mask and replays the inverted picture outside of it "
                "(Mask Guided Face Fusion). Wire it to SamplerCustom with the sigmas and the latent of Invert Latent."
            ),
            search_aliases=["diir", "mask guided face fusion", "mgff", "adain", "face restore", "fpga"],
            inputs=[
                InversionSocket.Input("inversion", tooltip="The recorded run, from Invert Latent."),
                io.Mask.Input("mask", tooltip="What is to be restored: one mask, or one per picture of the latent."),
                *fusion_inputs(),
            ],
            outputs=[
                io.Sampler.Output(
                    display_name="sampler",
                    tooltip="For SamplerCustom. It starts from the inverted noise, whatever noise is added.",
                )
            ],
        )

    @classmethod
    def execute(cls, inversion, mask, **widgets) -> io.NodeOutput:
        return io.NodeOutput(restoration_sampler(inversion, mask, fusion_settings(widgets)))


class RestoreFaces(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_RestoreFaces",
            display_name="Restore Faces",
            category=CATEGORY,
            description=(
                "Repairs the small, broken faces of any picture (DIIR): each is found, matched with the person it "
                "should be, restored with that identity, its own pose and colours, and put back. Nothing else changes "
                "by a single bit."
            ),
            search_aliases=[
                "diir",
                "face detailer",
                "face restore",
                "face fix",
                "face swap",
                "codeformer",
                "reactor",
                "fpga",
            ],
            inputs=[
                io.Image.Input("image", tooltip="The pictures, from any generator or camera, one or a batch."),
                io.Model.Input("model", tooltip="An SD1.5, SD2 or SDXL model without Apply Cast or RepControlNet."),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                io.Conditioning.Input(
                    "positive", tooltip="The picture's prompt. ControlNets, areas, masks and casts in it are left out."
                ),
                io.Conditioning.Input("negative", tooltip="What shall not be there; treated the same."),
                IdentityAdapterSocket.Input(
                    "adapter", optional=True, tooltip="From Load Identity Adapter; connect it together with a cast."
                ),
                CastSocket.Input(
                    "cast",
                    optional=True,
                    tooltip="Who is in the picture. Faces of nobody are left alone. Without: restored by the prompt.",
                ),
                FaceAnalysisSocket.Input(
                    "face_analysis", optional=True, tooltip="Finds the faces and measures FaceSim before and after."
                ),
                RepControlNetSocket.Input(
                    "repcontrolnet",
                    optional=True,
                    tooltip="Keeps pose and expression by the face's landmarks. Connect this, control_net, or neither.",
                ),
                io.ControlNet.Input(
                    "control_net", optional=True, tooltip="A ControlNet for face landmarks, instead of a RepControlNet."
                ),
                FaceParserSocket.Input(
                    "face_parser", optional=True, tooltip="Finds the exact shape of each face, from Load Face Parser."
                ),
                FacesSocket.Input(
                    "faces", optional=True, tooltip="Faces from Detect Faces, instead of looking for them again."
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Says what the face is, instead of its outline: one mask, one per picture, or one per face. "
                        "Without faces and face analysis, each mask is a face."
                    ),
                ),
                io.Int.Input(
                    "steps", default=30, min=1, max=1000, tooltip="Steps of the inversion and of the restoration."
                ),
                io.Float.Input(
                    "cfg", default=5.0, min=0.0, max=100.0, step=0.1, tooltip="Guidance scale of the restoration."
                ),
                io.Combo.Input(
                    "scheduler",
                    options=comfy.samplers.SCHEDULER_NAMES,
                    default="normal",
                    advanced=True,
                    tooltip="Noise levels of the steps.",
                ),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=0xFFFFFFFFFFFFFFFF,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Seed of the noise that retries add; the first try is the same for every seed.",
                ),
                io.Combo.Input(
                    "match_by",
                    options=MatchBy,
                    default=MatchBy.AUTO,
                    tooltip=(
                        "Whose face is whose. auto: by the places in the cast, then by likeness. order: face 1 to "
                        "person 1, and so on. first: every face to person 1 (face swap)."
                    ),
                ),
                io.Float.Input(
                    "identity_strength",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip="How strongly the identities act: 1 is as trained, 0 not at all.",
                ),
                io.Combo.Input(
                    "identity_in",
                    options=IdentityIn,
                    default=IdentityIn.UNET,
                    advanced=True,
                    tooltip="Where the identities act: in the model's cross attention, in the ControlNet's, or both.",
                ),
                io.Float.Input(
                    "control_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    tooltip="Strength of the RepControlNet or ControlNet.",
                ),
                io.Combo.Input(
                    "landmark_style",
                    options=FaceStyle,
                    default=FaceStyle.OPENPOSE,
                    tooltip="How landmarks are drawn for it; choose what it was trained on.",
                ),
                *crop_inputs(0, "Side of the crops in pixels, a multiple of 8; 0 is the model's native size."),
                io.Boolean.Input(
                    "match_colors",
                    default=False,
                    advanced=True,
                    tooltip="Gives each crop the colours of the original, as measured outside its mask.",
                ),
                *fusion_inputs(),
                *inversion_inputs(),
                io.Float.Input(
                    "retry_below",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip="Faces with a lower FaceSim are restored again, differently; the best is kept. 0 is never.",
                ),
                io.Int.Input(
                    "max_retries", default=3, min=0, max=10, tooltip="How often a weak face is restored again."
                ),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with restored faces."),
                io.Image.Output(display_name="before", tooltip="The crops as they were; black if none was restored."),
                io.Image.Output(display_name="after", tooltip="The crops restored, in the same order."),
                io.Mask.Output(display_name="mask", tooltip="What changed in each picture; 0 = not a single bit."),
                io.String.Output(
                    display_name="report",
                    tooltip="Each face: size, identity, FaceSim before and after, residual; and what else changed.",
                ),
            ],
        )

    @classmethod
    def execute(
        cls, image, model, vae, positive, negative, adapter=None, cast=None, face_analysis=None, repcontrolnet=None,
        control_net=None, face_parser=None, faces=None, mask=None, **widgets,
    ) -> io.NodeOutput:  # fmt: skip
        control = choose_control(repcontrolnet, control_net, vae, widgets["control_strength"])
        found = known_faces(image, faces, face_analysis, mask)
        crop, settings = crop_settings(widgets, native_size_px(model)), restore_settings(widgets)
        result = restore_faces(
            image, found, model, vae, positive, negative, crop, settings, cast, adapter, control, face_analysis, mask,
            face_parser, latent_preview.prepare_callback,
        )  # fmt: skip
        return io.NodeOutput(
            result.images, result.before, result.after, result.masks, result.report, ui=ui.PreviewText(result.report)
        )


NODES: list[type[io.ComfyNode]] = [RestoreFaces, InvertLatent, RestorationSampler]
