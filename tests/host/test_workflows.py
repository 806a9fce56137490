"""The shipped workflows and RepControlNet's whole life, queued over the API of a real server."""

import json
import shutil

import numpy as np
import pytest
from fpga.devtools.client import PromptError, api_node
from shipped_workflows import EMPTY_LATENTS, MODEL_LOADERS, NAMES, as_shipped, node_of, nodes_of, size_inputs, smaller

KEPT = ("VAEDecode", "SaveImage", "CLIPLoader", "VAELoader")
GENERATING = [name for name in NAMES if nodes_of(as_shipped(name), "KSampler")]


def picture(client, prompt: dict) -> np.ndarray:
    """The one picture that a graph saves."""
    (image,) = client.images(client.run(prompt), node_of(prompt, "SaveImage"))
    return np.asarray(image)


def plain(prompt: dict) -> dict:
    """The workflow with the sampler wired past the pack's nodes, as if they were bypassed."""
    loader, sampler = node_of(prompt, *MODEL_LOADERS), node_of(prompt, "KSampler")
    texts, latent = nodes_of(prompt, "CLIPTextEncode"), node_of(prompt, *EMPTY_LATENTS)
    size = {side: size_inputs(prompt, latent)[side] for side in ("width", "height")}
    prompt = json.loads(json.dumps(prompt))
    prompt[node_of(prompt, "SaveImage")]["inputs"]["images"] = [node_of(prompt, "VAEDecode"), 0]
    prompt[sampler]["inputs"] |= {"model": [loader, 0], "positive": [texts[0], 0], "negative": [texts[1], 0]}
    prompt[latent]["inputs"] |= size
    kept = {loader, sampler, *texts, latent}
    kept |= {k for k, node in prompt.items() if node["class_type"] in KEPT}
    return {node_id: node for node_id, node in prompt.items() if node_id in kept}


@pytest.mark.parametrize("name", GENERATING)
def test_a_shipped_workflow_runs_and_leaves_the_model_as_it_was(client, name):
    prompt = smaller(name)
    before = picture(client, plain(prompt))
    made = picture(client, prompt)
    size = size_inputs(prompt, node_of(prompt, *EMPTY_LATENTS))
    assert made.shape == (size["height"], size["width"], 3)
    assert not np.array_equal(made, before)
    again = plain(prompt)
    again[node_of(again, "KSampler")]["inputs"]["denoise"] = 0.99999999  # another cache key, the same sampling
    assert np.array_equal(picture(client, again), before)


def test_the_note_says_which_mode_was_chosen(client):
    for part, words in (({}, "folded"), ({"start_percent": 0.3}, "live")):
        prompt = smaller("rep_controlnet_pose")
        apply = node_of(prompt, "FPGA_ApplyRepControlNet")
        prompt[apply]["inputs"] |= part
        assert words in client.run(prompt).outputs[apply]["text"][0]


def test_a_warning_reaches_the_editor_with_the_node_that_ran(client):
    prompt = smaller("single_identity")
    sampler, (positive, negative, *_) = node_of(prompt, "KSampler"), nodes_of(prompt, "CLIPTextEncode")
    prompt[sampler]["inputs"] |= {"positive": [positive, 0], "negative": [negative, 0]}
    messages = client.run(prompt).messages
    warnings = [(m["data"]["node"], m["data"]["text"]) for m in messages if m["type"] == "fpga.warning"]
    assert [node_id for node_id, text in warnings if "no identity acts; connect Apply Cast's" in text] == [sampler]


def test_what_a_long_node_does_reaches_the_editor_in_words(client):
    prompt = smaller("restore_faces")
    for node_id in nodes_of(prompt, "FPGA_EncodeIdentity"):
        prompt[node_id]["inputs"]["images.photo_2"] = prompt[node_id]["inputs"]["images.photo_1"]
    prompt[node_of(prompt, "FPGA_RestoreFaces")]["inputs"]["seed"] = 77  # not from the cache
    said = [(m["data"]["node"], m["data"]["text"]) for m in client.run(prompt).messages if m["type"] == "fpga.progress"]
    encode, restore = node_of(prompt, "FPGA_EncodeIdentity"), node_of(prompt, "FPGA_RestoreFaces")
    assert [text for node_id, text in said if node_id == encode] == [
        "looking for faces in picture 1 of 2",
        "looking for faces in picture 2 of 2",
    ]
    stages = [text.partition(": ")[2] for node_id, text in said if node_id == restore and ": " in text]
    assert stages == ["inversion", "restoration"]


def test_widgets_that_have_a_default_may_be_left_out(client):
    """Which widgets those are is held by tests/contract/test_nodes.py."""
    info = client.object_info()
    prompt, left_out = smaller("single_identity"), smaller("single_identity")
    for node_id, node in prompt.items():
        described = info[node["class_type"]]["input"].get("optional", {})
        defaults = {name: spec[1]["default"] for name, spec in described.items() if "default" in spec[1]}
        if node["class_type"].startswith("FPGA_"):
            node["inputs"] |= defaults
            left_out[node_id]["inputs"] = {k: v for k, v in node["inputs"].items() if k not in defaults}
    assert sum(len(prompt[k]["inputs"]) - len(left_out[k]["inputs"]) for k in prompt) > 10
    assert np.array_equal(picture(client, prompt), picture(client, left_out))


def test_an_error_names_what_to_do_and_the_next_prompt_is_right(client):
    prompt = smaller("rep_controlnet_pose")
    before = picture(client, plain(prompt))
    apply = node_of(prompt, "FPGA_ApplyRepControlNet")
    bad = smaller("rep_controlnet_pose")
    bad[apply]["inputs"] |= {"mode": "folded", "end_percent": 0.5}
    with pytest.raises(PromptError, match="UnsupportedModeError.*choose mode 'live'"):
        client.run(bad)
    wrong = smaller("rep_controlnet_pose")
    wrong[node_of(wrong, "FPGA_LoadRepControlNet")]["inputs"]["name"] = "control_v11p_sd15_openpose_fp16.safetensors"
    with pytest.raises(PromptError, match="UnknownFormatError.*ControlNet"):
        client.run(wrong)
    again = plain(prompt)
    again[node_of(again, "KSampler")]["inputs"]["denoise"] = 0.99999998
    assert np.array_equal(picture(client, again), before)


def test_a_saved_folded_model_is_a_plain_checkpoint(client, server):
    prompt = smaller("rep_controlnet_pose")
    apply, loader = node_of(prompt, "FPGA_ApplyRepControlNet"), node_of(prompt, "CheckpointLoaderSimple")
    branch = prompt[apply]["inputs"]["repcontrolnet"]
    expected = picture(client, prompt)
    inputs = {"model": [apply, 0], "repcontrolnet": branch, "clip": [loader, 1], "vae": [loader, 2]}
    saving = {**prompt, "90": api_node("FPGA_SaveFoldedModel", **inputs, filename_prefix="fpga/folded")}
    model_path, adapter_path = client.run(saving).outputs["90"]["text"][0].splitlines()
    shutil.move(model_path, server.base_directory / "models" / "checkpoints" / "folded.safetensors")
    shutil.move(adapter_path, server.base_directory / "models" / "controlnet" / "folded_adapter.safetensors")

    again = smaller("rep_controlnet_pose")
    again[loader]["inputs"]["ckpt_name"] = "folded.safetensors"
    again[branch[0]]["inputs"]["name"] = "folded_adapter.safetensors"
    run = client.run(again)
    assert "hint encoder only" in run.outputs[apply]["text"][0]
    (found,) = client.images(run, node_of(again, "SaveImage"))
    difference = np.abs(np.asarray(found).astype(int) - expected.astype(int))
    assert difference.max() <= 2, "only the rounding of the saved weights to half precision may show"


def test_queueing_many_prompts_encodes_a_person_once(client):
    prompt = smaller("single_identity")
    encode, sampler = node_of(prompt, "FPGA_EncodeIdentity"), node_of(prompt, "KSampler")
    executed = []
    for seed in range(700, 704):
        prompt[sampler]["inputs"]["seed"] = seed
        executed += client.run(prompt).executed
    assert executed.count(encode) <= 1
    assert executed.count(sampler) == 4
