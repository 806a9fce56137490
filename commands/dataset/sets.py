"""The sets that a build writes: the pictures of one person, and on request those of groups in a folder of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from ...fpga_core.faces.pack_download import file_sha256
from ...fpga_core.training.data.reading import HEADER_FILE
from .parts import Part, plan_part, read_part, tidy, write_part
from .tasks import REALS, TEXT, WHOLE, Row

PLANNED = {
    "number": WHOLE,
    "key": TEXT,
    "name": TEXT,
    "place": TEXT,
    "given": TEXT,
    "sha256": TEXT,
    "source": TEXT,
    "licence": TEXT,
    "caption": TEXT,
    "width": WHOLE,
    "height": WHOLE,
    "window": REALS,
    "face_box": REALS,
    "landmarks": REALS,
    "body": REALS,
    "embedding": REALS,
}
SHARDS = {"number": WHOLE, "part": WHOLE, "plan": TEXT, "digest": TEXT, "shard": TEXT}


@dataclass(frozen=True)
class PlannedSet:
    """A set whose shards are planned.

    Attributes:
        folder: where the shards go.
        shards: the work on each of them.
        places: number of a picture -> name of its shard.
    """

    folder: Path
    shards: list[Part]
    places: dict[int, str]

    def faults(self) -> dict[int, str]:
        """Returns the pictures that could not be written: number -> why."""
        found: dict[int, str] = {}
        for shard in self.shards:
            for row in read_part(shard.result):
                found |= {int(number): fault for number, fault in json.loads(row["faults"]).items()}
        return found


def plan_set(folder: Path, work: Path, *, rows: Iterable[Row], shard_size: int, fingerprint: str) -> PlannedSet:
    """Plans the shards of a set, and deletes what an earlier build left in its folder that is not of this set.

    Until all shards are there, the folder has no header, so that half a set is not taken for a whole one.

    Args:
        folder: where the shards go.
        work: folder for the plans.
        rows: the pictures with the columns of PLANNED, in order.
        shard_size: pictures in a shard.
        fingerprint: of the task that writes shards.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Part] = []
    places: dict[int, str] = {}
    plans: set[Path] = set()
    for number, chunk in enumerate(_chunks(rows, shard_size)):
        plan, shard = work / "plans" / f"{number:06}.parquet", folder / f"{number:05}.tar"
        write_part(plan, chunk, PLANNED)
        row = {"number": number, "part": number, "plan": str(plan), "shard": str(shard), "digest": file_sha256(plan)}
        part = plan_part(work, number, rows=[row], columns=SHARDS, fingerprint=fingerprint)
        if not shard.exists():
            part.result.unlink(missing_ok=True)
        elif not part.is_done:
            shard.unlink()
        shards.append(part)
        plans.add(plan)
        places |= dict.fromkeys((row["number"] for row in chunk), shard.name)
    tidy(work, shards)
    kept = {folder / f"{number:05}.tar" for number in range(len(shards))}
    for file in (*folder.glob("*.tar"), *folder.glob("*.tar.*.part"), *(work / "plans").glob("*")):
        if file not in kept | plans:
            file.unlink(missing_ok=True)
    if not all(shard.is_done for shard in shards):
        (folder / HEADER_FILE).unlink(missing_ok=True)
    return PlannedSet(folder, shards, places)


def _chunks(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    rest = iter(rows)
    while chunk := list(islice(rest, size)):
        yield chunk
