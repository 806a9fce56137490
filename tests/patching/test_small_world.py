"""The small world's shipped models do what docs/small-world.md says, on scenes and people that they never saw."""

import numpy as np
import pytest
import torch
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.gallery import HELD_OUT_SEED, scene_number
from fpga.laboratory.lessons import WorldRecogniser
from fpga.laboratory.painter import paint
from fpga.laboratory.reader import PictureReader, answers
from fpga.laboratory.recogniser import NUM_PEOPLE, person_number, portrait
from fpga.laboratory.scenes import Shot
from fpga.laboratory.shipped import CHECKPOINT, FACE_PACK, READER, RECOGNISER, WEIGHTS, load_checkpoint

MAX_SHIPPED_BYTES = 40e6


@pytest.fixture(scope="module")
def checkpoint():
    return load_checkpoint(CHECKPOINT)


@pytest.fixture(scope="module")
def scenes():
    return [scene_number(HELD_OUT_SEED + number) for number in range(24)]


def test_the_shipped_files_stay_small():
    assert sum(file.stat().st_size for file in WEIGHTS.rglob("*") if file.is_file()) < MAX_SHIPPED_BYTES


def test_the_autoencoder_keeps_close_ups(checkpoint, scenes):
    *_, vae = checkpoint
    pictures = torch.stack(
        [torch.from_numpy(paint(scene, 128)).float() / 255 for scene in scenes if scene.shot is Shot.CLOSE]
    )
    painted = vae.decode(vae.encode(pictures)).cpu()
    assert (painted - pictures).abs().mean() < 0.03


def test_latents_are_as_spread_as_the_noise(checkpoint, scenes):
    model, _, vae = checkpoint
    pictures = torch.stack([torch.from_numpy(paint(scene, 128)).float() / 255 for scene in scenes])
    latents = model.model.process_latent_in(vae.encode(pictures))
    assert 0.8 < latents.std() < 1.2


def test_words_that_the_world_does_not_know_are_left_out(checkpoint):
    _, clip, _ = checkpoint
    plain, strange = (
        clip.encode_from_tokens_scheduled(clip.tokenize(text))[0][0]
        for text in ("close-up of person in red", "close-up of a magnificent person in red!")
    )
    assert torch.equal(plain, strange)


def test_every_face_is_found_with_its_landmarks(scenes):
    analysis = load_insightface_pack(FACE_PACK)
    away, num_faces = [], 0
    for scene in scenes:
        found = analysis.find_faces([paint(scene, 256)])[0]
        for true in scene.faces(Extent(256, 256)).faces:
            num_faces += 1
            face = max(found, key=lambda one: one.box.iou(true.box))
            if face.box.iou(true.box) > 0.5:
                away.append(np.linalg.norm(face.landmarks - true.landmarks, axis=1).mean() / true.size_px)
    assert len(away) >= 0.95 * num_faces
    assert np.mean(away) < 0.04


def test_the_recogniser_tells_people_apart_that_it_never_saw():
    recogniser, rng = WorldRecogniser(RECOGNISER), np.random.default_rng(0)
    people = [person_number(NUM_PEOPLE + number) for number in range(30)]
    first, second = (recogniser.embed(np.stack([portrait(person, rng) for person in people])) for _ in range(2))
    first, second = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (first, second))
    likeness = first @ second.T
    assert (likeness.argmax(axis=1) == np.arange(len(people))).mean() >= 0.95
    assert likeness.diagonal().mean() > 0.7 and abs(likeness[~np.eye(len(people), dtype=bool)].mean()) < 0.1


def test_the_reader_sees_what_a_caption_says(scenes):
    singles = [scene for scene in scenes if len(scene.actors) == 1]
    _, told = PictureReader(READER).read(np.stack([paint(scene, 128) for scene in singles]))
    right = np.array(told) == np.array([answers(scene) for scene in singles])
    assert right.mean(axis=0).min() >= 0.9
