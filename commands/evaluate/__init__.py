"""`fpga-portrait evaluate CASES METHOD ...`: scores the pictures of several methods. See docs/evaluation.md.

    fpga-portrait evaluate cases.csv plain=out/plain ours=out/ours --face-analysis models/insightface/models/buffalo_l
    fpga-portrait evaluate cases.csv out/plain out/ours --clip-vision FILE --clip-text FOLDER --dino FILE --real photos

A method is a folder with one picture for each case. Scores for which no model is given are left out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ...fpga_core.errors import InvalidInputError
from ..comfyui import import_comfyui

if TYPE_CHECKING:
    from ...fpga_core.patching.picture_scores import Scorers


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "fpga-portrait evaluate",
        usage="fpga-portrait evaluate CASES METHOD [METHOD ...] [options]",
        description=(__doc__ or "").partition("\n\n")[2],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("cases", metavar="CASES", type=Path, help="the table: .csv, .jsonl or .parquet")
    parser.add_argument(
        "methods", metavar="METHOD", nargs="+", help="folder of pictures, or NAME=FOLDER; pictures are named as cases"
    )
    parser.add_argument(
        "--against", metavar="NAME", help="the method that the others are compared with; default: first"
    )
    parser.add_argument("--output", metavar="FOLDER", type=Path, help="default: CASES-scores, beside CASES")
    models = parser.add_argument_group("models, each for some of the scores")
    models.add_argument("--face-analysis", metavar="FOLDER", type=Path, help="insightface pack: FaceSim and the like")
    models.add_argument("--clip-vision", metavar="FILE", type=Path, help="a CLIP-Vision: CLIP-I, CLIP-T, FID (CLIP)")
    models.add_argument("--clip-text", metavar="FOLDER", type=Path, help="the same CLIP of transformers: CLIP-T")
    models.add_argument("--dino", metavar="FILE", type=Path, help="a DINOv2 or DINOv3: DINO")
    parser.add_argument("--real", metavar="FOLDER", type=Path, help="real pictures: FID (CLIP)")
    parser.add_argument("--cpu", action="store_true", help="use no GPU")
    return parser


def methods_of(words: list[str]) -> dict[str, Path]:
    """Returns the folders by the names of their methods.

    Raises:
        InvalidInputError: two methods have one name.
    """
    methods: dict[str, Path] = {}
    for word in words:
        name, _, folder = word.rpartition("=") if not Path(word).is_dir() else ("", "", word)
        name = name or Path(folder).absolute().name
        if name in methods:
            raise InvalidInputError(f"name each method once, as NAME=FOLDER: two are called {name!r}")
        methods[name] = Path(folder)
    return methods


def load_scorers(given: argparse.Namespace) -> Scorers:
    """Loads what the options name."""
    import comfy.clip_vision

    from ...fpga_core.boundaries import guarded
    from ...fpga_core.errors import CheckpointReadError, MissingModelError
    from ...fpga_core.evaluation.clip_text import ClipText
    from ...fpga_core.faces.insightface_pack import load_insightface_pack
    from ...fpga_core.patching.picture_scores import Scorers

    def vision(file: Path | None, kind: str) -> comfy.clip_vision.ClipVisionModel | None:
        if file is None:
            return None
        if not file.is_file():
            raise MissingModelError(f"name a file with a {kind}: '{file}' is not a file")
        with guarded(CheckpointReadError, f"'{file}' cannot be loaded", advice=f"choose a file with a {kind}"):
            loaded = comfy.clip_vision.load(str(file))
        if loaded is None:
            raise CheckpointReadError(f"'{file}' is not an image encoder that ComfyUI knows; choose a {kind}")
        return loaded

    return Scorers(
        face_analysis=None if given.face_analysis is None else load_insightface_pack(given.face_analysis),
        clip_vision=vision(given.clip_vision, "CLIP-Vision"),
        clip_text=None if given.clip_text is None else ClipText(given.clip_text),
        dino=vision(given.dino, "DINOv2 or DINOv3"),
    )


def check_options(given: argparse.Namespace, against: str, methods: dict[str, Path]) -> None:
    """Raises InvalidInputError if an option cannot have an effect."""
    if against not in methods:
        raise InvalidInputError(f"choose --against from {', '.join(methods)}: there is no method {against!r}")
    if not any((given.face_analysis, given.clip_vision, given.dino)):
        raise InvalidInputError("name at least one of --face-analysis, --clip-vision and --dino: they make the scores")
    for option in ("clip_text", "real"):
        if getattr(given, option) is not None and given.clip_vision is None:
            raise InvalidInputError(f"name --clip-vision too: --{option.replace('_', '-')} is of no use without it")


def main(arguments: list[str]) -> int:
    """Scores the pictures, and prints the table."""
    given = build_parser().parse_args(arguments)
    methods = methods_of(given.methods)
    against = given.against or next(iter(methods))
    check_options(given, against, methods)
    if given.cpu:
        import os

        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    from .cases import pictures_in, read_cases

    cases = read_cases(given.cases, methods)
    found = {} if given.real is None else pictures_in(given.real)
    if given.real is not None and (len(cases) < 2 or len(found) < 2):
        raise InvalidInputError(f"leave --real out: {len(cases)} cases and {len(found)} real pictures are too few")
    import_comfyui()
    from ..train import progress_bar
    from .measuring import measure
    from .showing import table_of, write

    measured = measure(
        cases,
        load_scorers(given),
        real=[file for files in found.values() for file in files],
        show=progress_bar("cases", is_shown=True),
    )
    if not measured.names:
        raise InvalidInputError(f"nothing could be scored: '{given.cases}' has no people, prompts or references")
    folder = given.output or given.cases.with_name(f"{given.cases.stem}-scores")
    files = write(folder, measured, cases, against=against)
    print(table_of(measured, against))
    print("\n".join(["written:", *map(str, files)]))
    return 0
