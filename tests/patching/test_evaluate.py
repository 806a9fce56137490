"""`fpga-portrait evaluate` on painted pictures: the table against means worked out here, the figures and the sheets."""

import json
import math

import comfy.clip_vision
import numpy as np
import pytest
import torch
from fpga import commands
from fpga.commands.evaluate.cases import read_cases
from fpga.commands.evaluate.measuring import measure
from fpga.commands.evaluate.showing import BEST, CASES_A_SHEET, DISTANCE, sheets
from fpga.fpga_core.evaluation.frechet import frechet_distance
from fpga.fpga_core.patching.picture_embedding import CLIP, embed_pictures
from fpga.fpga_core.patching.picture_scores import Scorers
from painted_faces import ANNA, BEA, STRANGER, ColorAnalysis, painted, save
from PIL import Image
from tiny_encoders import tiny_vision

HALF = (255, 255, 0)  # 45 degrees from Anna
PLACES = "10 10 20 20; 60 10 20 20"


@pytest.fixture
def folder(tmp_path):
    """Three cases of Anna and Bea by two methods: `plain` gets one right, `ours` all, in a larger picture."""
    save(tmp_path / "anna.png", painted((ANNA, 30, 20, 40, 40)))
    save(tmp_path / "bea.png", painted((BEA, 30, 20, 40, 40)))
    good = ((ANNA, 10, 10, 20, 20), (BEA, 60, 10, 20, 20))
    plain = [good, ((HALF, 10, 10, 20, 20), (STRANGER, 60, 10, 20, 20)), ()]
    for number, faces in enumerate(plain, 1):
        save(tmp_path / "plain" / f"case {number}.png", painted(*faces))
        larger = [(color, *(2 * figure for figure in place)) for color, *place in good]
        save(tmp_path / "ours" / f"case {number}.png", painted(*larger, width=192, height=128))
        save(tmp_path / "real" / f"{number}.jpg", painted((STRANGER, number, number, 30, 30)))
    rows = [
        {"case": f"case {n}", "people": "Anna=anna.png; Bea=bea.png", "places": PLACES, "prompt": "abc"}
        for n in (1, 2, 3)
    ]
    (tmp_path / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return tmp_path


@pytest.fixture
def colors(monkeypatch):
    """The option --face-analysis loads the analysis that knows colours, --clip-vision and --dino small models."""
    analysis = ColorAnalysis()
    monkeypatch.setattr("fpga.fpga_core.faces.insightface_pack.load_insightface_pack", lambda folder: analysis)
    models = {"clip.safetensors": tiny_vision("clip_vision_model"), "dino.safetensors": tiny_vision("dinov2")}
    monkeypatch.setattr(comfy.clip_vision, "load", lambda file: models.get(file.rpartition("/")[2]))
    return models


def run(folder, *options) -> int:
    return commands.main(["evaluate", str(folder / "cases.jsonl"), *options])


def methods(folder) -> list[str]:
    return [str(folder / "plain"), str(folder / "ours")]


def opened(file) -> np.ndarray:
    """Returns a picture as another library reads it, (height, width, 3) RGB."""
    return np.array(Image.open(file).convert("RGB"))


def like(sheet: np.ndarray, color: tuple) -> np.ndarray:
    """Returns where a picture has a colour, but for what JPEG does to it."""
    return np.abs(sheet - np.array(color)).max(axis=-1) < 40


def test_the_table_is_the_papers(folder, colors, capsys):
    assert run(folder, *methods(folder), "--face-analysis", "pack") == 0
    printed = capsys.readouterr().out
    plain, ours = [1.0, 2**-0.5 / 2, 0.0], [1.0, 1.0, 1.0]
    mean, error = np.mean(plain), np.std(plain, ddof=1) / 3**0.5
    gain = np.subtract(ours, plain)
    paired = f"{gain.mean():+.3f} ± {np.std(gain, ddof=1) / 3**0.5:.3f}"
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in printed.splitlines() if line[:1] == "|"]
    head, _, first, second = lines
    assert head == ["", "FaceSim", "bleed (low)", "FaceSim, paired", "bleed (low), paired", "n"]
    assert first[:2] == ["plain", f"{mean:.3f} ± {error:.3f}"]
    assert second[:2] == ["ours", "1.000 ± 0.000"]
    assert second[3] == paired and first[3] == "" and second[-1] == "3"
    assert "to *plain*." in printed
    assert "CLIP-I (needs a CLIP-Vision, and references)" in printed

    figures = json.loads((folder / "cases-scores" / "scores.json").read_text())
    assert figures["methods"]["plain"]["FaceSim"]["mean"] == pytest.approx(mean)
    assert [figures["methods"]["plain"][name]["pictures"] for name in ("FaceSim", "bleed")] == [3, 2]
    assert figures["methods"]["ours"]["FaceSim"]["paired"]["mean"] == pytest.approx(gain.mean())
    assert [p["scores"]["FaceSim"] for p in figures["pictures"] if p["method"] == "plain"] == pytest.approx(plain)
    assert figures["pictures"][4]["scores"]["bleed"] is None  # no face, so nobody's features can bleed
    assert (folder / "cases-scores" / "table.md").read_text() in printed


def test_another_method_can_be_the_measure_of_all(folder, colors, capsys):
    assert run(folder, *methods(folder), "--face-analysis", "pack", "--against", "ours") == 0
    assert "to *ours*." in capsys.readouterr().out


def test_encoders_of_pictures(folder, colors, capsys):
    options = ("--clip-vision", "clip.safetensors", "--dino", "dino.safetensors", "--real", str(folder / "real"))
    for name in colors:
        (folder / name).touch()
    options = [str(folder / option) if option in colors else option for option in options]
    assert run(folder, *methods(folder), *options, "--output", str(folder / "out")) == 0
    figures = json.loads((folder / "out" / "scores.json").read_text())["methods"]["plain"]
    clip = colors["clip.safetensors"]

    def embedded(*files):
        pictures = [torch.from_numpy(opened(file)).float() / 255 for file in files]
        return embed_pictures(clip, pictures, kinds=CLIP)

    ours = embedded(*sorted((folder / "plain").iterdir()))
    people = embedded(folder / "anna.png", folder / "bea.png")
    cosines = (ours / np.linalg.norm(ours, axis=1)[:, None]) @ (people / np.linalg.norm(people, axis=1)[:, None]).T
    assert figures["CLIP-I"]["mean"] == pytest.approx(cosines.mean(), abs=1e-6)
    real = embedded(*sorted((folder / "real").iterdir()))
    assert figures[DISTANCE]["mean"] == pytest.approx(frechet_distance(ours, real), rel=1e-6)
    assert "DINO" in figures and "FaceSim" not in figures
    printed = capsys.readouterr().out
    assert f"{DISTANCE} (low)" in printed and "CLIP-T (needs" in printed


def test_the_sheet_shows_the_pictures_and_their_scores(folder, colors):
    run(folder, *methods(folder), "--face-analysis", "pack")
    sheet = opened(folder / "cases-scores" / "sheet_1.jpg").astype(int)
    red = like(sheet, ANNA)
    left, right = red[:, : sheet.shape[1] // 2], red[:, sheet.shape[1] // 2 :]
    face = (20 * 256 / 96) ** 2  # as large in both columns, though the pictures are not
    assert (left.sum(), right.sum()) == (pytest.approx(face, rel=0.1), pytest.approx(3 * face, rel=0.1))
    blue_ink = like(sheet, BEST)[:, sheet.shape[1] // 2 :]
    assert blue_ink.any()  # `ours` is better in two cases


def test_many_cases_get_several_sheets(folder):
    row = {"prompt": "x"}
    for number in range(CASES_A_SHEET + 1):
        save(folder / "many" / f"{number}.png", painted(width=8, height=8))
    (folder / "cases.jsonl").write_text(
        "\n".join(json.dumps({"case": str(n), **row}) for n in range(CASES_A_SHEET + 1))
    )
    cases = read_cases(folder / "cases.jsonl", {"many": folder / "many"})
    measured = measure(cases, Scorers(clip_vision=tiny_vision("clip_vision_model")), show=lambda done, total: None)
    assert [sheet.height for sheet in sheets(measured, cases)] == [
        pytest.approx(2 * 8 + 19 + num * (256 + 19 + 8)) for num in (CASES_A_SHEET, 1)
    ]


def test_cases_may_ask_for_different_things(folder):
    """A score that a case does not have does not count for it."""
    rows = [
        {"case": "case 1", "people": "anna.png", "places": "10 10 20 20"},
        {"case": "case 2", "people": "anna.png", "targets": "anna.png"},
        {"case": "case 3"},
    ]
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cases = read_cases(folder / "cases.jsonl", {"plain": folder / "plain"})
    measured = measure(cases, Scorers(face_analysis=ColorAnalysis()), show=lambda done, total: None)
    one, two, three = measured.rows["plain"]
    assert (one["FaceSim"], two["likeness"]) == (pytest.approx(1), pytest.approx(2**-0.5))
    assert math.isnan(one["likeness"]) and math.isnan(two["FaceSim"]) and all(map(math.isnan, three.values()))
    assert measured.names == ("FaceSim", "likeness")  # the target is the reference itself: nothing can be told


def test_faults_of_cases_are_named(folder, capsys, colors):
    save(folder / "bea.png", painted())
    assert run(folder, *methods(folder), "--face-analysis", "pack") == 1
    assert f"'{folder / 'bea.png'}': " in capsys.readouterr().err
    save(folder / "bea.png", painted((BEA, 30, 20, 40, 40)))
    save(folder / "ours" / "case 2.png", painted((ANNA, 1, 1, 9, 9), width=64))
    assert run(folder, *methods(folder), "--face-analysis", "pack") == 1
    assert "case case 2 (plain: 96x64, ours: 64x64): picture 2 is 64x64" in capsys.readouterr().err


def test_models_that_are_none_are_named(folder, colors, capsys):
    assert run(folder, *methods(folder), "--dino", str(folder / "missing")) == 1
    assert "name a file with a DINOv2 or DINOv3" in capsys.readouterr().err
    (folder / "other.safetensors").touch()
    assert run(folder, *methods(folder), "--dino", str(folder / "other.safetensors")) == 1
    assert "is not an image encoder that ComfyUI knows; choose a DINOv2 or DINOv3" in capsys.readouterr().err
