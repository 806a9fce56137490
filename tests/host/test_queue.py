"""Three real servers under one queue: one is killed at random, one is added; nothing is lost and nothing is made twice.

`QUEUED_JOBS=200 python dev.py test tests/host/test_queue.py -s` queues 200 jobs instead of 30.
"""

import csv
import json
import os
import random
import signal
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from fpga import commands
from fpga.devtools.client import ComfyClient, api_node
from fpga.devtools.server import ComfyServer
from PIL import Image

NUM_JOBS = int(os.environ.get("QUEUED_JOBS", "30"))
SIDE_PX = 512


@pytest.fixture(scope="module")
def servers(tmp_path_factory):
    """Three more servers, which share nothing with each other."""
    started = [ComfyServer(tmp_path_factory.mktemp("comfyui")) for _ in range(3)]
    try:
        with ThreadPoolExecutor() as pool:
            list(pool.map(ComfyServer.start, started))
        yield started
    finally:
        for each in started:
            each.stop()


def workflow() -> dict:
    """Puts the photo into the corner of a coloured picture, which is blurred to take some time."""
    return {
        "1": api_node("EmptyImage", width=SIDE_PX, height=SIDE_PX, batch_size=1, color=0),
        "2": api_node("LoadImage", "Photo", image="corner.png"),
        "3": api_node("ImageBlur", image=["1", 0], blur_radius=15, sigma=5.0),
        "4": api_node("ImageCompositeMasked", destination=["3", 0], source=["2", 0], x=0, y=0, resize_source=False),
        "5": api_node("SaveImage", images=["4", 0], filename_prefix="queue"),
    }


@pytest.fixture
def table(tmp_path):
    """A table whose pictures all have different colours, with a photo that only this machine has."""
    rows = [
        {"workflow": "workflow.json", "1.color": colour_of(number), "2.image": "corner.png"}
        for number in range(NUM_JOBS)
    ]
    (tmp_path / "workflow.json").write_text(json.dumps(workflow()))
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "corner.png")
    path = tmp_path / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def colour_of(number: int) -> int:
    """A colour that survives the rounding of a blur."""
    return (8 * (number % 32) << 16) + (8 * (number // 32) << 8)


def lines_of(folder) -> list[dict]:
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def num_ended(journal) -> int:
    return journal.read_text().count('"seconds"') if journal.exists() else 0


def number_in(folder, line: dict) -> int:
    """The number whose colour the picture has."""
    pixels = np.asarray(Image.open(folder / line["file"]).convert("RGB"))
    assert pixels.shape == (SIDE_PX, SIDE_PX, 3)
    assert (pixels[:8, :8] == (255, 0, 0)).all()  # the photo has arrived
    red, green, _ = (round(value / 8) for value in pixels[-1, -1].tolist())
    return red + 32 * green


def test_one_server_is_killed_and_one_added(servers, server, table, tmp_path, capsys):
    folder, file = tmp_path / "results", tmp_path / "servers.txt"
    file.write_text("\n".join(each.address for each in servers) + "\n")
    killed = random.choice(servers)

    def trouble():
        while num_ended(folder / "results.jsonl") < NUM_JOBS // 5:
            time.sleep(0.02)
        os.kill(killed.process_id, signal.SIGKILL)
        with file.open("a") as more:
            more.write(f"{server.address}\n")

    thread = threading.Thread(target=trouble)
    thread.start()
    began = time.monotonic()
    assert commands.main(["queue", str(table), "--servers", str(file), "--output", str(folder)]) == 0
    seconds = time.monotonic() - began
    thread.join()
    lines = lines_of(folder)
    by_server = Counter(line["server"] for line in lines)
    with capsys.disabled():
        sys.stdout.write(f"\n{NUM_JOBS} jobs in {seconds:.1f} s, one server killed, one added: {dict(by_server)}\n")
    assert [(line["row"], line["error"]) for line in lines] == [(str(row), "") for row in range(1, NUM_JOBS + 1)]
    assert [number_in(folder, line) for line in lines] == list(range(NUM_JOBS))
    assert len(list(folder.glob("*.png"))) == NUM_JOBS
    ended = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines() if '"seconds"' in line]
    assert len({entry["job"] for entry in ended}) == len(ended) == NUM_JOBS
    alive = [each for each in (*servers, server) if each is not killed]
    assert all(by_server[each.address] for each in alive)
    made = [
        entry["prompt"][2]["1"]["inputs"]["color"]
        for each in alive
        for entry in ComfyClient(each.address).get("/history").json().values()
        if entry["prompt"][2].get("5", {}).get("inputs", {}).get("filename_prefix") == "queue"
    ]
    assert set(Counter(made).values()) == {1}
    assert NUM_JOBS - len(made) == by_server[killed.address]  # what the others did not make


def test_the_same_command_again_makes_nothing(servers, table, tmp_path, capsys):
    """On the two that are left; the third is still named, and does not answer."""
    words = ["queue", str(table), "--output", str(tmp_path / "results")]
    words += [word for each in servers for word in ("--server", each.address)]
    short = table.read_text().splitlines()
    table.write_text("\n".join(short[:4]))
    assert commands.main(words) == 0
    table.write_text("\n".join(short[:6]))
    assert commands.main(words) == 0
    ended = num_ended(tmp_path / "results" / "results.jsonl")
    assert ended == 6
    assert commands.main(words) == 0
    assert num_ended(tmp_path / "results" / "results.jsonl") == ended


def test_a_failure_is_reported_in_the_servers_words(server, tmp_path):
    """A node that fails, and a graph that is refused, beside one that is made."""
    rows = [
        {"workflow": "workflow.json", "1.color": colour_of(7)},
        {"workflow": "workflow.json", "2.image": "nowhere.png"},
    ]
    rows.append({"workflow": "workflow.json", "3.blur_radius": 1000})
    graph = workflow()
    Image.new("RGB", (8, 8), (255, 0, 0)).save(tmp_path / "corner.png")
    graph["2"]["inputs"]["image"] = "corner.png"
    (tmp_path / "workflow.json").write_text(json.dumps(graph))
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert commands.main(["queue", str(tmp_path / "jobs.jsonl"), "--server", server.address]) == 1
    made, missing, refused = lines_of(tmp_path / "jobs")
    assert (made["error"], number_in(tmp_path / "jobs", made)) == ("", 7)
    assert "node 2 LoadImage" in missing["error"] and "nowhere.png" in missing["error"]
    assert "node 3 ImageBlur: Value 1000 bigger than max" in refused["error"]


def test_servers_start_on_a_ray_cluster_and_end_with_the_queue(table, tmp_path, monkeypatch):
    """A cluster of this machine alone, where Ray gives each of two servers a process of its own."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    short = table.read_text().splitlines()[:6]
    table.write_text("\n".join(short))
    assert commands.main(["queue", str(table), "--ray", "2", "--output", str(tmp_path / "results")]) == 0
    lines = lines_of(tmp_path / "results")
    assert [number_in(tmp_path / "results", line) for line in lines] == list(range(6))
    assert len({line["server"] for line in lines}) == 2
    left = [one for one in psutil.process_iter(["cmdline"]) if "fpga-queue-" in " ".join(one.info["cmdline"] or ())]
    assert not left
