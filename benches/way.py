"""The way of one restored face: the pack's functions that one run of Restore Faces enters, by file.

Every function that is called counts once, wherever it is called from; comprehensions and lambdas belong to the function
that holds them. The models are tiny, one face is found beforehand, and an identity and a RepControlNet are connected.
"""

import argparse
import asyncio
import sys
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from fpga import comfy_entrypoint
from random_branches import random_branch
from tiny_faces import face, found, pictures, placed_cast, tiny_vae
from tiny_identities import tiny_adapter
from tiny_models import conditioning, tiny_model

ROOT = Path(__file__).resolve().parent.parent
PLACES = (ROOT / "fpga_core", ROOT / "nodes")


@contextmanager
def entered() -> Iterator[dict[Path, set[str]]]:
    """Yields the functions of the pack that are called inside, by file; it is filled when the block ends."""
    codes = set()

    def profile(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            codes.add(frame.f_code)

    functions: dict[Path, set[str]] = defaultdict(set)
    sys.setprofile(profile)
    try:
        yield functions
    finally:
        sys.setprofile(None)
        for code in codes:
            file = Path(code.co_filename).resolve()
            if any(file.is_relative_to(place) for place in PLACES) and not code.co_name.startswith("<"):
                functions[file.relative_to(ROOT)].add(code.co_qualname)


async def restore_faces() -> type:
    """Returns the node, as ComfyUI finds it."""
    extension = await comfy_entrypoint()
    return next(node for node in await extension.get_node_list() if node.__name__ == "RestoreFaces")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quiet", action="store_true", help="print the two figures alone")
    is_quiet = parser.parse_args().quiet
    model, person = tiny_model(), face(20, 20, 24, 30, 1)
    node = asyncio.run(restore_faces())
    schema = node.define_schema()
    defaults = {put.id: put.default for put in schema.inputs if getattr(put, "default", None) is not None}
    inputs = {name: getattr(value, "value", value) for name, value in defaults.items()} | {
        "image": pictures(),
        "model": model,
        "vae": tiny_vae(),
        "positive": conditioning(1),
        "negative": conditioning(2),
        "adapter": tiny_adapter(model),
        "cast": placed_cast(p1=person),
        "faces": found((person,)),
        "repcontrolnet": random_branch(model.model.diffusion_model),
        "steps": 2,
        "crop_size_px": 64,
    }
    with torch.inference_mode(), entered() as functions:
        node.execute(**inputs)
    if not is_quiet:
        for file, names in sorted(functions.items()):
            print(f"{file}: {', '.join(sorted(names))}")
    print(f"{sum(map(len, functions.values()))} functions in {len(functions)} files")


if __name__ == "__main__":
    main()
