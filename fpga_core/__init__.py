"""The core of the pack and its public parts by name: tensors in, tensors out, no ComfyUI.

Each part is imported when it is asked for. Importing the package alone needs neither torch nor any other package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .errors import FPGAError as FPGAError
    from .evaluation.facesim import CastScore as CastScore
    from .evaluation.facesim import score_cast as score_cast
    from .faces.face import Face as Face
    from .faces.face import FaceAnalyzer as FaceAnalyzer
    from .faces.face import PictureFaces as PictureFaces
    from .geometry import Box as Box
    from .identity.masked_attention import identity_attention as identity_attention
    from .restoration.face_crops import FaceCrop as FaceCrop
    from .restoration.face_crops import crop_faces as crop_faces
    from .restoration.paste import paste_faces as paste_faces
    from .restoration.settings import CropSettings as CropSettings
    from .shapes import Extent as Extent
else:
    PARTS = {
        "errors": ("FPGAError",),
        "evaluation.facesim": ("CastScore", "score_cast"),
        "faces.face": ("Face", "FaceAnalyzer", "PictureFaces"),
        "geometry": ("Box",),
        "identity.masked_attention": ("identity_attention",),
        "restoration.face_crops": ("FaceCrop", "crop_faces"),
        "restoration.paste": ("paste_faces",),
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
