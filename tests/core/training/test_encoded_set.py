"""Batches of a training set: what is in them, and that nothing is encoded twice."""

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import TrainingDataError
from fpga.fpga_core.training.data.encoded_set import EncodedSet
from fpga.fpga_core.training.data.encodings import EncodingStore
from fpga.fpga_core.training.data.reading import TrainingSet
from training_samples import CountingEncoder, random_sample, write_samples


@pytest.fixture
def data(tmp_path):
    write_samples(tmp_path / "data")
    return TrainingSet(tmp_path / "data")


def test_a_batch_is_what_its_samples_are(data):
    batch = EncodedSet(data, CountingEncoder(has_clip=True), EncodingStore(None)).batch([3, 1])
    sample = random_sample(3)
    expected = sample.image.reshape(8, 8, 8, 8, 3).mean(axis=(1, 3)) / 255
    np.testing.assert_allclose(batch.latents[0, :3].movedim(0, -1), expected, atol=1e-6)
    np.testing.assert_allclose(batch.skeleton[0].movedim(0, -1), sample.skeleton / 255, atol=1e-6)
    np.testing.assert_allclose(batch.landmarks[0].movedim(0, -1), sample.landmarks / 255, atol=1e-6)
    np.testing.assert_allclose(batch.embeddings[0], sample.embedding)
    mask = torch.zeros(8, 8)
    mask[2:4, 2:4] = 1
    assert torch.equal(batch.face_masks[0, 0], mask)
    assert torch.equal(batch.text[0], torch.full((3, 8), 17.0)) and torch.equal(batch.null_text, torch.zeros(1, 3, 8))
    assert batch.clip_features.shape == (2, 5, 6)


@pytest.mark.parametrize("memory_mib", [0, 64])
@pytest.mark.parametrize("on_disk", [False, True])
def test_everything_is_encoded_once(data, tmp_path, on_disk, memory_mib):
    encoder = CountingEncoder()
    batches = EncodedSet(data, encoder, EncodingStore(tmp_path / "cache" if on_disk else None), memory_mib=memory_mib)
    first = batches.batch(range(5))
    for _ in range(2):
        again = batches.batch(range(5))
    assert len(encoder.images) == len(encoder.faces) == 5 and len(encoder.captions) == 6  # and the empty caption
    assert torch.equal(first.latents, again.latents) and torch.equal(first.text, again.text)


def test_a_folder_of_encodings_serves_the_next_training_and_knows_what_changed(data, tmp_path):
    store = EncodingStore(tmp_path / "cache")
    for process in range(2):
        EncodedSet(data, CountingEncoder(), store).prepare(process=process, num_processes=2)
    encoder = CountingEncoder()
    batches = EncodedSet(data, encoder, store)
    batches.prepare()
    assert encoder.images == encoder.captions == encoder.faces == []
    batches.finish_preparing()
    told = []
    EncodedSet(data, encoder, store).prepare(progress=lambda done, total: told.append(done))
    assert told == []
    (data.folder / "000001.caption.txt").write_text("changed", encoding="utf-8")
    EncodedSet(data, encoder, store).batch([1])
    assert encoder.captions == ["changed"] and encoder.images == []
    other = CountingEncoder()
    other.image_key = "another autoencoder"
    EncodedSet(data, other, store).prepare()
    assert len(other.images) == 5 and other.captions == []


def test_a_bad_sample_ends_the_preparation(data):
    (data.folder / "000004.face.png").unlink()
    with pytest.raises(TrainingDataError, match=r"'000004' has no face\.png"):
        EncodedSet(TrainingSet(data.folder), CountingEncoder(), EncodingStore(None)).prepare()
