"""The manual check: a page on this machine alone that shows the pictures of a set, and a file of what was decided."""

from __future__ import annotations

import hashlib
import io
import json
import secrets
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from PIL import Image

from ...fpga_core.dataset.decisions import Choice, Decision, latest, read_decisions
from ...fpga_core.errors import InvalidInputError
from ...fpga_core.training.data.reading import StoredFile
from .build import SINGLES
from .report import REPORT, read_report

PAGE = Path(__file__).parent / "page"
PAGE_FILES = {
    "/": ("index.html", "text/html"),
    "/review.js": ("review.js", "text/javascript"),
    "/review.css": ("review.css", "text/css"),
}
SHOWN = ("image", "skeleton", "landmarks")
QUALITY = 85
MOST_BYTES = 10_000_000
"""Of one request: about 90,000 decisions."""


@dataclass(frozen=True)
class Shown:
    """A picture of the review.

    Attributes:
        sha256: of the file that it was made from.
        caption: what is said about it.
        file: name of that file.
        parts: image, skeleton and landmarks, as they are stored.
    """

    sha256: str
    caption: str
    file: str
    parts: tuple[StoredFile, ...]

    def jpeg(self) -> bytes:
        """Returns the picture with skeleton and landmarks drawn over it."""
        image, *drawings = (np.asarray(Image.open(io.BytesIO(part.read())).convert("RGB")) for part in self.parts)
        for drawing in drawings:
            image = np.where(drawing.any(axis=2, keepdims=True), drawing, image)
        written = io.BytesIO()
        Image.fromarray(image).save(written, "JPEG", quality=QUALITY)
        return written.getvalue()


def pictures_of(folder: Path, percent: float) -> list[Shown]:
    """Returns the pictures of a set that are reviewed, in the order of the set.

    Args:
        folder: the set.
        percent: share of the pictures. Which ones they are depends on their files alone, so that all reviewers see the
            same, and a larger share holds a smaller one.
    Raises:
        InvalidInputError: no picture is in the share.
    """
    chosen = [
        row for row in read_report(folder / REPORT) if row["step"] is None and is_in_sample(row["sha256"], percent)
    ]
    places = {shard: shard_parts(folder / shard) for shard in sorted({shard_of(row) for row in chosen})}
    if not chosen:
        raise InvalidInputError(f"give a larger --sample: {percent:g} per cent of the set in '{folder}' is no picture")
    return [
        Shown(row["sha256"], row["caption"] or "", row["file"], places[shard_of(row)][row["key"]]) for row in chosen
    ]


def shard_of(row: dict[str, Any]) -> str:
    return row["shard"] if row["set"] == SINGLES else f"{row['set']}/{row['shard']}"


def is_in_sample(sha256: str, percent: float) -> bool:
    return int(hashlib.sha256(sha256.encode()).hexdigest()[:8], 16) < percent / 100 * 2**32


def shard_parts(shard: Path) -> dict[str, tuple[StoredFile, ...]]:
    """Returns where the pictures of each sample of a shard lie."""
    found: dict[str, dict[str, StoredFile]] = {}
    with tarfile.open(shard, "r:") as tar:
        for member in tar:
            key, _, name = member.name.partition(".")
            found.setdefault(key, {})[name.partition(".")[0]] = StoredFile(shard, member.offset_data, member.size)
    return {key: tuple(files[name] for name in SHOWN) for key, files in found.items()}


class Decisions:
    """What one reviewer decided, in a file that grows by a line for each decision.

    Args:
        path: the file; continued if it exists.
        reviewer: whose decisions are shown and written.
    """

    def __init__(self, path: Path, reviewer: str) -> None:
        self._path, self._reviewer = path, reviewer
        self._lock = threading.Lock()
        words = latest(read_decisions(path)) if path.exists() else {}
        self.choices = {picture: by[reviewer] for picture, by in words.items() if reviewer in by}

    def add(self, decided: Sequence[tuple[str, Choice]]) -> None:
        """Writes decisions, each on a picture by its SHA-256."""
        with self._lock:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(Decision(sha256, choice, self._reviewer).line + "\n" for sha256, choice in decided)
            for sha256, choice in decided:
                self.choices.pop(sha256, None)
                if choice is not Choice.UNDECIDED:
                    self.choices[sha256] = choice


class ReviewServer(ThreadingHTTPServer):
    """Serves the page to this machine, and to nobody who does not know its key.

    Args:
        pictures: what is reviewed.
        decisions: where decisions go.
        port: 0 takes a free one.
    """

    daemon_threads = True

    def __init__(self, pictures: Sequence[Shown], decisions: Decisions, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.pictures, self.decisions = pictures, decisions
        self.known = {picture.sha256 for picture in pictures}
        self.key = secrets.token_urlsafe(16)

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.host}/?key={self.key}"


class Handler(BaseHTTPRequestHandler):
    """One request. Other sites know neither the key nor get past the name of the host."""

    server: ReviewServer  # pyright: ignore[reportIncompatibleVariableOverride]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:  # noqa: N802 - the library's name
        address = urlsplit(self.path)
        if address.path in PAGE_FILES:
            name, kind = PAGE_FILES[address.path]
            return self._reply((PAGE / name).read_bytes(), f"{kind}; charset=utf-8")
        if not self._is_allowed(address.query):
            return self._refuse(HTTPStatus.FORBIDDEN)
        if address.path == "/pictures":
            return self._reply(json.dumps(list(self._listed())).encode(), "application/json")
        number = address.path.removeprefix("/picture/")
        if number.isdecimal() and int(number) < len(self.server.pictures):
            return self._reply(self.server.pictures[int(number)].jpeg(), "image/jpeg", cached=True)
        return self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:  # noqa: N802 - the library's name
        address, length = urlsplit(self.path), self.headers.get("Content-Length", "")
        if address.path != "/decide" or not self._is_allowed(address.query):
            return self._refuse(HTTPStatus.FORBIDDEN)
        if not length.isdecimal() or int(length) > MOST_BYTES:
            return self._refuse(HTTPStatus.BAD_REQUEST)
        try:
            asked = json.loads(self.rfile.read(int(length)))
            decided = [(one["sha256"], Choice(one["decision"])) for one in asked]
        except (ValueError, KeyError, TypeError):
            return self._refuse(HTTPStatus.BAD_REQUEST)
        if any(sha256 not in self.server.known for sha256, _ in decided):
            return self._refuse(HTTPStatus.BAD_REQUEST)
        self.server.decisions.add(decided)
        return self._reply(b"{}", "application/json")

    def _listed(self) -> Iterator[dict[str, str]]:
        for picture in self.server.pictures:
            choice = self.server.decisions.choices.get(picture.sha256, Choice.UNDECIDED)
            yield {
                "sha256": picture.sha256,
                "file": picture.file,
                "caption": picture.caption,
                "decision": choice.value,
            }

    def _is_allowed(self, query: str) -> bool:
        given = parse_qs(query).get("key", [""])[0]
        return self.headers.get("Host") == self.server.host and secrets.compare_digest(given, self.server.key)

    def _reply(self, content: bytes, kind: str, *, cached: bool = False) -> None:
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "private, max-age=86400" if cached else "no-store")
        self.send_header("Content-Security-Policy", "default-src 'self'; frame-ancestors 'none'")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self, status: HTTPStatus) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Says nothing: the terminal shows where the page is."""


def write_fiftyone(pictures: Sequence[Shown], folder: Path) -> None:
    """Writes the pictures so that FiftyOne imports them, as `fiftyone.types.FiftyOneImageClassificationDataset`.

    Args:
        pictures: of a review.
        folder: gets `data/<sha256>.jpg`, and `labels.json` with the caption of each.
    """
    (folder / "data").mkdir(parents=True, exist_ok=True)
    for picture in pictures:
        (folder / "data" / f"{picture.sha256}.jpg").write_bytes(picture.jpeg())
    content = {"labels": {picture.sha256: picture.caption for picture in pictures}}
    (folder / "labels.json").write_text(json.dumps(content, ensure_ascii=False, indent=1), encoding="utf-8")
