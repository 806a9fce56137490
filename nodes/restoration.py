"""DIIR nodes: one that repairs the small faces of any picture, and its parts for custom graphs."""

import latent_preview
from comfy_api.v0_0_2 import io, ui

from ..fpga_core.faces.drawing import FaceStyle
from ..fpga_core.identity.cast import as_cast
from ..fpga_core.patching.restoration.checks import family_of
from ..fpga_core.patching.restoration.controls import choose_control
from ..fpga_core.patching.restoration.faces import restore_faces
from ..fpga_core.patching.restoration.restorer import FaceRestorer
from ..fpga_core.patching.restoration.sampling import invert_latent, restoration_sampler
from ..fpga_core.restoration.face_crops import known_faces
from ..fpga_core.restoration.fusion import FusionSettings
from ..fpga_core.restoration.matching import MatchBy
from ..fpga_core.restoration.settings import RECOMMENDED_FUSION, IdentityIn
from .restoration_widgets import (
    CATEGORY,
    crop_inputs,
    fusion_inputs,
    fusion_settings,
    inversion_inputs,
    inversion_settings,
    preset_inputs,
    restore_settings,
    sampling_inputs,
    upright_is_known,
)
from .sockets import (
    FaceAnalysisSocket,
    FaceParserSocket,
    FacesSocket,
    IdentityAdapterSocket,
    InversionSocket,
    RepControlNetSocket,
    people_input,
)


class InvertLatent(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_InvertLatent",
            display_name="Invert Latent",
            category=CATEGORY,
            description=(
                "Finds the noise from which the model would generate a given picture (DDIM inversion), and records the "
                "run for Restoration Sampler. Works with SD1.5, SD2, SDXL, SD3.5, FLUX, Chroma, Qwen-Image, Z-Image, "
                "Lumina 2 and Krea 2."
            ),
            search_aliases=["ddim inversion", "unsampler", "noise inversion", "diir", "reverse sampling", "fpga"],
            inputs=[
                io.Model.Input("model", tooltip="The model that will restore the picture."),
                io.Conditioning.Input(
                    "positive", tooltip="A prompt that describes the picture. The inversion runs without guidance."
                ),
                io.Latent.Input("latent", tooltip="The picture, encoded with the model's VAE."),
                io.Sigmas.Input(
                    "sigmas",
                    tooltip="The full noise schedule, which must end at 0. Connect the same sigmas to the sampler.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip="The area to restore. Needed here only if cache_mode is statistics.",
                ),
                *inversion_inputs(),
            ],
            outputs=[
                io.Latent.Output(
                    display_name="latent",
                    tooltip=(
                        "The inverted noise. Sample it without adding noise; on models other than SD1.5, SD2 and SDXL, "
                        "only with Restoration Sampler."
                    ),
                ),
                InversionSocket.Output(display_name="inversion", tooltip="The recorded run, for Restoration Sampler."),
                io.Float.Output(
                    display_name="residual",
                    tooltip=(
                        "The largest relative error of any step. Below 0.01, sampling returns almost exactly to the "
                        "picture."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, model, positive, latent, sigmas, mask=None, **widgets) -> io.NodeOutput:
        settings, callback = inversion_settings(widgets), latent_preview.prepare_callback(model, len(sigmas) - 1)
        inverted, inversion = invert_latent(
            model, positive, latent["samples"], sigmas=sigmas, settings=settings, mask=mask, callback=callback
        )
        return io.NodeOutput({**latent, "samples": inverted}, inversion, inversion.residual)


class RestorationSampler(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="FPGA_RestorationSampler",
            display_name="Restoration Sampler",
            category=CATEGORY,
            description=(
                "A sampler that regenerates the area inside the mask and replays the inverted picture outside it (Mask "
                "Guided Face Fusion). Connect it to SamplerCustom, with the latent from Invert Latent and the same "
                "sigmas."
            ),
            search_aliases=["diir", "mask guided face fusion", "mgff", "adain", "face restore", "fpga"],
            inputs=[
                InversionSocket.Input("inversion", tooltip="The recorded run, from Invert Latent."),
                io.Mask.Input(
                    "mask", tooltip="The area to restore: one mask for all, or one per picture in the latent."
                ),
                *fusion_inputs(FusionSettings()),
            ],
            outputs=[
                io.Sampler.Output(
                    display_name="sampler",
                    tooltip=(
                        "The sampler, for SamplerCustom. It starts from the inverted noise, whatever noise is added."
                    ),
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
                "Repairs small, broken faces in any picture (DIIR). Each face is found, matched with a person of the "
                "cast, restored with that identity in its own pose and colours, and pasted back. The rest of the "
                "picture stays bit-identical."
            ),
            search_aliases=[
                "diir",
                "face detailer",
                "repair face",
                "upscale face",
                "fix faces",
                "portrait",
                "face restore",
                "face fix",
                "face swap",
                "codeformer",
                "reactor",
                "fpga",
            ],
            inputs=[
                io.Image.Input(
                    "image", tooltip="The pictures to repair, one or a batch, from any generator or camera."
                ),
                io.Model.Input(
                    "model",
                    tooltip=(
                        "The model that restores the faces: SD1.5, SD2, SDXL, SD3.5, FLUX, Chroma, Qwen-Image, "
                        "Z-Image, Lumina 2 or Krea 2. It must not carry Apply Cast or Apply RepControlNet."
                    ),
                ),
                io.Vae.Input("vae", tooltip="The model's VAE."),
                io.Conditioning.Input(
                    "positive",
                    tooltip="The prompt of the picture. ControlNets, areas, masks and casts in it are ignored.",
                ),
                io.Conditioning.Input(
                    "negative",
                    tooltip=(
                        "The negative prompt of the picture. ControlNets, areas, masks and casts in it are ignored."
                    ),
                ),
                IdentityAdapterSocket.Input(
                    "adapter",
                    optional=True,
                    tooltip=(
                        "The identity adapter, from Load Identity Adapter, for people whose photos were encoded. "
                        "Connect it together with a cast. SD1.5 and SDXL only: on other models, describe people with "
                        "Describe Person."
                    ),
                ),
                people_input(
                    "The people in the picture, from Make Cast, or one identity. Each is known by what the model "
                    "understands: the adapter, a LoRA, reference pictures or words. Faces that match nobody are left "
                    "alone. If nothing is connected, faces are restored from the prompt.",
                    optional=True,
                ),
                FaceAnalysisSocket.Input(
                    "face_analysis",
                    optional=True,
                    tooltip="Finds the faces, and measures FaceSim before and after restoration.",
                ),
                RepControlNetSocket.Input(
                    "repcontrolnet",
                    optional=True,
                    tooltip=(
                        "Keeps pose and expression by following the face's landmarks. Connect this, control_net, or "
                        "neither."
                    ),
                ),
                io.MultiType.Input(
                    "control_net",
                    types=[io.ControlNet, io.ModelPatch],
                    optional=True,
                    tooltip=(
                        "A ControlNet for face landmarks, in place of a RepControlNet. For Z-Image and Qwen-Image, "
                        "also a model patch from Load Model Patch."
                    ),
                ),
                FaceParserSocket.Input(
                    "face_parser", optional=True, tooltip="Finds the exact shape of each face. From Load Face Parser."
                ),
                FacesSocket.Input(
                    "faces",
                    optional=True,
                    tooltip="Faces from Detect Faces. Connect them to avoid detecting the faces again.",
                ),
                io.Mask.Input(
                    "mask",
                    optional=True,
                    tooltip=(
                        "Defines the area of a face, in place of the face's outline: one mask for all, one per "
                        "picture, or one per face. If neither faces nor face_analysis is connected, each mask counts "
                        "as a face."
                    ),
                ),
                *sampling_inputs(),
                io.Combo.Input(
                    "match_by",
                    options=MatchBy,
                    default=MatchBy.AUTO,
                    tooltip=(
                        "How faces are matched with people. auto: by the places in the cast, then by likeness. order: "
                        "face 1 is person 1, and so on. first: every face becomes person 1; use it for a face swap."
                    ),
                ),
                io.Float.Input(
                    "identity_strength",
                    default=1.0,
                    min=0.0,
                    max=5.0,
                    step=0.01,
                    tooltip=(
                        "How strongly the identities act. 1 is as trained; 0 turns them off. Raise it if faces do not "
                        "look enough like the person."
                    ),
                ),
                io.Combo.Input(
                    "identity_in",
                    options=IdentityIn,
                    default=IdentityIn.UNET,
                    advanced=True,
                    tooltip=(
                        "Where the identities act: in the model's cross attention (unet), in the ControlNet's "
                        "(controlnet), or in both."
                    ),
                ),
                io.Float.Input(
                    "control_strength",
                    default=1.0,
                    min=0.0,
                    max=10.0,
                    step=0.01,
                    advanced=True,
                    tooltip="Strength of the RepControlNet or ControlNet.",
                ),
                io.Combo.Input(
                    "landmark_style",
                    options=FaceStyle,
                    default=FaceStyle.OPENPOSE,
                    advanced=True,
                    tooltip=(
                        "How landmarks are drawn for the RepControlNet or ControlNet. Choose the style that it was "
                        "trained on."
                    ),
                ),
                *crop_inputs(
                    0,
                    "Side of the square crops in pixels, a multiple of 8, for FLUX.2 of 16. 0 uses the model's native "
                    "size.",
                ),
                io.Boolean.Input(
                    "match_colors",
                    default=False,
                    advanced=True,
                    tooltip=(
                        "Matches each crop to the colours of the original, measured outside the mask. Turn it on if "
                        "restored faces have a tint."
                    ),
                ),
                *fusion_inputs(RECOMMENDED_FUSION),
                *inversion_inputs(),
                io.Float.Input(
                    "retry_below",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.01,
                    tooltip=(
                        "Faces with a lower FaceSim are restored again with other settings, and the best try is kept. "
                        "0 turns retries off."
                    ),
                ),
                io.Int.Input(
                    "max_retries",
                    default=3,
                    min=0,
                    max=10,
                    advanced=True,
                    tooltip="The most retries for each weak face.",
                ),
                io.Conditioning.Input(
                    "face_prompt",
                    optional=True,
                    tooltip=(
                        "A prompt that describes a close-up of the face, such as 'close-up photo of a young woman'. It "
                        "replaces positive in the crops. Connect it if positive describes a whole scene."
                    ),
                ),
                *preset_inputs(),
            ],
            outputs=[
                io.Image.Output(display_name="image", tooltip="The pictures with the restored faces."),
                io.Image.Output(
                    display_name="before",
                    tooltip="The crops before restoration, or one black crop if no face was restored.",
                ),
                io.Image.Output(display_name="after", tooltip="The crops after restoration, in the same order."),
                io.Mask.Output(
                    display_name="mask",
                    tooltip=(
                        "The area that changed in each picture. Where it is 0, the picture is bit-identical to the "
                        "input."
                    ),
                ),
                io.String.Output(
                    display_name="report",
                    tooltip=(
                        "For each face: size, person, FaceSim before and after, and residual of the inversion. Also "
                        "the largest change outside the masks."
                    ),
                ),
            ],
        )

    @classmethod
    def execute(cls, image, face_analysis=None, faces=None, mask=None, face_parser=None, **inputs) -> io.NodeOutput:
        restorer = face_restorer(face_analysis=face_analysis, **inputs)
        found = known_faces(image, faces=faces, face_analysis=face_analysis, masks=mask)
        result = restore_faces(image, found, restorer, masks=mask, parser=face_parser)
        return io.NodeOutput(*result, ui=ui.PreviewText(result.report))

    @classmethod
    def validate_inputs(cls, upright=None) -> bool | str:
        return upright is None or upright_is_known(upright)


def face_restorer(
    *,
    model,
    vae,
    positive,
    negative,
    adapter=None,
    cast=None,
    face_analysis=None,
    repcontrolnet=None,
    control_net=None,
    face_prompt=None,
    clip=None,
    **widgets,
) -> FaceRestorer:
    """What the sockets and widgets of Restore Faces say."""
    return FaceRestorer(
        model=model,
        vae=vae,
        positive=positive,
        negative=negative,
        settings=restore_settings(widgets, family_of(model).native_size_px(model)),
        cast=None if cast is None else as_cast(cast),
        adapter=adapter,
        clip=clip,
        face_analysis=face_analysis,
        control=choose_control(repcontrolnet, control_net, vae=vae, strength=widgets["control_strength"]),
        face_prompt=face_prompt,
        make_callback=latent_preview.prepare_callback,
    )


NODES: list[type[io.ComfyNode]] = [RestoreFaces, InvertLatent, RestorationSampler]
