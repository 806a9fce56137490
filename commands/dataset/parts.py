"""Tables in parts of about a thousand pictures, as Parquet files that are written whole."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...fpga_core.boundaries import written_whole
from ...fpga_core.errors import TrainingDataError
from ...fpga_core.faces.pack_download import file_sha256
from ...fpga_core.packages import importing
from .tasks import BYTES, REAL, REALS, TEXT, WHOLE, WHOLES, Row

if TYPE_CHECKING:
    import pyarrow

PART_SIZE = 1000
"""Pictures in a part: what is lost at most when a build is killed, for each worker."""


@cache
def arrow_type(kind: str) -> pyarrow.DataType:
    with importing("pyarrow"):
        import pyarrow
    types = {
        TEXT: pyarrow.string(),
        REAL: pyarrow.float64(),
        WHOLE: pyarrow.int64(),
        BYTES: pyarrow.binary(),
        REALS: pyarrow.list_(pyarrow.float32()),
        WHOLES: pyarrow.list_(pyarrow.int64()),
    }
    return types[kind]


def schema_of(columns: Mapping[str, str]) -> pyarrow.Schema:
    import pyarrow

    return pyarrow.schema([(name, arrow_type(kind)) for name, kind in columns.items()])


def struct_of(columns: Mapping[str, str]) -> pyarrow.StructType:
    import pyarrow

    return pyarrow.struct(list(schema_of(columns)))


def write_part(path: Path, rows: Sequence[Row], columns: Mapping[str, str]) -> None:
    """Writes a table whole: `path` appears when it is complete."""
    with importing("pyarrow"):
        import pyarrow
        import pyarrow.parquet
    path.parent.mkdir(parents=True, exist_ok=True)
    table = pyarrow.Table.from_pylist([{name: row.get(name) for name in columns} for row in rows], schema_of(columns))
    with written_whole(path, TrainingDataError) as partial:
        pyarrow.parquet.write_table(table, partial)


def read_part(path: Path, columns: Sequence[str] | None = None) -> list[Row]:
    """Reads a table, or some of its columns."""
    import pyarrow.parquet

    return pyarrow.parquet.read_table(path, columns=None if columns is None else list(columns)).to_pylist()


@dataclass(frozen=True)
class Part:
    """The work of a task on one part.

    Attributes:
        number: of the part.
        given: the table of the rows.
        result: the table of what the task gives for them. Its name holds a hash of everything that it depends on.
        num_rows: of the table.
    """

    number: int
    given: Path
    result: Path
    num_rows: int

    @property
    def is_done(self) -> bool:
        return self.result.exists()


def plan_part(folder: Path, number: int, *, rows: Sequence[Row], columns: Mapping[str, str], fingerprint: str) -> Part:
    """Writes the rows of a part, and returns the work on it."""
    given = folder / f"{number:06}-given.parquet"
    write_part(given, rows, columns)
    digest = file_sha256(given)
    return Part(number, given, folder / f"{number:06}-{digest[:16]}-{fingerprint[:16]}.parquet", len(rows))


def tidy(folder: Path, parts: Sequence[Part]) -> None:
    """Deletes what no part of a folder needs: results of other settings, and files that were not finished."""
    kept = {path for part in parts for path in (part.given, part.result)}
    for file in folder.glob("*.p*"):
        if file.is_file() and file not in kept:
            file.unlink(missing_ok=True)


def joined(part: Part) -> list[dict[str, Any]]:
    """Returns the rows of a part with what the task gave for them."""
    return [given | result for given, result in zip(read_part(part.given), read_part(part.result), strict=True)]
