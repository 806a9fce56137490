"""Checks a built set: every sample can be trained on, and the report agrees with the shards."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from pathlib import Path

from ...fpga_core.boundaries import guarded
from ...fpga_core.errors import TrainingDataError
from ...fpga_core.training.data.reading import TrainingSet, faults
from ...fpga_core.training.data.samples import ORIGIN_FILE
from .build import GROUPS, SINGLES
from .build_options import MULTIPLE_PX
from .report import REPORT, read_report
from .tasks import Row


def check(folder: Path) -> Iterator[str]:
    """Yields what is wrong with a built set, one sentence each.

    Args:
        folder: the set, with its report.
    Raises:
        TrainingDataError: the folder is no built set.
    """
    rows = read_report(folder / REPORT)
    yield from report_faults(rows)
    for name in sorted({row["set"] for row in rows if row["set"]}):
        place = folder if name == SINGLES else folder / name
        data = TrainingSet(place, multiple_px=MULTIPLE_PX)
        if data.note:
            yield f"{name}: {data.note}"
        yield from (f"{name}: {fault}" for fault in faults(data))
        yield from (f"{name}: {fault}" for fault in place_faults(rows, name, place, keys=set(data.keys)))


def report_faults(rows: list[Row]) -> Iterator[str]:
    """Yields the pictures that the report does not account for, or accounts for twice."""
    if [row["number"] for row in rows] != list(range(len(rows))):
        yield f"the report does not list each picture once: it has {len(rows):,} rows; build the set again"
    for row in rows:
        if (row["step"] is None) == (row["shard"] is None):
            yield f"'{row['file']}' is {'nowhere' if row['step'] is None else 'left out and in a shard'} in the report"
        if row["set"] not in (None, SINGLES, GROUPS):
            yield f"'{row['file']}' is in the set {row['set']!r}, which no build writes"


def place_faults(rows: list[Row], name: str, folder: Path, *, keys: set[str]) -> Iterator[str]:
    """Yields the samples that are not where the report says, and those that it does not know."""
    listed = {row["key"]: row for row in rows if row["set"] == name}
    for key in sorted(listed.keys() - keys):
        yield f"sample '{key}' ('{listed[key]['file']}') is in the report, but in no shard"
    for key in sorted(keys - listed.keys()):
        yield f"sample '{key}' is in a shard, but not in the report"
    for shard in sorted(folder.glob("*.tar")):
        for key, origin in origins(shard):
            row = listed.get(key)
            if row is None:
                continue
            if row["shard"] != shard.name:
                yield f"sample '{key}' is in '{shard.name}', and the report says '{row['shard']}'"
            if origin.get("sha256") != row["sha256"]:
                yield f"sample '{key}' was made from another file than the report says"


def origins(shard: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yields key and origin of each sample of a shard."""
    ending = f".{ORIGIN_FILE}"
    with (
        guarded(TrainingDataError, f"the shard '{shard.name}' cannot be read", advice="build the set again"),
        tarfile.open(shard, "r:") as tar,
    ):
        for member in tar:
            file = tar.extractfile(member) if member.name.endswith(ending) else None
            if file is not None:
                yield member.name.removesuffix(ending), json.load(file)
