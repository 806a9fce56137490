"""Tables of cases: what a row says, and every fault of a table at once."""

import json

import numpy as np
import pytest
from fpga.commands.evaluate import build_parser, check_options, methods_of
from fpga.commands.evaluate.cases import read, read_cases
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.geometry import Box
from painted_faces import ANNA, BEA, painted, save


@pytest.fixture
def folder(tmp_path):
    """Photos of Anna (two) and Bea, and two methods with a picture of each of two cases."""
    for name, color in (("anna/1", ANNA), ("anna/2", ANNA), ("bea", BEA), ("scene", BEA)):
        save(tmp_path / f"{name}.png", painted((color, 5, 5, 20, 20)))
    for method in ("plain", "ours"):
        for case in ("bar", "rain.v2"):
            save(tmp_path / method / f"{case}.png", painted((ANNA, 10, 10, 20, 20)))
    return tmp_path


def read_rows(folder, *rows: dict, methods=("plain", "ours")):
    path = folder / "cases.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_cases(path, {method: folder / method for method in methods})


def test_a_row_as_the_queue_writes_it(folder):
    (case,) = read_rows(
        folder,
        {"case": "bar.png", "prompt": "a bar", "people": "anna; B=bea.png", "places": "1 2 3 4; 5,6,7,8"},
    )
    assert (case.name, case.prompt) == ("bar", "a bar")
    assert case.pictures == {method: folder / method / "bar.png" for method in ("plain", "ours")}
    assert [person.name for person in case.people] == ["anna", "B"]
    assert [person.place for person in case.people] == [Box(1, 2, 4, 6), Box(5, 6, 12, 14)]
    assert [photo.name for photo in case.people[0].photos] == ["1.png", "2.png"]
    assert case.references == (*case.people[0].photos, *case.people[1].photos)


def test_references_replace_the_photos_and_csv_is_read(folder):
    path = folder / "cases.csv"
    path.write_text("case;people;targets;references\nbar;anna/1.png;anna/2.png;scene.png\nrain.v2;;;\n")
    one, two = read_cases(path, {"plain": folder / "plain"})
    assert [file.name for file in one.references] == ["scene.png"]
    assert [file.name for file in one.people[0].target] == ["2.png"]
    assert (two.name, two.people, two.references) == ("rain.v2", (), ())


def test_all_faults_are_named_at_once(folder):
    (folder / "ours" / "rain.v2.png").unlink()
    save(folder / "plain" / "bar.jpg", painted())
    rows = [
        {"case": "rain.v2"},
        {"case": "bar"},
        {"case": "x", "poeple": "anna"},
        {"prompt": "x"},
        {"case": "x", "people": "carl.png"},
        {"case": "x", "people": "anna;bea.png", "places": "1 2 3 4"},
        {"case": "x", "people": "anna", "places": "1 2 3"},
        {"case": "x", "people": "anna", "places": "1 2 0 4"},
        {"case": "x", "people": "anna", "targets": "anna/1.png; anna/2.png"},
    ]
    with pytest.raises(InvalidInputError) as raised:
        read_rows(folder, *rows)
    faults = str(raised.value).splitlines()[1:]
    expected = [
        "row 1: ours has no picture 'rain.v2'; make it, or take the row out for all methods",
        "row 2: plain has 2 pictures 'bar': keep one of bar.jpg, bar.png",
        "row 3: rename the column 'poeple': use case, prompt, people, places, targets, references",
        "row 4: name the case in the column 'case'; the row has prompt",
        "row 5: name a photo or a folder of photos",
        "row 6: name as many places as people: there are 1 and 2",
        "row 7: write each place as x y width height",
        "row 8: write a width and a height above 0",
        "row 9: name as many targets as people: there are 2 and 1",
    ]
    assert len(faults) == len(expected)
    assert all(fault.startswith(start) for fault, start in zip(faults, expected, strict=True)), faults


def test_files_that_cannot_be_read_are_named_before_anything_is_measured(folder):
    whole = (folder / "ours" / "bar.png").read_bytes()
    (folder / "ours" / "bar.png").write_bytes(whole[:60])
    (folder / "bea.png").write_bytes(b"not a picture")
    with pytest.raises(InvalidInputError) as raised:
        read_rows(folder, {"case": "bar", "people": "bea.png"})
    text = str(raised.value)
    assert all(
        f"'{folder / name}' cannot be read; save it again as PNG" in text for name in ("ours/bar.png", "bea.png")
    )


def test_tables_without_cases(folder):
    with pytest.raises(InvalidInputError, match="has no rows"):
        read_rows(folder)
    with pytest.raises(InvalidInputError, match="'bar' is the name of another row too"):
        read_rows(folder, {"case": "bar"}, {"case": "bar.png"})
    with pytest.raises(InvalidInputError, match="name a folder of pictures: .*theirs' is not one"):
        read_rows(folder, {"case": "bar"}, methods=("theirs",))


def test_pictures_are_read_as_they_are(folder):
    picture = painted((ANNA, 10, 10, 20, 20))
    assert np.array_equal(read(folder / "ours" / "bar.png").numpy() * 255, picture)


def test_methods_have_names(folder):
    ours = folder / "ours"
    assert methods_of([str(ours), f"best={folder / 'plain'}"]) == {"ours": ours, "best": folder / "plain"}
    with pytest.raises(InvalidInputError, match="two are called 'ours'"):
        methods_of([str(ours), f"ours={folder / 'plain'}"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--against", "theirs", "--dino", "x"], "choose --against from ours: there is no method 'theirs'"),
        ([], "name at least one of --face-analysis, --clip-vision and --dino"),
        (["--dino", "x", "--clip-text", "y"], "name --clip-vision too: --clip-text is of no use without it"),
        (["--dino", "x", "--real", "y"], "name --clip-vision too: --real is of no use without it"),
    ],
)
def test_options_without_effect_are_refused(options, message, folder):
    given = build_parser().parse_args(["cases.csv", "ours", *options])
    with pytest.raises(InvalidInputError, match=message):
        check_options(given, given.against or "ours", {"ours": folder / "ours"})
