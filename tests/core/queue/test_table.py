"""Tables of jobs: three formats, the columns, what a job's key depends on, and every fault of a table at once."""

import csv
import json
import sys

import pytest
from fpga.commands.queue.graph import UPLOADED_TO
from fpga.commands.queue.table import read_jobs, seeds_of
from fpga.commands.tables import read_rows
from fpga.fpga_core.errors import InvalidInputError, MissingPackageError
from shipped_workflows import as_shipped, node_of, nodes_of


@pytest.fixture
def folder(tmp_path):
    """A folder with photos of three people; two of Carl."""
    (tmp_path / "carl").mkdir()
    for name in ("anna.png", "bea.jpg", "carl/1.png", "carl/2.png", "pose.png"):
        (tmp_path / name).write_bytes(f"photo {name}".encode())
    (tmp_path / "carl" / "notes.txt").touch()
    return tmp_path


def jobs_of(folder, *rows: dict):
    path = folder / "jobs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    return read_jobs(path)


def upstream(graph: dict, node: str, name: str) -> dict:
    """The node that an input is connected to."""
    return graph[graph[node]["inputs"][name][0]]


def test_csv_as_spreadsheets_write_it_and_json_lines_are_the_same(folder):
    rows = [
        {
            "workflow": "multi_identity_cast",
            "prompt": 'a "nice", red; coat',
            "seed": "1 2",
            "people": "anna.png;bea.jpg",
        },
        {"workflow": "single_identity", "prompt": "ünïcode", "seed": "7", "people": ""},
    ]
    for separator, ending in ((",", "csv"), (";", "csv"), ("\t", "tsv")):
        with (folder / f"table.{ending}").open("w", encoding="utf-8-sig", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter=separator)
            writer.writeheader()
            writer.writerows(rows)
        assert [job.graph for job in read_jobs(folder / f"table.{ending}")] == [
            job.graph for job in jobs_of(folder, *rows)
        ]


def test_every_column_reaches_its_nodes_and_nothing_else_changes(folder):
    before = as_shipped("multi_identity_cast")
    row = {"workflow": "multi_identity_cast", "prompt": "two on a bench", "negative": "rain", "seed": 12}
    row |= {"KSampler (30 DDIM steps, guidance 5).steps": "8", "20.width": 640, "12.image": "pose.png"}
    (job,) = jobs_of(folder, row)
    sampler = node_of(before, "KSampler")
    expected = json.loads(json.dumps(before))
    expected["2"]["inputs"]["text"], expected["3"]["inputs"]["text"] = "two on a bench", "rain"
    expected[sampler]["inputs"] |= {"seed": 12, "steps": 8}
    expected["20"]["inputs"]["width"] = 640
    ((name, file),) = job.uploads.items()
    expected["12"]["inputs"]["image"] = name
    assert job.graph == expected
    assert (job.seed, file, name.partition("/")[0]) == (12, folder / "pose.png", UPLOADED_TO)


def test_people_replace_the_cast_in_any_number(folder):
    for people in (["anna.png"], "anna.png; Bea B = bea.jpg; carl; Both=anna.png+carl/1.png"):
        (job,) = jobs_of(folder, {"workflow": "generate_and_restore", "people": people})
        graph = job.graph
        cast = graph[node_of(graph, "FPGA_MakeCast")]["inputs"]
        links = [value for name, value in sorted(cast.items()) if name.startswith("identities.")]
        assert len(links) == len(nodes_of(graph, "FPGA_EncodeIdentity"))
        names = [graph[link[0]]["inputs"]["name"] for link in links]
        assert names == ["anna", "Bea B", "carl", "Both"][: len(links)]
        photos = [[name for name in graph[link[0]]["inputs"] if name.startswith("images.")] for link in links]
        assert [len(each) for each in photos] == [1, 1, 2, 2][: len(links)]
        shown = {graph[node]["inputs"]["image"] for node in nodes_of(graph, "LoadImage")}
        assert set(job.uploads) | {"small_group_photo.png"} == shown  # the pose photo stays; nobody's old photo does
        encode = as_shipped("generate_and_restore")["7"]["inputs"]
        kept = {name: value for name, value in encode.items() if name not in ("name", "images.photo_1")}
        assert all(graph[link[0]]["inputs"].items() >= kept.items() for link in links)


def test_one_identity_without_a_cast_is_replaced_where_it_is_used(folder):
    (job,) = jobs_of(folder, {"workflow": "face_swap", "people": "anna.png"})
    graph = job.graph
    encode = upstream(graph, node_of(graph, "FPGA_MakeCast"), "identities.identity_1")
    assert upstream(graph, next(k for k, n in graph.items() if n is encode), "images.photo_1")["inputs"]["image"] in (
        job.uploads
    )


def test_places_take_the_place_of_what_gave_them(folder):
    (job,) = jobs_of(folder, {"workflow": "multi_identity_cast", "places": "10 20 100 120; 300,20,90,95"})
    inputs = job.graph[node_of(job.graph, "FPGA_MakeCast")]["inputs"]
    boxes = [
        {"x": 10, "y": 20, "width": 100, "height": 120},
        {"x": 300, "y": 20, "width": 90, "height": 95},
    ]
    assert inputs["boxes"] == {"__value__": boxes}
    assert "faces" not in inputs and inputs["assign"] == "order"
    (other,) = jobs_of(folder, {"workflow": "multi_identity_cast", "places": [[10, 20, 100, 120], [300, 20, 90, 95]]})
    assert other.key == job.key


def test_the_key_follows_from_the_content_alone(folder):
    row = {"workflow": "single_identity", "people": "anna.png", "seed": 3}
    (job,) = jobs_of(folder, row)
    (folder / "moved.png").write_bytes((folder / "anna.png").read_bytes())
    assert jobs_of(folder, row, row)[0].key == job.key
    (same,) = jobs_of(folder, {**row, "people": "anna=moved.png"})
    (other_photo,) = jobs_of(folder, {**row, "people": "anna=bea.jpg"})
    (other_seed,) = jobs_of(folder, {**row, "seed": 4})
    assert job.key == same.key != other_photo.key
    assert other_seed.key not in (job.key, other_photo.key)
    (folder / "anna.png").write_bytes(b"another photo")
    assert jobs_of(folder, row)[0].key != job.key


def test_equal_rows_are_one_job_and_seeds_are_many(folder):
    row = {"workflow": "single_identity", "seed": "1-3, 9"}
    assert [job.seed for job in jobs_of(folder, row, row)] == [1, 2, 3, 9]
    assert seeds_of([4, "5 6", 7.0]) == [4, 5, 6, 7]
    assert seeds_of(None) == [None]


def test_another_attempt_has_another_seed_which_is_the_same_in_every_run(folder):
    (job,) = jobs_of(folder, {"workflow": "generate_and_restore", "seed": 1})
    seeds = [job.again(attempt).seed for attempt in range(4)]
    assert seeds[0] == 1 and len(set(seeds)) == 4
    again = jobs_of(folder, {"workflow": "generate_and_restore", "seed": 1})[0].again(2)
    assert (again.graph, again.key) == (job.again(2).graph, job.key)
    set_in = [n["inputs"]["seed"] for n in again.graph.values() if "seed" in n["inputs"]]
    assert set_in == [seeds[2]] * 2  # the sampler's and the restoration's


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"prompt": "x"}, "name a workflow in the column 'workflow'; the row has prompt"),
        ({"workflow": "no_such"}, "check the workflow's name"),
        ({"workflow": "single_identity", "sed": 1}, "rename the column 'sed': use workflow, prompt"),
        ({"workflow": "single_identity", "seed": "one"}, "write seeds as whole numbers"),
        ({"workflow": "single_identity", "people": "dora.png"}, "dora.png' is neither"),
        ({"workflow": "single_identity", "Nothing.steps": 1}, "no node has the id or title 'Nothing'"),
        ({"workflow": "multi_identity_cast", "LoadImage.image": "x"}, "4 nodes are called 'LoadImage': use their ids"),
        ({"workflow": "multi_identity_cast", "places": "1 2 3"}, "write each place as x y width height"),
        ({"workflow": "restore_with_codeformer", "people": "anna.png"}, "the workflow has no Encode Identity"),
        ({"workflow": "restore_with_codeformer", "places": "1 2 3 4"}, "the workflow has no Make Cast"),
        ({"workflow": "restore_with_codeformer", "prompt": "x"}, "the workflow has no positive text"),
        ({"workflow": "restore_with_codeformer", "seed": 1}, "no node of the workflow has a seed"),
    ],
)
def test_a_row_that_cannot_be_used_says_what_to_do(folder, row, message):
    with pytest.raises(InvalidInputError) as raised:
        jobs_of(folder, {"workflow": "single_identity"}, row)
    assert message in str(raised.value) and "row 2: " in str(raised.value)


def test_all_faults_are_reported_at_once(folder):
    with pytest.raises(InvalidInputError) as raised:
        jobs_of(folder, *[{"workflow": "single_identity", "seed": "x"}] * 30)
    lines = str(raised.value).splitlines()
    assert (len(lines), lines[1].partition(":")[0], lines[-1]) == (22, "row 1", "and 10 more")


def test_files_that_are_no_tables_are_named(folder):
    (folder / "jobs.txt").touch()
    (folder / "empty.csv").write_text("workflow,seed\n")
    (folder / "list.jsonl").write_text("[1]\n")
    editors = folder / "editor.json"
    editors.write_text('{"nodes": [], "links": []}')
    for name, message in (
        ("jobs.txt", "save the jobs as .csv, .jsonl or .parquet"),
        ("missing.csv", "cannot be read"),
        ("empty.csv", "has no rows"),
        ("list.jsonl", "each line must be an object"),
    ):
        with pytest.raises(InvalidInputError, match=message):
            read_jobs(folder / name)
    with pytest.raises(InvalidInputError, match="Workflow > Export"):
        jobs_of(folder, {"workflow": "editor.json"})


def test_parquet_is_the_same_as_json_lines(folder):
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed, which only Parquet tables need")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"workflow": "multi_identity_cast", "people": ["anna.png", "carl"], "places": [[1, 2, 30, 40]], "seed": [1, 2]},
        {"workflow": "single_identity", "people": None, "places": None, "seed": [7]},
    ]
    parquet.write_table(pyarrow.Table.from_pylist(rows), folder / "jobs.parquet")
    assert [job.key for job in read_jobs(folder / "jobs.parquet")] == [job.key for job in jobs_of(folder, *rows)]
    (folder / "broken.parquet").write_bytes(b"no")
    with pytest.raises(InvalidInputError, match="broken.parquet' cannot be read"):
        read_jobs(folder / "broken.parquet")


def test_without_pyarrow_parquet_says_how_to_install_it(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    (folder / "jobs.parquet").touch()
    with pytest.raises(MissingPackageError, match="pip install pyarrow"):
        read_jobs(folder / "jobs.parquet")


def test_numbers_of_spreadsheets_are_numbers(folder):
    """A column with gaps is written with a decimal point by Parquet and by some spreadsheets."""
    (folder / "jobs.csv").write_text("workflow,seed\nsingle_identity,7.0\nsingle_identity,\n")
    assert [row.get("seed") for row in read_rows(folder / "jobs.csv", "jobs")] == ["7.0", None]
    assert read_jobs(folder / "jobs.csv")[0].seed == 7
