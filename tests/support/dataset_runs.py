"""`fpga-portrait dataset` as a program, for tests and benches, and what it wrote."""

import hashlib
import subprocess
import sys
import tarfile
from pathlib import Path

import pyarrow.parquet
from fpga.laboratory.shipped import FACE_PACK

PACK = Path(__file__).resolve().parents[2]


def command(*words) -> list[str]:
    return [sys.executable, str(PACK), "dataset", *map(str, words)]


def build_words(source: Path, output: Path, **options) -> list[str]:
    """A build of painted people: the world's face analysis, and pictures of 128 pixels."""
    given = {"size": 128, "min-side": 192, "face-analysis": FACE_PACK, "min-face": 12, "workers": 2} | options
    words: list[object] = []
    for name, value in given.items():
        words += [] if value is False else [f"--{name}"] if value is True else [f"--{name}", value]
    return command("build", source, "--output", output, *words)


def run(words: list[str], status: int = 0, timeout_s: float | None = 280) -> str:
    """Runs a program, and returns what it printed."""
    done = subprocess.run(words, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == status, done.stderr[-4000:]
    return done.stdout + done.stderr


def report_of(output: Path) -> list[dict]:
    return pyarrow.parquet.read_table(output / "report.parquet").to_pylist()


def shards_of(output: Path) -> dict[str, str]:
    """Name -> SHA-256 of each shard and of the header, groups included."""
    files = sorted([*output.glob("*.tar"), *output.glob("groups/*.tar"), *output.glob("**/dataset.json")])
    return {str(file.relative_to(output)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def members_of(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}
