"""CLIP-I, CLIP-T and DINO from embeddings: the formulas, and what cannot be compared."""

import numpy as np
import pytest
from fpga.fpga_core.errors import ShapeMismatchError
from fpga.fpga_core.evaluation.similarity import prompt_similarities, reference_similarities

RNG = np.random.default_rng(0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_references_count_alike():
    pictures, references = RNG.normal(size=(4, 8)), RNG.normal(size=(3, 8))
    expected = [sum(cosine(picture, reference) for reference in references) / 3 for picture in pictures]
    assert reference_similarities(pictures, references) == pytest.approx(expected)
    assert reference_similarities(7 * pictures, references[::-1]) == pytest.approx(expected)


def test_each_picture_has_its_own_prompt():
    pictures, prompts = RNG.normal(size=(4, 8)), RNG.normal(size=(4, 8))
    expected = [cosine(picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    assert prompt_similarities(pictures, prompts) == pytest.approx(expected)


def test_equal_embeddings_have_a_similarity_of_1():
    one = RNG.normal(size=(1, 8))
    assert reference_similarities(one, 3 * one) == pytest.approx(1) == prompt_similarities(one, one)[0]


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(ShapeMismatchError, match="from one encoder"):
        reference_similarities(np.ones((2, 8)), np.ones((2, 4)))
    with pytest.raises(ShapeMismatchError, match="no reference"):
        reference_similarities(np.ones((2, 8)), np.ones((0, 8)))
    with pytest.raises(ShapeMismatchError, match="2 pictures have 1 prompts"):
        prompt_similarities(np.ones((2, 8)), np.ones((1, 8)))
