"""What a server's history says about a job that has ended: its pictures, scores, time and error."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

SCORE = re.compile(r"^([A-Za-z][\w -]*): (-?\d+(?:\.\d+)?)(?= |$)")
"""A line of a node's report that gives a score, such as `FaceSim: 0.412 (3 people in 1 picture)`."""


@dataclass(frozen=True)
class PictureFile:
    """A picture in a folder of the server."""

    filename: str
    subfolder: str
    type: str

    @property
    def address(self) -> dict[str, str]:
        """The parameters of the server's /view."""
        return {"filename": self.filename, "subfolder": self.subfolder, "type": self.type}


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        pictures: what it saved; what it previewed, if the graph has no Save Image.
        scores: name -> value.
        seconds: between the start and the end on the server, without the wait in its queue.
        error: the server's words, or None.
    """

    pictures: tuple[PictureFile, ...]
    scores: dict[str, float]
    seconds: float | None
    error: str | None

    @classmethod
    def of(cls, entry: dict[str, Any]) -> Outcome:
        """Reads one entry of a server's history."""
        outputs: dict[str, dict[str, Any]] = entry["outputs"]
        messages = entry["status"]["messages"]
        files = [file for output in outputs.values() for file in output.get("images", []) if file]
        pictures = [PictureFile(f["filename"], f.get("subfolder", ""), f.get("type", "output")) for f in files]
        saved = [picture for picture in pictures if picture.type == "output"]
        saves = any(node["class_type"].startswith("SaveImage") for node in entry["prompt"][2].values())
        times = [data["timestamp"] / 1000 for _, data in messages if "timestamp" in data]
        return cls(
            pictures=tuple(saved if saves else pictures),
            scores=scores_of(outputs, titles_of(entry["prompt"][2])),
            seconds=round(max(times) - min(times), 3) if times else None,
            error=None if entry["status"]["status_str"] == "success" else failure(messages),
        )


def titles_of(graph: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {node: n.get("_meta", {}).get("title") or n["class_type"] for node, n in graph.items()}


def scores_of(outputs: dict[str, dict[str, Any]], titles: dict[str, str]) -> dict[str, float]:
    """Returns the scores in the nodes' reports by name; by the node's title too, if several nodes give one name."""
    found = [
        (match[1], titles.get(node, node), float(match[2]))
        for node, output in outputs.items()
        for text in output.get("text", [])
        if isinstance(text, str)
        for match in map(SCORE.match, text.splitlines())
        if match
    ]
    names = [name for name, _, _ in found]
    return {name if names.count(name) == 1 else f"{name} ({title})": value for name, title, value in found}


def failure(messages: list[Any]) -> str:
    """Returns what the server says about a job that did not succeed, in one line."""
    for kind, data in messages:
        node = f"node {data.get('node_id')} {data.get('node_type')}"
        if kind == "execution_interrupted":
            return f"{node}: interrupted on the server"
        if kind == "execution_error":
            return f"{node}: {data['exception_type']}: {' '.join(str(data['exception_message']).split())}"
    return "the server does not say why"
