"""The memory of a server over 200 different pictures whose faces are restored.

Each picture is a different crop of a group photo. Its faces are found, matched with a cast of three by likeness, and
restored with a ControlNet, crops of 64 pixels and two steps of the small stand-in model. FaceSim is not measured,
because finding each face again would take most of the time. The server's own history is cleared after each prompt,
because it would grow with any prompt. The goal is a least-squares slope below 1 MiB per 20 pictures after the first 20.
"""

import json
import random
from pathlib import Path

from _report import arguments, report
from _server import TIMEOUT_S, memory_row, sample, serving
from fpga.devtools.client import ComfyClient, Prompt
from fpga.devtools.launch import ROOT
from PIL import Image, ImageEnhance

NUM_PICTURES, WARM_UP, PER, GOAL_MIB = 200, 20, 20, 1.0
NUM_PICTURES_TINY, WARM_UP_TINY = 4, 2
WIDTH, HEIGHT = 320, 320
SMALLER = {"steps": 2, "crop_size_px": 64}


def write_picture(photo: Image.Image, path: Path, chance: random.Random) -> None:
    """Writes another part of the photo with another brightness."""
    x, y = chance.randint(0, photo.width - WIDTH), chance.randint(0, photo.height - HEIGHT)
    part = photo.crop((x, y, x + WIDTH, y + HEIGHT))
    ImageEnhance.Brightness(part).enhance(chance.uniform(0.7, 1.3)).save(path)


def graph_for(workflow: Prompt, file: str) -> Prompt:
    """Returns the shipped workflow for another picture, with previews instead of saved files."""
    graph: Prompt = json.loads(json.dumps(workflow))
    for node in graph.values():
        if node["class_type"] == "FPGA_RestoreFaces":
            node["inputs"] |= SMALLER
            del node["inputs"]["face_analysis"]
            graph[node["inputs"]["image"][0]]["inputs"]["image"] = file
        if node["class_type"] == "FPGA_LoadFaceAnalysis":
            node["inputs"] |= {"download_if_missing": False}  # the stand-in has other files than the public pack
        if node["class_type"] == "FPGA_MakeCast":
            node["inputs"] |= {"assign": "likeness"}
        if node["class_type"] == "SaveImage":
            node |= {"class_type": "PreviewImage", "inputs": {"images": node["inputs"]["images"]}}
    return graph


def main() -> None:
    options = arguments(__doc__)
    num_pictures, warm_up = (NUM_PICTURES_TINY, WARM_UP_TINY) if options.tiny else (NUM_PICTURES, WARM_UP)
    workflow = json.loads((ROOT / "workflows" / "api" / "restore_faces.json").read_text(encoding="utf-8"))
    (restore,) = (key for key, node in workflow.items() if node["class_type"] == "FPGA_RestoreFaces")
    chance = random.Random(0)  # noqa: S311 - no secret
    resident, num_faces, untouched = [], 0, 0
    with serving() as server:
        client = ComfyClient(server.address, timeout=TIMEOUT_S)
        inputs = server.base_directory / "input"
        photo = Image.open(inputs / "small_group_photo.png").convert("RGB")
        for number in range(num_pictures):
            file = f"picture_{number}.png"
            write_picture(photo, inputs / file, chance)
            run = client.run(graph_for(workflow, file))
            lines = run.outputs[restore]["text"][0].splitlines()
            num_faces += int(lines[0].split()[0])
            untouched += "maximum difference 0 " in lines[-1]
            client.clear_history()
            sample(resident, server)
    row = {
        **memory_row(resident, warm_up, PER, GOAL_MIB),
        "faces restored": num_faces,
        "backgrounds untouched": untouched,
    }
    report(f"{num_pictures} pictures of {WIDTH}x{HEIGHT}, restored at 64 px, 2 steps", [row], options.json)


if __name__ == "__main__":
    main()
