"""Looks at a picture without any model: can it be decoded, how large and sharp is it, and what does it look like."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from typing import Any

from ...fpga_core.boundaries import guarded, shortened
from ...fpga_core.dataset.clarity import clarity
from ...fpga_core.dataset.hashing import perceptual_hash
from ...fpga_core.errors import TrainingDataError
from ...fpga_core.training.data.pictures import read_picture
from .places import read_place
from .sources import fields_of
from .tasks import BYTES, REAL, TEXT, WHOLE, Row, Rows

GIVES = {
    "fault": TEXT,
    "sha256": TEXT,
    "width": WHOLE,
    "height": WHOLE,
    "clarity": REAL,
    "hash": BYTES,
    "caption": TEXT,
    "source": TEXT,
    "licence": TEXT,
    "watermark": REAL,
    "caption_score": REAL,
}
WHERE = re.compile(r" <_io\.BytesIO object at 0x[0-9a-f]+>")
"""Where a picture lies in memory, which Pillow's messages say. It differs from run to run."""
TEXTS, NUMBERS = ("caption", "source", "licence"), ("watermark", "caption_score")


def open_task(settings: dict[str, Any]) -> Rows:
    return look_at_all


def look_at_all(rows: Sequence[Row]) -> list[Row]:
    return [look(row["place"], json.loads(row["given"])) for row in rows]


def look(place: str, given: dict[str, Any]) -> Row:
    """Returns the measures of a picture, and what is given with it; `fault` says why there are none."""
    seen: Row = dict.fromkeys(GIVES)
    if "fault" in given:
        return seen | {"fault": given["fault"]}
    try:
        content = read_place(place)
        seen["sha256"] = hashlib.sha256(content).hexdigest()
        with guarded(TrainingDataError, "it cannot be decoded", advice="it is no whole PNG, JPEG or WebP"):
            picture = read_picture(content, is_mask=False)
        seen |= all_given(given)
    except TrainingDataError as error:
        return seen | {"fault": WHERE.sub("", str(error))}
    height, width = picture.shape[:2]
    measures = {"clarity": clarity(picture), "hash": perceptual_hash(picture).tobytes()}
    return seen | {"width": width, "height": height, **measures}


def all_given(given: dict[str, Any]) -> Row:
    """Returns what is given with a picture, in its row and in its files.

    Raises:
        TrainingDataError: a file cannot be read, or a number is none.
    """
    fields = dict(given)
    if "fields_at" in given:
        with guarded(TrainingDataError, "its .json cannot be read", advice="correct or delete it"):
            read = json.loads(read_place(given["fields_at"]))
            fields = fields_of(read) | fields if isinstance(read, dict) else fields
    if "caption_at" in given:
        with guarded(TrainingDataError, "its caption is not UTF-8", advice="save it as UTF-8"):
            fields["caption"] = read_place(given["caption_at"]).decode("utf-8-sig")
    found: Row = {name: " ".join(str(fields[name]).split()) for name in TEXTS if name in fields}
    for name in NUMBERS:
        if name in fields:
            with guarded(TrainingDataError, f"its {name} is {shortened(str(fields[name]))}", advice="write a number"):
                found[name] = float(fields[name])
    return found
