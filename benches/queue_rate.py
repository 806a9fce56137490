"""The rate of `fpga-portrait queue` on three servers, over the sum of what the servers do without it.

All run on this machine at the same time, and share it. Without the queue, each server gets all of its prompts at once,
and nobody fetches a picture: it is never idle, and nothing works beside it. The queue sends two at a time, and fetches
every picture. Both are measured in turn. The goal is a ratio of at least 0.9.
"""

import asyncio
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from _report import arguments, in_turn, report
from _server import serving
from fpga.commands.queue.driver import Driver
from fpga.commands.queue.job import Job
from fpga.commands.queue.results import Bar, Results
from fpga.devtools.client import ComfyClient, Prompt
from queue_identity import plain_graph

NUM_SERVERS, JOBS_EACH, WARM_UP_EACH, GOAL = 3, 20, 2, 0.9
STEPS = 4
POLL_S = 0.02


class Silent:
    def done(self) -> None:
        pass

    def say(self, text: str) -> None:
        print(text, flush=True)


def graphs(seeds: Iterator[int], number: int) -> list[Prompt]:
    """Returns that many graphs which no server has seen."""
    found = [plain_graph(seed) for _, seed in zip(range(number), seeds, strict=False)]
    for graph in found:
        graph["sample"]["inputs"]["steps"] = STEPS
    return found


def rate_of_one(address: str, prompts: list[Prompt]) -> float:
    """Returns the prompts per second of a server that has all of them."""
    client = ComfyClient(address)
    began = time.perf_counter()
    for prompt in prompts:
        client.queue(prompt)
    while client.get("/prompt").json()["exec_info"]["queue_remaining"]:
        time.sleep(POLL_S)
    return len(prompts) / (time.perf_counter() - began)


def rate_of_queue(addresses: list[str], prompts: list[Prompt]) -> float:
    """Returns the pictures per second of the queue."""
    jobs = [Job.of(prompt, row=row, uploads={}) for row, prompt in enumerate(prompts, 1)]
    with tempfile.TemporaryDirectory() as folder:
        results = Results(Path(folder))
        began = time.perf_counter()
        asyncio.run(Driver(jobs, results=results, bar=Bar(), show=Silent()).run(lambda: addresses))
        seconds = time.perf_counter() - began
        results.close()
    return len(jobs) / seconds


def main() -> None:
    options = arguments(__doc__)
    seeds = itertools.count(1)
    rates: dict[str, list[float]] = {"the servers' sum": [], "queue": []}
    with ExitStack() as stack, ThreadPoolExecutor(NUM_SERVERS) as pool:
        addresses = [stack.enter_context(serving()).address for _ in range(NUM_SERVERS)]
        for number, way in enumerate((*rates, *in_turn(rates, options.rounds))):
            each = WARM_UP_EACH if options.tiny or number < len(rates) else JOBS_EACH
            if way == "queue":
                rates[way].append(rate_of_queue(addresses, graphs(seeds, NUM_SERVERS * each)))
            else:
                shares = [graphs(seeds, each) for _ in addresses]
                rates[way].append(sum(pool.map(rate_of_one, addresses, shares)))
            print(f"{way}: {rates[way][-1]:.2f} per second", flush=True)
    pairs = zip(rates["queue"][1:], rates["the servers' sum"][1:], strict=True)
    ratios = [queue / alone for queue, alone in pairs]
    row = {
        **{way: round(statistics.median(values[1:]), 2) for way, values in rates.items()},
        "ratio": round(statistics.median(ratios), 3),
        "least": round(min(ratios), 3),
        "largest": round(max(ratios), 3),
        "at least": GOAL,
    }
    report(f"{NUM_SERVERS} servers, jobs of {STEPS} steps, per second", [row], options.json)


if __name__ == "__main__":
    main()
