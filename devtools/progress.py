"""Runs the steps of a long job, with one line each on the screen, everything in a log, and one line if a step fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path


class StepError(Exception):
    """One line that says what failed, and what to do about it."""


class Progress:
    """The screen and the log of one job.

    Args:
        log: file to which the output of every program is appended.
        held_files: descriptors that the programs inherit (a lock is held until the last of them has ended).
    """

    def __init__(self, log: Path, held_files: Sequence[int] = ()):
        self.log = log
        self._held_files = tuple(held_files)

    def step(self, title: str, action: Callable[[], None]) -> None:
        """Runs `action`, and prints its name and duration."""
        started = time.monotonic()
        self._show(f"{title} ...", end="" if sys.stdout.isatty() else "\n")
        action()
        self._show(f"{title} ... {time.monotonic() - started:.0f} s")

    def run(
        self, command: Sequence[str | Path], what: str, remedy: str, environment: dict[str, str] | None = None
    ) -> None:
        """Runs a program with its output in the log.

        Raises:
            StepError: it ended with an error; the message gives its last output, the remedy and the path of the log.
        """
        words = [str(word) for word in command]
        tail = ""
        with self.log.open("a", encoding="utf-8", errors="replace") as log:
            log.write(f"\n$ {' '.join(words)}\n")
            log.flush()
            with subprocess.Popen(
                words,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                env=environment,
                pass_fds=self._held_files,
            ) as process:
                try:
                    for line in process.stdout or ():
                        log.write(line)
                        log.flush()
                        tail = _more_telling(tail, line.strip())
                        if sys.stdout.isatty():
                            self._show(f"  {line.strip()[:100]}", end="")
                except BaseException:
                    process.terminate()
                    raise
            code = process.returncode
        if code:
            raise StepError(f"{what} failed (exit status {code}): {tail[:200]}; {remedy}; log: {self.log}")

    def _show(self, line: str, end: str = "\n") -> None:
        erase = "\r\x1b[K" if sys.stdout.isatty() else ""
        print(f"{erase}{line}", end=end, flush=True)


def _more_telling(current: str, line: str) -> str:
    """Returns the line of output that says more about a failure: the later one, unless the earlier one is an ERROR."""
    if not line or (current.startswith("ERROR") and not line.startswith("ERROR")):
        return current
    return line
