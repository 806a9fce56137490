"""DIIR from end to end: the small faces of pictures are found, restored and put back, and nothing else changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from comfy.model_patcher import ModelPatcher
from comfy.sd import VAE
from torch import Tensor

from ...errors import InvalidInputError
from ...faces.drawing import DrawnParts, FaceStyle, draw_conditions
from ...faces.face import FaceAnalyzer, PictureFaces
from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast
from ...restoration.face_crops import CropSettings, FaceCrop, FaceParser, crop_faces, or_blank, paste_crops
from ...restoration.report import FaceOutcome, background_difference, write_report
from ...shapes import Extent
from ..conditioning import Conditioning
from .checks import check_restoring_model
from .face_conditioning import FaceControl, check_model_is_plain, for_crops
from .face_run import FaceRun, IdentityIn, MakeCallback, RestoredCrop, RestoreSettings
from .people import People, Subject


@dataclass(frozen=True, eq=False)
class RestoredPictures:
    """What a restoration gives.

    Attributes:
        images: (num_pictures, height, width, channels).
        masks: what changed, (num_pictures, height, width).
        before, after: the crops, (num_faces, size, size, 3); one black crop where no face was restored.
        report: for people to read.
    """

    images: Tensor
    masks: Tensor
    before: Tensor
    after: Tensor
    report: str


def restore_faces(
    images: Tensor,
    faces: Sequence[PictureFaces],
    model: ModelPatcher,
    vae: VAE,
    positive: Conditioning,
    negative: Conditioning,
    crop: CropSettings,
    settings: RestoreSettings,
    cast: Cast | None = None,
    adapter: IdentityAdapter | None = None,
    control: FaceControl | None = None,
    face_analysis: FaceAnalyzer | None = None,
    masks: Tensor | None = None,
    parser: FaceParser | None = None,
    make_callback: MakeCallback | None = None,
) -> RestoredPictures:
    """Restores the small faces of pictures, each with its own identity, and changes nothing else.

    Args:
        images: (num_pictures, height, width, 3 or 4), from any source.
        faces: one entry per picture.
        model: a plain SD1.x, SD2.x or SDXL model.
        vae: its autoencoder.
        positive, negative: prompts of the picture; what is tied to places in it is left out.
        crop: which faces, and how they are cropped and masked.
        settings: how they are restored.
        cast: the people, with `adapter`; a face that is nobody's is left alone, as is one whose mask is empty. Without,
            faces are restored by prompt.
        control: keeps each face's pose and expression by its landmarks.
        face_analysis: measures FaceSim.
        masks, parser: what the face is, as in `crop_faces`.
        make_callback: progress and previews.
    Returns:
        Pictures, masks, crops and a report.
    Raises:
        UnsupportedModeError, PatchConflictError: the model cannot restore.
        InvalidInputError, ShapeMismatchError: the inputs do not fit each other.
    Source: FPGA section 3.2 and Alg. 1.
    """
    check_restoring_model(model)
    check_model_is_plain(model)
    if (cast is None) != (adapter is None):
        raise InvalidInputError("a cast and its identity adapter belong together; connect both, or neither")
    people = None if cast is None or adapter is None else People(cast, adapter, face_analysis)
    if settings.identity_in is not IdentityIn.UNET and not (control and control.carries_identities):
        raise InvalidInputError(
            f"identity_in is {settings.identity_in.value}, but no ControlNet is connected: connect one to control_net, "
            "or set it to unet"
        )
    if settings.retry_below > 0 and (people is None or not people.can_measure):
        raise InvalidInputError(
            f"retry_below is {settings.retry_below:g}, but FaceSim cannot be measured: connect a cast and a face "
            "analysis with a recogniser, or set it to 0"
        )
    places, crops, soft_masks = crop_faces(images, faces, crop, masks, parser)
    matches = [people.match(entry, settings.match_by) for entry in faces] if people else []
    subjects = [
        Subject(
            place, mask, draw_landmarks(place, settings.style),
            matches[place.picture][place.number - 1] if people else None,
        )
        for place, mask in zip(places, soft_masks, strict=True)
    ]  # fmt: skip
    chosen = [n for n, subject in enumerate(subjects) if subject.mask.any() and (people is None or subject.match)]
    run = FaceRun(model, vae, for_crops(positive), for_crops(negative), settings, people, control, make_callback)
    restored = dict(zip(chosen, run.restore(crops[chosen], [subjects[n] for n in chosen]), strict=True))
    usable = [n for n, face in restored.items() if face.crop.isfinite().all()]
    after = torch.stack([restored[n].crop for n in usable]) if usable else crops[:0]
    pasted, changed = paste_crops(
        images, [places[n] for n in usable], after, soft_masks[usable], settings.are_colors_matched
    )
    outcomes = [outcome(subject, restored.get(n), people) for n, subject in enumerate(subjects)]
    num_found = sum(len(entry.faces) for entry in faces)
    report = write_report(outcomes, num_found, crop.size_limit_px, background_difference(images, pasted, changed))
    return RestoredPictures(pasted, changed, or_blank(crops[usable]), or_blank(after), report)


def draw_landmarks(place: FaceCrop, style: FaceStyle) -> Tensor:
    """The drawing of a face's landmarks on its crop, (size, size, 3); black where it has none."""
    face, size = place.face_in_crop, place.square.size_px
    shown = () if face.landmarks is None else (face,)
    return draw_conditions([PictureFaces(Extent(size, size), shown)], DrawnParts.FACE, style)[0]


def outcome(subject: Subject, restored: RestoredCrop | None, people: People | None) -> FaceOutcome:
    """What the report says of a face."""
    label, size_px = subject.place.label, subject.place.face.size_px
    if restored is None:
        why = "its mask is empty"
        if people is not None and subject.mask.any():
            why = f"nobody of the cast matches it{people.why_not_by_likeness(subject.place.face)}"
        return FaceOutcome(label, size_px, None, why, is_restored=False)
    if not restored.crop.isfinite().all():
        overflow = "the model or the VAE gave values that are not finite (NaN): run it in float32"
        return FaceOutcome(label, size_px, None, overflow, is_restored=False)
    name, reason = None, ""
    if people is not None and subject.match is not None:
        name, reason = people.cast.members[subject.match.identity].identity.name, subject.match.reason
    return FaceOutcome(
        label, size_px, name, reason, True, restored.before, restored.after, restored.num_tries, restored.residual
    )
