"""The report of a build: what became of each picture, and why. `report.parquet` in the folder of the set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from ...fpga_core.boundaries import guarded, written_whole
from ...fpga_core.dataset.attitude import attitude
from ...fpga_core.errors import TrainingDataError
from ...fpga_core.faces.keypoint_formats import MIN_CONFIDENCE
from ...fpga_core.packages import importing
from .parts import schema_of
from .tasks import REAL, TEXT, WHOLE, Row

REPORT = "report.parquet"
COLUMNS = {
    "number": WHOLE,
    "file": TEXT,
    "set": TEXT,
    "shard": TEXT,
    "key": TEXT,
    "step": TEXT,
    "detail": TEXT,
    "duplicate_of": WHOLE,
    "sha256": TEXT,
    "source": TEXT,
    "licence": TEXT,
    "caption": TEXT,
    "width": WHOLE,
    "height": WHOLE,
    "clarity": REAL,
    "num_faces": WHOLE,
    "face_length": REAL,
    "roll": REAL,
    "turn": REAL,
    "body_points": WHOLE,
}
"""`set` and `shard` say where a picture is, and `step` and `detail` why it is nowhere: one of both is empty."""


def described(row: Row) -> Row:
    """Returns what the report says about the person of a picture, as far as it was seen."""
    found: Row = {}
    if row.get("landmarks") is not None:
        turned = attitude(np.reshape(row["landmarks"], (68, 2)))
        found |= {name: value for name, value in turned._asdict().items() if math.isfinite(value)}
    if row.get("body") is not None:
        found["body_points"] = int((np.reshape(row["body"], (18, 3))[:, 2] >= MIN_CONFIDENCE).sum())
    return found


def write_report(path: Path, parts: Iterable[list[Row]]) -> Counter[str]:
    """Writes the report whole.

    Args:
        path: the file.
        parts: its rows, some at a time.
    Returns:
        How many pictures each step left out; under the empty text, how many are in a set.
    """
    import pyarrow
    import pyarrow.parquet

    schema, counts = schema_of(COLUMNS), Counter[str]()
    with written_whole(path, TrainingDataError) as partial, pyarrow.parquet.ParquetWriter(partial, schema) as writer:
        for rows in parts:
            table = pyarrow.Table.from_pylist([{name: row.get(name) for name in COLUMNS} for row in rows], schema)
            writer.write_table(table)
            counts.update(row["step"] or "" for row in rows)
    return counts


def read_report(path: Path) -> list[Row]:
    """Reads the report of a build.

    Raises:
        TrainingDataError: it is missing or cannot be read.
    """
    with importing("pyarrow"):
        import pyarrow.parquet
    if not path.is_file():
        raise TrainingDataError(f"'{path.parent}' has no {path.name}; name the folder that `dataset build` wrote")
    with guarded(TrainingDataError, f"'{path}' cannot be read", advice="build the set again"):
        return pyarrow.parquet.read_table(path, columns=list(COLUMNS)).to_pylist()
