"""Face analysis through insightface itself, with a pack built for the tests, on photographs that packages ship."""

import hashlib
import shutil
import zipfile
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path

import cv2
import numpy as np
import pytest
from fpga.fpga_core.errors import CheckpointReadError, MissingModelError
from fpga.fpga_core.faces.face import FaceAnalyzer
from fpga.fpga_core.faces.insightface_pack import complete_pack, load_insightface_pack, locate_onnx_files
from fpga.fpga_core.faces.onnx_runtimes import CPU, Provider
from insightface.app import FaceAnalysis
from onnx_pack import build_detector, build_landmarks, build_pack, build_recogniser
from skimage.data import astronaut

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated")

CENTRES = [(108, 330), (312, 212), (518, 333), (793, 408), (959, 125), (1180, 335)]
"""The six faces of insightface's group photo, measured by eye."""


def group_photo() -> np.ndarray:
    return cv2.imread(str(files("insightface") / "data" / "images" / "t1.jpg"))[..., ::-1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return build_pack(tmp_path_factory.mktemp("models") / "small_pack")


@pytest.fixture(scope="module")
def pack(folder):
    return load_insightface_pack(folder, Provider.CPU)


@pytest.fixture(scope="module")
def six(pack):
    (faces,) = pack.find_faces([group_photo()])
    return sorted(faces, key=lambda face: face.box.x0)


def test_six_people_are_found_where_they_are(six):
    assert len(six) == 6
    for face, (x, y) in zip(six, CENTRES, strict=True):
        assert abs(face.box.center[0] - x) < 25 and abs(face.box.center[1] - y) < 25
        assert 80 < face.size_px < 160 and face.score > 0.5


def test_landmarks_that_are_not_used_are_not_run(tmp_path):
    """buffalo_l brings 68 and 106 landmarks; the pack uses the first."""
    folder = build_pack(tmp_path / "two_layouts")
    build_landmarks(folder / "1k3d68.onnx", 3309)
    build_landmarks(folder / "2d106det.onnx", 212)
    assert {"landmark_3d_68", "landmark_2d_106"} <= FaceAnalysis(str(folder), providers=[CPU]).models.keys()
    pack = load_insightface_pack(folder, Provider.CPU)
    assert set(pack.providers) == {"detection", "recognition", "landmark_3d_68"}
    assert "landmarks: 68" in pack.info


def test_each_face_has_its_own_points(six):
    for face in six:
        left_eye, right_eye, nose, left_mouth, right_mouth = face.keypoints
        assert left_eye[0] < right_eye[0] and left_mouth[0] < right_mouth[0]
        assert max(left_eye[1], right_eye[1]) < nose[1] < min(left_mouth[1], right_mouth[1])
        box = face.box.grown(0.1)
        assert ((face.keypoints > [box.x0, box.y0]) & (face.keypoints < [box.x1, box.y1])).all()


def test_faces_are_what_insightface_gives_for_the_same_photo(folder, six):
    app = FaceAnalysis(name=str(folder), providers=[CPU])
    app.prepare(ctx_id=0)
    theirs = sorted(app.get(np.ascontiguousarray(group_photo()[..., ::-1])), key=lambda face: face.bbox[0])
    assert len(theirs) == len(six)
    for our, their in zip(six, theirs, strict=True):
        np.testing.assert_allclose([our.box.x0, our.box.y0, our.box.x1, our.box.y1], their.bbox, rtol=1e-6)
        np.testing.assert_array_equal(our.keypoints, their.kps)
        np.testing.assert_array_equal(next(iter(our.embeddings.values())), their.embedding)


def test_embeddings_are_keyed_by_the_recogniser_s_file(folder, pack, six):
    expected = hashlib.sha256((folder / "rec_thumbnail.onnx").read_bytes()).hexdigest()
    assert pack.recogniser == expected and isinstance(pack, FaceAnalyzer)
    for face in six:
        assert list(face.embeddings) == [expected]
        assert face.embeddings[expected].shape == (512,)
        assert np.linalg.norm(face.embeddings[expected]) > 2  # as the recogniser gave it, not normalised


def test_a_recogniser_in_another_file_has_another_key(pack, tmp_path):
    build_detector(tmp_path / "det.onnx")
    build_recogniser(tmp_path / "other_name.onnx")
    assert load_insightface_pack(tmp_path, Provider.CPU).recogniser != pack.recogniser


def test_one_person_in_a_changed_photo_is_more_alike_than_anyone_else(pack, six):
    def embedding(face):
        vector = face.embeddings[pack.recogniser]
        return vector / np.linalg.norm(vector)

    (again,) = pack.find_faces([(group_photo() * 0.9).astype(np.uint8)])
    again = sorted(again, key=lambda face: face.box.x0)
    likeness = np.array([[embedding(a) @ embedding(b) for b in again] for a in six])
    assert (likeness.argmax(axis=1) == np.arange(6)).all()
    assert likeness.diagonal().min() > 0.8


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 5000), (5000, 1), (15, 200), (16, 2000), (64, 64), (200, 3)], ids=lambda shape: f"{shape}"
)
def test_pictures_without_a_face_give_none_at_any_size(pack, shape):
    noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert pack.find_faces([noise, np.zeros_like(noise)]) == [(), ()]


def test_a_picture_in_reading_order_is_not_needed(pack):
    (straight,) = pack.find_faces([astronaut()])
    (view,) = pack.find_faces([np.asfortranarray(astronaut())])
    assert straight[0].box == view[0].box


def test_threads_may_share_a_pack(pack):
    alone = pack.find_faces([astronaut()])
    with ThreadPoolExecutor(3) as pool:
        together = list(pool.map(pack.find_faces, [[astronaut()]] * 3))
    for result in together:
        assert result[0][0].box == alone[0][0].box
        np.testing.assert_array_equal(result[0][0].embeddings[pack.recogniser], alone[0][0].embeddings[pack.recogniser])


def test_info_says_what_runs_and_under_which_licence(pack):
    assert pack.description == "small_pack on CPUExecutionProvider"
    assert pack.info.splitlines() == [
        "small_pack on CPUExecutionProvider",
        f"recogniser: rec_thumbnail.onnx, SHA-256 {pack.recogniser[:12]}...",
        "landmarks: 5",
        "licence: ask the publisher of the pack",
    ]


def test_a_provider_that_is_not_there_is_told_and_not_claimed(folder):
    pack = load_insightface_pack(folder, Provider.ROCM)  # no distribution on the registry is built with it
    assert set(pack.providers.values()) == {CPU}
    assert pack.notes == (
        "running on CPUExecutionProvider, not on ROCMExecutionProvider: the installed onnxruntime is built without it",
    )
    assert pack.notes[0] in pack.info


def test_a_pack_without_a_recogniser_finds_faces_only(tmp_path):
    build_detector(tmp_path / "det.onnx")
    pack = load_insightface_pack(tmp_path, Provider.CPU)
    (faces,) = pack.find_faces([astronaut()])
    assert pack.recogniser is None and faces[0].embeddings == {} and faces[0].keypoints.shape == (5, 2)
    assert "nobody is recognised" in pack.info


def test_an_archive_s_own_folder_is_looked_into(folder, tmp_path, pack):
    nested = tmp_path / "small_pack" / "small_pack"
    shutil.copytree(folder, nested)
    assert locate_onnx_files(nested.parent) == nested
    loaded = load_insightface_pack(nested.parent, Provider.CPU)
    assert loaded.recogniser == pack.recogniser and loaded.description.startswith("small_pack on ")


@pytest.mark.parametrize("place", ["antelopev2/antelopev2.zip", "antelopev2.zip"])
def test_an_archive_that_is_still_packed_is_recognised(folder, tmp_path, place):
    target = tmp_path / place
    target.parent.mkdir(exist_ok=True)
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(folder / "rec_thumbnail.onnx", "antelopev2/rec_thumbnail.onnx")
    with pytest.raises(MissingModelError, match="still packed") as caught:
        load_insightface_pack(tmp_path / "antelopev2")
    assert str(target) in str(caught.value) and str(tmp_path / "antelopev2") in str(caught.value)


def test_missing_files_are_listed_beside_what_was_found(tmp_path):
    folder = tmp_path / "buffalo_l"
    folder.mkdir()
    (folder / "readme.txt").write_text("no models here")
    with pytest.raises(MissingModelError) as caught:
        load_insightface_pack(folder)
    message = str(caught.value)
    for file in ("det_10g.onnx", "w600k_r50.onnx"):
        assert str(folder / file) in message
    assert str(Path("buffalo_l", "readme.txt")) in message and "download_if_missing" in message


def test_an_unknown_empty_folder_says_what_belongs_there(tmp_path):
    with pytest.raises(MissingModelError, match="put a detector and a recogniser there .*found: nothing"):
        load_insightface_pack(tmp_path / "mine")


def test_a_folder_without_a_detector_is_no_bare_assertion(tmp_path):
    build_recogniser(tmp_path / "rec.onnx")
    with pytest.raises(MissingModelError, match="there is no detector among the ONNX files") as caught:
        load_insightface_pack(tmp_path, Provider.CPU)
    assert "rec.onnx" in str(caught.value)


def test_a_detector_that_finds_boxes_only_is_refused(tmp_path):
    build_detector(tmp_path / "det.onnx", has_points=False)
    build_recogniser(tmp_path / "rec.onnx")
    with pytest.raises(MissingModelError, match="to align a face"):
        load_insightface_pack(tmp_path, Provider.CPU)


@pytest.mark.parametrize("contents", [b"", b"<html>404</html>" * 10, None], ids=["empty", "a web page", "cut off"])
def test_a_damaged_file_is_named(folder, tmp_path, contents):
    shutil.copytree(folder, tmp_path / "buffalo_l")
    damaged = tmp_path / "buffalo_l" / "w600k_r50.onnx"
    whole = (folder / "rec_thumbnail.onnx").read_bytes()
    damaged.write_bytes(whole[: len(whole) // 2] if contents is None else contents)
    with pytest.raises(CheckpointReadError, match=r"not as published: w600k_r50\.onnx"):
        load_insightface_pack(tmp_path / "buffalo_l", Provider.CPU)


def test_nothing_is_downloaded_for_a_folder_of_the_user_s_own(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "mine")
    before = sorted(tmp_path.rglob("*"))
    complete_pack(tmp_path / "mine", lambda done, total: pytest.fail("nothing to download"))
    assert sorted(tmp_path.rglob("*")) == before
