"""`fpga-portrait queue JOBS`: makes the pictures of a table on one or many ComfyUI servers. See docs/queue.md.

    fpga-portrait queue jobs.csv                                            on the ComfyUI of this machine
    fpga-portrait queue jobs.csv --server http://a:8188 --server http://b:8188
    fpga-portrait queue jobs.csv --at-least FaceSim=0.4 --again 3           weak pictures again, with other seeds

The same command continues a queue that was stopped, and makes what is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...fpga_core.errors import InvalidInputError, ServerError
from ...fpga_core.packages import importing
from ..comfyui import comfyui_folder
from .cluster import ray_servers
from .job import Job
from .results import LOCK, Bar, Results
from .table import read_jobs

if TYPE_CHECKING:
    from tqdm import tqdm


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fpga-portrait queue",
        usage="fpga-portrait queue JOBS [options]",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("jobs", metavar="JOBS", type=Path, help="the table: .csv, .jsonl or .parquet")
    parser.add_argument(
        "--server", metavar="URL", action="append", default=[], help="a ComfyUI; default: the one on this machine"
    )
    parser.add_argument(
        "--servers", metavar="FILE", type=Path, help="file with an address per line; add lines while the queue runs"
    )
    parser.add_argument(
        "--ray", metavar="N", type=int, help="start N servers on the Ray cluster of RAY_ADDRESS, or on this machine"
    )
    parser.add_argument(
        "--comfyui",
        metavar="FOLDER",
        type=Path,
        help="for --ray: ComfyUI's folder on every node; default: COMFYUI_PATH",
    )
    parser.add_argument(
        "--output", metavar="FOLDER", type=Path, help="pictures and results; default: named after JOBS, beside it"
    )
    parser.add_argument(
        "--at-least", metavar="NAME=NUMBER", action="append", default=[], type=score, help="what a picture must reach"
    )
    parser.add_argument(
        "--at-most", metavar="NAME=NUMBER", action="append", default=[], type=score, help="what it must not exceed"
    )
    parser.add_argument(
        "--again", metavar="N", type=int, default=0, help="how often to make a weak picture again; default: 0"
    )
    return parser


def score(text: str) -> tuple[str, float]:
    """Parses `NAME=NUMBER`."""
    name, _, number = text.rpartition("=")
    if not name:
        raise ValueError(f"{text!r} is not NAME=NUMBER")
    return name.strip(), float(number)


def addresses(servers: list[str], file: Path | None) -> list[str]:
    """Returns the servers of the command line and of the file, each once."""
    lines = [] if file is None else file.read_text(encoding="utf-8-sig").splitlines()
    named = [text.strip().rstrip("/") for text in (*servers, *lines)]
    return list(dict.fromkeys(url if "://" in url else f"http://{url}" for url in named if url and url[0] != "#"))


class Progress:
    """Shows how many jobs are done, their rate and the time left, and keeps what is said above it."""

    def __init__(self, total: int, done: int):
        from tqdm import tqdm

        self._bar: tqdm[Any] = tqdm(desc="pictures", total=total, initial=done, smoothing=0.05)

    def done(self) -> None:
        self._bar.update()

    def say(self, text: str) -> None:
        self._bar.write(text)

    def close(self) -> None:
        self._bar.close()


async def make(given: argparse.Namespace, jobs: list[Job], results: Results, bar: Bar) -> None:
    """Makes what is missing, and shows the progress."""
    import aiohttp

    from .driver import Driver
    from .server import LOCAL_PORTS, find_local

    servers: list[str] = given.server
    if not servers and given.servers is None:
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            found = await find_local(session)
        if found is None:
            ports = " and ".join(map(str, LOCAL_PORTS))
            raise ServerError(f"start ComfyUI, or name it with --server URL: none answers at the ports {ports}")
        servers = [found]
    missing = [job for job in jobs if results.missing(job, bar)]
    showing = Progress(total=len(jobs), done=len(jobs) - len(missing))
    try:
        await Driver(missing, results=results, bar=bar, show=showing).run(lambda: addresses(servers, given.servers))
    finally:
        showing.close()


def summary(jobs: list[Job], results: Results, bar: Bar) -> tuple[str, int]:
    """Returns what became of the jobs in a sentence, and how many have failed."""
    best = [bar.best(results.ended[job.key]) for job in jobs if job.key in results.ended]
    failed = sum(result.error is not None for result in best)
    weak = sum(result.error is None and bar.is_weak(result) for result in best)
    parts = [f"{len(best) - failed} of {len(jobs)} jobs are done"]
    parts += [f"{weak} of them are weak"] if weak else []
    parts += [f"{failed} have failed: see the column error"] if failed else []
    return ", ".join(parts), failed


def main(arguments: list[str]) -> int:
    """Makes the pictures. The exit status is 1 if a job has failed."""
    given = build_parser().parse_args(arguments)
    from filelock import FileLock, Timeout

    jobs = read_jobs(given.jobs)
    bar = Bar(dict(given.at_least), dict(given.at_most), given.again)
    folder: Path = given.output or given.jobs.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stops like Ctrl-C
    started = ray_servers(given.ray, given.comfyui or comfyui_folder()) if given.ray else nullcontext([])
    try:
        with importing("aiohttp"), FileLock(folder / LOCK, timeout=0), started as on_cluster:
            given.server += on_cluster
            results = Results(folder)
            try:
                asyncio.run(make(given, jobs, results, bar))
            finally:
                table = results.write_table(jobs, bar)
                results.close()
    except Timeout:
        raise InvalidInputError(
            f"wait for the other queue that writes to '{folder}', or name another --output"
        ) from None
    text, failed = summary(jobs, results, bar)
    print(f"{text}\nresults: {table}")
    return min(failed, 1)
