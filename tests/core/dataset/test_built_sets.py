"""`fpga-portrait dataset check | stats | review` on a set that was written for the test."""

import json
import re
import tarfile
import threading
import urllib.error
import urllib.request
from io import BytesIO

import numpy as np
import pytest
from built_sets import SIDE_PX, sample_of, sha_of, write_set
from fpga.commands.dataset import main
from fpga.commands.dataset.check import check
from fpga.commands.dataset.report import REPORT, write_report
from fpga.commands.dataset.review import Decisions, ReviewServer, pictures_of, write_fiftyone
from fpga.commands.dataset.stats import charts_of
from fpga.fpga_core.dataset.decisions import Choice, dropped_pictures, read_decisions
from fpga.fpga_core.errors import InvalidInputError, TrainingDataError
from PIL import Image

NUM = 40


@pytest.fixture
def built(tmp_path):
    return tmp_path, write_set(tmp_path, NUM)


def test_a_whole_set_passes_the_check(built, capsys):
    folder, _ = built
    assert main(["check", str(folder)]) == 0
    assert "nothing is wrong" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"shard": "00009.tar"}, "is in '00000.tar', and the report says '00009.tar'"),
        ({"sha256": "0" * 64}, "was made from another file than the report says"),
        ({"key": "000000999"}, "('7.jpg') is in the report, but in no shard"),
        ({"shard": None}, "'7.jpg' is nowhere in the report"),
        ({"number": 8}, "does not list each picture once"),
        ({"step": "faces"}, "'7.jpg' is left out and in a shard"),
        ({"set": "others"}, "in the set 'others', which no build writes"),
    ],
)
def test_a_report_that_differs_from_the_shards_is_noticed(built, change, message):
    folder, rows = built
    rows[7] |= change
    if change.get("set"):
        (folder / "others").symlink_to(folder)
    write_report(folder / REPORT, [rows])
    assert any(message in fault for fault in check(folder))


def test_a_damaged_sample_is_noticed(built):
    folder, _ = built
    shard = folder / "00000.tar"
    with tarfile.open(shard) as tar:
        place = next(member for member in tar if member.name == "000000003.mask.png")
    content = bytearray(shard.read_bytes())
    content[place.offset_data : place.offset_data + 8] = b"no image"
    shard.write_bytes(content)
    assert [fault for fault in check(folder) if "000000003" in fault]


def test_what_is_no_built_set_is_refused(tmp_path):
    for command in ("check", "stats"):
        with pytest.raises(TrainingDataError, match=r"name the folder that `dataset build` wrote"):
            main([command, str(tmp_path)])


def test_every_picture_is_counted_once(built, capsys):
    folder, rows = built
    page = folder / "stats.html"
    assert main(["stats", str(folder), "--page", str(page)]) == 0
    shown = capsys.readouterr().out
    assert f"| in the set | {NUM} |" in shown and "| clarity | 2 |" in shown
    charts = {chart.title: dict(chart.counts) for chart in charts_of([{**dict.fromkeys(ALL), **row} for row in rows])}
    assert sum(charts["what became of the pictures"].values()) == len(rows)
    assert sum(charts["length of the face in the set's picture, pixels"].values()) == NUM
    assert charts["copies of one picture that were left out"] == {"1": 1}
    assert charts["source"] == {"made for a test": NUM}
    drawn = page.read_text()
    assert drawn.count("<svg") == drawn.count("<h2>") >= 6 and "made for a test" in drawn
    assert [float(size) for size in re.findall(r'<rect [^>]*width="([\d.]+)"', drawn)][0] == 420


ALL = ("step", "duplicate_of", "face_length", "roll", "turn", "body_points", "source", "licence")


def test_a_sample_is_the_same_for_everybody_and_grows(built):
    folder, _ = built
    shares = [{picture.sha256 for picture in pictures_of(folder, percent)} for percent in (25, 50, 100)]
    assert shares[0] < shares[1] < shares[2] == {sha_of(number) for number in range(NUM)}
    assert 3 <= len(shares[0]) <= 18
    with pytest.raises(InvalidInputError, match="give a larger --sample"):
        pictures_of(folder, 0)


@pytest.fixture
def server(built):
    folder, _ = built
    with ReviewServer(pictures_of(folder, 100), Decisions(folder / "decisions.jsonl", "Ann")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def ask(server, path: str, *, data: object = None, key: str | None = None, host: str | None = None) -> bytes:
    address = f"http://{server.host}{path}?key={server.key if key is None else key}"
    body = None if data is None else json.dumps(data).encode()
    request = urllib.request.Request(address, data=body, headers={"Host": host or server.host})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return reply.read()


def test_the_page_shows_skeleton_and_landmarks_on_the_picture(server):
    shown = np.asarray(Image.open(BytesIO(ask(server, "/picture/5")))).astype(int)
    assert shown.shape == (SIDE_PX, SIDE_PX, 3)
    assert shown[50, 31].min() > 200 and shown[21, 5, 0] > 150 and shown[21, 5, 1] < 90
    assert np.abs(shown[5, 5] - sample_of(5).image[5, 5]).max() < 30


def test_decisions_are_kept_and_taken_back(server, built):
    folder, _ = built
    decided = ((3, "drop"), (4, "drop"), (4, "undecided"), (5, "keep"))
    ask(server, "/decide", data=[{"sha256": sha_of(number), "decision": choice} for number, choice in decided])
    decisions = read_decisions(folder / "decisions.jsonl")
    assert dropped_pictures(decisions) == {sha_of(3): ("Ann",)}
    listed = json.loads(ask(server, "/pictures"))
    assert [picture["decision"] for picture in listed[3:6]] == ["drop", "undecided", "keep"]
    assert Decisions(folder / "decisions.jsonl", "Ann").choices == {sha_of(3): Choice.DROP, sha_of(5): Choice.KEEP}
    assert Decisions(folder / "decisions.jsonl", "Ben").choices == {}


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"path": "/pictures", "key": "another"}, 403),
        ({"path": "/pictures", "host": "example.com"}, 403),
        ({"path": "/picture/99"}, 404),
        ({"path": "/picture/../review.py"}, 404),
        ({"path": "/decide", "data": [{"sha256": "unknown", "decision": "drop"}]}, 400),
        ({"path": "/decide", "data": [{"sha256": sha_of(1), "decision": "perhaps"}]}, 400),
        ({"path": "/decide", "data": {"sha256": sha_of(1), "decision": "drop"}}, 400),
        ({"path": "/decide", "data": [{"sha256": sha_of(1), "decision": "drop"}], "key": ""}, 403),
    ],
)
def test_what_the_page_would_not_ask_is_refused(server, given, status):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, **given)
    assert refused.value.code == status
    refused.value.close()
    assert server.decisions.choices == {}


def test_pictures_are_written_for_fiftyone(built, tmp_path):
    folder, _ = built
    other = tmp_path / "fiftyone"
    write_fiftyone(pictures_of(folder, 100), other)
    labels = json.loads((other / "labels.json").read_text())["labels"]
    assert labels.keys() == {file.stem for file in (other / "data").glob("*.jpg")}
    assert labels[sha_of(7)] == "person 7"
