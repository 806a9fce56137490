"""What a queue has done so far: a journal that grows with each job, the pictures, and a table for people."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...fpga_core.errors import InvalidInputError
from .job import Job

JOURNAL, TABLE, LOCK = "results.jsonl", "results.csv", ".lock"
SENT = "sent"


@dataclass(frozen=True)
class Result:
    """One attempt that ended.

    Attributes:
        job: key of the job.
        row: its row in the table.
        attempt: 0, and one more for each new seed.
        seed: the first seed of the graph.
        files: names of the pictures in the folder of the results.
        scores: name -> value.
        seconds: time on the server.
        server: its address.
        error: why there is no picture, or None.
    """

    job: str
    row: int
    attempt: int
    seed: int | None
    files: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    seconds: float | None = None
    server: str | None = None
    error: str | None = None

    @classmethod
    def of(cls, job: Job, server: str) -> Result:
        """Returns the result of a job, without what it gave."""
        return cls(job.key, job.row, job.attempt, job.seed, server=server)


@dataclass(frozen=True)
class Bar:
    """What a picture must reach, and how often it is made again if it does not.

    Attributes:
        least: score -> the smallest value. A picture without that score is weak too.
        most: score -> the largest value, for scores such as bleed.
        again: how many other seeds are tried.
    """

    least: dict[str, float] = field(default_factory=dict)
    most: dict[str, float] = field(default_factory=dict)
    again: int = 0

    def is_weak(self, result: Result) -> bool:
        """True if a score is on the wrong side or missing, or if the graph kept no picture."""
        return not result.files or any(not margin >= 0 for margin in self._margins(result))

    def best(self, results: Iterable[Result]) -> Result:
        """Returns the attempt that is furthest on the right side, by the scores in order; an earlier one if equal."""
        return max(results, key=lambda r: (r.error is None, not self.is_weak(r), self._margins(r), -r.attempt))

    def _margins(self, result: Result) -> list[float]:
        """Returns how far each score is on the right side."""
        above = [result.scores.get(name, -math.inf) - value for name, value in self.least.items()]
        return above + [value - result.scores.get(name, math.inf) for name, value in self.most.items()]


class Results:
    """The folder of the results. One queue at a time may write to it.

    The journal has a line for each job that is sent, and one for each that ended; a line is on the disk before anything
    else happens. The pictures of a line were written before it.

    Attributes:
        ended: key -> the attempts that ended with or without a picture.
        sent: prompt id -> (key, attempt, server) of what was sent and has not ended.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ended: dict[str, list[Result]] = {}
        self.sent: dict[str, tuple[str, int, str]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / JOURNAL
        text = self._path.read_text(encoding="utf-8") if self._path.exists() else ""
        for line in text.splitlines():
            self._read(line)
        self._journal = self._path.open("a", encoding="utf-8")
        if text and not text.endswith("\n"):  # the writer was killed in the middle of a line, which does not count
            self._write({})

    def _read(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if SENT in entry:
            self.sent[entry[SENT]] = (entry["job"], entry["attempt"], entry["server"])
        elif "job" in entry:
            prompt_id = entry.pop("id", None)
            self._add(Result(**entry), prompt_id)

    def _add(self, result: Result, prompt_id: str | None) -> None:
        self.sent.pop(prompt_id or "", None)
        attempts = self.ended.setdefault(result.job, [])
        attempts[:] = [*(other for other in attempts if other.attempt != result.attempt), result]

    def _write(self, entry: dict[str, Any]) -> None:
        self._journal.write(json.dumps(entry, ensure_ascii=False) + "\n" if entry else "\n")
        self._journal.flush()
        os.fsync(self._journal.fileno())

    def close(self) -> None:
        self._journal.close()

    def note_sent(self, prompt_id: str, job: Job, server: str) -> None:
        """Notes that a server is about to get a job."""
        self._write({SENT: prompt_id, "job": job.key, "attempt": job.attempt, "server": server})
        self.sent[prompt_id] = (job.key, job.attempt, server)

    def forget_sent(self, prompt_id: str) -> None:
        """Forgets a job that its server will not end."""
        self.sent.pop(prompt_id, None)

    def note_ended(self, result: Result, prompt_id: str | None = None) -> None:
        self._write({**asdict(result), "id": prompt_id})
        self._add(result, prompt_id)

    def save_picture(self, job: Job, number: int, *, suffix: str, content: bytes) -> str:
        """Writes a picture, whole or not at all, and returns its name."""
        attempt = f"_{job.attempt}" if job.attempt else ""
        name = f"{job.row:05}_{job.key[:8]}{attempt}_{number}{suffix}"
        partial = self.folder / f"{name}.part"
        partial.write_bytes(content)
        os.replace(partial, self.folder / name)
        return name

    def missing(self, job: Job, bar: Bar) -> Job | None:
        """Returns the attempt of a job that has to be made next, or None if there is none.

        Attempts that failed are made again, and so are those whose pictures have been deleted.
        """
        good = [r for r in self.ended.get(job.key, []) if r.error is None and self._has_pictures(r)]
        if any(not bar.is_weak(result) for result in good):
            return None
        made = {result.attempt for result in good}
        return next((job.again(attempt) for attempt in range(bar.again + 1) if attempt not in made), None)

    def _has_pictures(self, result: Result) -> bool:
        return all((self.folder / name).is_file() for name in result.files)

    def write_table(self, jobs: Iterable[Job], bar: Bar) -> Path:
        """Writes the best attempt of each job as a line of a table, in the order of the rows."""
        best = [bar.best(self.ended[job.key]) for job in jobs if job.key in self.ended]
        names = sorted({name for result in best for name in result.scores})
        path = self.folder / TABLE
        columns = ["row", "file", "seed", *names, "attempts", "weak", "seconds", "server", "error", "job"]
        try:
            with path.open("w", encoding="utf-8-sig", newline="") as file:
                writer = csv.writer(file)
                writer.writerow(columns)
                writer.writerows(self._line(result, names, bar) for result in best)
        except PermissionError as error:
            raise InvalidInputError(f"close '{path}' in other programs, then run again: it is in use") from error
        return path

    def _line(self, result: Result, names: list[str], bar: Bar) -> list[Any]:
        scores = [result.scores.get(name) for name in names]
        weak = "yes" if result.error is None and bar.is_weak(result) else ""
        attempts = len(self.ended[result.job])
        ending = [attempts, weak, result.seconds, result.server, result.error, result.job]
        return [result.row, "; ".join(result.files), result.seed, *scores, *ending]
