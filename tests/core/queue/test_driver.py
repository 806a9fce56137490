"""Many servers driven together: nothing is lost and nothing is made twice, whatever happens to a server."""

import asyncio
import csv
import json
from collections import Counter
from pathlib import Path

import pytest
from fake_servers import PICTURE, FakeServer, serving
from fpga.commands.queue import driver
from fpga.commands.queue.driver import Driver
from fpga.commands.queue.job import Job
from fpga.commands.queue.results import Bar, Results
from fpga.fpga_core.errors import ServerError
from fpga.fpga_core.evaluation.scores import PictureScores


class Said:
    """Keeps what a queue says."""

    def __init__(self):
        self.lines: list[str] = []
        self.num_done = 0

    def done(self):
        self.num_done += 1

    def say(self, text):
        self.lines.append(text)


def graph(seed: int, steps: int = 4) -> dict:
    return {"3": {"class_type": "KSampler", "inputs": {"seed": seed, "steps": steps}}}


def jobs(number: int, uploads: dict | None = None) -> list[Job]:
    return [Job.of(graph(seed), row=seed + 1, uploads=uploads or {}) for seed in range(number)]


def seed_of(given: dict) -> int:
    return given["3"]["inputs"]["seed"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    """A queue that looks for lost jobs and new servers at once."""
    monkeypatch.setattr(driver, "POLL_S", 0.3)
    monkeypatch.setattr(driver, "RETRY_S", 0.1)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "results"


async def drive(folder: Path, todo: list[Job], servers, bar=Bar(), patience=5.0) -> Said:  # noqa: B008 - frozen
    """Runs a queue to its end, as one run of the command."""
    results, said = Results(folder), Said()
    try:
        urls = servers if callable(servers) else lambda: [server.url for server in servers]
        await Driver(todo, results=results, bar=bar, show=said).run(urls, patience=patience)
    finally:
        results.write_table(todo, bar)
        results.close()
    return said


def table(folder: Path) -> list[dict]:
    with (folder / "results.csv").open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def assert_each_once(folder: Path, todo: list[Job]) -> None:
    """Each job has one line and one picture, and the picture is its own."""
    lines = table(folder)
    assert [line["job"] for line in lines] == [job.key for job in todo]
    assert [line["error"] for line in lines] == [""] * len(todo)
    for line, job in zip(lines, todo, strict=True):
        content = (folder / line["file"]).read_bytes()
        assert json.loads(content.removeprefix(PICTURE)) == job.graph
    assert sorted(file.name for file in folder.glob("*.png")) == sorted(line["file"] for line in lines)


def test_a_faster_server_takes_more_jobs(folder):
    async def case():
        async with serving(0.01, 0.3) as (fast, slow):
            todo = jobs(40)
            said = await drive(folder, todo, [fast, slow])
            assert_each_once(folder, todo)
            assert (said.num_done, said.lines) == (40, [])
            assert len(fast.runs) + len(slow.runs) == 40
            assert len(fast.runs) > 3 * len(slow.runs) > 0

    asyncio.run(case())


def test_a_dead_server_gives_its_jobs_back_and_a_new_one_joins(folder):
    async def case():
        async with serving(0.01, 0.01, 0.01) as servers:
            urls = [server.url for server in servers]
            todo = jobs(90)

            async def trouble():
                while len(servers[0].runs) < 5:
                    await asyncio.sleep(0.005)
                await servers[0].die()
                servers.append(await FakeServer(0.01).start())
                urls.append(servers[-1].url)

            said, _ = await asyncio.gather(drive(folder, todo, lambda: urls), trouble())
            assert_each_once(folder, todo)
            assert [line for line in said.lines if f"{servers[0].url} is gone, and others get its jobs" in line]
            assert servers[3].runs
            counted = Counter(seed_of(made) for server in servers for made in server.graphs)
            at_most_on_the_dead = set(map(seed_of, servers[0].graphs))
            assert {seed for seed, times in counted.items() if times > 1} <= at_most_on_the_dead
            assert set(counted) == set(range(90))

    asyncio.run(case())


def test_a_server_that_restarts_is_used_again(folder):
    async def case():
        async with serving(0.01) as (server,):
            todo = jobs(30)

            async def restart():
                while len(server.runs) < 5:
                    await asyncio.sleep(0.005)
                await server.die()
                await asyncio.sleep(0.1)
                await server.start()

            await asyncio.gather(drive(folder, todo, [server]), restart())
            assert_each_once(folder, todo)

    asyncio.run(case())


@pytest.mark.parametrize("kind", ["fails", "refuses"])
def test_a_job_that_fails_on_two_servers_is_reported(folder, kind):
    async def case():
        async with serving(0.002, 0.002, 0.002) as servers:
            tries = []

            def is_bad(made):
                tries.extend([made] if seed_of(made) == 7 else [])
                return seed_of(made) == 7

            for server in servers:
                setattr(server, kind, is_bad)
            todo = jobs(20)
            said = await drive(folder, todo, servers)
            assert len(tries) == 2
            (failed,) = [line for line in table(folder) if line["error"]]
            words = {"fails": "node 9 KSampler: E: no luck", "refuses": "Value not in list: ckpt_name"}[kind]
            assert (failed["row"], failed["error"].count(words), failed["file"]) == ("8", 2, "")
            assert sum(server.url in failed["error"] for server in servers) == 2
            assert [line for line in said.lines if line.startswith("row 8 failed: ")]
            assert len(list(folder.glob("*.png"))) == 19
            for server in servers:
                setattr(server, kind, lambda made: False)
            assert (await drive(folder, todo, servers)).num_done == 1  # the cause is gone, so it is made
            assert_each_once(folder, todo)

    asyncio.run(case())


def test_a_failure_of_one_server_is_made_up_for_by_another(folder):
    async def case():
        async with serving(0.002, 0.002) as (broken, whole):
            broken.fails = lambda made: True
            todo = jobs(20)
            await drive(folder, todo, [broken, whole])
            assert_each_once(folder, todo)
            assert len(whole.runs) == 20

    asyncio.run(case())


def test_a_job_that_kills_its_servers_is_reported_and_the_others_are_made(folder):
    async def case():
        async with serving(0.002, 0.002, 0.002, 0.002) as servers:
            dying = []

            def kill_if_bad(server):
                def fails(made):
                    if seed_of(made) == 3:
                        dying.append(asyncio.get_running_loop().create_task(server.die()))
                    return False

                return fails

            for server in servers:
                server.fails = kill_if_bad(server)
                server.seconds = 0.01
            todo = jobs(40)
            await drive(folder, todo, servers)
            lines = table(folder)
            assert len(dying) == 2
            assert [line["row"] for line in lines if line["error"]] == ["4"]
            assert "the server ended while it had the job" in lines[3]["error"]
            assert len(list(folder.glob("*.png"))) == 39

    asyncio.run(case())


def test_a_job_that_somebody_removed_is_sent_again(folder):
    async def case():
        async with serving(0.02) as (server,):
            todo = jobs(5)

            async def clear():
                while len(server.queue) < 2:
                    await asyncio.sleep(0.001)
                server.queue.clear()

            await asyncio.gather(drive(folder, todo, [server]), clear())
            assert_each_once(folder, todo)

    asyncio.run(case())


def test_a_second_run_makes_what_is_missing(folder):
    async def case():
        async with serving(0.002) as (server,):
            todo = jobs(10)
            await drive(folder, todo[:6], [server])
            (folder / table(folder)[2]["file"]).unlink()
            with (folder / "results.jsonl").open("a") as journal:
                journal.write('{"job": "half a li')  # killed while it wrote
            said = await drive(folder, todo, [server])
            assert (len(server.runs), said.num_done) == (11, 5)
            assert_each_once(folder, todo)
            assert (await drive(folder, todo, [server])).num_done == 0

    asyncio.run(case())


def test_a_stopped_run_leaves_nothing_on_the_servers(folder):
    async def case():
        async with serving(0.05) as (server,):
            todo = jobs(10)
            running = asyncio.create_task(drive(folder, todo, [server]))
            while len(server.runs) < 3:
                await asyncio.sleep(0.005)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            assert server.queue == []
            await drive(folder, todo, [server])
            assert_each_once(folder, todo)
            assert len(server.runs) == 10

    asyncio.run(case())


def test_what_a_killed_run_left_on_a_server_is_taken_over(folder):
    """The queue itself is killed: one of its jobs has ended since, one is still waiting. Neither is made again."""

    async def case():
        async with serving(0.02, 0.02) as (first, second):
            todo = jobs(8)
            results = Results(folder)
            for number, server in ((0, second), (1, second)):
                prompt_id = f"00000000-0000-4000-8000-00000000000{number}"
                results.note_sent(prompt_id, todo[number], server.url)
                server.queue.append((prompt_id, todo[number].graph))
            results.close()
            while not second.runs:
                await asyncio.sleep(0.005)
            await drive(folder, todo, [first, second])
            assert_each_once(folder, todo)
            assert len(first.runs) + len(second.runs) == 8

    asyncio.run(case())


def test_weak_pictures_are_made_again_and_the_best_is_named(folder):
    async def case():
        async with serving(0.002, 0.002) as servers:
            strong = 2
            for server in servers:
                server.scores = lambda made: {
                    "24": {
                        "text": [
                            f"FaceSim: {0.8 if seed_of(made) == strong else seed_of(made) % 7 / 10:.3f} (1 person)"
                        ]
                    }
                }
            todo = jobs(4)
            bar = Bar({"FaceSim": 0.75}, again=3)
            await drive(folder, todo, servers, bar)
            lines = table(folder)
            assert [line["attempts"] for line in lines] == ["4", "4", "1", "4"]
            assert [line["weak"] for line in lines] == ["yes", "yes", "", "yes"]
            entries = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
            for line in lines:
                attempts = [e for e in entries if e.get("job") == line["job"] and "scores" in e]
                assert len({e["seed"] for e in attempts}) == len(attempts)
                assert float(line["FaceSim"]) == max(e["scores"]["FaceSim"] for e in attempts)
            made = sum(len(server.runs) for server in servers)
            await drive(folder, todo, servers, bar)
            assert sum(len(server.runs) for server in servers) == made == 13

    asyncio.run(case())


def test_a_job_of_which_keep_alike_keeps_nothing_is_made_again(folder):
    """The graph itself decides: its Save Image gets no picture below 0.5, and the queue has no bar of its own."""

    def judged(made: dict) -> dict:
        score = seed_of(made) % 10 / 10
        report = PictureScores(({"FaceSim": score},)).report()
        return {"24": {"text": [report]}} | ({} if score >= 0.5 else {"9": {"images": []}})

    async def case():
        async with serving(0.002, 0.002) as servers:
            for server in servers:
                server.scores = judged
            todo = jobs(6)
            bar = Bar(again=2)
            await drive(folder, todo, servers, bar)
            for job, line in zip(todo, table(folder), strict=True):
                scores = [seed_of(job.again(attempt).graph) % 10 / 10 for attempt in range(3)]
                good = next((attempt for attempt, score in enumerate(scores) if score >= 0.5), None)
                assert int(line["attempts"]) == (3 if good is None else good + 1)
                assert (line["weak"], bool(line["file"])) == (("yes", False) if good is None else ("", True))
                assert float(line["FaceSim"]) == scores[0 if good is None else good]
            made = sum(len(server.runs) for server in servers)
            assert made > len(todo)
            await drive(folder, todo, servers, bar)
            assert sum(len(server.runs) for server in servers) == made

    asyncio.run(case())


def test_a_photo_is_uploaded_once_to_each_server(folder, tmp_path):
    async def case():
        async with serving(0.002, 0.002) as servers:
            photo = tmp_path / "anna.png"
            photo.write_bytes(b"a photo")
            todo = jobs(20, uploads={"fpga-queue/abc.png": photo})
            await drive(folder, todo, servers)
            for server in servers:
                assert server.uploads == ["fpga-queue/abc.png"]
                assert server.files["abc.png"] == b"a photo"
            await drive(folder, jobs(30, uploads={"fpga-queue/abc.png": photo}), servers)
            assert [len(server.uploads) for server in servers] == [1, 1]  # it asks first

    asyncio.run(case())


def test_a_photo_that_is_gone_fails_its_job_alone(folder, tmp_path):
    async def case():
        async with serving(0.002) as (server,):
            lost = Job.of(graph(99), row=99, uploads={"fpga-queue/x.png": tmp_path / "deleted.png"})
            await drive(folder, [*jobs(3), lost], [server])
            assert [line["error"][-20:] for line in table(folder)][:3] == [""] * 3
            assert "deleted.png' cannot be read" in table(folder)[3]["error"]

    asyncio.run(case())


def test_without_a_server_it_gives_up_and_keeps_what_it_has(folder):
    async def case():
        async with serving(0.002) as (server,):
            await drive(folder, jobs(3), [server])
            await server.die()
            with pytest.raises(ServerError, match="start ComfyUI and run the command again, which continues"):
                await drive(folder, jobs(5), [server], patience=0.1)
            assert len(table(folder)) == 3

    asyncio.run(case())
