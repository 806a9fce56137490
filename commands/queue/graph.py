"""Fills a workflow in API format with the values of a row: words, people, places, seeds, and any other input."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from ...fpga_core.errors import InvalidInputError

Graph = dict[str, dict[str, Any]]
"""A workflow in API format: node id -> {class_type, inputs, _meta}."""

WORKFLOW, PEOPLE, PLACES = "workflow", "people", "places"
WORDS = {"prompt": "positive", "negative": "negative"}
"""Column -> input of a sampler whose text it replaces."""

SEEDS = ("seed", "noise_seed")
SHIPPED = Path(__file__).parents[2] / "workflows" / "api"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
UPLOADED_TO = "fpga-queue"
"""Subfolder of a server's input folder for the photos."""

ENCODE, CAST, LOAD = "FPGA_EncodeIdentity", "FPGA_MakeCast", "LoadImage"
SIDES = ("x", "y", "width", "height")
Number = TypeVar("Number", int, float)


class Photos:
    """The local photos of a table, named by their content.

    Attributes:
        folder: where relative paths start.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._names: dict[Path, str] = {}

    def find(self, text: str) -> list[Path]:
        """Returns the photo of that name, or the photos of the folder of that name.

        Raises:
            InvalidInputError: there are none.
        """
        path = self.folder / text
        if path.is_dir():
            found = sorted(file for file in path.iterdir() if file.suffix.lower() in PICTURES)
        else:
            found = [path] if path.is_file() else []
        if not found:
            raise InvalidInputError(f"name a photo or a folder of photos: '{path}' is neither")
        return found

    def name(self, file: Path) -> str:
        """Returns the name of a photo on a server: it contains the SHA-256 of the file, so equal photos have one."""
        if file not in self._names:
            digest = hashlib.sha256(file.read_bytes()).hexdigest()
            self._names[file] = f"{UPLOADED_TO}/{digest}{file.suffix.lower()}"
        return self._names[file]


def read_workflow(file: Path) -> Graph:
    """Reads a workflow in API format; a name without an ending is one that ships with the pack.

    Raises:
        InvalidInputError: it cannot be read, or is in the editor's format.
    """
    path = file if file.suffix else SHIPPED / f"{file.name}.json"
    try:
        graph = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"check the workflow's name: '{path}' cannot be read ({error})") from error
    if isinstance(graph, dict) and "nodes" in graph:
        raise InvalidInputError(f"export '{path}' with Workflow > Export (API): this is the editor's own format")
    if not isinstance(graph, dict) or not all(isinstance(n, dict) and "class_type" in n for n in graph.values()):
        raise InvalidInputError(f"export '{path}' with Workflow > Export (API): it is not a workflow in API format")
    return graph


def fill(
    workflow: Graph, values: dict[str, object], *, seed: int | None, photos: Photos
) -> tuple[Graph, dict[str, Path]]:
    """Returns the workflow with the values of a row, and the photos to upload.

    Args:
        workflow: stays as it is.
        values: column -> value: `prompt`, `negative`, `people`, `places`, or `NODE.INPUT`.
        seed: replaces every seed of the workflow; None keeps them.
        photos: the local photos.
    Raises:
        InvalidInputError: a column fits nothing in the workflow, or a photo is missing.
    """
    graph = copy.deepcopy(workflow)
    for column, value in values.items():
        if column in WORDS:
            set_words(graph, column, str(value))
        elif column == PEOPLE:
            set_people(graph, as_list(value), photos)
        elif column == PLACES:
            set_places(graph, value)
        elif "." in column:
            set_input(graph, column, value)
        else:
            known = ", ".join((WORKFLOW, *WORDS, PEOPLE, PLACES, "seed"))
            raise InvalidInputError(f"rename the column {column!r}: use {known}, or NODE.INPUT for any other input")
    uploads = name_photos(graph, photos)
    return (graph if seed is None else with_seed(graph, seed)), uploads


def as_list(value: object) -> list[object]:
    """Returns the entries of a list, or of a text with semicolons between them."""
    return value if isinstance(value, list) else [part.strip() for part in str(value).split(";") if part.strip()]


def set_words(graph: Graph, column: str, text: str) -> None:
    """Replaces the text of what is upstream of the samplers' positive or negative input."""
    side = WORDS[column]
    samplers = [node for node, n in graph.items() if {"positive", "negative"} <= n["inputs"].keys()]
    encoders = {found for node in samplers for found in texts_upstream(graph, node, side)}
    if not encoders:
        raise InvalidInputError(f"use a column NODE.INPUT instead of {column!r}: the workflow has no {side} text")
    for node in encoders:
        graph[node]["inputs"]["text"] = text


def texts_upstream(graph: Graph, node: str, side: str) -> Iterator[str]:
    """Yields the nodes with a text that lead to a node's positive or negative input."""
    inputs = graph[node]["inputs"]
    if isinstance(inputs.get("text"), str):
        yield node
        return
    links = [inputs[side]] if side in inputs else list(inputs.values())
    for link in links:
        if is_link(graph, link):
            yield from texts_upstream(graph, link[0], side)


def is_link(graph: Graph, value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and value[0] in graph


def set_people(graph: Graph, people: list[object], photos: Photos) -> None:
    """Gives the cast other people, of any number. Each has the settings of the workflow's first Encode Identity."""
    encoders = sorted(nodes_of(graph, ENCODE), key=lambda node: (len(node), node))
    if not encoders:
        raise InvalidInputError(f"leave {PEOPLE!r} empty: the workflow has no Encode Identity")
    first = graph[encoders[0]]["inputs"]
    settings = {name: value for name, value in first.items() if not name.startswith("images.")}
    links = []
    for number, person in enumerate(people, 1):
        name, _, files = str(person).rpartition("=")
        found = [file for part in files.split("+") for file in photos.find(part.strip())]
        encode: dict[str, Any] = {**settings, "name": name.strip() or Path(files.split("+")[0].strip()).stem}
        for count, file in enumerate(found, 1):
            photo = f"person {number} photo {count}"
            graph[photo] = {"class_type": LOAD, "inputs": {"image": str(file)}}
            encode[f"images.photo_{count}"] = [photo, 0]
        graph[f"person {number}"] = {"class_type": ENCODE, "inputs": encode}
        links.append([f"person {number}", 0])
    casts = nodes_of(graph, CAST)
    for cast in casts:
        kept = {name: value for name, value in graph[cast]["inputs"].items() if not name.startswith("identities.")}
        graph[cast]["inputs"] = kept | {f"identities.identity_{n}": link for n, link in enumerate(links, 1)}
    replace_links(graph, dict(zip(encoders, (link[0] for link in links), strict=False)))
    others = [n for node, n in graph.items() if node not in encoders]
    needed = {value[0] for n in others for value in n["inputs"].values() if is_link(graph, value)}
    if needed & set(encoders) or (len(people) > len(encoders) and not casts):
        raise InvalidInputError(f"name {len(encoders)} people instead of {len(people)}: other nodes use each of them")
    for node in (*encoders, *(set(nodes_of(graph, LOAD)) - needed)):
        del graph[node]


def replace_links(graph: Graph, nodes: dict[str, str]) -> None:
    """Connects what was connected to a node to another one."""
    for node in graph.values():
        for name, value in node["inputs"].items():
            if is_link(graph, value) and value[0] in nodes:
                node["inputs"][name] = [nodes[value[0]], value[1]]


def place_numbers(place: object, number: Callable[[Any], Number]) -> tuple[Number, Number, Number, Number]:
    """Reads a place: x, y, width and height.

    Args:
        place: a list, or text with spaces or commas between the numbers.
        number: reads one of them.
    Raises:
        InvalidInputError: these are not four numbers.
    """
    numbers = place if isinstance(place, list) else str(place).replace(",", " ").split()
    try:
        x, y, width, height = map(number, numbers)
    except (TypeError, ValueError):
        raise InvalidInputError(
            f"write each place as x y width height, with ; between places; {place!r} is not one"
        ) from None
    return x, y, width, height


def set_places(graph: Graph, value: object) -> None:
    """Gives the cast one face box per person, in the order of the people; each is x, y, width and height in pixels."""
    casts = nodes_of(graph, CAST)
    if not casts:
        raise InvalidInputError(f"leave {PLACES!r} empty: the workflow has no Make Cast")
    boxes = [
        dict(zip(SIDES, place_numbers(place, lambda number: round(float(number))), strict=True))
        for place in as_list(value)
    ]
    for cast in casts:
        inputs = {k: v for k, v in graph[cast]["inputs"].items() if k not in ("faces", "masks", "skeleton", "drawing")}
        graph[cast]["inputs"] = {**inputs, "boxes": {"__value__": boxes}, "assign": "order"}


def set_input(graph: Graph, column: str, value: object) -> None:
    """Sets an input of the node with that id, title or class."""
    name, _, given = column.rpartition(".")
    titled = [node for node, n in graph.items() if name in (node, n.get("_meta", {}).get("title"), n["class_type"])]
    nodes = [name] if name in graph else titled
    if len(nodes) != 1:
        found = f"{len(nodes)} nodes are called {name!r}: use their ids, {', '.join(nodes)}"
        raise InvalidInputError(
            found if nodes else f"rename the column {column!r}: no node has the id or title {name!r}"
        )
    before = graph[nodes[0]]["inputs"].get(given)
    graph[nodes[0]]["inputs"][given] = typed(value, before)


def typed(value: object, before: object) -> object:
    """Returns a CSV cell as what the input was before: a number, true or false, or a text."""
    if not isinstance(value, str) or isinstance(before, str):
        return value
    try:
        return json.loads(value.lower() if value.lower() in ("true", "false") else value)
    except ValueError:
        return value


def name_photos(graph: Graph, photos: Photos) -> dict[str, Path]:
    """Names every local photo of the graph by its content, and returns them: name -> file. Others are the server's."""
    uploads: dict[str, Path] = {}
    for node in nodes_of(graph, LOAD):
        image = graph[node]["inputs"].get("image")
        if isinstance(image, str) and (file := photos.folder / image).is_file():
            name = photos.name(file)
            uploads[name] = file
            graph[node]["inputs"]["image"] = name
    return uploads


def nodes_of(graph: Graph, class_type: str) -> list[str]:
    return [node for node, n in graph.items() if n["class_type"] == class_type]


def seed_of(graph: Graph) -> int | None:
    """Returns the first seed of a graph, in the order of its nodes."""
    seeds = (node["inputs"].get(name) for node in graph.values() for name in SEEDS)
    return next((seed for seed in seeds if isinstance(seed, int)), None)


def with_seed(graph: Graph, seed: int) -> Graph:
    """Returns a copy with another seed in every node that has one of its own.

    Raises:
        InvalidInputError: no node has one.
    """
    if seed_of(graph) is None:
        raise InvalidInputError("leave 'seed' empty: no node of the workflow has a seed")
    changed = copy.deepcopy(graph)
    for node in changed.values():
        for name in SEEDS:
            if isinstance(node["inputs"].get(name), int):
                node["inputs"][name] = seed
    return changed
