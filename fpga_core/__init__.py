"""The core of the pack and its public parts by name: tensors in, tensors out, no ComfyUI.

Each part is imported when it is asked for. Importing the package alone needs neither torch nor any other package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .checkpoints import read_safetensors as read_safetensors
    from .checkpoints import write_safetensors as write_safetensors
    from .errors import FPGAError as FPGAError
    from .evaluation.bleed import bleed as bleed
    from .evaluation.copy_paste import copy_paste as copy_paste
    from .evaluation.facesim import CastScore as CastScore
    from .evaluation.facesim import score_cast as score_cast
    from .evaluation.frechet import frechet_distance as frechet_distance
    from .evaluation.keeping import keep_alike as keep_alike
    from .evaluation.scores import PictureScores as PictureScores
    from .evaluation.scores import face_scores as face_scores
    from .evaluation.similarity import prompt_similarities as prompt_similarities
    from .evaluation.similarity import reference_similarities as reference_similarities
    from .faces.drawing import draw_conditions as draw_conditions
    from .faces.face import Body as Body
    from .faces.face import Face as Face
    from .faces.face import FaceAnalyzer as FaceAnalyzer
    from .faces.face import PictureFaces as PictureFaces
    from .faces.insightface_pack import load_insightface_pack as load_insightface_pack
    from .faces.likeness import Portrait as Portrait
    from .faces.likeness import cosine_similarities as cosine_similarities
    from .faces.parsing import load_face_parser as load_face_parser
    from .geometry import Box as Box
    from .identity.adapter_layouts import read_identity_adapter as read_identity_adapter
    from .identity.adapters import IdentityAdapter as IdentityAdapter
    from .identity.encoding import encode_photos as encode_photos
    from .identity.identity import Identity as Identity
    from .identity.identity_file import load_identity as load_identity
    from .identity.identity_file import save_identity as save_identity
    from .identity.masked_attention import ActingQueries as ActingQueries
    from .identity.masked_attention import add_identities as add_identities
    from .identity.masked_attention import identity_attention as identity_attention
    from .identity.regions import Region as Region
    from .identity.regions import share_overlap as share_overlap
    from .identity.resampler import FacePlusProjection as FacePlusProjection
    from .identity.resampler import FaceProjection as FaceProjection
    from .identity.resampler import FeatureResampler as FeatureResampler
    from .repcontrolnet.branch import RepControlNet as RepControlNet
    from .repcontrolnet.branch import initial_branch as initial_branch
    from .repcontrolnet.export import write_repcontrolnet as write_repcontrolnet
    from .repcontrolnet.folding import fold_weight as fold_weight
    from .repcontrolnet.folding import foldable_parameters as foldable_parameters
    from .repcontrolnet.hint_encoder import HintEncoder as HintEncoder
    from .repcontrolnet.hint_encoder import build_hint_encoder as build_hint_encoder
    from .repcontrolnet.layouts import read_repcontrolnet as read_repcontrolnet
    from .restoration.adain import Moments as Moments
    from .restoration.adain import adain as adain
    from .restoration.adain import masked_moments as masked_moments
    from .restoration.attention import AttentionFusion as AttentionFusion
    from .restoration.attention import AttentionRecorder as AttentionRecorder
    from .restoration.attention import MaskOnGrids as MaskOnGrids
    from .restoration.attention import StepCounter as StepCounter
    from .restoration.crops import CropSquare as CropSquare
    from .restoration.crops import face_square as face_square
    from .restoration.crops import lay_crop as lay_crop
    from .restoration.crops import take_crop as take_crop
    from .restoration.face_crops import FaceCrop as FaceCrop
    from .restoration.face_crops import crop_faces as crop_faces
    from .restoration.feature_cache import AttentionLayer as AttentionLayer
    from .restoration.feature_cache import CacheMode as CacheMode
    from .restoration.feature_cache import CachePlan as CachePlan
    from .restoration.feature_cache import FeatureCache as FeatureCache
    from .restoration.fusion import FusionSettings as FusionSettings
    from .restoration.fusion import GridMask as GridMask
    from .restoration.fusion import StyleSource as StyleSource
    from .restoration.fusion import fuse as fuse
    from .restoration.fusion import fuse_latent as fuse_latent
    from .restoration.paste import paste_crops as paste_crops
    from .restoration.paste import paste_faces as paste_faces
    from .restoration.sampling import InversionStep as InversionStep
    from .restoration.sampling import RestorationStep as RestorationStep
    from .restoration.sampling import invert as invert
    from .restoration.sampling import restore as restore
    from .restoration.settings import CropSettings as CropSettings
    from .shapes import Extent as Extent
else:
    PARTS = {
        "checkpoints": ("read_safetensors", "write_safetensors"),
        "errors": ("FPGAError",),
        "evaluation.bleed": ("bleed",),
        "evaluation.copy_paste": ("copy_paste",),
        "evaluation.facesim": ("CastScore", "score_cast"),
        "evaluation.frechet": ("frechet_distance",),
        "evaluation.keeping": ("keep_alike",),
        "evaluation.scores": ("PictureScores", "face_scores"),
        "evaluation.similarity": ("prompt_similarities", "reference_similarities"),
        "faces.drawing": ("draw_conditions",),
        "faces.face": ("Body", "Face", "FaceAnalyzer", "PictureFaces"),
        "faces.insightface_pack": ("load_insightface_pack",),
        "faces.likeness": ("Portrait", "cosine_similarities"),
        "faces.parsing": ("load_face_parser",),
        "geometry": ("Box",),
        "identity.adapter_layouts": ("read_identity_adapter",),
        "identity.adapters": ("IdentityAdapter",),
        "identity.encoding": ("encode_photos",),
        "identity.identity": ("Identity",),
        "identity.identity_file": ("load_identity", "save_identity"),
        "identity.masked_attention": ("ActingQueries", "add_identities", "identity_attention"),
        "identity.regions": ("Region", "share_overlap"),
        "identity.resampler": ("FacePlusProjection", "FaceProjection", "FeatureResampler"),
        "repcontrolnet.branch": ("RepControlNet", "initial_branch"),
        "repcontrolnet.export": ("write_repcontrolnet",),
        "repcontrolnet.folding": ("fold_weight", "foldable_parameters"),
        "repcontrolnet.hint_encoder": ("HintEncoder", "build_hint_encoder"),
        "repcontrolnet.layouts": ("read_repcontrolnet",),
        "restoration.adain": ("Moments", "adain", "masked_moments"),
        "restoration.attention": ("AttentionFusion", "AttentionRecorder", "MaskOnGrids", "StepCounter"),
        "restoration.crops": ("CropSquare", "face_square", "lay_crop", "take_crop"),
        "restoration.face_crops": ("FaceCrop", "crop_faces"),
        "restoration.feature_cache": ("AttentionLayer", "CacheMode", "CachePlan", "FeatureCache"),
        "restoration.fusion": ("FusionSettings", "GridMask", "StyleSource", "fuse", "fuse_latent"),
        "restoration.paste": ("paste_crops", "paste_faces"),
        "restoration.sampling": ("InversionStep", "RestorationStep", "invert", "restore"),
        "restoration.settings": ("CropSettings",),
        "shapes": ("Extent",),
    }
    MODULES = {name: module for module, names in PARTS.items() for name in names}
    __all__ = list(MODULES)

    def __getattr__(name: str) -> object:
        if name not in MODULES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(f".{MODULES[name]}", __name__), name)

    def __dir__() -> list[str]:
        return [*globals(), *__all__]
