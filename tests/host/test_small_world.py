"""The small world's trained models on a real server: stock loaders and samplers, and the pack's nodes, unchanged."""

import numpy as np
import pytest

CAPTION = "close-up of smiling person in red on blue plain background"


def graph(caption: str, size_px: int = 128, seed: int = 0) -> dict:
    """A picture by the stock nodes, and the faces that the pack finds in it."""
    text = {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1]}}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "small_world.safetensors"}},
        "2": {**text, "inputs": {**text["inputs"], "text": caption}},
        "3": {**text, "inputs": {**text["inputs"], "text": ""}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": size_px, "height": size_px, "batch_size": 1}},
        "5": {
            "class_type": "KSampler",
            "inputs": {
                "model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0],
                "seed": seed, "steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0,
            },
        },
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "world"}},
        "8": {
            "class_type": "FPGA_LoadFaceAnalysis",
            "inputs": {"pack": "small_world_faces", "provider": "auto", "download_if_missing": False},
        },
        "9": {
            "class_type": "FPGA_DetectFaces",
            "inputs": {"image": ["6", 0], "face_analysis": ["8", 0], "order": "left_to_right", "min_size_px": 0},
        },
        "10": {"class_type": "MaskToImage", "inputs": {"mask": ["9", 2]}},
        "11": {"class_type": "PreviewImage", "inputs": {"images": ["10", 0]}},
    }  # fmt: skip


@pytest.mark.parametrize(("background", "channel"), [("blue", 2), ("green", 1), ("red", 0)])
def test_a_caption_becomes_the_picture_that_it_describes(client, background, channel):
    prompt = graph(CAPTION.replace("blue", background))
    (image,) = client.images(client.run(prompt), "7")
    corner = np.asarray(image)[:24, :24].reshape(-1, 3).mean(axis=0)
    assert corner.argmax() == channel, corner


def test_the_pack_finds_the_face_that_the_model_drew(client):
    (mask,) = client.images(client.run(graph(CAPTION)), "11")  # one for each face
    assert 0.02 < (np.asarray(mask) > 127).mean() < 0.6
