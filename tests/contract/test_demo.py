"""The demo fits the workflows that ship."""

import json

import numpy as np
import pytest
from fpga.devtools.demo import figure, prompt_of, score
from fpga.devtools.demo_world import NAMES, ROWS, SCENES, write_pictures
from fpga.devtools.sheet import CELL_PX, Cell, sheet
from PIL import Image

RUNS = [run for row in ROWS for run in row.runs if isinstance(run.workflow, str)]


@pytest.mark.parametrize("run", RUNS, ids=[f"{n}-{run.workflow}" for n, run in enumerate(RUNS)])
def test_every_run_is_a_shipped_workflow_on_the_small_world_alone(run):
    prompt = prompt_of(run)
    titles = {node["_meta"]["title"] for node in prompt.values()}
    assert run.shown.keys() <= titles
    inputs = json.dumps([node["inputs"] for node in prompt.values()])
    assert not any(name in inputs for name in (*NAMES, "control_v11p"))
    loaders = [node["class_type"] for node in prompt.values()]
    assert "ControlNetLoader" not in loaders and "FPGA_LoadRepControlNet" in loaders


def test_every_picture_that_a_run_loads_is_painted_or_made_before(tmp_path):
    write_pictures(tmp_path)
    there = {path.name for path in tmp_path.glob("*.png")}
    assert SCENES.keys() <= there
    for row in ROWS:
        assert row.photos.keys() <= there
        for run in row.runs:
            prompt = prompt_of(run)
            loaded = {node["inputs"]["image"] for node in prompt.values() if node["class_type"] == "LoadImage"}
            assert loaded <= there
            there |= {run.kept_as} - {None}


def test_a_workflow_without_the_node_that_is_set_is_named():
    run = RUNS[0]
    with pytest.raises(ValueError, match="no node called"):
        prompt_of(type(run)(run.workflow, {"Nobody": {}}, {}))


@pytest.mark.parametrize(
    ("headline", "caption"),
    [
        ("FaceSim: 0.712 (1 person in 1 picture)", "FaceSim 0.712"),
        (
            "FaceSim: n/a, the cast has no face boxes (1 person in 1 picture; mean likeness 0.534 of those)",
            "FaceSim 0.534",
        ),
        ("FaceSim: -0.050 (2 people in 1 picture)", "FaceSim -0.050"),
    ],
)
def test_the_figure_under_a_picture_is_score_casts(headline, caption):
    assert score({"Score Cast": f"{headline}\n\nmore"}) == caption


def test_the_figures_of_a_restored_face_are_those_of_the_report():
    texts = {
        "Restore Faces": "1 of 1 faces restored\npicture 1, face 1, 88 px: Bea (place), FaceSim 0.213 -> 0.284, more"
    }
    assert figure("Faces before", texts) == "FaceSim 0.213" and figure("Faces after", texts) == "FaceSim 0.284"
    assert figure("Save Image", texts) == figure("Faces before", {}) == ""


def test_a_sheet_has_a_row_for_each_title_and_keeps_proportions():
    wide = Cell(
        "a caption that is far too long to stand under a picture of this size", Image.new("RGB", (40, 20), "red")
    )
    one, two = sheet({"first": [wide]}), sheet({"first": [wide, wide], "second": [wide]})
    assert two.height > 1.9 * one.height and two.width > 1.9 * one.width
    reds = (np.asarray(one) == (255, 0, 0)).all(axis=-1).sum()
    assert abs(int(reds) - CELL_PX * CELL_PX // 2) < CELL_PX
