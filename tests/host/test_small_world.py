"""The small world's trained models on a real server: stock loaders and samplers, and the pack's nodes, unchanged."""

import numpy as np
import pytest
from fpga.devtools.client import api_node

CAPTION = "close-up of smiling person in red on blue plain background"


def graph(caption: str, size_px: int = 128, seed: int = 0) -> dict:
    """A picture by the stock nodes, and the faces that the pack finds in it."""
    settings = {"steps": 20, "cfg": 3.0, "sampler_name": "ddim", "scheduler": "normal", "denoise": 1.0}
    inputs = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    pack = {"pack": "small_world_faces", "provider": "auto", "download_if_missing": False}
    faces = {"image": ["6", 0], "face_analysis": ["8", 0], "order": "left_to_right", "min_size_px": 0}
    return {
        "1": api_node("CheckpointLoaderSimple", ckpt_name="small_world.safetensors"),
        "2": api_node("CLIPTextEncode", clip=["1", 1], text=caption),
        "3": api_node("CLIPTextEncode", clip=["1", 1], text=""),
        "4": api_node("EmptyLatentImage", width=size_px, height=size_px, batch_size=1),
        "5": api_node("KSampler", seed=seed, **inputs, **settings),
        "6": api_node("VAEDecode", samples=["5", 0], vae=["1", 2]),
        "7": api_node("SaveImage", images=["6", 0], filename_prefix="world"),
        "8": api_node("FPGA_LoadFaceAnalysis", **pack),
        "9": api_node("FPGA_DetectFaces", **faces),
        "10": api_node("MaskToImage", mask=["9", 2]),
        "11": api_node("PreviewImage", images=["10", 0]),
    }


@pytest.mark.parametrize(("background", "channel"), [("blue", 2), ("green", 1), ("red", 0)])
def test_a_caption_becomes_the_picture_that_it_describes(client, background, channel):
    prompt = graph(CAPTION.replace("blue", background))
    (image,) = client.images(client.run(prompt), "7")
    corner = np.asarray(image)[:24, :24].reshape(-1, 3).mean(axis=0)
    assert corner.argmax() == channel, corner


def test_the_pack_finds_the_face_that_the_model_drew(client):
    (mask,) = client.images(client.run(graph(CAPTION)), "11")  # one for each face
    assert 0.02 < (np.asarray(mask) > 127).mean() < 0.6
