"""The options of `fpga-portrait dataset build`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...fpga_core.errors import InvalidInputError

if TYPE_CHECKING:
    from ...fpga_core.shapes import Extent
    from .settings import BuildSettings

MULTIPLE_PX = 64
"""What a UNet of SD needs: 8 pixels to a latent pixel, halved three times."""

MODELS = ("face_analysis", "pose_model", "face_parser", "captioner")


def add_build_options(parser: argparse.ArgumentParser) -> None:
    parser.usage = "fpga-portrait dataset build SOURCE... --output FOLDER [options]"
    parser.add_argument(
        "sources", metavar="SOURCE", type=Path, nargs="+", help="a folder, a WebDataset shard, or a table of files"
    )
    parser.add_argument("--output", metavar="FOLDER", type=Path, required=True, help="the training set")
    made = parser.add_argument_group("the set")
    made.add_argument("--size", metavar="SIDE", default="512", help="of its pictures: 512 (default) or 512x768")
    made.add_argument("--shard-size", metavar="N", type=int, default=1000, help="pictures in a shard; default: 1000")
    made.add_argument("--source", metavar="TEXT", default="", help="source of pictures that name none")
    made.add_argument("--licence", metavar="TEXT", default="", help="licence of pictures that name none")
    chosen = parser.add_argument_group("what a picture must be")
    chosen.add_argument(
        "--min-side", metavar="PIXELS", type=int, help="its shorter side; default: the longer side of --size"
    )
    chosen.add_argument(
        "--min-clarity", metavar="X", type=float, default=50.0, help="variance of the Laplacian; default: 50"
    )
    chosen.add_argument(
        "--max-watermark", metavar="P", type=float, default=0.5, help="if a probability is given; default: 0.5"
    )
    chosen.add_argument(
        "--min-caption-score", metavar="X", type=float, help="how well the caption fits, if a score is given"
    )
    chosen.add_argument(
        "--hash-distance",
        metavar="BITS",
        type=int,
        default=28,
        help="two pictures with fewer differing bits of 256 are one; default: 28; -1: keep all",
    )
    chosen.add_argument(
        "--min-similarity",
        metavar="X",
        type=float,
        default=0.97,
        help="faces with embeddings as similar as this are one photograph; default: 0.97; 2: keep all",
    )
    chosen.add_argument(
        "--min-face", metavar="PIXELS", type=float, default=48.0, help="length of the face in the set; default: 48"
    )
    chosen.add_argument(
        "--min-face-score", metavar="X", type=float, default=0.6, help="the detector's confidence; default: 0.6"
    )
    chosen.add_argument(
        "--minor-faces",
        metavar="X",
        type=float,
        default=0.25,
        help="faces smaller than this fraction of the largest do not count; default: 0.25",
    )
    chosen.add_argument("--groups", action="store_true", help="keep pictures of several people, in OUTPUT/groups")
    chosen.add_argument("--empty-captions", action="store_true", help="keep pictures without a caption")
    chosen.add_argument(
        "--decisions", metavar="FILE", type=Path, action="append", default=[], help="of a review; can be repeated"
    )
    models = parser.add_argument_group("models; each is optional where what it finds is given")
    models.add_argument("--face-analysis", metavar="FOLDER", type=Path, help="an insightface pack, such as buffalo_l")
    models.add_argument("--pose-model", metavar="FILE", type=Path, help="an ONNX pose model, such as RTMPose")
    models.add_argument("--face-parser", metavar="FILE", type=Path, help="BiSeNet; else the hull of the landmarks")
    models.add_argument("--captioner", metavar="FOLDER", type=Path, help="an image-to-text model of transformers")
    models.add_argument("--prompt", metavar="TEXT", default="", help="what the captioner is asked")
    models.add_argument("--max-tokens", metavar="N", type=int, default=40, help="of a caption; default: 40")
    models.add_argument("--recogniser", metavar="HASH", help="SHA-256 of the recogniser of embeddings that are given")
    engine = parser.add_argument_group("where the work is done")
    engine.add_argument(
        "--workers", metavar="N", type=int, default=os.cpu_count() or 1, help="processes; default: one for each core"
    )
    engine.add_argument("--gpus", metavar="X", type=float, default=0.0, help="GPUs of each; default: 0")
    engine.add_argument("--ray", action="store_true", help="on the Ray cluster of RAY_ADDRESS, or on this machine")


def settings_of(given: argparse.Namespace) -> BuildSettings:
    """Checks the options, and returns what they ask for.

    Raises:
        InvalidInputError: a number is out of its range, or a file does not exist.
        CheckpointError, MissingModelError: the face analysis cannot be loaded.
    """
    from ...fpga_core.faces.insightface_pack import load_insightface_pack
    from .settings import BuildSettings, Thresholds

    size = size_of(given.size)
    models = {name: getattr(given, name) for name in MODELS if getattr(given, name) is not None}
    for path in (*given.sources, *given.decisions, *models.values()):
        if not path.exists():
            raise InvalidInputError(f"check the name: '{path}' does not exist")
    for name in ("workers", "shard_size", "max_tokens"):
        if getattr(given, name) < 1:
            raise InvalidInputError(f"give --{name.replace('_', '-')} at least 1; it is {getattr(given, name)}")
    recogniser = given.recogniser
    if "face_analysis" in models:
        recogniser = load_insightface_pack(models["face_analysis"]).recogniser or recogniser
    limits = Thresholds(
        min_side=max(size.width, size.height) if given.min_side is None else given.min_side,
        min_clarity=given.min_clarity,
        max_watermark=given.max_watermark,
        min_caption_score=given.min_caption_score,
        hash_distance=given.hash_distance,
        min_similarity=given.min_similarity,
        min_face=given.min_face,
        min_face_score=given.min_face_score,
        minor_faces=given.minor_faces,
        groups=given.groups,
        empty_captions=given.empty_captions,
    )
    return BuildSettings(
        sources=given.sources,
        output=given.output,
        size=size,
        shard_size=given.shard_size,
        thresholds=limits,
        models=models,
        prompt=given.prompt,
        max_tokens=given.max_tokens,
        recogniser=recogniser,
        decisions=given.decisions,
        source=given.source,
        licence=given.licence,
    )


def size_of(text: str) -> Extent:
    """Parses `SIDE` or `WIDTHxHEIGHT`."""
    from ...fpga_core.shapes import Extent

    width, _, height = text.lower().partition("x")
    if not width.isdecimal() or not (height or width).isdecimal():
        raise InvalidInputError(f"write --size as 512 or 512x768; it is {text!r}")
    size = Extent(int(width), int(height or width))
    if size.num_cells == 0 or size.width % MULTIPLE_PX or size.height % MULTIPLE_PX:
        raise InvalidInputError(f"choose multiples of {MULTIPLE_PX} for --size; it is {size}")
    return size
