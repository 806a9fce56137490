"""Finds which member of a cast a face shows, and how closely it resembles them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from ...faces.detection import as_pictures
from ...faces.face import Face, FaceAnalyzer, PictureFaces
from ...faces.likeness import cosine_similarities, is_in_place
from ...faces.seeing import find_faces
from ...identity.cast import Cast
from ...restoration.face_crops import FaceCrop
from ...restoration.matching import Match, MatchBy, match_faces


@dataclass(frozen=True, eq=False)
class CastRecognition:
    """A cast whose members are recognised by their places and their faces.

    Attributes:
        cast: the people.
        face_analysis: finds the faces in crops and compares them; if it is None, FaceSim is not measured.
    """

    cast: Cast
    face_analysis: FaceAnalyzer | None

    @property
    def can_measure(self) -> bool:
        """Whether FaceSim can be measured at all."""
        return self.face_analysis is not None and self.face_analysis.recogniser is not None

    def match(self, picture: PictureFaces, by: MatchBy) -> tuple[Match | None, ...]:
        """Matches the faces of a picture. Large faces take part, so that no small face gets their identity."""
        boxes = [face.box.normalised(picture.extent) for face in picture.faces]
        places = [member.face_box or (member.region and member.region.box) for member in self.cast.members]
        alike = [[self._likeness(face, member) for member in range(len(places))] for face in picture.faces]
        return match_faces(boxes, places, np.array(alike).reshape(len(boxes), len(places)), by=by)

    def why_not_by_likeness(self, face: Face) -> str:
        """Returns why a face matches nobody, if its likeness could not be measured; otherwise nothing."""
        if any(face.embeddings.keys() & member.identity.embeddings.keys() for member in self.cast.members):
            return ""
        return ", and no recogniser saw both it and one of them; use the face analysis that encoded the identities"

    def facesim(self, crops: Tensor, faces: Sequence[FaceCrop]) -> list[float | None]:
        """Measures how closely the face in each crop resembles its matched identity.

        Args:
            crops: (num_faces, size, size, 3), original or restored.
            faces: the faces of these crops.
        Returns:
            Cosine similarities; 0 if no face is found at the expected place, None if they cannot be measured.
        Source: FPGA section 4.1, with its IoU rule, measured on the crop and not on the picture.
        """
        if self.face_analysis is None or not self.can_measure:
            return [None] * len(faces)
        found = find_faces(self.face_analysis, as_pictures(crops))
        return [self._score(seen, face) for seen, face in zip(found, faces, strict=True)]

    def _score(self, seen: Sequence[Face], expected: FaceCrop) -> float | None:
        place = expected.face_in_crop.box
        face = max(seen, key=lambda candidate: candidate.box.iou(place), default=None)
        if face is None or not is_in_place(face.box.iou(place)):
            return 0.0
        likeness = float("nan") if expected.match is None else self._likeness(face, expected.match.member)
        return None if np.isnan(likeness) else likeness

    def _likeness(self, face: Face, member: int) -> float:
        """Returns the cosine similarity by a recogniser that saw both; NaN if there is none."""
        identity = self.cast.members[member].identity
        common = sorted(face.embeddings.keys() & identity.embeddings.keys())
        if not common:
            return float("nan")
        known = identity.embedding_array(common[0], "matching faces")
        return float(cosine_similarities(known[None], face.embeddings[common[0]][None])[0, 0])
