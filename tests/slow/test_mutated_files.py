"""200 damaged files for each loader of the core: they are read, or refused with a named error."""

import io
import json
import tarfile

import numpy as np
import pytest
import torch
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.faces.keypoint_formats import read_face_landmarks, read_pose_keypoints
from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
from fpga.fpga_core.identity.describing import describe_person
from fpga.fpga_core.identity.export import write_fpga_adapter
from fpga.fpga_core.identity.identity import PersonLora
from fpga.fpga_core.identity.identity_file import load_identity, save_identity
from fpga.fpga_core.repcontrolnet.export import write_hint_encoder, write_repcontrolnet
from fpga.fpga_core.repcontrolnet.layouts import read_repcontrolnet
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.data.reading import TrainingSet
from fpga.fpga_core.training.data.samples import SampleFiles, encode_sample
from fpga.fpga_core.training.data.writing import ShardWriter, write_header
from fpga.fpga_core.training.engine.loss_log import read_losses
from fpga.fpga_core.training.engine.saved_states import TrainingState, read_state, write_state
from mutations import check_named_errors_only, mutated
from PIL import Image
from random_adapters import faceid, flat, fpga_adapter, random_identity
from safetensors.torch import save
from tiny_branches import tiny_branch
from training_samples import random_sample


def read_branch(path):
    return read_repcontrolnet(*read_safetensors(path), name=path.name)


def read_adapter(path):
    return read_identity_adapter(*read_safetensors(path), name=path.name)


DESCRIBED = describe_person(
    words="red hair", pictures=[torch.rand(2, 3, 4, 3)], lora=PersonLora("ann", {"a.lora_up.weight": torch.ones(2, 1)})
)
WEIGHTS = {
    "repcontrolnet": (lambda path: write_repcontrolnet(tiny_branch(), path), read_branch),
    "hint encoder": (lambda path: write_hint_encoder(tiny_branch(), path), read_branch),
    "FPGA adapter": (lambda path: write_fpga_adapter(fpga_adapter("tiny"), path), read_adapter),
    "FaceID": (lambda path: path.write_bytes(save(flat(faceid("tiny", lora_rank=1)))), read_adapter),
    "identity": (lambda path: save_identity(path, random_identity(num_photos=2)), load_identity),
    "described person": (lambda path: save_identity(path, DESCRIBED), load_identity),
}


@pytest.mark.parametrize("kind", WEIGHTS)
def test_weights(kind, tmp_path):
    write, read = WEIGHTS[kind]
    path = tmp_path / "file.safetensors"
    write(path)

    def load(content: bytes) -> None:
        path.write_bytes(content)
        read(path)

    check_named_errors_only(load, mutated(path.read_bytes()))


def test_the_state_of_a_training(tmp_path):
    parameters = {"a": torch.ones(3), "b": torch.ones(2, 2)}
    state = TrainingState(
        iteration=3, settings={"seed": 1}, parameters=parameters, average={}, optimizer={"state": {0: parameters}}
    )
    path = write_state(tmp_path, state, 1)

    def load(content: bytes) -> None:
        path.write_bytes(content)
        read_state(path)

    check_named_errors_only(load, mutated(path.read_bytes()))


def test_the_log_of_a_training(tmp_path):
    path = tmp_path / "losses.jsonl"
    lines = "".join(json.dumps({"iteration": number, "loss": 0.5}) + "\n" for number in range(20)).encode()

    def load(content: bytes) -> None:
        path.write_bytes(content)
        read_losses(path)

    check_named_errors_only(load, mutated(lines))


PICTURES = {
    "png": ("PNG", {}),
    "16 bits": ("PNG", {}),
    "jpeg": ("JPEG", {"quality": 90}),
    "webp": ("WEBP", {"lossless": True}),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_training_pictures(kind):
    form, options = PICTURES[kind]
    values = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    picture = values[..., 0].astype(np.uint16) * 257 if kind == "16 bits" else values
    Image.fromarray(picture).save(buffer, form, **options)
    files = encode_sample(random_sample(1))

    def load(content: bytes) -> None:
        SampleFiles.from_contents("key", {**files, "image.png": content}).decode()

    check_named_errors_only(load, mutated(buffer.getvalue()))


@pytest.mark.parametrize("name", ["embedding.npy", "caption.txt"])
def test_embeddings_and_captions(name):
    files = encode_sample(random_sample(1, caption="a portrait, naïve: " + "né " * 40))

    def load(content: bytes) -> None:
        SampleFiles.from_contents("key", {**files, name: content}).decode()

    check_named_errors_only(load, mutated(files[name]))


def test_shards(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write(random_sample(1))
    path = tmp_path / "00000.tar"

    def load(content: bytes) -> None:
        path.write_bytes(content)
        TrainingSet(tmp_path).read(0)

    assert tarfile.is_tarfile(path)
    check_named_errors_only(load, mutated(path.read_bytes()))


def test_the_header_of_a_training_set(tmp_path):
    with ShardWriter(tmp_path) as writer:
        writer.write(random_sample(1))
    write_header(tmp_path, recogniser="ab" * 32, source="made up")
    path = tmp_path / "dataset.json"

    def load(content: bytes) -> None:
        path.write_bytes(content)
        assert TrainingSet(tmp_path).recogniser is None or TrainingSet(tmp_path).recogniser

    check_named_errors_only(load, mutated(path.read_bytes()))


def test_poses_and_landmarks():
    """Values of sockets, as JSON. Mutations that are not JSON any more say nothing about the reader."""
    points = np.random.default_rng(0).uniform(0, 64, (68, 3)).round(2)
    person = {"pose_keypoints_2d": points[:18].ravel().tolist(), "face_keypoints_2d": points.ravel().tolist()}
    pose = [{"canvas_width": 64, "canvas_height": 64, "people": [person]}]
    face = {"landmarks_xy": points[:, :2].tolist(), "bbox_xyxy": [1, 1, 60, 60], "score": 0.9}
    mesh = {"frames": [[face]], "image_size": [64, 64]}
    for payload, read in ((pose, read_pose_keypoints), (mesh, read_face_landmarks)):

        def load(content: bytes, read=read) -> None:
            read(json.loads(content), [Extent(64, 64)])

        files = (file for file in mutated(json.dumps(payload).encode(), number=20_000) if is_json(file))
        check_named_errors_only(load, (next(files) for _ in range(200)))


def is_json(content: bytes) -> bool:
    try:
        json.loads(content)
    except (ValueError, RecursionError):
        return False
    return True
