"""Measures the pictures of all methods, case by case, so that every method meets the same aims."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...fpga_core.errors import FaceNotFoundError, InvalidInputError, ShapeMismatchError
from ...fpga_core.evaluation.frechet import frechet_distance
from ...fpga_core.evaluation.scores import MEASURES
from ...fpga_core.evaluation.table import Rows
from ...fpga_core.faces.likeness import Portrait
from ...fpga_core.identity.encoding import encode_photos
from ...fpga_core.patching.picture_embedding import CLIP, embed_pictures
from ...fpga_core.patching.picture_scores import Aims, Scorers, score_pictures
from ...fpga_core.shapes import Extent
from .cases import Case, Person, read

NAN = float("nan")
BATCH = 16
"""Real pictures that are in memory at once."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What an evaluation found.

    Attributes:
        rows: method -> the scores of its picture of each case, in the order of the cases. Every row has the same
            scores; NaN where a case has none.
        distances: method -> the Fréchet distance to the real pictures, by CLIP's embeddings; empty without them.
    """

    rows: Rows
    distances: dict[str, float] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """The scores that at least one picture has."""
        return tuple(next(iter(self.rows.values()))[0])


def measure(
    cases: Sequence[Case], scorers: Scorers, *, real: Sequence[Path] = (), show: Callable[[int, int], None]
) -> Measured:
    """Scores every method's picture of every case.

    Args:
        cases: the cases, all with the same methods.
        scorers: what they are scored with.
        real: real pictures for the Fréchet distance; it needs CLIP-Vision.
        show: is told how many cases are done, and how many there are.
    Raises:
        FaceNotFoundError: a photo of a person shows no face.
        ShapeMismatchError: the places of a case do not fit a method's picture.
    """
    known = Recogniser(scorers)
    found: list[tuple[dict[str, float], ...]] = []
    embedded: list[np.ndarray] = []
    for number, case in enumerate(cases, 1):
        pictures = [read(file) for file in case.pictures.values()]
        extents = [Extent(picture.shape[1], picture.shape[0]) for picture in pictures]
        try:
            scored = score_pictures(pictures, scorers, known.aims(case, extents[0]))
        except ShapeMismatchError as error:
            sizes = ", ".join(f"{m}: {extent}" for m, extent in zip(case.pictures, extents, strict=True))
            raise ShapeMismatchError(f"case {case.name} ({sizes}): {error}") from error
        found.append(tuple({n: row.get(n, NAN) for n in MEASURES} for row in scored.scores.pictures))
        embedded += [] if scored.clip_embeddings is None else [scored.clip_embeddings]
        show(number, len(cases))
    names = [n for n in MEASURES if any(row[n] == row[n] for rows in found for row in rows)]
    methods = list(cases[0].pictures)
    rows = {m: [{n: rows[place][n] for n in names} for rows in found] for place, m in enumerate(methods)}
    if not real or scorers.clip_vision is None:
        return Measured(rows)
    batches = [real[start : start + BATCH] for start in range(0, len(real), BATCH)]
    target = np.concatenate([embed_pictures(scorers.clip_vision, [*map(read, files)], kinds=CLIP) for files in batches])
    by_method = np.stack(embedded, axis=1)
    return Measured(rows, {m: frechet_distance(by_method[place], target) for place, m in enumerate(methods)})


class Recogniser:
    """Looks at each person's photos once."""

    def __init__(self, scorers: Scorers) -> None:
        self._analysis = scorers.face_analysis
        self._needs_references = scorers.clip_vision is not None or scorers.dino is not None
        self.embedding = lru_cache(maxsize=4096)(self._embedding)

    def aims(self, case: Case, canvas: Extent) -> Aims:
        """Returns what the pictures of a case should show."""
        people = case.people if self._analysis is not None else ()
        targets = [self.embedding(person.target) for person in people if person.target]
        return Aims(
            portraits=[self._portrait(person, canvas) for person in people],
            canvas=canvas,
            targets=targets or None,
            references=[read(file) for file in case.references] if self._needs_references else (),
            prompt=case.prompt,
        )

    def _portrait(self, person: Person, canvas: Extent) -> Portrait:
        place = None if person.place is None else person.place.normalised(canvas)
        return Portrait(person.name, self.embedding(person.photos), face_box=place)

    def _embedding(self, photos: tuple[Path, ...]) -> np.ndarray:
        named = " + ".join(f"'{photo}'" for photo in photos)
        analysis = self._analysis
        if analysis is None or analysis.recogniser is None:
            raise InvalidInputError("name a face analysis with a recogniser, such as buffalo_l")
        try:
            encoding = encode_photos([read(photo)[None] for photo in photos], analysis, None)
        except FaceNotFoundError as error:
            raise FaceNotFoundError(f"{named}: {error}") from error
        return encoding.identity.embedding_array(analysis.recogniser, "scoring pictures")
