"""The options of `fpga-portrait train`, and its check of a training set."""

import pytest
from fpga.commands.train import main, parse
from fpga.fpga_core.errors import InvalidInputError
from training_samples import write_samples


def test_the_check_names_every_fault(tmp_path, capsys):
    write_samples(tmp_path, 4)
    assert main(["check", "--data", str(tmp_path)]) == 0
    (tmp_path / "000001.mask.png").unlink()
    (tmp_path / "000003.image.png").write_bytes(b"")
    assert main(["check", "--data", str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert "4 samples of 64x64, 2 that cannot be used" in printed
    assert "'000001' has no mask.png" in printed and "image.png of sample '000003'" in printed


def test_what_is_wrong_with_the_words_is_said(tmp_path, capsys):
    config = tmp_path / "training.json"
    config.write_text('{"batchsize": 4}')
    for words, message in (
        (["identity", "--data", "x"], "identity needs --output, --checkpoint"),
        (["check", "--data", "x", "--config", str(config)], "sets batchsize, which is not an option"),
    ):
        with pytest.raises(SystemExit):
            parse(words)
        assert message in capsys.readouterr().err


def test_the_command_line_wins_over_the_file(tmp_path):
    config = tmp_path / "training.json"
    config.write_text('{"batch-size": 4, "learning_rate": 0.5, "gradient-checkpointing": true}')
    given = parse(["check", "--data", "x", "--config", str(config), "--batch-size", "2"])
    assert (given.batch_size, given.learning_rate, given.gradient_checkpointing) == (2, 0.5, True)


def test_the_check_counts_and_names_what_it_leaves_out(tmp_path, capsys):
    write_samples(tmp_path, 2)
    (tmp_path / "000000.depth.png").touch()
    assert main(["check", "--data", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "1 file belongs to no sample by its name: 000000.depth.png",
        "2 samples of 64x64, 0 that cannot be used",
    ]


@pytest.mark.parametrize("text", ["[1]", '{"batch-size": [4]}', "{", "\ufeff{}x"])
def test_a_config_file_that_is_none_is_named(tmp_path, text):
    (tmp_path / "mine.json").write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError, match=r"the config file '.*mine\.json'"):
        parse(["check", "--data", "x", "--config", str(tmp_path / "mine.json")])
