"""A cast in crops: which of its members a face shows, and how that member acts in the crop of the face."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor
from torch.nn import functional

from ...faces.detection import as_pictures
from ...faces.face import Face, FaceAnalyzer, PictureFaces
from ...faces.likeness import cosine_similarities, is_in_place
from ...faces.seeing import find_faces
from ...identity.adapters import IdentityAdapter
from ...identity.cast import Cast
from ...identity.people import EncodedPeople, stack_people
from ...restoration.face_crops import FaceCrop
from ...restoration.matching import Match, MatchBy, match_faces
from ...shapes import Extent, cell_means
from ..cast.attach import attach_cast, check_adapter_fits
from ..cast.conditioning import EncodedCast, PendingCast, new_cast_key
from ..cast.encoding import encode_people
from ..conditioning import Conditioning, add_cond
from ..unet import cross_attention_layers, unet_of


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
        similarities = np.array(alike).reshape(len(boxes), len(places))
        return match_faces(boxes, places, similarities, by=by, numbers=self.cast.numbers)

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


@dataclass(frozen=True, eq=False, kw_only=True)
class CastInCrops(EncodedCast):
    """An encoded cast whose members act in crops and not in places of one picture.

    Attributes:
        members: (batch,) index of the member that acts in each crop.
        regions: the member's region in its crop, (batch, height, width) in [0, 1].
    """

    members: Tensor
    regions: Tensor

    def weights(self, extent: Extent) -> Tensor:
        """Returns strength times region on a grid, (batch, identities, height, width) float32."""
        regions = cell_means(self.regions.float()[:, None], extent)
        chosen = functional.one_hot(self.members, len(self.tokens)).float()
        return chosen[:, :, None, None] * regions * self.strength

    def check_fits(self, latent: Extent) -> None:
        """Accepts any latent, because the regions belong to the crops."""


ActingFaces = tuple[CastInCrops, CastInCrops]
"""The identities that act in a batch of crops, as the positive and the negative carry them."""


@dataclass(frozen=True, eq=False)
class FaceIdentities:
    """The identities of a cast, ready to act in crops.

    Attributes:
        adapter: the adapter that made the tokens.
        cast: the people; their places and strengths do not count.
        people, nobody: what the positive and the negative carry of the members.
        key: their name in the model and the conditioning.
        rows: number of a member in the cast that faces are matched with -> its place in this one.
    """

    adapter: IdentityAdapter
    cast: Cast
    people: EncodedPeople
    nobody: EncodedPeople
    key: str
    rows: Mapping[int, int]

    @classmethod
    def encode(cls, adapter: IdentityAdapter, cast: Cast, members: Sequence[int] | None = None) -> FaceIdentities:
        """Makes the tokens of members of a cast; of all, if none are named.

        Raises:
            InvalidInputError: an identity does not hold what the adapter reads.
        """
        chosen = range(len(cast.members)) if members is None else members
        cast = replace(cast, members=tuple(cast.members[number] for number in chosen))
        people, nobody = map(stack_people, encode_people(adapter, [member.identity for member in cast.members]))
        rows = {number: row for row, number in enumerate(chosen)}
        return cls(adapter, cast, people, nobody, key=new_cast_key(), rows=rows)

    def attach(self, model: ModelPatcher) -> ModelPatcher:
        """Returns a clone of the model that reads these identities. It is unchanged for conditioning without them.

        Raises:
            BaseModelError: the adapter does not fit the model.
        """
        check_adapter_fits(self.adapter, cross_attention_layers(unet_of(model)))
        return attach_cast(model, self.adapter, self.key, is_in_prompts=False)

    def in_crops(self, faces: Sequence[FaceCrop], strength: float) -> ActingFaces:
        """Returns the identities of a batch of matched faces, which act inside `identity_mask`.

        Args:
            strength: 1 is as trained.
        """
        positive = CastInCrops(
            tokens=self.people.tokens,
            projected=self.people.projected,
            cast=self.cast,
            strength=strength,
            members=torch.tensor([self.rows[face.match.member] for face in faces if face.match]),
            regions=torch.stack([face.identity_mask for face in faces]),
        )
        return positive, replace(positive, tokens=self.nobody.tokens, projected=self.nobody.projected)

    def condition(
        self, positive: Conditioning, negative: Conditioning, acting: ActingFaces
    ) -> tuple[Conditioning, Conditioning]:
        """Lets identities act in the cross attention of a model from `attach`."""
        for_positive, for_negative = acting
        positive = add_cond(positive, self.key, PendingCast(for_positive))
        return positive, add_cond(negative, self.key, PendingCast(for_negative))
