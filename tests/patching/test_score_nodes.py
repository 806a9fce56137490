"""Score Pictures and Keep Alike, called with real encoders and a face analysis that knows colours."""

import math

import folder_paths
import numpy as np
import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker
from fpga.fpga_core.errors import InvalidInputError, MissingModelError, ShapeMismatchError
from fpga.fpga_core.evaluation.keeping import IfNone
from fpga.fpga_core.evaluation.scores import PictureScores
from fpga.fpga_core.evaluation.similarity import reference_similarities
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.recognisers import BUFFALO_L
from fpga.fpga_core.patching.picture_embedding import DINO, embed_pictures
from fpga.fpga_core.shapes import Extent
from fpga.nodes.scores import NO_TEXT, TEXT_ENCODERS, KeepAlike, ScorePictures, text_folders
from painted_faces import ANNA, BEA, ColorAnalysis, as_image, painted
from tiny_encoders import tiny_vision

CANVAS = Extent(96, 64)
RIGHT = ((ANNA, 10, 10, 20, 20), (BEA, 60, 10, 20, 20))


def identity(name: str, color: tuple) -> Identity:
    return Identity(name, {BUFFALO_L: torch.tensor([[*color, *[0] * 509]], dtype=torch.float32)})


def people() -> Cast:
    boxes = [Box(10, 10, 30, 30), Box(60, 10, 80, 30)]
    known = [identity("Anna", ANNA), identity("Bea", BEA)]
    return Cast(
        tuple(CastMember(one, face_box=box.normalised(CANVAS)) for one, box in zip(known, boxes, strict=True)), CANVAS
    )


def batch() -> torch.Tensor:
    """The right people, Bea missing, nobody, and the right people again."""
    return as_image(painted(*RIGHT), painted(RIGHT[0]), painted(), painted(*RIGHT))


def score(image=None, **inputs):
    return ScorePictures.execute(image=batch() if image is None else image, **inputs)


def keep(scores, image=None, **widgets):
    widgets = {"score": "FaceSim", "threshold": 0.4, "at_most": 0, "if_none": IfNone.NOTHING.value, **widgets}
    return KeepAlike.execute(image=batch() if image is None else image, scores=scores, **widgets)


def test_people_in_their_places():
    out = score(cast=people(), face_analysis=ColorAnalysis())
    scores, text, facesim, bleed, *others = out.result
    assert scores.values("FaceSim") == pytest.approx((1, 0.5, 0, 1))
    assert (facesim, bleed) == (pytest.approx(0.625), pytest.approx(0))
    assert all(map(math.isnan, others))
    assert text.splitlines()[0].split() == ["picture", "FaceSim", "bleed", "(low)"]
    assert out.ui == {"text": (text,), "warnings": ()}


def test_one_person_anywhere():
    scores, _, facesim, *_ = score(cast=identity("Bea", BEA), face_analysis=ColorAnalysis()).result
    assert scores.names == ("likeness",)
    assert scores.values("likeness") == pytest.approx((1, 0, 0, 1))
    assert facesim == pytest.approx(0.5)


def test_references(monkeypatch):
    dino, references = tiny_vision(DINO[0]), as_image(painted(*RIGHT), painted(RIGHT[1]))
    scores, *_, clip_i, clip_t, mean = score(references=references, dino=dino).result
    sides = [embed_pictures(dino, list(images), kinds=DINO) for images in (batch(), references)]
    assert scores.values("DINO") == pytest.approx(reference_similarities(*sides).tolist())
    assert mean == pytest.approx(np.mean(scores.values("DINO"))) and math.isnan(clip_i) and math.isnan(clip_t)
    alpha = torch.cat([batch(), torch.zeros(4, 64, 96, 1)], dim=-1)
    again = score(alpha, references=alpha[:1], dino=dino).result[0]
    assert again.values("DINO") == pytest.approx(score(references=batch()[:1], dino=dino).result[0].values("DINO"))


def test_what_is_half_connected_is_said():
    clip, dino = tiny_vision("clip_vision_model"), tiny_vision(DINO[0])
    out = score(references=batch()[:1], dino=dino, prompt="a bar")
    assert out.ui["warnings"] == ("CLIP-T is not measured: it needs clip_vision, clip_text and a prompt",)
    out = score(cast=people(), face_analysis=ColorAnalysis(), clip_vision=clip, dino=dino)
    assert [line.partition(":")[0] for line in out.ui["warnings"]] == ["CLIP-I is not measured", "DINO is not measured"]
    out = score(cast=people(), face_analysis=ColorAnalysis(), references=batch()[:1])
    assert out.ui["warnings"] == ("the references are not used: connect clip_vision or dino",)


def test_what_cannot_be_scored_is_refused(tmp_path, monkeypatch):
    with pytest.raises(InvalidInputError, match="there is nothing to score with"):
        score()
    with pytest.raises(InvalidInputError, match="connect face_analysis too, or take cast away"):
        score(cast=people())
    with pytest.raises(InvalidInputError, match="connect cast too, or take face_analysis away"):
        score(face_analysis=ColorAnalysis())
    with pytest.raises(ShapeMismatchError, match="picture 1 is 64x64, but the cast was made for 96x64"):
        score(batch()[:, :, :64], cast=people(), face_analysis=ColorAnalysis())
    with pytest.raises(InvalidInputError, match="this encoder is clip_vision_model"):
        score(references=batch(), dino=tiny_vision("clip_vision_model"))
    monkeypatch.setitem(folder_paths.folder_names_and_paths, TEXT_ENCODERS, ([str(tmp_path)], set()))
    with pytest.raises(MissingModelError, match="name a folder with a CLIP"):
        score(clip_text="gone")


def test_folders_of_text_encoders_are_listed(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, TEXT_ENCODERS, ([str(tmp_path)], set()))
    for name in ("clip", "empty"):
        (tmp_path / name).mkdir()
    (tmp_path / "clip" / "config.json").touch()
    assert text_folders() == ["clip"]
    assert NO_TEXT not in text_folders()


def test_good_pictures_are_kept_and_the_others_set_aside():
    scores = score(cast=people(), face_analysis=ColorAnalysis()).result[0]
    out = keep(scores)
    kept, aside, num_kept, numbers = out.result
    assert torch.equal(kept, batch()[[0, 3, 1]]) and torch.equal(aside, batch()[[2]])
    assert (num_kept, numbers) == (3, "1, 4, 2")
    assert out.ui == {"text": ("kept 3 of 4: 1, 4, 2\nFaceSim at least 0.4; the best has 1.000",), "warnings": ()}
    kept, aside, num_kept, numbers = keep(scores, at_most=1).result
    assert torch.equal(kept, batch()[[0]]) and torch.equal(aside, batch()[[1, 2, 3]])


def test_an_empty_side_blocks_what_follows():
    scores = PictureScores(({"bleed": 0.5}, {"bleed": 0.3}))
    images = batch()[:2]
    out = keep(scores, images, score="bleed", threshold=0.2)
    kept, aside, num_kept, numbers = out.result
    assert isinstance(kept, ExecutionBlocker) and kept.message is None
    assert torch.equal(aside, images) and (num_kept, numbers) == (0, "")
    assert "nothing is sent on; the best has 0.300" in out.ui["warnings"][0]
    out = keep(scores, images, score="bleed", threshold=0.2, if_none=IfNone.BEST.value)
    assert torch.equal(out.result[0], images[[1]]) and "kept all the same" in out.ui["warnings"][0]
    kept, aside, *_ = keep(scores, images, score="bleed", threshold=0.9).result
    assert torch.equal(kept, images[[1, 0]]) and isinstance(aside, ExecutionBlocker)


def test_other_pictures_than_those_scored_are_refused():
    with pytest.raises(ShapeMismatchError, match="1 pictures were scored, but there are 4 to choose from"):
        keep(PictureScores(({"FaceSim": 0.5},)))
    with pytest.raises(InvalidInputError, match="DINO was not measured, only FaceSim"):
        keep(PictureScores(({"FaceSim": 0.5},)), batch()[:1], score="DINO")
