"""What people decide when they review pictures: a file of JSON lines, and what follows from several of them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, cast

from ..boundaries import guarded
from ..errors import InvalidInputError


class Choice(str, Enum):
    """What a reviewer decides about a picture."""

    KEEP = "keep"
    DROP = "drop"
    UNDECIDED = "undecided"
    """Takes an earlier decision back."""


@dataclass(frozen=True)
class Decision:
    """One decision, one line of a file.

    Attributes:
        sha256: of the picture's file, so that a decision holds for every set that the picture gets into.
        choice: what was decided.
        reviewer: who decided.
    """

    sha256: str
    choice: Choice
    reviewer: str

    @property
    def line(self) -> str:
        """The decision as JSON, without a line feed."""
        return json.dumps({"sha256": self.sha256, "decision": self.choice.value, "reviewer": self.reviewer})


def read_decisions(path: Path) -> list[Decision]:
    """Reads a file of decisions, in the order in which they were made.

    Raises:
        InvalidInputError: it cannot be read, or a line is no decision. Half a line at the end, of a program that was
            ended while it wrote, is left out.
    """
    failure = f"'{path}' cannot be read as decisions"
    with guarded(InvalidInputError, failure, advice="use a file that `fpga-portrait dataset review` wrote"):
        text = path.read_text(encoding="utf-8")
        lines = text.split("\n")[:-1]
        return [_decision(json.loads(line)) for line in lines if line.strip()]


def _decision(entry: object) -> Decision:
    fields = cast("dict[str, Any]", entry)
    return Decision(str(fields["sha256"]), Choice(fields["decision"]), str(fields["reviewer"]))


def latest(decisions: Iterable[Decision]) -> dict[str, dict[str, Choice]]:
    """Returns each reviewer's last word on each picture.

    Returns:
        SHA-256 -> reviewer -> choice, without those that were taken back.
    """
    words: dict[str, dict[str, Choice]] = {}
    for decision in decisions:
        of_picture = words.setdefault(decision.sha256, {})
        of_picture.pop(decision.reviewer, None)
        if decision.choice is not Choice.UNDECIDED:
            of_picture[decision.reviewer] = decision.choice
    return words


def dropped_pictures(decisions: Iterable[Decision]) -> dict[str, tuple[str, ...]]:
    """Returns the pictures that are left out: at least as many reviewers drop them as keep them.

    Returns:
        SHA-256 -> the reviewers who drop it, sorted.
    """
    found: dict[str, tuple[str, ...]] = {}
    for picture, words in latest(decisions).items():
        against = sorted(reviewer for reviewer, choice in words.items() if choice is Choice.DROP)
        if against and 2 * len(against) >= len(words):
            found[picture] = tuple(against)
    return found
