"""`dev.py demo` runs shipped workflows on the small world's trained models, and draws a sheet of the results.

It uses a real ComfyUI server. `dev.py demo photographs` runs every shipped workflow on real photographs, with models
whose weights are random. That shows that the workflows run; the generated pictures mean nothing.
"""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path

from PIL import Image

from .client import ComfyClient, Execution, Prompt
from .demo_world import ROWS, Row, Run, adapted, write_pictures
from .environment import cache_folder
from .launch import ROOT
from .server import ComfyServer
from .sheet import Cell, sheet
from .stand_ins import PACKS, place_stand_ins, place_world

OUTPUT = ROOT / "demo"
API = ROOT / "workflows" / "api"
ARGUMENTS = ["--use-pytorch-cross-attention"]


class Demonstration:
    """Runs workflows on a server, prints their reports, and keeps their pictures."""

    def __init__(self, client: ComfyClient) -> None:
        self.client = client

    def run(self, prompt: Prompt, folder: Path) -> tuple[dict[str, list[Path]], dict[str, str]]:
        """Returns pictures and first lines of reports, by the title of the node that showed them."""
        began = time.monotonic()
        execution = self.client.run(prompt)
        print(f"{folder.relative_to(OUTPUT)}: {time.monotonic() - began:.0f} s")
        titles = {node_id: prompt[node_id]["_meta"]["title"] for node_id in execution.outputs}
        texts = {titles[node]: shown["text"][0] for node, shown in execution.outputs.items() if shown.get("text")}
        for title, text in texts.items():
            print(f"  {title}: {text.splitlines()[0]}")
        pictures = {
            titles[node]: self._save(execution, node, folder)
            for node, shown in sorted(execution.outputs.items(), key=lambda item: int(item[0]))
            if shown.get("images")
        }
        return pictures, texts

    def _save(self, execution: Execution, node_id: str, folder: Path) -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        paths = []
        for number, picture in enumerate(self.client.images(execution, node_id)):
            paths.append(folder / f"{node_id}_{number}.png")
            picture.save(paths[-1])
        return paths


def world(base: Path) -> Image.Image:
    """Shows people of the small world who were never used in training, in the shipped workflows."""
    place_world(base)
    write_pictures(base / "input")
    with ComfyServer(base, packs=PACKS, arguments=ARGUMENTS) as server:
        demonstration = Demonstration(ComfyClient(server.address))
        return sheet({row.title: cells(demonstration, row, base / "input") for row in ROWS})


def cells(demonstration: Demonstration, row: Row, inputs: Path) -> list[Cell]:
    """Returns one row of the sheet: first the photos, and then the results."""
    found = [Cell(title, Image.open(inputs / name)) for name, title in row.photos.items()]
    for number, run in enumerate(row.runs):
        folder = OUTPUT / f"{row.title} {number + 1}".replace(" ", "_")
        pictures, texts = demonstration.run(prompt_of(run), folder)
        if run.kept_as is not None:
            enlarged(pictures["Save Image"][0]).save(inputs / run.kept_as)
        found += [
            Cell(f"{shown}{figure(title, texts)}", Image.open(path))
            for title, shown in run.shown.items()
            for path in pictures[title]
        ]
    return found


def prompt_of(run: Run) -> Prompt:
    if not isinstance(run.workflow, str):
        return run.workflow
    return adapted(json.loads((API / f"{run.workflow}.json").read_text(encoding="utf-8")), run)


def enlarged(path: Path) -> Image.Image:
    """Enlarges a generated picture four times for the next workflow, because its faces have few pixels."""
    picture = Image.open(path).convert("RGB")
    return picture.resize((picture.width * 4, picture.height * 4), Image.Resampling.BICUBIC)


def figure(title: str, texts: dict[str, str]) -> str:
    """Returns the FaceSim of what a node shows, for its caption; empty if it shows no measured face.

    Args:
        title: title of the node.
        texts: reports of the nodes in its run.
    """
    if title == "Likeness":
        return score(texts)
    found = re.search(r"FaceSim (\S+) -> ([^\s,]+)", texts.get("Restore Faces", ""))
    sides = {"Faces before": 1, "Faces after": 2}
    return f"FaceSim {found[sides[title]]}" if found and title in sides else ""


def score(texts: dict[str, str]) -> str:
    """Returns the FaceSim from Score Cast, or the likeness if nobody has a place."""
    headline = texts["Score Cast"].splitlines()[0]
    found = re.search(r"FaceSim: (-?[\d.]+)", headline) or re.search(r"mean likeness (-?[\d.]+)", headline)
    return f"FaceSim {found[1]}" if found else "nobody was scored"


def photographs(base: Path) -> Image.Image:
    """Runs every shipped workflow on the stand-ins. Nothing is downloaded."""
    place_stand_ins(base)
    rows = {}
    with ComfyServer(base, packs=PACKS, arguments=ARGUMENTS) as server:
        demonstration = Demonstration(ComfyClient(server.address))
        for file in sorted(API.glob("*.json")):
            prompt = json.loads(file.read_text(encoding="utf-8"))
            for node in prompt.values():
                if "download_if_missing" in node["inputs"]:
                    node["inputs"]["download_if_missing"] = False
            pictures, _ = demonstration.run(prompt, OUTPUT / file.stem)
            rows[file.stem] = [Cell(title, Image.open(path)) for title, paths in pictures.items() for path in paths]
    return sheet(rows)


DEMONSTRATIONS = {
    "world": (
        world,
        ("People and pictures come from the small world (docs/small-world.md). None of them was used in training."),
    ),
    "photographs": (
        photographs,
        "The models are stand-ins with random weights. This shows that the workflows run; the generated pictures mean "
        "nothing.",
    ),
}


def main(name: str = "world") -> None:
    if name not in DEMONSTRATIONS:
        sys.exit(f"dev.py demo: there is no demonstration {name!r}; choose one of {', '.join(DEMONSTRATIONS)}")
    demonstration, remark = DEMONSTRATIONS[name]
    picture = demonstration(cache_folder() / "demo")
    file = OUTPUT / f"{name}.png"
    picture.save(file)
    print(f"\n{remark}\nPictures: {OUTPUT}\nSheet:    {file}")


if __name__ == "__main__":
    main(*sys.argv[1:])
