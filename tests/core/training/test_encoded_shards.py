"""Encoded shards: the batches are those of the pictures themselves, and only what changed is encoded again."""

import dataclasses

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import TrainingDataError
from fpga.fpga_core.training.data import encoded_shards
from fpga.fpga_core.training.data.encoded_set import EncodedSet
from fpga.fpga_core.training.data.encoded_shards import EncodedShards
from fpga.fpga_core.training.data.encodings import EncodingStore
from fpga.fpga_core.training.data.reading import TrainingSet
from fpga.fpga_core.training.data.writing import ShardWriter
from training_samples import CountingEncoder, random_sample, write_samples


def drawing(number, height=64, width=64):
    """A few coloured pixels on black, with some channels at 0."""
    generator = np.random.default_rng(number)
    lit = generator.random((height, width, 1)) < 0.1
    return (lit * generator.integers(0, 3, (height, width, 3)) * 100).astype(np.uint8)


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_shards, "SAMPLES_PER_SHARD", 2)
    (tmp_path / "data").mkdir()
    with ShardWriter(tmp_path / "data") as writer:
        for number in range(5):
            pictures = {"skeleton": drawing(number), "landmarks": np.zeros((64, 64, 3), np.uint8)}
            writer.write(random_sample(number, **pictures if number else {}))  # the first is full of colours
    return tmp_path / "data"


def opened(data, folder, encoder=None, **options):
    return EncodedShards(
        EncodedSet(TrainingSet(data), encoder or CountingEncoder(has_clip=True), None), folder, **options
    )


def assert_same(one, other):
    for field in dataclasses.fields(one):
        ours, theirs = getattr(one, field.name), getattr(other, field.name)
        if ours is None or theirs is None:
            assert ours is theirs and "pooled" in field.name
            continue
        assert ours.dtype == theirs.dtype == torch.float32 and torch.equal(ours, theirs), field.name


@pytest.mark.parametrize("memory_mib", [0, 1])
def test_batches_are_bit_for_bit_those_of_the_samples(data, tmp_path, memory_mib):
    shards = opened(data, tmp_path / "encodings", memory_mib=memory_mib)
    plain = EncodedSet(TrainingSet(data), CountingEncoder(has_clip=True), EncodingStore(None))
    for indices in ([0, 3, 1], [4], [3, 3]):
        assert_same(shards.batch(indices), plain.batch(indices))
    assert shards.fingerprint == plain.fingerprint and len(shards) == 5


def test_processes_write_the_same_files_as_one(data, tmp_path):
    for process in range(2):
        opened(data, tmp_path / "two").prepare(process=process, num_processes=2)
    told = []
    opened(data, tmp_path / "one").prepare(progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 5) for done in range(1, 6)]
    files = [{path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two")]
    assert files[0] == files[1] and len(files[0]) == 3


def test_an_encoded_set_is_read_without_its_pictures(data, tmp_path, monkeypatch):
    first = opened(data, tmp_path / "encodings")
    first.prepare()
    first.finish_preparing()
    monkeypatch.setattr(TrainingSet, "read", None)
    encoder = CountingEncoder(has_clip=True)
    again = opened(data, tmp_path / "encodings", encoder)
    again.prepare(progress=lambda done, total: pytest.fail("it is prepared"))
    assert_same(again.batch(range(5)), first.batch(range(5)))
    assert encoder.images == encoder.faces == [] and encoder.captions == [""]


def test_only_the_shard_that_changed_is_encoded_again(tmp_path, monkeypatch):
    monkeypatch.setattr(encoded_shards, "SAMPLES_PER_SHARD", 2)
    write_samples(tmp_path / "data")
    opened(tmp_path / "data", tmp_path / "encodings").prepare()
    (tmp_path / "data" / "000001.caption.txt").write_text("portrait number 7", encoding="utf-8")  # of the same length
    encoder = CountingEncoder(has_clip=True)
    opened(tmp_path / "data", tmp_path / "encodings", encoder).prepare()
    assert encoder.faces == ["000000", "000001"] and encoder.captions[1:] == ["portrait number 0", "portrait number 7"]
    other = CountingEncoder(has_clip=True)
    other.image_key = "another autoencoder"
    opened(tmp_path / "data", tmp_path / "encodings", other).prepare()
    assert len(other.images) == 5


def test_text_of_16_bits_is_half_as_large_and_another_set(data, tmp_path):
    encoder = CountingEncoder()
    encoder.encode_caption = lambda caption: torch.full((3, 8), len(caption) + 1 / 3)
    half = opened(data, tmp_path / "encodings", encoder, text_dtype=torch.float16)
    batch = half.batch([1])
    assert batch.text.dtype == torch.float32
    assert torch.equal(batch.text, torch.full((1, 3, 8), 17 + 1 / 3).half().float())
    assert half.fingerprint != opened(data, tmp_path / "encodings", encoder).fingerprint


def test_a_damaged_shard_and_a_full_disk_are_named(data, tmp_path):
    shards = opened(data, tmp_path / "encodings")
    shards.prepare()
    for path in (tmp_path / "encodings").glob("*.tar"):
        path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(TrainingDataError, match=r"\.tar' cannot be read; delete it, and it is encoded again"):
        shards.batch([0])
    (tmp_path / "file").touch()
    with pytest.raises(TrainingDataError, match="cannot be saved in .*; choose another folder"):
        opened(data, tmp_path / "file").prepare()


def test_a_bad_sample_is_named_and_leaves_no_shard(tmp_path):
    write_samples(tmp_path / "data")
    (tmp_path / "data" / "000004.face.png").unlink()
    with pytest.raises(TrainingDataError, match=r"'000004' has no face\.png"):
        opened(tmp_path / "data", tmp_path / "encodings").prepare()
    assert list((tmp_path / "encodings").iterdir()) == []
