"""DIIR from end to end: the small faces of pictures are restored and pasted back, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...errors import InvalidInputError, PatchConflictError, UnsupportedModeError
from ...faces.face import PictureFaces
from ...restoration.face_crops import FaceCrop, crop_faces, stack_crops
from ...restoration.masks import FaceParser
from ...restoration.paste import paste_faces
from ...restoration.report import FaceOutcome, RestoredFace, background_difference, write_report
from ...restoration.settings import IdentityIn
from ..cast.attach import carries_cast
from ..cast.backends import refuse_stranger
from ..repcontrolnet.carried import applied_branches
from ..whole_picture import check_no_whole_picture_patches
from .checks import check_restoring_model, family_of
from .controls import ControlNetFaces, RepControlNetFaces
from .identities import CastRecognition
from .restorer import FaceRestorer


class RestoredPictures(NamedTuple):
    """The result of a restoration.

    Attributes:
        images: (num_pictures, height, width, channels).
        before, after: the crops, (num_faces, size, size, 3); one black crop if no face was restored.
        masks: the area that changed, (num_pictures, height, width).
        report: the report for the user.
    """

    images: Tensor
    before: Tensor
    after: Tensor
    masks: Tensor
    report: str


def restore_faces(
    images: Tensor,
    faces: Sequence[PictureFaces],
    restorer: FaceRestorer,
    *,
    masks: Tensor | None = None,
    parser: FaceParser | None = None,
) -> RestoredPictures:
    """Restores the small faces of pictures, each with its own identity, and changes nothing else.

    A face that matches nobody in the cast is left alone, and so is one whose mask is empty.

    Args:
        images: (num_pictures, height, width, 3 or 4), from any source.
        faces: one entry per picture.
        restorer: restores the faces.
        masks, parser: define the area of a face, as in `crop_faces`.
    Returns:
        The pictures, masks, crops and a report.
    Raises:
        UnsupportedModeError, PatchConflictError: the model cannot restore.
        InvalidInputError, ShapeMismatchError: the inputs do not fit each other.
    Source: FPGA section 3.2 and Alg. 1.
    """
    check_restoring_model(restorer.model)
    check_model_is_plain(restorer.model)
    restorer = restorer.met()
    check_restorer(restorer)
    restorer, remarks = restorer.decided()
    settings, recognition = restorer.settings, restorer.recognition
    crops = crop_faces(
        images,
        faces,
        settings.crop,
        masks=masks,
        parser=parser,
        matches=[recognition.match(entry, settings.match_by) for entry in faces] if recognition else None,
        hint_style=settings.hint_style if restorer.control else None,
    )
    chosen = [face for face in crops if face.paste_mask.any() and (recognition is None or face.match)]
    restored = dict(zip(chosen, restorer.restore(chosen), strict=True))
    usable = [face for face in chosen if restored[face].crop.isfinite().all()]
    pasted = [replace(face, crop=restored[face].crop) for face in usable]
    pictures, changed = paste_faces(images, pasted, are_colors_matched=settings.are_colors_matched)
    report = write_report(
        [outcome_of(face, restored.get(face), recognition) for face in crops],
        num_found=sum(len(entry.faces) for entry in faces),
        size_limit_px=settings.crop.size_limit_px,
        background=background_difference(images, pictures, changed),
        remarks=remarks,
    )
    size_px = settings.crop.size_px
    (before, _), (after, _) = stack_crops(usable, size_px), stack_crops(pasted, size_px)
    return RestoredPictures(pictures, before, after, changed, report)


def check_model_is_plain(model: ModelPatcher) -> None:
    """Raises if a model carries what would act at the wrong place in a crop: a RepControlNet, a cast, others' regions.

    Raises:
        PatchConflictError: it does; the message says which earlier model to connect.
    """
    for branch in applied_branches(model):
        raise PatchConflictError(
            f"the connected model carries the RepControlNet '{branch.name}', whose condition image shows the whole "
            "picture; connect the model from before Apply RepControlNet, and connect the RepControlNet to this node's "
            "repcontrolnet input"
        )
    if carries_cast(model):
        raise PatchConflictError(
            "the connected model carries a cast, whose regions belong to the whole picture; connect the model from "
            "before Apply Cast, and connect the adapter and the cast to this node"
        )
    check_no_whole_picture_patches(model)


def check_restorer(restorer: FaceRestorer) -> None:
    """Raises InvalidInputError or UnsupportedModeError unless the parts of a restorer fit together."""
    settings, recognition, family = restorer.settings, restorer.recognition, family_of(restorer.model)
    if not family.takes_adapters and restorer.adapter is not None:
        raise UnsupportedModeError(
            f"disconnect the adapter: identity adapters are made for SD1.5 and SDXL, and the connected model is of the "
            f"family {family.name}. Its faces follow the prompt and the ControlNet; a cast can stay, to say whose face "
            "is whose"
        )
    if not family.takes_adapters and isinstance(restorer.control, RepControlNetFaces):
        raise UnsupportedModeError(
            f"disconnect the RepControlNet: it is a part of an SD1.5 or SDXL model, and the connected model is of the "
            f"family {family.name}; connect a ControlNet for {family.name} to control_net"
        )
    multiple = restorer.model.model.latent_format.spacial_downscale_ratio
    if settings.crop.size_px % multiple:
        raise InvalidInputError(
            f"set crop_size_px to a multiple of {multiple}: it is {settings.crop.size_px}, and a latent pixel of "
            f"{family.name} is {multiple} pixels wide"
        )
    strangers = restorer.known.strangers if restorer.known else ()
    needs_adapter = restorer.adapter is None and any(person.num_photos for person in strangers)
    if family.takes_adapters and (needs_adapter or (restorer.adapter is not None and restorer.cast is None)):
        raise InvalidInputError("a cast and its identity adapter belong together; connect both, or neither")
    for person in strangers:
        if family.takes_adapters or not person.num_photos:
            refuse_stranger(restorer.model, person)
    if settings.identity_in is not IdentityIn.UNET and not isinstance(restorer.control, ControlNetFaces):
        raise InvalidInputError(
            f"identity_in is {settings.identity_in.value}, but no ControlNet is connected; connect one to control_net, "
            "or set identity_in to unet"
        )
    if settings.retry_below > 0 and (recognition is None or not recognition.can_measure):
        raise InvalidInputError(
            f"retry_below is {settings.retry_below:g}, but FaceSim cannot be measured; connect a cast and a face "
            "analysis with a recogniser, or set retry_below to 0"
        )


def outcome_of(face: FaceCrop, restored: RestoredFace | None, recognition: CastRecognition | None) -> FaceOutcome:
    """Returns the outcome for a face, for the report."""
    if restored is None:
        why = "its mask is empty"
        if recognition is not None and face.paste_mask.any():
            why = f"nobody in the cast matches it{recognition.why_not_by_likeness(face.face)}"
        return FaceOutcome(face, why_left_alone=why)
    if not restored.crop.isfinite().all():
        overflow = "the model or the VAE gave values that are not finite (NaN); run it in float32"
        return FaceOutcome(face, why_left_alone=overflow)
    if recognition is None or face.match is None:
        return FaceOutcome(face, restored)
    return FaceOutcome(face, restored, recognition.cast.members[face.match.member].identity.name)
