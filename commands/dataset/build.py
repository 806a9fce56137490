"""Builds a training set: looks at all pictures, chooses, sees the people in the chosen ones, and writes shards.

Each step writes its results in parts of a thousand pictures (`parts.py`), so that a build that was stopped goes on with
the parts that are missing. What is chosen depends on the results alone, and never on who computed them or when.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from itertools import islice
from typing import Protocol

import numpy as np

from ...fpga_core.dataset.decisions import dropped_pictures, read_decisions
from ...fpga_core.dataset.duplicates import embedding_duplicates, hash_duplicates
from ...fpga_core.errors import InvalidInputError
from ...fpga_core.training.data.writing import write_header
from .captioning import CAPTIONER
from .engine import Engine
from .parts import PART_SIZE, Part, joined, plan_part, read_part, tidy
from .report import REPORT, described, write_report
from .sets import PlannedSet, plan_set
from .settings import BuildSettings
from .sieve import Reason, Step, counted_faces, face_length, look_fault, see_fault
from .sources import list_pictures
from .tasks import REALS, TEXT, WHOLE, Row, Task

LISTED = {"number": WHOLE, "part": WHOLE, "name": TEXT, "place": TEXT, "given": TEXT}
CHOSEN = {"number": WHOLE, "part": WHOLE, "place": TEXT, "given": TEXT, "window": REALS}
SINGLES, GROUPS = "singles", "groups"


class Show(Protocol):
    """Shows how far a step is: the context gives a function to call with the number of further pictures."""

    def __call__(self, title: str, total: int) -> AbstractContextManager[Callable[[int], object]]: ...


class Build:
    """A build.

    Args:
        settings: what is asked for.
        engine: where the work is done.
        show: shows the progress.
    """

    def __init__(self, settings: BuildSettings, engine: Engine, show: Show) -> None:
        self._settings = settings
        self._limits = settings.thresholds
        self._engine = engine
        self._show = show
        decisions = [decision for file in settings.decisions for decision in read_decisions(file)]
        self._dropped = {picture: ", ".join(names) for picture, names in dropped_pictures(decisions).items()}
        self._looked: list[Part] = []
        self._later: list[dict[int, Part]] = []
        self._copies: Mapping[int, int] = {}
        self._face_copies: Mapping[int, int] = {}
        self._has_captions = False

    def run(self) -> Counter[str]:
        """Builds what is missing.

        Returns:
            How many pictures each step left out; under the empty text, how many are in the set.
        Raises:
            InvalidInputError: a source or a file of decisions cannot be read, or no picture is in the sources.
        """
        settings = self._settings
        self._looked = self._run(settings.looking(), self._list())
        self._copies = self._find_copies()
        self._later.append(self._continue(settings.seeing(), lambda row: True))
        self._face_copies = self._find_face_copies()
        if CAPTIONER in settings.models:
            self._later.append(self._continue(settings.captioning(), lambda row: not row["caption"]))
        self._has_captions = True
        sets = {name: self._write(name) for name in ((SINGLES, GROUPS) if self._limits.groups else (SINGLES,))}
        return write_report(settings.output / REPORT, self._report(sets))

    def _list(self) -> Iterator[list[Row]]:
        pictures = enumerate(list_pictures(self._settings.sources))
        while chunk := list(islice(pictures, PART_SIZE)):
            yield [
                {
                    "number": number,
                    "part": number // PART_SIZE,
                    "name": listed.name,
                    "place": listed.place,
                    "given": json.dumps(listed.given, sort_keys=True),
                }
                for number, listed in chunk
            ]

    def _run(self, task: Task, rows: Iterator[list[Row]]) -> list[Part]:
        """Plans the parts of a task and does what is missing of them."""
        folder, fingerprint = self._settings.work / task.name, task.fingerprint
        columns = LISTED if not self._looked else CHOSEN
        parts = [
            plan_part(folder, part[0]["part"], rows=part, columns=columns, fingerprint=fingerprint)
            for part in rows
            if part
        ]
        if not parts and not self._looked:
            names = ", ".join(f"'{source}'" for source in self._settings.sources)
            raise InvalidInputError(f"name another source: there is no picture (JPEG, PNG or WebP) in {names}")
        tidy(folder, parts)
        done = sum(part.num_rows for part in parts if part.is_done)
        with self._show(task.name, sum(part.num_rows for part in parts)) as advance:
            advance(done)
            self._engine.run(task, parts, advance)
        return parts

    def _continue(self, task: Task, wants: Callable[[Row], bool]) -> dict[int, Part]:
        """Runs a task on the pictures that are still in, and returns its parts by number."""
        chosen = ([row for row in rows if self._reason(row) is None and wants(row)] for rows in self._rows())
        return {part.number: part for part in self._run(task, chosen)}

    def _rows(self) -> Iterator[list[Row]]:
        """Yields the pictures of each part, with all that is known of them by now."""
        for part in self._looked:
            rows = joined(part)
            for task in self._later:
                known = (
                    {row["number"]: row for row in read_part(task[part.number].result)} if part.number in task else {}
                )
                rows = [row | known.get(row["number"], {}) for row in rows]
            yield rows

    def _reason(self, row: Row) -> Reason | None:
        """Returns why a picture is left out, as far as is known by now."""
        number = row["number"]
        if reason := look_fault(row, self._limits, self._dropped):
            return reason
        if number in self._copies:
            return Reason(Step.DUPLICATE, f"it looks like picture {self._copies[number]}")
        if "face_sizes" not in row:
            return None
        if reason := see_fault(row, self._limits, self._settings.size):
            return reason
        if number in self._face_copies:
            return Reason(Step.FACE_DUPLICATE, f"it shows the same face as picture {self._face_copies[number]}")
        if self._has_captions and not self._limits.empty_captions and not caption_of(row):
            return Reason(Step.CAPTION, "it has no caption, and there is no --captioner")
        return None

    def _find_copies(self) -> dict[int, int]:
        return self._copies_by("hash", self._limits.hash_distance >= 0)

    def _find_face_copies(self) -> dict[int, int]:
        return self._copies_by("embedding", self._limits.min_similarity <= 1)

    def _copies_by(self, what: str, is_wanted: bool) -> dict[int, int]:
        numbers: list[int] = []
        values: list[np.ndarray] = []
        sizes: list[int] = []
        for rows in self._rows() if is_wanted else ():
            for row in rows:
                if row.get(what) is not None and self._reason(row) is None:
                    numbers.append(row["number"])
                    sizes.append(row["width"] * row["height"])
                    is_hash = what == "hash"
                    values.append(np.frombuffer(row[what], np.uint8) if is_hash else np.array(row[what], np.float32))
        if not numbers:
            return {}
        rank = np.array(sizes)
        if what == "hash":
            found = hash_duplicates(np.stack(values), rank, max_distance=self._limits.hash_distance)
        else:
            found = embedding_duplicates(np.stack(values), rank, min_similarity=self._limits.min_similarity)
        return {numbers[place]: numbers[other] for place, other in found.items()}

    def _origin(self, row: Row) -> Row:
        return {name: row[name] or getattr(self._settings, name) for name in ("source", "licence")}

    def _set_of(self, row: Row) -> str:
        return SINGLES if counted_faces(row, self._limits) == 1 else GROUPS

    def _write(self, name: str) -> PlannedSet:
        """Writes the shards of a set, and its header when all are there."""
        settings, task = self._settings, self._settings.sharding()
        folder = settings.output if name == SINGLES else settings.output / name
        chosen = (
            {
                **row,
                "key": f"{row['number']:09}",
                "caption": caption_of(row),
                **self._origin(row),
            }
            for rows in self._rows()
            for row in rows
            if self._reason(row) is None and self._set_of(row) == name
        )
        planned = plan_set(
            folder,
            settings.work / name,
            rows=chosen,
            shard_size=settings.shard_size,
            fingerprint=task.fingerprint,
        )
        with self._show(f"shards of {name}", len(planned.shards)) as advance:
            advance(sum(shard.is_done for shard in planned.shards))
            self._engine.run(task, planned.shards, advance)
        if planned.shards:
            write_header(folder, recogniser=settings.recogniser, source=settings.source)
        return planned

    def _report(self, sets: Mapping[str, PlannedSet]) -> Iterator[list[Row]]:
        faults = {number: fault for planned in sets.values() for number, fault in planned.faults().items()}
        for rows in self._rows():
            yield [self._reported(row, sets, faults) for row in rows]

    def _reported(self, row: Row, sets: Mapping[str, PlannedSet], faults: Mapping[int, str]) -> Row:
        number, reason = row["number"], self._reason(row)
        if reason is None and number in faults:
            reason = Reason(Step.WRITING, faults[number])
        told = {**row, **described(row), "file": row["name"], "caption": caption_of(row), "step": None}
        told |= self._origin(row)
        if row.get("face_sizes") is not None:
            told["num_faces"] = counted_faces(row, self._limits)
        if row.get("window") is not None:
            told["face_length"] = face_length(row, self._settings.size)
        if reason is not None:
            copies = {Step.DUPLICATE: self._copies, Step.FACE_DUPLICATE: self._face_copies}.get(reason.step, {})
            return told | {"step": reason.step.value, "detail": reason.detail, "duplicate_of": copies.get(number)}
        name = self._set_of(row)
        return told | {"set": name, "shard": sets[name].places[number], "key": f"{number:09}"}


def caption_of(row: Row) -> str:
    """Returns the caption that is given, or else the one that was written."""
    return row["caption"] or row.get("written") or ""
