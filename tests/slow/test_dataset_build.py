"""`fpga-portrait dataset build` as a program: every picture accounted for, resumed after a kill, the same on Ray."""

import json
import signal
import subprocess
import time
from collections import Counter

import numpy as np
import pytest
from dataset_runs import build_words, members_of, report_of, run, shards_of
from fpga.fpga_core.training.data.reading import TrainingSet, faults
from painted_pictures import CAPTION, DUPLICATE, GROUP, SMALL, pose_of, write_pictures
from PIL import Image

STEPS = {"blur": "clarity", SMALL: "resolution", GROUP: "faces", "damaged": "decoding", CAPTION: "caption score"}
NUM, SHARD_SIZE = 72, 9


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return folder, write_pictures(folder, seed=11, num=NUM)


@pytest.fixture(scope="module")
def built(pictures, tmp_path_factory):
    """A set, and the words that built it."""
    output = tmp_path_factory.mktemp("sets") / "one"
    words = build_words(pictures[0] / "pictures.csv", output, **{"min-caption-score": 0.7, "shard-size": SHARD_SIZE})
    printed = run(words)
    return output, words, printed


def test_every_picture_is_in_a_shard_or_in_the_report_with_its_reason(pictures, built):
    output, _, printed = built
    rows = report_of(output)
    assert [row["file"] for row in rows] == [f"{picture.number:06}.jpg" for picture in pictures[1]]
    members = {name for shard in output.glob("*.tar") for name in members_of(shard)}
    for picture, row in zip(pictures[1], rows, strict=True):
        assert (row["step"] is None) == (f"{row['key']}.image.png" in members)
        if picture.fault in STEPS:
            assert row["step"] == STEPS[picture.fault], row
            assert row["detail"]
    twins = [(picture.number, picture.of) for picture in pictures[1] if picture.fault == DUPLICATE]
    assert all(len({rows[a]["step"], rows[b]["step"]} & {"duplicate", "duplicate face"}) == 1 for a, b in twins)
    kept = sum(row["step"] is None for row in rows)
    assert f"{kept} of {NUM} pictures are in the set" in printed
    good = [row for picture, row in zip(pictures[1], rows, strict=True) if not picture.fault]
    assert Counter(row["step"] for row in good).keys() <= {None, "duplicate", "duplicate face"}


def test_the_trainer_reads_every_sample_and_origins_travel_along(built):
    output, _, _ = built
    data = TrainingSet(output, multiple_px=64)
    assert list(faults(data)) == []
    assert data.note == "" and data.recogniser is not None
    for row in report_of(output):
        if row["step"] is None:
            member = members_of(output / row["shard"])[f"{row['key']}.origin.json"]
            assert json.loads(member) == {"file": row["file"], "sha256": row["sha256"], "licence": "CC0"}


def test_three_kills_and_one_worker_give_the_same_shards_to_the_byte(built, tmp_path):
    output, words, _ = built
    other = tmp_path / "killed"
    words = [str(other) if word == str(output) else word for word in words] + ["--workers", "1"]
    for place in ("work/look/*-given.parquet", "work/see/*-given.parquet", "00001.tar"):
        kill_when(words, lambda place=place: any(other.glob(place)))
    assert not (other / "dataset.json").exists(), "half a set has no header"
    run(words)
    assert shards_of(other) == shards_of(output)
    assert report_of(other) == report_of(output)
    assert [*other.glob("*.part")] == []


def kill_when(words: list[str], is_time) -> None:
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not is_time():
            time.sleep(0.01)
        assert process.poll() is None, "it ended before it could be killed"
        process.send_signal(signal.SIGKILL)
        process.wait()


def test_ray_gives_what_the_native_runner_gave_row_for_row(pictures, built, tmp_path):
    output, _, _ = built
    other = tmp_path / "other"
    options = {"min-caption-score": 0.7, "shard-size": SHARD_SIZE, "ray": True}
    run(build_words(pictures[0] / "pictures.csv", other, **options))
    assert report_of(other) == report_of(output)
    assert shards_of(other) == shards_of(output)


def test_given_key_points_need_no_model_and_groups_are_kept_apart(pictures, tmp_path):
    """The modalities are exactly those of the scene, moved into the window."""
    from fpga.fpga_core.shapes import Extent
    from painted_pictures import scene_of

    folder = tmp_path / "given"
    folder.mkdir()
    chosen = [p for p in pictures[1] if p.fault in ("", GROUP)][:8]
    for picture in chosen:
        name, scene = f"{picture.number:06}", scene_of(11, picture)
        (folder / f"{name}.jpg").write_bytes((pictures[0] / f"{name}.jpg").read_bytes())
        (folder / f"{name}.txt").write_text(scene.caption)
        pose = pose_of(scene.faces(Extent(256, 256)), with_faces=True)
        (folder / f"{name}.pose.json").write_text(json.dumps(pose))
    output = tmp_path / "set"
    words = build_words(folder, output, groups=True, **{"min-side": 192})
    place = words.index("--face-analysis")
    run(words[:place] + words[place + 2 :])
    rows = report_of(output)
    assert [row["set"] for row in rows] == ["groups" if p.fault == GROUP else "singles" for p in chosen]
    for name in ("", "groups"):
        assert list(faults(TrainingSet(output / name, multiple_px=64))) == []
    first = next(place for place, row in enumerate(rows) if row["set"] == "singles")
    row, scene = rows[first], scene_of(11, chosen[first])
    members = members_of(output / row["shard"])
    assert f"{row['key']}.embedding.npy" not in members
    from io import BytesIO

    mask = np.asarray(Image.open(BytesIO(members[f"{row['key']}.mask.png"])))
    points = scene.faces(Extent(128, 128)).faces[0].landmarks.round().astype(int)
    assert (mask[points[27:, 1], points[27:, 0]] == 255).all()
    assert members[f"{row['key']}.caption.txt"].decode() == scene.caption


def test_a_finished_build_does_nothing_and_other_thresholds_reuse_what_was_seen(built):
    """The last test of this file, because it changes the set."""
    output, words, _ = built
    before = shards_of(output)
    times = {file: file.stat().st_mtime_ns for file in output.glob("*.tar")}
    run(words)
    assert shards_of(output) == before
    assert {file: file.stat().st_mtime_ns for file in output.glob("*.tar")} == times
    seen = {file.name: file.stat().st_mtime_ns for file in (output / "work" / "look").glob("*-*-*")}
    run([*words, "--min-clarity", "600"])
    assert {file.name: file.stat().st_mtime_ns for file in (output / "work" / "look").glob("*-*-*")} == seen
    assert sum(row["step"] == "clarity" for row in report_of(output)) > 6
