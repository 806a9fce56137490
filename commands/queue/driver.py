"""Drives many servers together until every job is done: each takes what it can, and a dead one gives its jobs back."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Protocol

import aiohttp

from ...fpga_core.errors import ServerError
from .job import Job
from .outcome import Outcome
from .results import Bar, Result, Results
from .server import ANSWER_S, GONE, RefusedError, Server

DEPTH = 2
"""Jobs that a server has at a time: while it works on one, the next is already there."""

STRIKES = 2
"""Failures after which a job is reported."""

POLL_S = 5.0
RETRY_S = 1.0
PATIENCE_S = 60.0
"""Seconds to wait for news before asking; between tries to reach a server; and without any server before giving up."""


class Show(Protocol):
    """Where a queue says what happens."""

    def done(self) -> None:
        """Another job is finished, with or without a picture."""
        ...

    def say(self, text: str) -> None:
        """Something happened that the user should read."""
        ...


class Driver:
    """Makes jobs on servers.

    Args:
        results: where pictures and results go; what is there is not made again.
        bar: what a picture must reach.
        show: where to say what happens.
    """

    def __init__(self, jobs: Iterable[Job], *, results: Results, bar: Bar, show: Show) -> None:
        self._results = results
        self._bar = bar
        self._show = show
        self._jobs = {job.key: job for job in jobs}
        self._waiting = deque(filter(None, (results.missing(job, bar) for job in self._jobs.values())))
        self._unfinished = {job.key for job in self._waiting}
        self._failures: dict[str, list[tuple[str, str]]] = {}
        self._connected: dict[str, Server] = {}

    async def run(self, addresses: Callable[[], Sequence[str]], *, patience: float = PATIENCE_S) -> None:
        """Makes every job that is missing. A stopped run leaves no job on the servers.

        Args:
            addresses: gives the servers' addresses. It is called again and again, and may return new ones.
            patience: seconds without any server after which to give up.
        Raises:
            ServerError: no server has answered for so long.
        """
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ANSWER_S, sock_read=ANSWER_S)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as session:
            servers = {url: Server(session, url) for url in addresses()}
            await asyncio.gather(*map(self._try_to_join, servers.values()))  # before anyone takes a job of another
            tasks = {url: asyncio.create_task(self._serve(server)) for url, server in servers.items()}
            seen = time.monotonic()
            try:
                while self._unfinished:
                    for url in addresses():
                        if url not in tasks:
                            servers[url] = Server(session, url)
                            tasks[url] = asyncio.create_task(self._serve(servers[url]))
                    seen = time.monotonic() if self._connected else seen
                    if time.monotonic() - seen > patience:
                        raise ServerError(
                            f"start ComfyUI and run the command again, which continues: no server has answered for "
                            f"{patience:.0f} s ({', '.join(tasks) or 'none is named'})"
                        )
                    await asyncio.wait(tasks.values(), timeout=RETRY_S, return_when=asyncio.FIRST_EXCEPTION)
                    for task in tasks.values():
                        if task.done():
                            task.result()
            finally:
                for task in tasks.values():
                    task.cancel()
                await asyncio.gather(*tasks.values(), return_exceptions=True)
                await asyncio.gather(*map(self._leave, servers.values()))

    async def _try_to_join(self, server: Server) -> None:
        with suppress(*GONE, RefusedError):
            await self._join(server)

    async def _join(self, server: Server) -> None:
        """Connects to a server, and takes over what an earlier run or connection sent to it."""
        await server.connect()
        queued = await server.queued()
        for prompt_id, (key, attempt, url) in list(self._results.sent.items()):
            if url != server.url or prompt_id in server.jobs:
                continue
            job = next((job for job in self._waiting if (job.key, job.attempt) == (key, attempt)), None)
            outcome = await server.outcome(prompt_id)
            if job and (prompt_id in queued or (outcome and outcome.error is None)):
                self._waiting.remove(job)
                server.jobs[prompt_id] = job
                continue
            if prompt_id in queued:  # another server has it by now
                await server.cancel(prompt_id)
            self._results.forget_sent(prompt_id)
        self._connected[server.url] = server

    async def _leave(self, server: Server) -> None:
        with suppress(*GONE, RefusedError):
            for prompt_id in server.jobs if server.is_connected else ():
                await server.cancel(prompt_id)
        await server.close()

    async def _serve(self, server: Server) -> None:
        """Keeps a server busy. If it dies, its jobs go to others, and it is asked now and then whether it is back."""
        while self._unfinished:
            try:
                server.news.clear()
                if not server.is_connected:
                    await self._join(server)
                await self._collect(server)
                await self._send(server)
            except (*GONE, RefusedError) as error:
                reason = " ".join(str(error).split()) or type(error).__name__
                if self._connected.pop(server.url, None):
                    self._show.say(f"{server.url} is gone, and others get its jobs ({reason})")
                self._give_back(server, list(server.jobs), f"the server ended while it had the job ({reason})")
                await server.close()
                await asyncio.sleep(RETRY_S)
                continue
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(server.news.wait(), POLL_S)

    async def _collect(self, server: Server) -> None:
        """Takes the results of the jobs that have ended, and gives back those that the server has lost."""
        ended = False
        for prompt_id in list(server.jobs):
            outcome = await server.outcome(prompt_id)
            if outcome is not None:
                ended = True
                await self._finish(server, prompt_id, outcome)
        if server.jobs and not ended:
            queued = await server.queued()
            lost = [i for i in server.jobs if i not in queued and await server.outcome(i) is None]
            self._give_back(server, lost, "the server no longer has the job: it was removed, or the server restarted")

    async def _finish(self, server: Server, prompt_id: str, outcome: Outcome) -> None:
        job = server.jobs[prompt_id]
        files: list[str] = []
        error = outcome.error
        try:
            for number, picture in enumerate(outcome.pictures if error is None else (), 1):
                content = await server.picture(picture)
                suffix = PurePosixPath(picture.filename).suffix
                files.append(self._results.save_picture(job, number, suffix=suffix, content=content))
        except RefusedError as refused:
            error = str(refused)
        del server.jobs[prompt_id]
        if error is not None:
            self._strike(job, server, error)
            self._results.forget_sent(prompt_id)
            return
        blank = Result.of(job, server.url)
        result = replace(blank, files=files, scores=outcome.scores, seconds=outcome.seconds)
        self._results.note_ended(result, prompt_id)
        following = self._results.missing(self._jobs[job.key], self._bar)
        if following is None:
            self._end(job)
        else:
            self._wait(following)

    async def _send(self, server: Server) -> None:
        while len(server.jobs) < DEPTH and (job := self._take(server)):
            prompt_id = str(uuid.uuid4())
            server.jobs[prompt_id] = job
            self._results.note_sent(prompt_id, job, server.url)
            try:
                await server.send(prompt_id, job)
            except RefusedError as error:
                del server.jobs[prompt_id]
                self._results.forget_sent(prompt_id)
                self._strike(job, server, str(error))

    def _take(self, server: Server) -> Job | None:
        """Takes the first job that has not failed on the server, or has failed on every one that is there."""
        for job in self._waiting:
            failed_on = {url for url, _ in self._failures.get(job.key, [])}
            if server.url not in failed_on or self._connected.keys() <= failed_on:
                self._waiting.remove(job)
                return job
        return None

    def _give_back(self, server: Server, prompt_ids: Sequence[str], reason: str) -> None:
        """Lets others have jobs of a server. The first may be what ended it, and counts as failed."""
        for number, prompt_id in reversed(list(enumerate(prompt_ids))):
            job = server.jobs.pop(prompt_id)
            if number == 0:
                self._strike(job, server, reason)
            else:
                self._wait(job)

    def _strike(self, job: Job, server: Server, error: str) -> None:
        """Notes that a job has failed on a server; after the second time, it is reported."""
        failures = self._failures.setdefault(job.key, [])
        failures.append((server.url, error))
        if len(failures) < STRIKES:
            self._wait(job)
            return
        words = "; ".join(dict.fromkeys(f"{url}: {words}" for url, words in failures))
        self._results.note_ended(replace(Result.of(job, server.url), error=words))
        self._show.say(f"row {job.row} failed: {words}")
        self._end(job)

    def _wait(self, job: Job) -> None:
        """Puts a job before those that nobody has had yet."""
        self._waiting.appendleft(job)
        self._wake()

    def _end(self, job: Job) -> None:
        self._unfinished.discard(job.key)
        self._show.done()
        if not self._unfinished:
            self._wake()

    def _wake(self) -> None:
        for server in self._connected.values():
            server.news.set()
