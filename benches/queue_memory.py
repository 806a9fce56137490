"""The memory of a server over 10,000 prompts with changing casts, folds and restorations, beside one without the pack.

Two servers get prompts in turn. The first gets another cast every time; half of the prompts also fold a RepControlNet
with other weights, or run it live, and every tenth restores the faces of a new picture. The second, the control, gets
the plain graph and the same new pictures, with nodes of ComfyUI alone. Both forget their history after each prompt,
because it would grow with any prompt. The goal is a slope below 1 MiB per 1,000 prompts in the second half.

The memory after each prompt is appended to `--curve`. A bench that was stopped goes on until `--prompts` are reached,
with new servers, so a slope is that of the longest run without a stop.
"""

import json
import random
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

from _report import arguments, report
from _server import TIMEOUT_S, memory_row, resident_mib, serving
from fpga.devtools.client import ComfyClient, Prompt
from fpga.devtools.launch import ROOT
from fpga.devtools.server import ComfyServer
from PIL import Image
from queue_identity import plain_graph, with_cast
from queue_restoration import graph_for, write_picture

NUM_PROMPTS, NUM_PROMPTS_TINY, PER, GOAL_MIB = 10_000, 20, 1000, 1.0
RESTORED_EVERY, LIVE_SHARE, FOLDED_SHARE = 10, 0.1, 0.5
SHOWN_EVERY = 100
WITH_PACK, CONTROL = "with the pack", "ComfyUI alone"


def with_fold(graph: Prompt, chance: random.Random) -> Prompt:
    """Returns a graph with a cast, whose model is steered by a branch of random weight, folded or live."""
    mode = "live" if chance.random() < LIVE_SHARE else "folded"
    weights = {"alpha": round(chance.uniform(0.9, 1.1), 3), "beta": round(chance.uniform(0, 0.2), 3)}
    range_ = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0}
    wires = {"model": ["model", 0], "positive": ["text", 0], "negative": ["text", 0]}
    wires |= {"repcontrolnet": ["branch", 0], "image": ["photo Anna", 0]}
    steered = {"model": ["fold", 0], "positive": ["fold", 1], "negative": ["fold", 2]}
    branch = {"name": "fpga_repcontrolnet_sd15.safetensors"}
    return {
        **graph,
        "branch": {"class_type": "FPGA_LoadRepControlNet", "inputs": branch},
        "fold": {"class_type": "FPGA_ApplyRepControlNet", "inputs": {**wires, **weights, **range_, "mode": mode}},
        "apply": {**graph["apply"], "inputs": graph["apply"]["inputs"] | steered},
    }


def with_picture(graph: Prompt, file: str) -> Prompt:
    """Returns the plain graph, which also shows a picture."""
    return {
        **graph,
        "picture": {"class_type": "LoadImage", "inputs": {"image": file}},
        "show picture": {"class_type": "PreviewImage", "inputs": {"images": ["picture", 0]}},
    }


def memory_after(server: ComfyServer, prompt: Prompt) -> float:
    """Runs a prompt, and returns the server's memory in MiB."""
    client = ComfyClient(server.address, timeout=TIMEOUT_S)
    client.run(prompt)
    client.clear_history()
    return round(resident_mib(server), 2)


def prompts_of(number: int, inputs: Sequence[Path], chance: random.Random) -> tuple[Prompt, Prompt]:
    """Returns the next prompt of both servers. Every tenth writes a new picture to their input folders."""
    seed = chance.randrange(2**32)
    plain = plain_graph(seed)
    if number % RESTORED_EVERY == 0:
        workflow = json.loads((ROOT / "workflows" / "api" / "restore_faces.json").read_text(encoding="utf-8"))
        photo = Image.open(inputs[0] / "small_group_photo.png").convert("RGB")
        file = f"picture_{number}.png"
        for folder in inputs:
            write_picture(photo, folder / file, random.Random(seed))  # noqa: S311 - no secret
            (folder / f"picture_{number - RESTORED_EVERY}.png").unlink(missing_ok=True)
        return graph_for(workflow, file), with_picture(plain, file)
    cast = with_cast(plain, chance)
    return (with_fold(cast, chance) if chance.random() < FOLDED_SHARE else cast), plain


def read_curve(curve: Path) -> dict[int, list[dict]]:
    """Returns the entries of each run."""
    runs: dict[int, list[dict]] = defaultdict(list)
    for line in curve.read_text(encoding="utf-8").splitlines() if curve.exists() else ():
        entry = json.loads(line)
        runs[entry["run"]].append(entry)
    return runs


def measure(curve: Path, run: int, number: int) -> None:
    """Runs that many prompts on both servers, and appends their memory to the curve."""
    chance = random.Random(run)  # noqa: S311 - no secret
    began = time.monotonic()
    with serving() as pack, serving() as control, curve.open("a", encoding="utf-8") as file:
        inputs = [server.base_directory / "input" for server in (pack, control)]
        for done in range(1, number + 1):
            mine, plain = prompts_of(done, inputs, chance)
            entry = {"run": run, WITH_PACK: memory_after(pack, mine), CONTROL: memory_after(control, plain)}
            file.write(json.dumps(entry) + "\n")
            file.flush()
            if done % SHOWN_EVERY == 0:
                print(f"{done} prompts in {time.monotonic() - began:.0f} s: {entry}", flush=True)


def main() -> None:
    options = arguments(__doc__, prompts=NUM_PROMPTS, curve=Path("queue_memory.jsonl"))
    number = NUM_PROMPTS_TINY if options.tiny else options.prompts
    runs = read_curve(options.curve)
    missing = number - sum(map(len, runs.values()))
    if missing > 0:
        measure(options.curve, max(runs, default=0) + 1, missing)
    longest = max(read_curve(options.curve).values(), key=len)
    half = len(longest) // 2
    rows = [
        {"server": name, **memory_row([entry[name] for entry in longest], half, PER, GOAL_MIB)}
        for name in (WITH_PACK, CONTROL)
    ]
    report(f"The second half of {len(longest)} prompts of {number}", rows, options.json)


if __name__ == "__main__":
    main()
