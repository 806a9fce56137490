"""The command `fpga-portrait queue` from its words to its table."""

import asyncio
import csv
import json
import math
import signal
import sys
import threading
from contextlib import contextmanager
from dataclasses import replace

import pytest
from fake_servers import FakeServer
from filelock import FileLock
from fpga import commands
from fpga.commands.queue import addresses, server
from fpga.commands.queue.outcome import Outcome
from fpga.commands.queue.results import Bar, Result
from fpga.fpga_core.evaluation.facesim import CastScore, MemberScore


@contextmanager
def served():
    """A server in a thread of its own, because the command has its own event loop."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    fake = FakeServer(0.002)
    asyncio.run_coroutine_threadsafe(fake.start(), loop).result()
    try:
        yield fake
    finally:
        asyncio.run_coroutine_threadsafe(fake.die(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture(autouse=True)
def handlers():
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def table(tmp_path):
    rows = [{"workflow": "single_identity", "seed": seed} for seed in range(5)]
    path = tmp_path / "portraits.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def lines_of(folder):
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_the_local_server_is_found_and_a_second_run_makes_nothing(table, tmp_path, monkeypatch, capsys):
    with served() as fake:
        monkeypatch.setattr(server, "LOCAL_PORTS", (1, fake._port))
        fake.scores = lambda graph: {"20": {"text": ["FaceSim: 0.512 (1 person in 1 picture)\n\npicture  person"]}}
        assert commands.main(["queue", str(table)]) == 0
        assert "5 of 5 jobs are done\nresults: " in capsys.readouterr().out
        assert commands.main(["queue", str(table)]) == 0
        assert len(fake.runs) == 5
    lines = lines_of(tmp_path / "portraits")
    assert [(line["row"], line["seed"], line["FaceSim"]) for line in lines] == [
        (str(row), str(row - 1), "0.512") for row in range(1, 6)
    ]
    assert {line["seconds"] for line in lines} == {"2.5"}
    assert all((tmp_path / "portraits" / line["file"]).is_file() for line in lines)


def test_failures_give_the_exit_status_1(table, tmp_path, capsys):
    with served() as fake:
        fake.fails = lambda graph: True
        status = commands.main(["queue", str(table), "--server", fake.url, "--output", str(tmp_path / "here")])
    assert status == 1
    assert "0 of 5 jobs are done, 5 have failed: see the column error" in capsys.readouterr().out
    assert all("no luck" in line["error"] for line in lines_of(tmp_path / "here"))


def test_weak_pictures_are_counted(table, tmp_path, capsys):
    with served() as fake:
        words = ["queue", str(table), "--server", fake.url, "--at-least", "FaceSim=0.5", "--again", "1"]
        assert commands.main(words) == 0
        assert len(fake.runs) == 10  # a picture without the score is weak
    assert "5 of 5 jobs are done, 5 of them are weak" in capsys.readouterr().out


def test_what_is_weak_and_what_is_best():
    bar = Bar({"FaceSim": 0.5}, {"bleed": 0.2}, again=3)
    figures = ((0.4, 0.1), (0.9, 0.3), (0.6, 0.2), (0.55, 0.0), (math.nan, 0.0))
    results = [
        Result("key", 1, attempt, None, files=["x.png"], scores={"FaceSim": facesim, "bleed": bleed})
        for attempt, (facesim, bleed) in enumerate(figures)
    ]
    assert [bar.is_weak(result) for result in results] == [True, True, False, False, True]
    assert bar.best(results).attempt == 2
    failed = Result("key", 1, 9, None, error="no luck")
    assert bar.best([failed, results[0]]).attempt == 0
    assert bar.is_weak(replace(results[2], files=[]))
    assert bar.is_weak(replace(results[2], scores={"FaceSim": 0.6}))
    assert not Bar().is_weak(replace(results[2], scores={}))


def test_no_server_is_said(table, monkeypatch, capsys):
    monkeypatch.setattr(server, "LOCAL_PORTS", (1, 2))
    assert commands.main(["queue", str(table)]) == 1
    assert "start ComfyUI, or name it with --server URL: none answers at the ports 1 and 2" in capsys.readouterr().err


def test_without_ray_its_option_says_how_to_install_it(table, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    assert commands.main(["queue", str(table), "--ray", "2", "--comfyui", str(tmp_path)]) == 1
    assert "pip install ray" in capsys.readouterr().err


def test_two_queues_do_not_share_a_folder(table, tmp_path, capsys):
    (tmp_path / "portraits").mkdir()
    with FileLock(tmp_path / "portraits" / ".lock"):
        assert commands.main(["queue", str(table), "--server", "http://127.0.0.1:1"]) == 1
    assert "wait for the other queue" in capsys.readouterr().err


def test_servers_come_from_the_words_and_a_file(tmp_path):
    file = tmp_path / "servers.txt"
    file.write_text("# the two in the cellar\n10.0.0.2:8188\n\nhttp://10.0.0.3:8188/\n")
    assert addresses(["http://10.0.0.3:8188", "a:1"], file) == [
        "http://10.0.0.3:8188",
        "http://a:1",
        "http://10.0.0.2:8188",
    ]


def entry(status: str = "success", messages: list | None = None, **outputs) -> dict:
    graph = {name: {"class_type": "FPGA_ScoreCast", "_meta": {"title": f"Score {name}"}} for name in outputs}
    times = [["execution_start", {"timestamp": 1_000}], ["execution_cached", {"timestamp": 1_250}]]
    return {
        "prompt": [0, "id", graph, {}, []],
        "outputs": outputs,
        "status": {"status_str": status, "messages": [*times, *(messages or [])]},
    }


def test_scores_are_read_from_the_reports():
    report = "FaceSim: 0.431 (2 people in 1 picture)\n\npicture  person  FaceSim\nnote: none\nBleed: -0.02"
    assert Outcome.of(entry(a={"text": [report]})).scores == {"FaceSim": 0.431, "Bleed": -0.02}
    both = Outcome.of(entry(before={"text": ["FaceSim: 0.2"]}, after={"text": ["FaceSim: 0.7", 3]}))
    assert both.scores == {"FaceSim (Score before)": 0.2, "FaceSim (Score after)": 0.7}
    assert Outcome.of(entry(a={"text": ["FaceSim: n/a, the cast has no face boxes"]})).scores == {}


def test_scores_are_read_from_tables_with_a_line_for_each_picture():
    table = "picture  CLIP-I  bleed (low)  note\n1        0.700   0.100        fine\n2        0.800   n/a          -"
    table += "\nmean     0.100   0.900        -"
    assert Outcome.of(entry(a={"text": [table]})).scores == {"CLIP-I": 0.75, "bleed": 0.1}


def test_scores_of_score_cast_are_read():
    """The node's own report: its mean, and the means over the people of what the table adds."""
    ann = MemberScore(name="Ann", number=1, face=0, facesim=0.5, likeness=0.5, iou=0.9)
    bo = MemberScore(name="Bo", number=2, face=1, facesim=0.1, likeness=0.2, iou=0.7)
    scores = Outcome.of(entry(a={"text": [CastScore(((ann, bo),)).report()]})).scores
    assert scores == pytest.approx({"FaceSim": 0.3, "likeness": 0.35, "IoU": 0.8})


def test_saved_pictures_count_before_previews():
    shown = [{"filename": "p.png", "subfolder": "", "type": "temp"}]
    saved = [{"filename": "s.png", "subfolder": "fpga", "type": "output"}]
    both, none_kept, no_saver = entry(a={"images": shown}, b={"images": saved}), entry(a={"images": shown}), entry()
    both["prompt"][2]["b"] = none_kept["prompt"][2]["b"] = {"class_type": "SaveImage"}
    no_saver["outputs"] = none_kept["outputs"]
    assert [picture.address for picture in Outcome.of(both).pictures] == saved
    assert Outcome.of(none_kept).pictures == ()  # Keep Alike held the picture back
    assert [picture.filename for picture in Outcome.of(no_saver).pictures] == ["p.png"]


def test_a_failure_is_in_the_servers_words():
    data = {"node_id": "4", "node_type": "FPGA_LoadFaceAnalysis", "exception_type": "MissingModelError"}
    failed = entry(
        "error", [["execution_error", {**data, "exception_message": "put a pack\n there", "timestamp": 4_000}]]
    )
    assert Outcome.of(failed).error == "node 4 FPGA_LoadFaceAnalysis: MissingModelError: put a pack there"
    assert Outcome.of(failed).seconds == 3.0
    stopped = entry("error", [["execution_interrupted", {**data, "timestamp": 2_000}]])
    assert Outcome.of(stopped).error == "node 4 FPGA_LoadFaceAnalysis: interrupted on the server"
