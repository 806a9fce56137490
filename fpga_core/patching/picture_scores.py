"""Scores pictures with a face analysis, and with the encoders that ComfyUI loads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import comfy.clip_vision
import numpy as np
from torch import Tensor

from ..errors import InvalidInputError
from ..evaluation.clip_text import ClipText
from ..evaluation.scores import CLIP_I, CLIP_T, DINO, PictureScores, face_scores
from ..evaluation.similarity import prompt_similarities, reference_similarities
from ..faces.detection import as_pictures, detect_faces
from ..faces.face import FaceAnalyzer
from ..faces.likeness import Portrait
from ..identity.cast import Cast, as_cast
from ..identity.identity import Identity
from ..shapes import Extent
from . import picture_embedding
from .picture_embedding import embed_pictures


@dataclass(frozen=True, kw_only=True, eq=False)
class Scorers:
    """What pictures are scored with. Scores whose scorer is None are left out.

    Attributes:
        face_analysis: for FaceSim, likeness, bleed and copy-paste.
        clip_vision: a CLIP-Vision, for CLIP-I and CLIP-T.
        clip_text: the text side of the same CLIP, for CLIP-T.
        dino: a DINOv2 or DINOv3, for DINO.
    """

    face_analysis: FaceAnalyzer | None = None
    clip_vision: comfy.clip_vision.ClipVisionModel | None = None
    clip_text: ClipText | None = None
    dino: comfy.clip_vision.ClipVisionModel | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Aims:
    """What pictures should show. Scores whose aim is missing are left out.

    Attributes:
        portraits: the people, as the face analysis' recogniser knows them.
        canvas: size of the picture that the people's face boxes were made for.
        targets: (dim,) embedding of another photo of each person, for copy-paste.
        references: (height, width, 3) float in [0, 1] each, what the pictures should resemble.
        prompt: what they should show.
    """

    portraits: Sequence[Portrait] = ()
    canvas: Extent = Extent(1, 1)
    targets: Sequence[np.ndarray] | None = None
    references: Sequence[Tensor] = ()
    prompt: str = ""


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of some pictures, and CLIP's embeddings of them, (pictures, dim), if there is a CLIP-Vision."""

    scores: PictureScores
    clip_embeddings: np.ndarray | None = field(default=None, repr=False)


def aims_of(
    people: Cast | Identity | None, face_analysis: FaceAnalyzer | None, *, references: Tensor | None, prompt: str
) -> Aims:
    """Returns what is asked of pictures by the values of sockets.

    Args:
        people: a cast, or one person anywhere in the picture.
        face_analysis: knows them.
        references: (batch, height, width, 3) float in [0, 1].
        prompt: what the pictures should show.
    Raises:
        InvalidInputError: there are people and no face analysis or the other way round, or it does not know them.
    """
    if (people is None) != (face_analysis is None):
        missing, given = ("face_analysis", "cast") if face_analysis is None else ("cast", "face_analysis")
        raise InvalidInputError(f"connect {missing} too, or take {given} away: FaceSim needs both")
    shared = {"references": () if references is None else list(references[..., :3]), "prompt": prompt.strip()}
    if people is None or face_analysis is None:
        return Aims(**shared)
    cast = as_cast(people)
    return Aims(portraits=cast.portraits(face_analysis.recogniser), canvas=cast.extent, **shared)


def score_batch(images: Tensor, scorers: Scorers, aims: Aims) -> PictureScores:
    """Scores the pictures of a batch, (batch, height, width, channels), as `score_pictures`.

    Raises:
        InvalidInputError: there is nothing to score with.
    """
    scores = score_pictures(list(images[..., :3]), scorers, aims).scores
    if not scores.names:
        raise InvalidInputError(
            "connect a cast and its face_analysis, or references and clip_vision or dino, or set a prompt and "
            "clip_text and connect clip_vision: there is nothing to score with"
        )
    return scores


def half_connected(scorers: Scorers, aims: Aims) -> tuple[str, ...]:
    """Returns a sentence for each score that lacks a part of what it needs."""
    has_clip, has_dino = scorers.clip_vision is not None, scorers.dino is not None
    words = (has_clip, scorers.clip_text is not None, bool(aims.prompt))
    found: list[str] = []
    if any(words[1:]) and not all(words):
        found.append("CLIP-T is not measured: it needs clip_vision, clip_text and a prompt")
    if has_clip and not aims.references and not all(words):
        found.append("CLIP-I is not measured: it needs references")
    if has_dino and not aims.references:
        found.append("DINO is not measured: it needs references")
    if aims.references and not has_clip and not has_dino:
        found.append("the references are not used: connect clip_vision or dino")
    return tuple(found)


def score_pictures(pictures: Sequence[Tensor], scorers: Scorers, aims: Aims) -> Scored:
    """Measures every score whose scorer and aim are given.

    Args:
        pictures: (height, width, 3) float in [0, 1], each of its own size; at least one.
        scorers: what they are scored with.
        aims: what they should show.
    Returns:
        The scores. Pictures without faces count as `face_scores` says.
    Raises:
        InvalidInputError: there are no pictures, or an encoder is of another kind.
        ShapeMismatchError: the people have face boxes, and a picture has another aspect ratio than their canvas.
        DetectionError: the face analysis fails.
    """
    if not pictures:
        raise InvalidInputError("there are no pictures to score; give at least one")
    rows: list[dict[str, float]] = [{} for _ in pictures]
    if scorers.face_analysis is not None and aims.portraits:
        rows = _face_rows(pictures, scorers.face_analysis, aims)
    embedded = None
    if scorers.clip_vision is not None:
        embedded = embed_pictures(scorers.clip_vision, pictures, kinds=picture_embedding.CLIP)
        if aims.references:
            references = embed_pictures(scorers.clip_vision, aims.references, kinds=picture_embedding.CLIP)
            _add(rows, CLIP_I, reference_similarities(embedded, references))
        if scorers.clip_text is not None and aims.prompt:
            prompts = scorers.clip_text.embed([aims.prompt]).repeat(len(pictures), axis=0)
            _add(rows, CLIP_T, prompt_similarities(embedded, prompts))
    if scorers.dino is not None and aims.references:
        sides = [embed_pictures(scorers.dino, one, kinds=picture_embedding.DINO) for one in (pictures, aims.references)]
        _add(rows, DINO, reference_similarities(*sides))
    return Scored(PictureScores(tuple(rows)), embedded)


def _face_rows(pictures: Sequence[Tensor], face_analysis: FaceAnalyzer, aims: Aims) -> list[dict[str, float]]:
    recogniser = face_analysis.recogniser
    if recogniser is None:
        raise InvalidInputError(
            "the face analysis has no recogniser, so it cannot tell people apart; load a pack that has one, such as "
            "buffalo_l"
        )
    found = detect_faces([as_pictures(picture[None])[0] for picture in pictures], face_analysis)
    return face_scores(aims.portraits, found, recogniser=recogniser, canvas=aims.canvas, targets=aims.targets)


def _add(rows: list[dict[str, float]], name: str, values: np.ndarray) -> None:
    for row, value in zip(rows, values.tolist(), strict=True):
        row[name] = value
