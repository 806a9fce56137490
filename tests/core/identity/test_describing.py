"""What is said of a person without encoders: kept as it was given, added to what is known, and saved with it."""

import pytest
import torch
from fpga.fpga_core.checkpoints import hash_state_dict, read_safetensors, write_safetensors
from fpga.fpga_core.errors import CheckpointKeyError, CheckpointShapeError, InvalidInputError
from fpga.fpga_core.identity.describing import describe_person
from fpga.fpga_core.identity.identity import PersonLora
from fpga.fpga_core.identity.identity_file import load_identity, save_identity
from random_adapters import random_identity

LORA = PersonLora("ann.safetensors", {"a.lora_up.weight": torch.ones(2, 1).half()}, 0.8, "ohwx woman")


def pictures(*sizes):
    return [torch.rand(count, height, width, 4) for count, height, width in sizes]


def test_pictures_of_several_sizes_are_kept_without_alpha():
    given = pictures((2, 4, 6), (1, 8, 5))
    described = describe_person(name="Ann", pictures=given)
    assert [tuple(picture.shape) for picture in described.pictures] == [(4, 6, 3), (4, 6, 3), (8, 5, 3)]
    assert torch.equal(described.pictures[2], given[1][0, ..., :3])
    assert described.num_photos == 0 and described.description == "Ann: not encoded\nreference pictures: 3"


def test_a_description_adds_to_what_is_known_and_keeps_the_rest():
    known = random_identity("Ann", num_photos=2)
    described = describe_person(known, words=" red hair ", lora=LORA)
    assert described.name == "Ann" and described.embeddings == known.embeddings
    assert described.prompt == "ohwx woman, red hair"
    again = describe_person(described, name="Anne", words="grey hair")
    assert (again.name, again.lora, again.prompt) == ("Anne", LORA, "ohwx woman, grey hair")


def test_photos_that_are_encoded_later_keep_the_description():
    described = describe_person(name="Ann", words="red hair", pictures=pictures((1, 4, 4)))
    both = random_identity("Ann", num_photos=2).extended_by(described)
    assert both.num_photos == 2 and both.words == "red hair" and len(both.pictures) == 1


def test_only_a_name_is_how_a_prompt_speaks_of_the_person():
    assert describe_person(name="Marie Curie").prompt == "Marie Curie"
    assert describe_person(name="Ann", pictures=pictures((1, 4, 4))).prompt == ""


def test_a_file_holds_all_that_is_known(tmp_path):
    shown = pictures(*[(1, 3, 2 + number) for number in range(11)])  # so that numbers have one digit and two
    described = describe_person(random_identity("Ann"), words="red hair", pictures=shown, lora=LORA)
    save_identity(tmp_path / "ann.safetensors", described)
    loaded = load_identity(tmp_path / "ann.safetensors")
    assert loaded.description == described.description and loaded.lora.strength == 0.8
    assert loaded.lora.weights.keys() == LORA.weights.keys()
    assert torch.equal(loaded.lora.weights["a.lora_up.weight"], LORA.weights["a.lora_up.weight"])
    assert all(torch.equal(a, b) for a, b in zip(loaded.pictures, described.pictures, strict=True))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lambda t, h: t.update({"picture.x": t.pop("picture.0")}), CheckpointKeyError, "picture without a number"),
        (lambda t, h: t.update({"picture.0": torch.ones(4)}), CheckpointShapeError, r"picture 1 of 'Ann' is \(4,\)"),
        (lambda t, h: t.update({"picture.0": t["picture.0"] * torch.nan}), CheckpointKeyError, "is not finite"),
        (lambda t, h: h.update({"lora_strength": "strong"}), CheckpointKeyError, "strength that is not one"),
        (lambda t, h: h.update({"lora_strength": "nan"}), CheckpointKeyError, "strength of the LoRA"),
    ],
)
def test_a_file_with_parts_that_cannot_be_used_is_named(tmp_path, change, error, message):
    path = tmp_path / "ann.safetensors"
    save_identity(path, describe_person(name="Ann", pictures=pictures((1, 4, 4)), lora=LORA))
    tensors, header = read_safetensors(path)
    change(tensors, header)
    write_safetensors(path, tensors, {**header, "tensors_hash": hash_state_dict(tensors)})
    with pytest.raises(error, match=message) as caught:
        load_identity(path)
    assert "ann.safetensors" in str(caught.value)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "nothing is said of this person"),
        ({"pictures": [torch.rand(1, 4, 4, 1)]}, r"\(4, 4, 1\); connect an IMAGE"),
        ({"pictures": [torch.full((1, 4, 4, 3), torch.nan)]}, "not numbers"),
    ],
)
def test_what_cannot_be_used_is_refused(said, message):
    with pytest.raises(InvalidInputError, match=message):
        describe_person(**said)
