"""The identity nodes, called in this process with real files in real folders."""

import json
import os
import shutil

import folder_paths
import pytest
import torch
from fpga.fpga_core.errors import FaceNotFoundError, MissingModelError
from fpga.fpga_core.identity.identity_file import identity_tensors, save_identity
from fpga.nodes.identity import (
    IDENTITIES,
    PACKS,
    EncodeIdentity,
    LoadFaceAnalysis,
    LoadIdentity,
    SaveIdentity,
    pack_names,
)
from onnx_pack import build_pack
from random_adapters import random_identity
from skimage.data import astronaut

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated")  # in insightface


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    root = tmp_path_factory.mktemp("insightface")
    build_pack(root / "models" / "small")
    return root


@pytest.fixture
def packs(models, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, PACKS, ([str(models)], set()))
    return models / "models"


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))
    places = [str(tmp_path / "models"), str(tmp_path / "identities")]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, IDENTITIES, (places, {".safetensors"}))
    return tmp_path


def portrait() -> torch.Tensor:
    return torch.from_numpy(astronaut()[:256, 96:352].copy()).float()[None] / 255


def encode(images, analysis, **options) -> tuple:
    settings = {"name": "Eileen", "face": "largest", "index": 1, "combine": "mean", "drop_outliers": False, **options}
    return EncodeIdentity.execute({"photo_1": images}, face_analysis=analysis, **settings).result


def test_from_photo_to_file_and_back(packs, output):
    analysis, info = LoadFaceAnalysis.execute("small", "CPU", False).result
    assert info.startswith("small on CPUExecutionProvider")
    identity, crops, report = encode(portrait(), analysis)
    assert crops.shape == (1, 224, 224, 3) and report.startswith("Eileen: 1 photo")
    paths = [SaveIdentity.execute(identity, "identities/eileen").result[0] for _ in range(2)]
    assert [os.path.basename(path) for path in paths] == ["eileen_00001_.safetensors", "eileen_00002_.safetensors"]
    assert folder_paths.get_filename_list(IDENTITIES) == ["eileen_00001_.safetensors", "eileen_00002_.safetensors"]
    loaded, told = LoadIdentity.execute("eileen_00002_.safetensors").result
    assert told == identity.description
    before, after = identity_tensors(identity), identity_tensors(loaded)
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)


def test_photos_of_several_sockets_and_sizes_are_one_person(packs):
    analysis, _ = LoadFaceAnalysis.execute("small", "CPU", False).result
    photos = {"photo_1": portrait(), "photo_2": portrait()[:, :200, 20:220] * 0.9}
    result = EncodeIdentity.execute(photos, "", "index", 1, "median", True, face_analysis=analysis).result
    assert result[0].num_photos == 2 and result[0].name == "unnamed" and result[1].shape[0] == 2
    assert "photo 2: likeness to the others" in result[2]


def test_a_photo_without_the_face_asked_for_stops_the_node(packs):
    analysis, _ = LoadFaceAnalysis.execute("small", "CPU", False).result
    with pytest.raises(FaceNotFoundError, match=r"photo 1 shows 1 face\(s\), but index is 2"):
        encode(portrait(), analysis, face="index", index=2)


def test_nothing_connected_is_told_before_anything_runs():
    assert "nothing to encode with" in EncodeIdentity.validate_inputs(name="Ann")
    assert EncodeIdentity.validate_inputs(name="Ann", face_analysis=None) is True
    assert EncodeIdentity.validate_inputs(name="Ann", clip_vision=None) is True


def test_the_list_holds_what_is_there_and_what_can_be_downloaded(packs):
    (packs / "a_file.zip").write_bytes(b"")
    assert pack_names() == ["antelopev2", "auraface", "buffalo_l", "buffalo_sc", "small"]


def test_a_pack_in_any_of_the_folders_is_found(packs, tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, PACKS, ([str(tmp_path), str(packs.parent)], set()))
    assert LoadFaceAnalysis.execute("small", "CPU", False).result[0].recogniser
    with pytest.raises(MissingModelError) as caught:
        LoadFaceAnalysis.execute("buffalo_l", "CPU", False)
    assert str(tmp_path / "models" / "buffalo_l" / "det_10g.onnx") in str(caught.value)


def test_a_pack_is_loaded_again_only_when_its_files_change(packs, tmp_path, monkeypatch):
    shutil.copytree(packs / "small", tmp_path / "models" / "small")
    monkeypatch.setitem(folder_paths.folder_names_and_paths, PACKS, ([str(tmp_path)], set()))
    before = LoadFaceAnalysis.fingerprint_inputs("small", "auto", False)
    assert before == LoadFaceAnalysis.fingerprint_inputs("small", "auto", False)
    json.dumps(before)  # ComfyUI compares and hashes it
    file = tmp_path / "models" / "small" / "rec_thumbnail.onnx"
    file.write_bytes(file.read_bytes() + b"\0")
    assert LoadFaceAnalysis.fingerprint_inputs("small", "auto", False) != before


def test_an_identity_is_loaded_again_only_when_its_content_changes(output):
    path = output / "identities" / "ann.safetensors"
    path.parent.mkdir()
    save_identity(path, random_identity(seed=1))
    before = LoadIdentity.fingerprint_inputs("ann.safetensors")
    path.write_bytes(path.read_bytes())
    os.utime(path, (0, 0))
    assert LoadIdentity.fingerprint_inputs("ann.safetensors") == before
    json.dumps(before)  # ComfyUI compares and hashes it
    save_identity(path, random_identity(seed=2))
    assert LoadIdentity.fingerprint_inputs("ann.safetensors") != before
