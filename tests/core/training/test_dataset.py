"""Training sets: what is written is read, WebDataset reads the same, and every fault is named."""

import io
import shutil
import tarfile

import numpy as np
import pytest
from fpga.fpga_core.errors import InvalidInputError, TrainingDataError
from fpga.fpga_core.training.data.reading import TrainingSet, faults
from fpga.fpga_core.training.data.writing import ShardWriter, write_header, write_sample
from PIL import Image
from training_samples import random_sample, write_samples

FIELDS = ("key", "caption", "image", "skeleton", "landmarks", "mask", "face", "embedding")


def assert_same(one, other):
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.fixture
def folder(tmp_path):
    write_samples(tmp_path / "data")
    return tmp_path / "data"


def test_a_folder_gives_back_what_was_written(folder):
    data = TrainingSet(folder, multiple_px=64)
    assert len(data) == 5 and str(data.extent) == "64x64" and data.recogniser is None
    for index in range(5):
        assert_same(data.read(index), random_sample(index))


def test_shards_give_back_what_was_written(tmp_path):
    with ShardWriter(tmp_path, samples_per_shard=2) as writer:
        for number in range(5):
            writer.write(random_sample(number))
    write_header(tmp_path, recogniser="ab" * 32, source="made up")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["00000.tar", "00001.tar", "00002.tar", "dataset.json"]
    data = TrainingSet(tmp_path)
    assert data.recogniser == "ab" * 32 and data.header["source"] == "made up"
    for index in (4, 0, 3, 1, 2):
        assert_same(data.read(index), random_sample(index))


def test_webdataset_reads_our_shards(tmp_path):
    webdataset = pytest.importorskip("webdataset")
    with ShardWriter(tmp_path, samples_per_shard=3) as writer:
        for number in range(4):
            writer.write(random_sample(number))
    urls = [str(path) for path in sorted(tmp_path.glob("*.tar"))]
    samples = list(webdataset.WebDataset(urls, shardshuffle=False))
    assert [sample["__key__"] for sample in samples] == ["000000", "000001", "000002", "000003"]
    picture = np.array(Image.open(io.BytesIO(samples[3]["image.png"])))
    np.testing.assert_array_equal(picture, random_sample(3).image)
    assert samples[3]["caption.txt"] == b"portrait number 3"


def test_we_read_webdatasets_shards(tmp_path, folder):
    webdataset = pytest.importorskip("webdataset")
    with webdataset.TarWriter(str(tmp_path / "theirs.tar")) as writer:
        for key in ("000000", "000001"):
            files = {path.name.partition(".")[2]: path.read_bytes() for path in folder.glob(f"{key}.*")}
            writer.write({"__key__": f"some/folder/{key}", **files})
    data = TrainingSet(tmp_path)
    assert data.keys == ["some/folder/000000", "some/folder/000001"]
    assert data.read(1).caption == "portrait number 1"


def test_equal_samples_make_equal_shards(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        with ShardWriter(tmp_path / name) as writer:
            writer.write(random_sample(1))
    assert (tmp_path / "a" / "00000.tar").read_bytes() == (tmp_path / "b" / "00000.tar").read_bytes()


def test_a_shard_that_was_not_finished_is_not_there(tmp_path):
    with pytest.raises(ZeroDivisionError), ShardWriter(tmp_path) as writer:
        writer.write(random_sample(1))
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_other_picture_formats_and_an_empty_caption_are_fine(folder):
    picture = Image.open(folder / "000002.image.png")
    (folder / "000002.image.png").unlink()
    picture.save(folder / "000002.image.jpg", quality=95)
    (folder / "000002.caption.txt").write_bytes(b"\xef\xbb\xbf \n")
    sample = TrainingSet(folder).read(2)
    assert sample.caption == "" and sample.image.shape == (64, 64, 3)


def break_sample(folder, kind):
    """Damages sample 3; returns what the message must say."""
    if kind == "missing":
        (folder / "000003.mask.png").unlink()
        (folder / "000003.face.png").unlink()
        return "sample '000003' has no face.png, mask.png"
    if kind == "twice":
        shutil.copy(folder / "000003.image.png", folder / "000003.image.webp")
        return "sample '000003' has both image.png and image.webp"
    if kind == "unreadable":
        content = (folder / "000003.skeleton.png").read_bytes()
        (folder / "000003.skeleton.png").write_bytes(content[: len(content) // 2])
        return "skeleton.png of sample '000003'"
    if kind == "not a picture":
        (folder / "000003.face.png").write_text("<html>not found</html>")
        return "face.png of sample '000003' (22 bytes) cannot be read"
    if kind == "sizes":
        Image.new("RGB", (32, 64)).save(folder / "000003.landmarks.png")
        return "the landmarks of sample '000003' is 32x64, but its image is 64x64"
    if kind == "others' size":
        write_sample(folder, random_sample(3, width=128))
        return "sample '000003' is 128x64, but the first one ('000000') is 64x64"
    if kind == "stride":
        write_sample(folder, random_sample(3, width=72))
        return "the image of sample '000003' is 72x64, but the model needs multiples of 64"
    if kind == "no face":
        Image.new("L", (64, 64)).save(folder / "000003.mask.png")
        return "the mask of sample '000003' is all black"
    if kind == "embedding":
        np.save(folder / "000003.embedding.npy", np.zeros(128, np.float32))
        return "embedding.npy of sample '000003' is (128,)"
    if kind == "pickled embedding":
        np.save(folder / "000003.embedding.npy", np.array([{}], dtype=object))
        return "embedding.npy of sample '000003' cannot be read"
    (folder / "000003.caption.txt").write_bytes(b"caf\xe9")
    return "caption.txt of sample '000003' is not UTF-8"


KINDS = (
    "missing",
    "twice",
    "unreadable",
    "not a picture",
    "sizes",
    "others' size",
    "stride",
    "no face",
    "embedding",
    "pickled embedding",
    "caption",
)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_sample_is_named_when_it_is_read_and_by_the_check(folder, kind):
    expected = break_sample(folder, kind)
    data = TrainingSet(folder, multiple_px=64)
    data.read(2)
    with pytest.raises(TrainingDataError) as error:
        data.read(3)
    assert expected in str(error.value)
    counts = []
    found = list(faults(data, lambda done, total: counts.append((done, total))))
    assert len(found) == 1 and expected in found[0] and counts[-1] == (5, 5)


@pytest.mark.parametrize("content", [b"", b"not a tar file" * 100])
def test_a_bad_shard_is_named(tmp_path, content):
    (tmp_path / "00000.tar").write_bytes(content)
    with pytest.raises(TrainingDataError, match=r"00000\.tar|holds no training samples"):
        TrainingSet(tmp_path)


def test_a_shard_that_was_cut_off_is_named(tmp_path):
    with ShardWriter(tmp_path) as writer:
        for number in range(3):
            writer.write(random_sample(number))
    path = tmp_path / "00000.tar"
    with tarfile.open(path) as tar:
        third = tar.getmembers()[16]
    path.write_bytes(path.read_bytes()[: third.offset_data + 100])
    with pytest.raises(TrainingDataError, match=r"00000\.tar.*cannot be read|sample '000002'"):
        TrainingSet(tmp_path).read(2)


def test_sets_that_are_none_are_refused(tmp_path):
    with pytest.raises(TrainingDataError, match="does not exist"):
        TrainingSet(tmp_path / "nowhere")
    (tmp_path / "image.png").touch()
    with pytest.raises(TrainingDataError, match="holds no training samples"):
        TrainingSet(tmp_path)
    (tmp_path / "dataset.json").write_text('{"format": "fpga-training-data", "version": 2}')
    with pytest.raises(TrainingDataError, match="has version 2, which is newer than this pack"):
        TrainingSet(tmp_path)


def test_a_sample_in_two_shards_is_refused(tmp_path):
    for name in ("a", "b"):
        with ShardWriter(tmp_path) as writer:
            writer.write(random_sample(1))
        (tmp_path / "00000.tar").rename(tmp_path / f"{name}.tar")
    with pytest.raises(TrainingDataError, match=r"sample '000001' is in 'b\.tar' and in an earlier shard"):
        TrainingSet(tmp_path)


@pytest.mark.parametrize("key", ["", "a.b", "../a", "a//b", "c:a"])
def test_keys_that_cannot_be_file_names_are_refused(tmp_path, key):
    with pytest.raises(InvalidInputError, match="cannot be the key of a sample"):
        write_sample(tmp_path, random_sample(1, key=key))
