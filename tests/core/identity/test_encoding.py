"""Encodes photos as an identity, with a made-up analyser (tests/slow has photographs and insightface)."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import FaceNotFoundError, InvalidInputError, ShapeMismatchError
from fpga.fpga_core.faces.alignment import align_face
from fpga.fpga_core.faces.face import Face
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.encoding import FaceChoice, choose_faces, encode_photos, photo_likeness, split_photos
from fpga.fpga_core.identity.identity import Combine

POINTS = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])


def face(x0: float, size: float, embedding: np.ndarray | None = None, recogniser: str = "rec") -> Face:
    box = Box(x0, 10, x0 + size, 10 + size)
    given = {} if embedding is None else {recogniser: embedding}
    return Face(box, keypoints=POINTS * size + [box.x0, box.y0], embeddings=given)


@dataclass
class MadeUpAnalysis:
    """A face analysis that sees what it is told to, photo by photo."""

    seen: Sequence[Sequence[Face]]
    recogniser: str | None = "rec"
    description: str = "made up"
    pictures: list[np.ndarray] = field(default_factory=list)

    def find_faces(self, pictures):
        self.pictures = list(pictures)
        return [tuple(faces) for faces in self.seen]


@dataclass
class MadeUpEncoder:
    """Returns the image's mean colour as hidden states, so that a test knows what was encoded."""

    key: str = "clip"
    images: list[torch.Tensor] = field(default_factory=list)

    def hidden_states(self, images):
        self.images += images
        return torch.cat([image.mean(dim=(1, 2))[:, None].repeat(1, 5, 1) for image in images])

    def null_hidden_states(self):
        return torch.zeros(1, 5, 3)


def embeddings(count: int, similarity: float = 0.6, strangers: Sequence[int] = (), seed: int = 0) -> np.ndarray:
    """Returns rows of any length whose cosine is about `similarity`, except for the strangers."""
    rng = np.random.default_rng(seed)

    def direction() -> np.ndarray:
        vector = rng.normal(size=512)
        return vector / np.linalg.norm(vector)

    person = direction()
    rows = [
        similarity**0.5 * (direction() if i in strangers else person) + (1 - similarity) ** 0.5 * direction()
        for i in range(count)
    ]
    return (np.stack(rows) * rng.uniform(10, 30, (count, 1))).astype(np.float32)


def batch(count: int, height: int = 120, width: int = 160, channels: int = 3, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, height, width, channels, generator=torch.Generator().manual_seed(seed))


def test_photos_of_any_size_and_channels_become_rgb():
    grey, rgb, rgba = batch(1, channels=1), batch(2, 50, 70), batch(1, 200, 100, channels=4)
    photos = split_photos([grey, rgb, rgba])
    assert [tuple(photo.shape) for photo in photos] == [(1, 120, 160, 3), *[(1, 50, 70, 3)] * 2, (1, 200, 100, 3)]
    assert torch.equal(photos[0], grey.repeat(1, 1, 1, 3))
    assert torch.equal(photos[3], rgba[..., :3])
    assert torch.equal(torch.cat(photos[1:3]), rgb)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([], "no photos"),
        ([torch.zeros(0, 64, 64, 3)], "no photos"),
        ([batch(1), torch.zeros(1, 1, 1, 3)], "photo 2 is 1x1 pixels, too small"),
        ([torch.zeros(1, 31, 400, 3)], "photo 1 is 400x31 pixels"),
        ([torch.zeros(1, 64, 64, 2)], r"photo 1 is \(64, 64, 2\)"),
        ([torch.zeros(1, 3, 64, 64)], r"photo 1 is \(3, 64, 64\)"),
        ([torch.zeros(64, 64)], "photo 1 is"),
        ([batch(2), batch(1) * torch.nan], "photo 3 holds values that are not numbers"),
        ([batch(1) / 0], "photo 1 holds values that are not numbers"),
    ],
)
def test_unusable_photos_are_named(images, message):
    for arguments in ((MadeUpAnalysis([]), None), (None, MadeUpEncoder())):
        with pytest.raises(InvalidInputError, match=message):
            encode_photos(images, *arguments)


def test_largest_face_or_the_one_with_the_number():
    photo = (face(0, 40), face(100, 60), face(200, 50))
    assert choose_faces([photo], FaceChoice.LARGEST, number=3) == [photo[1]]
    assert [choose_faces([photo], FaceChoice.INDEX, number=n)[0] for n in (1, 2, 3)] == [photo[1], photo[2], photo[0]]


def test_every_photo_without_a_usable_face_is_named_at_once():
    seen = [(), (face(0, 60),), (face(0, 20),), (face(0, 60), face(80, 50))]
    with pytest.raises(FaceNotFoundError) as caught:
        choose_faces(seen, FaceChoice.LARGEST)
    message = str(caught.value)
    assert "photo 1 shows no face" in message and "face in photo 3 is 20 px, too small" in message
    assert "photo 2" not in message and "photo 4" not in message
    with pytest.raises(FaceNotFoundError, match=r"photo 2 shows 1 face\(s\), but index is 2"):
        choose_faces([seen[3], seen[1]], FaceChoice.INDEX, number=2)


def test_likeness_is_the_cosine_with_the_mean_of_the_others():
    rows = embeddings(4)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    expected = []
    for i in range(4):
        others = np.delete(unit, i, axis=0).mean(axis=0)
        expected.append(unit[i] @ others / np.linalg.norm(others))
    likeness, outliers = photo_likeness(torch.from_numpy(rows))
    np.testing.assert_allclose(likeness, expected, atol=1e-6)
    assert outliers == ()


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(("count", "strangers"), [(3, [1]), (4, [0]), (5, [4]), (7, [2, 3]), (3, []), (8, [])])
def test_strangers_are_outliers_and_nobody_else(count, strangers, seed):
    for similarity in (0.45, 0.6, 0.8):
        rows = torch.from_numpy(embeddings(count, similarity, strangers, seed))
        assert photo_likeness(rows)[1] == tuple(strangers)


def test_one_or_two_photos_have_no_outlier():
    assert photo_likeness(torch.ones(1, 512)) == ((), ())
    likeness, outliers = photo_likeness(torch.from_numpy(embeddings(2, strangers=[1])))
    assert len(likeness) == 2 and likeness[0] == pytest.approx(likeness[1]) and outliers == ()


def test_the_embedding_and_the_aligned_crop_are_of_the_chosen_face():
    rows = embeddings(2)
    analysis = MadeUpAnalysis([(face(5, 40, rows[1]), face(60, 80, rows[0]))])
    encoder = MadeUpEncoder()
    photo = batch(1)
    encoding = encode_photos([photo], analysis, encoder, name=" Ann ")
    identity = encoding.identity
    assert identity.name == "Ann" and identity.combine == "mean"
    np.testing.assert_array_equal(identity.embeddings["rec"].numpy(), rows[:1])
    picture = (photo[0].numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal(analysis.pictures[0], picture)
    expected = torch.from_numpy(align_face(picture, analysis.seen[0][1], 224)).float()[None] / 255
    assert torch.equal(encoding.crops, expected)
    assert torch.equal(encoder.images[0], expected)
    assert torch.equal(identity.clip_hidden["clip"], expected.mean(dim=(1, 2))[:, None].repeat(1, 5, 1))
    assert torch.equal(identity.clip_null["clip"], torch.zeros(1, 5, 3))


def test_without_a_face_analysis_clip_sees_the_photo_itself():
    encoder = MadeUpEncoder()
    portrait = torch.zeros(1, 300, 100, 3)
    portrait[:, 100:200] = torch.tensor([0.2, 0.4, 0.6])  # the middle square
    encoding = encode_photos([portrait, batch(1, 224, 224)], None, encoder)
    assert torch.equal(encoder.images[0], portrait)
    assert encoding.crops.shape == (2, 224, 224, 3)
    inner = encoding.crops[0, 10:-10]  # resampling mixes the edges
    assert torch.allclose(inner, torch.tensor([0.2, 0.4, 0.6]).expand_as(inner), atol=1e-5)
    assert torch.equal(encoding.crops[1:], batch(1, 224, 224))
    assert encoding.identity.embeddings == {} and encoding.identity.num_photos == 2
    assert encoding.identity.name == "unnamed"


@pytest.mark.parametrize("drop", [False, True])
def test_outliers_are_named_and_dropped_on_request(drop):
    rows = embeddings(4, strangers=[2])
    encoder = MadeUpEncoder()
    analysis = MadeUpAnalysis([(face(20, 80, row),) for row in rows])
    encoding = encode_photos([batch(4)], analysis, encoder, combine=Combine.MEDIAN, drop_outliers=drop)
    kept = [0, 1, 3] if drop else [0, 1, 2, 3]
    assert (encoding.outliers, encoding.dropped) == ((3,), (3,) if drop else ())
    np.testing.assert_array_equal(encoding.identity.embeddings["rec"].numpy(), rows[kept])
    assert encoding.identity.clip_hidden["clip"].shape[0] == len(encoder.images) == len(kept)
    assert encoding.crops.shape[0] == 4 and encoding.identity.combine == "median"
    (line,) = [line for line in encoding.report().splitlines() if "someone else" in line]
    assert line.startswith("photo 3: ") and ("left out" in line) == drop


def test_the_report_names_what_was_encoded():
    analysis = MadeUpAnalysis([(face(20, 80, row),) for row in embeddings(2)])
    lines = encode_photos([batch(2)], analysis, MadeUpEncoder(), name="Ann").report().splitlines()
    assert lines[:3] == ["Ann: 2 photos, combined by mean", "embeddings: recogniser rec", "CLIP-Vision: clip"]
    assert [line.partition(":")[0] for line in lines[3:]] == ["photo 1", "photo 2"]


def test_extending_adds_another_recogniser_s_view():
    first = MadeUpAnalysis([(face(20, 80, row, "a"),) for row in embeddings(2)], recogniser="a")
    second = MadeUpAnalysis([(face(20, 80, row, "b"),) for row in embeddings(2, seed=1)], recogniser="b")
    one = encode_photos([batch(2)], first, None, name="Ann").identity
    both = encode_photos([batch(2)], second, MadeUpEncoder(), name="ignored", extend=one).identity
    assert both.name == "Ann" and set(both.embeddings) == {"a", "b"} and set(both.clip_hidden) == {"clip"}
    with pytest.raises(ShapeMismatchError, match="same photos"):
        encode_photos([batch(3)], MadeUpAnalysis(first.seen + first.seen[:1], "a"), None, extend=one)


def test_nothing_to_encode_with_is_refused():
    with pytest.raises(InvalidInputError, match="nothing to encode with"):
        encode_photos([batch(1)], None, None)
    detector = MadeUpAnalysis([(face(20, 80),)], recogniser=None, description="MTCNN on the CPU")
    with pytest.raises(InvalidInputError, match="'MTCNN on the CPU' finds faces, but recognises nobody"):
        encode_photos([batch(1)], detector, None)
    assert encode_photos([batch(1)], detector, MadeUpEncoder()).identity.embeddings == {}


def test_a_face_without_landmarks_cannot_be_cut_out():
    analysis = MadeUpAnalysis([(Face(Box(10, 10, 90, 90), embeddings={"rec": np.ones(512)}),)])
    with pytest.raises(InvalidInputError, match="cannot be aligned"):
        encode_photos([batch(1)], analysis, None)


def test_one_identity_serves_plus_face_and_faceid_plus():
    """plus-face reads the photo as it was cropped, FaceID-Plus the aligned face, from one identity."""
    photos, analysis = batch(1, 200, 200), MadeUpAnalysis([(face(20, 80, embeddings(1)[0]),)])
    as_cropped = encode_photos([photos], None, MadeUpEncoder()).identity
    both = encode_photos([photos], analysis, MadeUpEncoder(), extend=as_cropped).identity
    aligned = encode_photos([photos], analysis, MadeUpEncoder()).identity
    cropped_key, aligned_key = both.clip_model(3, "plus-face", of_photos=True), both.clip_model(3, "FaceID-Plus")
    assert torch.equal(both.hidden_states(cropped_key), as_cropped.hidden_states(cropped_key))
    assert torch.equal(both.hidden_states(aligned_key), aligned.hidden_states(aligned_key))
    assert not torch.equal(both.hidden_states(cropped_key), both.hidden_states(aligned_key))
    assert as_cropped.clip_model(3, "FaceID-Plus") == cropped_key  # where there is only one view, it serves both
    assert aligned.clip_model(3, "plus-face", of_photos=True) == aligned_key


def test_photos_of_different_people_are_warned_of():
    """The node shows its warnings in a colour."""
    four = MadeUpAnalysis([(face(20, 80, row),) for row in embeddings(4, strangers=range(4))])
    encoding = encode_photos([batch(4)], four, None)
    (warning,) = encoding.warnings
    assert warning.startswith("the 4 photos hardly resemble each other (mean likeness ")
    assert "encode each person as an identity of their own" in warning
    assert encoding.text.startswith(f"Warning: {warning}\nunnamed: 4 photos")
    one = encode_photos([batch(4)], MadeUpAnalysis([(face(20, 80, row),) for row in embeddings(4)]), None)
    assert (one.warnings, one.text) == ((), one.report())
