"""Decisions of several reviewers, and files that end in the middle of a line."""

import pytest
from fpga.fpga_core.dataset.decisions import Choice, Decision, dropped_pictures, read_decisions
from fpga.fpga_core.errors import InvalidInputError


def told(*words: str) -> list[Decision]:
    """`told("anna drop a")`: Anna drops picture a."""
    return [Decision(picture, Choice(choice), reviewer) for reviewer, choice, picture in map(str.split, words)]


@pytest.mark.parametrize(
    ("words", "dropped"),
    [
        (["anna drop a"], {"a": ("anna",)}),
        (["anna keep a"], {}),
        (["anna drop a", "anna keep a"], {}),
        (["anna drop a", "anna undecided a"], {}),
        (["anna drop a", "bea keep a"], {"a": ("anna",)}),
        (["anna drop a", "bea keep a", "carl keep a"], {}),
        (["carl drop a", "bea keep a", "anna drop a"], {"a": ("anna", "carl")}),
        (["anna drop a", "bea keep b", "bea drop c"], {"a": ("anna",), "c": ("bea",)}),
    ],
)
def test_as_many_against_as_for_a_picture_drop_it(words, dropped):
    assert dropped_pictures(told(*words)) == dropped


def test_decisions_are_read_as_they_were_written(tmp_path):
    decisions = told("anna drop a", "bea keep b", "anna undecided a")
    file = tmp_path / "decisions.jsonl"
    file.write_text("".join(f"{decision.line}\n" for decision in decisions))
    assert read_decisions(file) == decisions
    file.write_text(file.read_text()[:-10])
    assert read_decisions(file) == decisions[:-1], "the program was killed while it wrote the last line"


@pytest.mark.parametrize("text", ["[]\n", "{}\n", "drop a\n", '{"sha256": "a", "decision": "burn", "reviewer": "b"}\n'])
def test_other_files_are_refused(text, tmp_path):
    (tmp_path / "other.jsonl").write_text(text)
    with pytest.raises(InvalidInputError, match="use a file that `fpga-portrait dataset review` wrote"):
        read_decisions(tmp_path / "other.jsonl")
