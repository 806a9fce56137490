"""Damages files as disks, downloads and other programs do, and holds that loaders give named errors only."""

from collections import Counter
from collections.abc import Callable, Iterator
from random import Random

from fpga.fpga_core.errors import FPGAError

NUM_FILES = 200
INTERESTING = (
    b"\x00",
    b"\xff",
    b"\x80",
    b"{",
    b"}",
    b'"',
    b"-1",
    b"1e999",
    b"NaN",
    b"null",
    b"[]",
    b"\xef\xbb\xbf",
    b"9" * 40,
)


def mutated(data: bytes, start: bytes = b"", seed: int = 0, number: int = NUM_FILES) -> Iterator[bytes]:
    """Yields damaged copies; half of the damage is in the first 4 KiB, where headers are.

    Args:
        data: a whole file.
        start: bytes at the beginning that stay, so that the file is still taken for what it was.
    """
    random = Random(seed)
    for _ in range(number):
        copy = bytearray(data)
        for _ in range(random.choice((1, 1, 2, 8))):
            end = len(copy) if random.random() < 0.5 else min(len(copy), 4096)
            if end <= len(start):
                break
            place = random.randrange(len(start), end)
            kind = random.randrange(7)
            if kind == 0:
                copy[place] ^= 1 << random.randrange(8)
            elif kind == 1:
                copy[place] = random.randrange(256)
            elif kind == 2:
                del copy[place:]
            elif kind == 3:
                del copy[place : place + random.randrange(1, 64)]
            elif kind == 4:
                copy[place:place] = random.choice(INTERESTING)
            elif kind == 5:
                span = random.choice(INTERESTING)
                copy[place : place + len(span)] = span
            else:
                other = random.randrange(len(start), end)
                copy[place : place + 16] = copy[other : other + 16]
        yield bytes(copy)


def check_named_errors_only(load: Callable[[bytes], object], files: Iterator[bytes]) -> Counter:
    """Loads each file. Fails with the first error that is not the pack's own.

    Returns:
        How often each error was raised; "loaded" counts the files that were read.
    """
    outcomes: Counter[str] = Counter()
    for number, file in enumerate(files):
        try:
            load(file)
        except FPGAError as error:
            outcomes[type(error).__name__] += 1
            assert len(str(error)) < 2000, f"file {number}: a message of {len(str(error))} characters"
        except Exception as error:
            raise AssertionError(
                f"file {number} gives {type(error).__module__}.{type(error).__name__}: {error}"
            ) from error
        else:
            outcomes["loaded"] += 1
    assert sum(outcomes.values()) == NUM_FILES and sum(outcomes.values()) > outcomes["loaded"]
    return outcomes
