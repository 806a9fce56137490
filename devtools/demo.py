"""`dev.py demo`: every shipped workflow, run by a real ComfyUI server on real photographs, and a sheet of what came
out.

The workflows name public model files; local stand-ins with random weights are placed under those names (docs/stand-
ins.md), so the path from photograph to saved picture is real and the generated pictures themselves are not pictures of
anything.
"""

from __future__ import annotations

import json
import time
from pathlib import Path

from PIL import Image, ImageDraw

from .client import ComfyClient, Execution
from .environment import cache_folder
from .launch import ROOT
from .server import ComfyServer
from .stand_ins import PACKS, place_stand_ins

OUTPUT = ROOT / "demo"
CELL_PX, CAPTION_PX = 256, 28


def run_workflow(client: ComfyClient, file: Path) -> dict[str, list[Path]]:
    """Runs one workflow and saves its pictures; returns them by the title of the node that showed them."""
    prompt = json.loads(file.read_text(encoding="utf-8"))
    began = time.monotonic()
    execution = client.run(prompt)
    print(f"{file.stem}: {time.monotonic() - began:.0f} s")
    for node_id, shown in execution.outputs.items():
        for text in shown.get("text", []):
            print(f"  {prompt[node_id]['_meta']['title']}: {text.splitlines()[0]}")
    return {
        prompt[node_id]["_meta"]["title"]: save_pictures(client, execution, node_id, file.stem)
        for node_id, shown in sorted(execution.outputs.items(), key=lambda item: int(item[0]))
        if shown.get("images")
    }


def save_pictures(client: ComfyClient, execution: Execution, node_id: str, workflow: str) -> list[Path]:
    folder = OUTPUT / workflow
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, picture in enumerate(client.images(execution, node_id)):
        paths.append(folder / f"{node_id}_{number}.png")
        picture.save(paths[-1])
    return paths


def contact_sheet(rows: dict[str, dict[str, list[Path]]]) -> Image.Image:
    """One row for each workflow: its pictures with the titles of the nodes that showed them."""
    cells = {name: [(title, path) for title, paths in row.items() for path in paths] for name, row in rows.items()}
    width = CELL_PX * max(len(row) for row in cells.values())
    height = CELL_PX + 2 * CAPTION_PX
    sheet = Image.new("RGB", (width, height * len(cells)), "white")
    draw = ImageDraw.Draw(sheet)
    for row, (name, pictures) in enumerate(cells.items()):
        draw.text((6, row * height + 8), name, fill="black")
        for column, (title, path) in enumerate(pictures):
            x, y = column * CELL_PX, row * height + CAPTION_PX
            picture = Image.open(path).convert("RGB")
            picture.thumbnail((CELL_PX - 4, CELL_PX - 4))
            sheet.paste(picture, (x + 2, y))
            draw.text((x + 6, y + CELL_PX + 4), title[:40], fill="black")
    return sheet


def main() -> None:
    base = cache_folder() / "demo"
    place_stand_ins(base)
    rows = {}
    with ComfyServer(base, packs=PACKS, arguments=["--use-pytorch-cross-attention"]) as server:
        client = ComfyClient(server.address)
        for file in sorted((ROOT / "workflows" / "api").glob("*.json")):
            rows[file.stem] = run_workflow(client, file)
    sheet = OUTPUT / "sheet.png"
    contact_sheet(rows).save(sheet)
    print("\nThe models are stand-ins with random weights: the path is real, the generated pictures show nothing.")
    print(f"Pictures: {OUTPUT}\nSheet:    {sheet}")


if __name__ == "__main__":
    main()
