"""Reads the cases of an evaluation: what each picture should show, and where each method's picture of it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ...fpga_core.boundaries import guarded
from ...fpga_core.errors import InvalidInputError
from ...fpga_core.geometry import Box
from ...fpga_core.training.data.pictures import read_picture
from ..queue.graph import PICTURES, Photos, as_list, place_numbers
from ..queue.table import SHOWN_FAULTS
from ..tables import Row, read_rows

CASE, PROMPT, PEOPLE, PLACES, TARGETS, REFERENCES = "case", "prompt", "people", "places", "targets", "references"
COLUMNS = (CASE, PROMPT, PEOPLE, PLACES, TARGETS, REFERENCES)


@dataclass(frozen=True)
class Person:
    """A person of a case: their photos, where their face is meant to be, and other photos of them.

    Attributes:
        name: as the table names them, or the name of the first photo.
        photos: what the methods were given.
        place: pixels of the first method's picture; None if the face may be anywhere.
        target: photos of the same person that no method was given, for copy-paste.
    """

    name: str
    photos: tuple[Path, ...]
    place: Box | None = None
    target: tuple[Path, ...] = ()


@dataclass(frozen=True)
class Case:
    """One row of the table.

    Attributes:
        name: the name of its pictures.
        pictures: method -> file.
        prompt: the words that they were made with.
        people: who should be in them.
        references: what they should resemble.
    """

    name: str
    pictures: Mapping[str, Path]
    prompt: str
    people: tuple[Person, ...]
    references: tuple[Path, ...]


def read_cases(table: Path, methods: Mapping[str, Path]) -> list[Case]:
    """Reads a table and finds every method's picture of every row. All files are opened once, to find broken ones.

    Args:
        table: CSV, JSON lines or Parquet; its relative paths start at its folder.
        methods: method -> the folder of its pictures.
    Raises:
        InvalidInputError: the table, a folder or a picture cannot be used; the message names every fault.
    """
    files = {method: pictures_in(folder) for method, folder in methods.items()}
    photos = Photos(table.parent)
    cases: dict[str, Case] = {}
    faults: list[str] = []
    for number, row in enumerate(read_rows(table, "cases"), 1):
        try:
            case = case_of(row, files, photos)
            if case.name in cases:
                raise InvalidInputError(f"name each case once; {case.name!r} is the name of another row too")
            cases[case.name] = case
        except InvalidInputError as error:
            faults.append(f"row {number}: {error}")
    faults += [] if faults else broken_files(cases.values())
    if faults:
        more = [f"and {len(faults) - SHOWN_FAULTS} more"] if len(faults) > SHOWN_FAULTS else []
        raise InvalidInputError("\n".join([f"correct what '{table}' names:", *faults[:SHOWN_FAULTS], *more]))
    if not cases:
        raise InvalidInputError(f"'{table}' has no rows; write one for each case, and {CASE!r} as a column")
    return list(cases.values())


def pictures_in(folder: Path) -> dict[str, list[Path]]:
    """Returns the pictures of a folder by their names without the ending."""
    if not folder.is_dir():
        raise InvalidInputError(f"name a folder of pictures: '{folder}' is not one")
    found: dict[str, list[Path]] = {}
    for file in sorted(folder.iterdir()):
        if file.suffix.lower() in PICTURES:
            found.setdefault(file.stem, []).append(file)
    return found


def case_of(row: Row, files: Mapping[str, Mapping[str, list[Path]]], photos: Photos) -> Case:
    """Reads a row."""
    if unknown := [column for column in row if column not in COLUMNS]:
        raise InvalidInputError(f"rename the column {unknown[0]!r}: use {', '.join(COLUMNS)}")
    if CASE not in row:
        raise InvalidInputError(f"name the case in the column {CASE!r}; the row has {', '.join(row) or 'nothing'}")
    name = str(row[CASE])
    stem = Path(name).stem if Path(name).suffix.lower() in PICTURES else name
    people = tuple(people_of(row, photos))
    named = [file for entry in as_list(row.get(REFERENCES, [])) for file in photos.find(str(entry))]
    return Case(
        name=stem,
        pictures={method: the_picture(method, stem, found.get(stem, [])) for method, found in files.items()},
        prompt=str(row.get(PROMPT, "")),
        people=people,
        references=tuple(named or [photo for person in people for photo in person.photos]),
    )


def the_picture(method: str, name: str, found: list[Path]) -> Path:
    """Returns the one picture that a method has of a case."""
    if len(found) == 1:
        return found[0]
    if not found:
        raise InvalidInputError(f"{method} has no picture {name!r}; make it, or take the row out for all methods")
    raise InvalidInputError(
        f"{method} has {len(found)} pictures {name!r}: keep one of {', '.join(f.name for f in found)}"
    )


def people_of(row: Row, photos: Photos) -> Iterator[Person]:
    """Yields the people of a row, written as `fpga-portrait queue` reads them."""
    people = as_list(row.get(PEOPLE, []))
    places = [box_of(place) for place in as_list(row.get(PLACES, []))]
    targets = as_list(row.get(TARGETS, []))
    for column, entries in ((PLACES, places), (TARGETS, targets)):
        if entries and len(entries) != len(people):
            raise InvalidInputError(f"name as many {column} as people: there are {len(entries)} and {len(people)}")
    for number, person in enumerate(people):
        name, _, files = str(person).rpartition("=")
        yield Person(
            name.strip() or Path(files.split("+")[0].strip()).stem,
            files_of(files, photos),
            places[number] if places else None,
            files_of(str(targets[number]), photos) if targets else (),
        )


def files_of(text: str, photos: Photos) -> tuple[Path, ...]:
    """Returns the photos of one person, with + between them."""
    return tuple(file for part in text.split("+") for file in photos.find(part.strip()))


def box_of(place: object) -> Box:
    """Reads x, y, width and height."""
    x, y, width, height = place_numbers(place, float)
    if not (width > 0 and height > 0):
        raise InvalidInputError(f"write a width and a height above 0; the place {place!r} is empty")
    return Box(x, y, x + width, y + height)


def files_in(case: Case) -> list[Path]:
    """Returns every picture and photo of a case."""
    of_people = [file for person in case.people for file in (*person.photos, *person.target)]
    return [*case.pictures.values(), *of_people, *case.references]


def broken_files(cases: Iterable[Case]) -> list[str]:
    """Opens every file once, and returns what is wrong with those that cannot be read."""
    found: list[str] = []
    for file in dict.fromkeys(file for case in cases for file in files_in(case)):
        try:
            read(file)
        except InvalidInputError as error:
            found.append(str(error))
    return found


def read(file: Path) -> Tensor:
    """Reads a picture: (height, width, 3) float32 in [0, 1].

    Raises:
        InvalidInputError: the file cannot be read.
    """
    advice = "save it again as PNG, JPEG or WebP"
    with guarded(InvalidInputError, f"'{file}' cannot be read", advice=advice):
        pixels = read_picture(file.read_bytes(), is_mask=False)
    return torch.from_numpy(np.ascontiguousarray(pixels)).float() / 255
