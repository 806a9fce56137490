"""The options of `fpga-portrait train`, and its check of a training set."""

import pytest
from fpga.commands.train import main, plan_of
from fpga.commands.train_options import parse
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.training.engine.optimizers import OptimizerKind
from fpga.fpga_core.training.engine.settings import Schedule, TrainingSettings
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


def test_the_options_of_the_trainer_reach_the_plan(tmp_path):
    config = tmp_path / "training.json"
    config.write_text('{"rates": "branch=1e-4, identity=5e-5", "ema-on-cpu": true}')
    words = ["identity", "--data", "x", "--output", "y", "--checkpoint", "z", "--config", str(config)]
    words += ["--schedule", "cosine", "--optimizer", "adamw-8bit", "--held-out", "9", "--validate-every", "5"]
    plan = plan_of(parse([*words, "--min-snr-gamma", "5"]))
    found = plan.settings
    assert found.rates == (("branch", 1e-4), ("identity", 5e-5)) and found.is_average_on_cpu
    assert (found.schedule, found.optimizer) == (Schedule.COSINE, OptimizerKind.EIGHT_BIT)
    assert (found.held_out, found.validate_every, plan.curriculum.min_snr_gamma) == (9, 5, 5.0)
    default = plan_of(parse(words[:7]))
    settings = TrainingSettings(iterations=1_150_000)
    assert default.settings == settings and default.curriculum.min_snr_gamma == 0


def test_rates_that_cannot_be_read_are_named(capsys):
    with pytest.raises(SystemExit):
        parse(["check", "--data", "x", "--rates", "branch"])
    assert "--rates: invalid rates value: 'branch'" in capsys.readouterr().err
