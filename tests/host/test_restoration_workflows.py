"""DIIR on a real server: nothing but the faces changes, the report is shown, and no picture stops the queue."""

import numpy as np
import pytest
from fpga.devtools.client import api_node
from PIL import Image
from shipped_workflows import node_of, smaller

RESTORING = [
    "face_swap",
    "restore_faces",
    "restore_faces_lora",
    "restore_faces_reference",
    "restore_stylised",
    "restore_with_codeformer",
]
PEOPLE = ((1, "Anna"), (2, "Bea"), (3, "Carl"))
UNTOUCHED = "background: maximum difference 0 outside the masks"


def with_whole_mask(prompt: dict, source: list) -> dict:
    """The graph, and a picture that is white wherever a mask is above 0, however little."""
    return {
        **prompt,
        "above": api_node("ThresholdMask", mask=source, value=0.0),
        "as image": api_node("MaskToImage", mask=["above", 0]),
        "changed": api_node("PreviewImage", images=["as image", 0]),
    }


def run_on(client, prompt: dict, tmp_path, picture: Image.Image, name: str) -> tuple[np.ndarray, str]:
    """Queues a restoration of an uploaded picture; returns what it saves, and the report."""
    picture.save(tmp_path / f"{name}.png")
    restore = node_of(prompt, "FPGA_RestoreFaces")
    prompt[prompt[restore]["inputs"]["image"][0]]["inputs"]["image"] = client.upload_image(tmp_path / f"{name}.png")
    run = client.run(prompt)
    (saved,) = client.images(run, node_of(prompt, "SaveImage"))
    return np.asarray(saved), run.outputs[restore]["text"][0]


def group_photo(server) -> Image.Image:
    return Image.open(server.base_directory / "input" / "small_group_photo.png").convert("RGB")


def by_the_prompt_alone(**options) -> dict:
    """Faces are looked for in the picture and restored without identities."""
    prompt = smaller("restore_faces")
    restore = node_of(prompt, "FPGA_RestoreFaces")
    for name in ("faces", "cast", "adapter", "control_net"):
        del prompt[restore]["inputs"][name]
    prompt[restore]["inputs"] |= options
    kept = {"CheckpointLoaderSimple", "CLIPTextEncode", "FPGA_LoadFaceAnalysis", "FPGA_RestoreFaces", "SaveImage"}
    picture = prompt[restore]["inputs"]["image"][0]
    return {key: node for key, node in prompt.items() if node["class_type"] in kept or key == picture}


@pytest.mark.parametrize("name", RESTORING)
def test_what_a_workflow_saves_is_its_picture_outside_the_mask(client, server, name):
    prompt = smaller(name)
    loader = next(key for key, node in prompt.items() if node["class_type"] in ("FPGA_RestoreFaces", "FPGA_PasteFaces"))
    file = prompt[prompt[loader]["inputs"]["image"][0]]["inputs"]["image"]
    given = np.asarray(Image.open(server.base_directory / "input" / file).convert("RGB"))
    run = client.run(with_whole_mask(prompt, prompt[node_of(prompt, "MaskPreview")]["inputs"]["mask"]))
    (saved,), (changed,) = client.images(run, node_of(prompt, "SaveImage")), client.images(run, "changed")
    saved, inside = np.asarray(saved), np.asarray(changed.convert("L")) > 0
    assert saved.shape == given.shape and 0.001 < inside.mean() < 0.2
    assert np.array_equal(saved[~inside], given[~inside])
    assert np.abs(saved[inside].astype(int) - given[inside]).mean() > 5


def test_the_report_names_every_face_and_whose_it_became(client):
    prompt = smaller("restore_faces")
    lines = client.run(prompt).outputs[node_of(prompt, "FPGA_RestoreFaces")]["text"][0].splitlines()
    assert lines[0] == "3 of 6 faces restored; 6 under 100 px" and lines[-1] == UNTOUCHED
    for line, name in zip(lines[1:4], ("Anna", "Bea", "Carl"), strict=True):
        assert f"{name} (by place, overlap 1.00), FaceSim " in line
    assert [line.partition(": ")[2] for line in lines[4:7]] == ["left alone, nobody in the cast matches it"] * 3


@pytest.mark.parametrize(
    ("name", "ways"),
    [
        ("restore_faces_lora", "#1 My character by LoRA and words"),
        ("restore_faces_reference", ", ".join(f"#{n} {name} by reference pictures" for n, name in PEOPLE)),
    ],
)
def test_the_report_says_what_people_are_known_by(client, name, ways):
    prompt = smaller(name)
    lines = client.run(prompt).outputs[node_of(prompt, "FPGA_RestoreFaces")]["text"][0].splitlines()
    assert lines[-2:] == [f"identities: {ways}", UNTOUCHED]


def test_a_generated_picture_without_a_face_comes_back_as_it_is(client):
    prompt = smaller("generate_and_restore")
    run = client.run(prompt)
    generated = next(key for key, node in prompt.items() if node["_meta"]["title"] == "As generated")
    (before,), (after,) = client.images(run, generated), client.images(run, node_of(prompt, "SaveImage"))
    assert np.array_equal(np.asarray(before), np.asarray(after))
    report = run.outputs[node_of(prompt, "FPGA_RestoreFaces")]["text"][0]
    assert report == f"no face found, nothing changed\n{UNTOUCHED}"


@pytest.mark.parametrize(
    ("size", "limit", "text"),
    [
        ((1, 1), 100, "no face found, nothing changed"),
        ((64, 48), 100, "no face found, nothing changed"),
        (None, 30, "none of the 6 faces is under 30 px (size_limit_px 0 takes all), nothing changed"),
    ],
    ids=["one pixel", "no face", "only large faces"],
)
def test_a_picture_without_a_small_face_comes_back_as_it_is(client, server, tmp_path, size, limit, text):
    photo = group_photo(server)
    picture = Image.new("RGB", size, (90, 120, 30)) if size else photo
    saved, report = run_on(client, by_the_prompt_alone(size_limit_px=limit), tmp_path, picture, "without")
    assert np.array_equal(saved, np.asarray(picture)) and report == f"{text}\n{UNTOUCHED}"


def test_a_picture_eight_thousand_pixels_wide(client, server, tmp_path):
    photo = group_photo(server)
    wide = Image.new("RGB", (8192, photo.height), (90, 120, 30))
    wide.paste(photo, (8192 - photo.width, 0))
    prompt = by_the_prompt_alone()
    faces = {"image": [prompt[node_of(prompt, "FPGA_RestoreFaces")]["inputs"]["image"][0], 0]}
    faces |= {
        "face_analysis": [node_of(prompt, "FPGA_LoadFaceAnalysis"), 0],
        "order": "left_to_right",
        "min_size_px": 0,
    }
    prompt["detect"] = api_node("FPGA_DetectFaces", **faces)
    prompt[node_of(prompt, "FPGA_RestoreFaces")]["inputs"]["faces"] = ["detect", 0]
    saved, report = run_on(client, prompt, tmp_path, wide, "wide")
    assert report.endswith(UNTOUCHED)
    assert np.array_equal(saved[:, : 8192 - photo.width], np.asarray(wide)[:, : 8192 - photo.width])


def test_transparency_is_kept_where_the_picture_has_it(client, server, tmp_path):
    """Load Image gives it as a mask; joined, the picture that reaches the node has four channels."""
    photo = group_photo(server)
    photo.putalpha(Image.linear_gradient("L").resize(photo.size))
    prompt = by_the_prompt_alone()
    restore = node_of(prompt, "FPGA_RestoreFaces")
    photo_node = prompt[restore]["inputs"]["image"][0]
    join = {"image": [photo_node, 0], "alpha": [photo_node, 1]}
    prompt["join"] = api_node("JoinImageWithAlpha", **join)
    photo.save(tmp_path / "transparent.png")
    prompt[photo_node]["inputs"]["image"] = client.upload_image(tmp_path / "transparent.png")
    prompt[restore]["inputs"]["image"] = ["join", 0]
    run = client.run(prompt)
    (saved,) = client.images(run, node_of(prompt, "SaveImage"))
    assert saved.mode == "RGBA"
    difference = np.asarray(saved).astype(int)[..., 3] - np.asarray(photo)[..., 3]
    assert np.abs(difference).max() <= 1, "Load Image inverts the alpha and Join Image inverts it back"
    assert run.outputs[restore]["text"][0].startswith("6 of 6 faces restored")


def test_people_who_are_not_in_the_picture_do_no_harm(client, server, tmp_path):
    """Of the three people only the leftmost one's face is left."""
    photo = group_photo(server)
    photo.paste((90, 120, 30), (100, 0, *photo.size))
    prompt = smaller("restore_faces")
    saved, report = run_on(client, prompt, tmp_path, photo, "one_left")
    lines = report.splitlines()
    assert lines[0] == "1 of 1 faces restored; 1 under 100 px" and lines[-1] == UNTOUCHED
    assert "Anna (by place" in lines[1]
    assert np.array_equal(saved[:, 100:], np.asarray(photo)[:, 100:])
