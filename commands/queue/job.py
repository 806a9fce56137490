"""One picture to make: a graph, the files that it needs, and the name that follows from both."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass, replace
from pathlib import Path

from .graph import Graph, seed_of, with_seed

LARGEST_SEED = 2**32 - 1


@dataclass(frozen=True)
class Job:
    """One attempt at the picture of a row.

    Attributes:
        key: SHA-256 of the first attempt's graph, in which photos are named by their content. Where the files are, and
            what the nodes are called, does not change it.
        row: number of the row in the table, from 1.
        graph: what a server gets.
        uploads: name of a photo on the server -> the local file.
        attempt: 0, and one more for each new seed.
    """

    key: str
    row: int
    graph: Graph
    uploads: dict[str, Path]
    attempt: int = 0

    @classmethod
    def of(cls, graph: Graph, *, row: int, uploads: dict[str, Path]) -> Job:
        content = {node: {"class_type": n["class_type"], "inputs": n["inputs"]} for node, n in graph.items()}
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return cls(hashlib.sha256(text.encode()).hexdigest(), row, graph, uploads)

    @property
    def seed(self) -> int | None:
        return seed_of(self.graph)

    def again(self, attempt: int) -> Job:
        """Returns the job with the seed of another attempt, which follows from the key: it is the same in every run."""
        if attempt == self.attempt:
            return self
        seed = random.Random(f"{self.key} {attempt}").randint(0, LARGEST_SEED)  # noqa: S311 - no secret
        return replace(self, graph=with_seed(self.graph, seed), attempt=attempt)
