"""The memory of a server over 500 prompts with changing casts, and what they leave behind.

Every prompt has a different cast, with other people, regions and strengths, and runs Apply Cast and two steps of the
small stand-in model. The server's own history is cleared after each prompt, because it would grow with any prompt. The
goals are a least-squares slope below 1 MiB per 100 prompts after a warm-up of 50, people that are encoded only once,
and a picture of the plain graph that is bit-identical before and after.
"""

import random

import numpy as np
from _report import arguments, report
from _server import TIMEOUT_S, memory_row, sample, serving
from fpga.devtools.client import ComfyClient, Prompt

NUM_PROMPTS, WARM_UP, PER, GOAL_MIB = 500, 50, 100, 1.0
NUM_PROMPTS_TINY, WARM_UP_TINY = 6, 2
SIDE_PX = 128
PEOPLE = {"Anna": "person_1.png", "Bea": "person_2.png", "Carl": "person_3.png", "Eileen": "portrait_photo.png"}


def people_nodes() -> Prompt:
    pack = {"pack": "buffalo_l", "provider": "auto", "download_if_missing": False}
    nodes: Prompt = {"analysis": {"class_type": "FPGA_LoadFaceAnalysis", "inputs": pack}}
    settings = {"face": "largest", "index": 1, "combine": "mean", "drop_outliers": False}
    for name, file in PEOPLE.items():
        photo, analysis = {"images.photo_1": [f"photo {name}", 0]}, {"face_analysis": ["analysis", 0]}
        nodes[f"photo {name}"] = {"class_type": "LoadImage", "inputs": {"image": file}}
        inputs = {**photo, **analysis, "name": name, **settings}
        nodes[f"encode {name}"] = {"class_type": "FPGA_EncodeIdentity", "inputs": inputs}
    return nodes


def plain_graph(seed: int, denoise: float = 1.0) -> Prompt:
    """Returns the graph of an ordinary picture; another denoise that rounds to 1 changes the cache key alone."""
    sampling = {"steps": 2, "cfg": 5.0, "sampler_name": "ddim", "scheduler": "ddim_uniform", "denoise": denoise}
    size = {"width": SIDE_PX, "height": SIDE_PX, "batch_size": 1}
    wires = {"model": ["model", 0], "positive": ["text", 0], "negative": ["text", 0], "latent_image": ["latent", 0]}
    checkpoint = {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}
    return {
        "model": {"class_type": "CheckpointLoaderSimple", "inputs": checkpoint},
        "text": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["model", 1], "text": "friends, photo"}},
        "latent": {"class_type": "EmptyLatentImage", "inputs": size},
        "sample": {"class_type": "KSampler", "inputs": {**wires, **sampling, "seed": seed}},
        "decode": {"class_type": "VAEDecode", "inputs": {"samples": ["sample", 0], "vae": ["model", 2]}},
        "show": {"class_type": "PreviewImage", "inputs": {"images": ["decode", 0]}},
    }


def with_cast(graph: Prompt, chance: random.Random) -> Prompt:
    """Returns the graph with one to four people in random places, with random strengths."""
    chosen = chance.sample(list(PEOPLE), chance.randint(1, len(PEOPLE)))
    boxes = [
        {"x": chance.randint(0, 75), "y": chance.randint(0, 75), "width": chance.randint(20, 50), "height": 45}
        for _ in chosen
    ]
    cast = {f"identities.identity_{n}": [f"encode {name}", 0] for n, name in enumerate(chosen, 1)}
    strengths = ", ".join(f"{chance.uniform(0.2, 2):.2f}" for _ in chosen)
    placing = {
        "boxes": {"__value__": boxes},
        "width": SIDE_PX,
        "height": SIDE_PX,
        "assign": "order",
        "grow": 0.2,
        "feather": 0.1,
    }
    wires = {"model": ["model", 0], "positive": ["text", 0], "negative": ["text", 0]}
    acting = {"strength": 1.0, "start_percent": 0.0, "end_percent": 1.0, "layer_emphasis": "uniform"}
    loading = {"variant": "auto", "use_lora": True, "structure_strength": 1.0}
    sampling = graph["sample"]["inputs"] | {"model": ["apply", 0], "positive": ["apply", 1], "negative": ["apply", 2]}
    return {
        **people_nodes(),
        **graph,
        "cast": {"class_type": "FPGA_MakeCast", "inputs": {**cast, **placing, "strengths": strengths}},
        "adapter": {
            "class_type": "FPGA_LoadIdentityAdapter",
            "inputs": {"name": "ip-adapter-faceid_sd15.bin", **loading},
        },
        "apply": {
            "class_type": "FPGA_ApplyCast",
            "inputs": {**wires, "adapter": ["adapter", 0], "cast": ["cast", 0], **acting},
        },
        "sample": {"class_type": "KSampler", "inputs": sampling},
    }


def picture(client: ComfyClient, graph: Prompt) -> np.ndarray:
    (image,) = client.images(client.run(graph), "show")
    return np.asarray(image)


def main() -> None:
    options = arguments(__doc__)
    num_prompts, warm_up = (NUM_PROMPTS_TINY, WARM_UP_TINY) if options.tiny else (NUM_PROMPTS, WARM_UP)
    chance = random.Random(0)  # noqa: S311 - no secret
    resident, encoded, pictures = [], 0, []
    with serving() as server:
        client = ComfyClient(server.address, timeout=TIMEOUT_S)
        before = picture(client, plain_graph(seed=1))
        for number in range(num_prompts):
            run = client.run(with_cast(plain_graph(seed=number), chance))
            encoded += sum(node.startswith("encode ") for node in run.executed)
            pictures.append(np.asarray(client.images(run, "show")[0]).tobytes())
            client.clear_history()
            sample(resident, server)
        after = picture(client, plain_graph(seed=1, denoise=0.99999999))
    row = {
        **memory_row(resident, warm_up, PER, GOAL_MIB),
        "people": len(PEOPLE),
        "encodings": encoded,
        "different pictures": len(set(pictures)),
        "plain picture unchanged": bool(np.array_equal(before, after)),
    }
    report(f"{num_prompts} prompts with changing casts, {SIDE_PX}x{SIDE_PX}, 2 steps", [row], options.json)


if __name__ == "__main__":
    main()
