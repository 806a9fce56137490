"""What a server says about a job: why it refuses it, or, in its history, its pictures, scores, time and error."""

from __future__ import annotations

import itertools
import re
import statistics
from dataclasses import dataclass
from typing import Any

NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
SCORE = re.compile(rf"^([A-Za-z][\w -]*): ({NUMBER.pattern})(?= |$)")


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
        (name, titles.get(node, node), value)
        for node, output in outputs.items()
        for text in output.get("text", [])
        if isinstance(text, str)
        for name, value in (table_means(text) | named_scores(text)).items()
    ]
    names = [name for name, _, _ in found]
    return {name if names.count(name) == 1 else f"{name} ({title})": value for name, title, value in found}


def named_scores(text: str) -> dict[str, float]:
    """Returns the scores in lines such as `FaceSim: 0.412 (3 people in 1 picture)`."""
    return {match[1]: float(match[2]) for match in map(SCORE.match, text.splitlines()) if match}


def table_means(text: str) -> dict[str, float]:
    """Returns the mean of each column of numbers in a table with a line per picture, or per picture and person.

    The table starts with a line whose first word is `picture`, and ends with a line that does not start with a number.
    At least two spaces are between columns. `(low)` after a column's name says that less is better.
    """
    lines = [re.split(r"\s{2,}", line.strip()) for line in text.splitlines()]
    start = next((number for number, cells in enumerate(lines) if cells[0] == "picture"), len(lines) - 1)
    rows = list(itertools.takewhile(lambda cells: cells[0].isdecimal(), lines[start + 1 :]))
    columns = {}
    for place, name in enumerate(lines[start][1:], 1):
        numbers = [float(cells[place]) for cells in rows if place < len(cells) and NUMBER.fullmatch(cells[place])]
        if numbers:
            columns[name.removesuffix(" (low)")] = round(statistics.fmean(numbers), 4)
    return columns


def failure(messages: list[Any]) -> str:
    """Returns what the server says about a job that did not succeed, in one line."""
    for kind, data in messages:
        node = f"node {data.get('node_id')} {data.get('node_type')}"
        if kind == "execution_interrupted":
            return f"{node}: interrupted on the server"
        if kind == "execution_error":
            return f"{node}: {data['exception_type']}: {' '.join(str(data['exception_message']).split())}"
    return "the server does not say why"


def reasons(answer: dict[str, Any]) -> list[str]:
    """Returns why a server refuses a graph, from what it answers."""
    error = answer.get("error")
    found = [f"{error['message']}: {error['details']}".rstrip(": ") if isinstance(error, dict) else str(error)]
    for node_id, node in answer.get("node_errors", {}).items():
        found += [f"node {node_id} {node['class_type']}: {e['message']}: {e['details']}" for e in node["errors"]]
    return found if error else found[1:]
