"""Folders of painted pictures whose quality is known are ranked so by `fpga-portrait evaluate`'s measures.

FaceSim, likeness, bleed and copy-paste use the small world's own face analysis, on people that it was not trained on.
CLIP-I, DINO and the Fréchet distance use encoders with random weights: they notice that a picture changes, and know
nothing of what it shows. CLIP-T has no test of this kind, because a random text side knows no words.
"""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from fpga.commands.evaluate.cases import pictures_in, read_cases
from fpga.commands.evaluate.measuring import measure
from fpga.fpga_core.evaluation.table import Spread, paired
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.patching.picture_scores import Scorers
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.painter import paint
from fpga.laboratory.people import Person
from fpga.laboratory.recogniser import NUM_PEOPLE, person_number
from fpga.laboratory.scenes import Scene, Shot, random_scene
from fpga.laboratory.shipped import FACE_PACK
from painted_faces import save
from tiny_encoders import tiny_vision

SIDE, NUM_CASES = 256, 8
LEVELS = ("0", "1", "2", "3")
"""Names of the methods, from the best to the worst."""

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated")  # in insightface


def people_of(case: int) -> tuple[Person, Person]:
    return person_number(NUM_PEOPLE + 2 * case), person_number(NUM_PEOPLE + 2 * case + 1)


def duo(case: int) -> Scene:
    return random_scene(np.random.default_rng((31, case)), Shot.DUO, people_of(case))


def close_up(person: Person, seed: int) -> Scene:
    return random_scene(np.random.default_rng((32, seed)), Shot.CLOSE, (person,))


def mixed(person: Person, other: Person, share: float) -> Person:
    """Returns a person with that share of another one: of every length and colour, and of the list of kinds."""
    traits = {}
    for number, field in enumerate(dataclasses.fields(Person)):
        mine, theirs = getattr(person, field.name), getattr(other, field.name)
        if isinstance(mine, int):
            traits[field.name] = theirs if (number % 3 + 0.5) / 3 < share else mine
        elif isinstance(mine, float):
            traits[field.name] = (1 - share) * mine + share * theirs
        else:
            traits[field.name] = tuple(np.add(np.multiply(1 - share, mine), np.multiply(share, theirs)))
    return Person(**traits)


def recast(scene: Scene, people) -> Scene:
    actors = zip(scene.actors, people, strict=True)
    return dataclasses.replace(scene, actors=tuple(dataclasses.replace(actor, person=one) for actor, one in actors))


def moved(scene: Scene, faces: float) -> Scene:
    """Returns the scene with every head moved down by a share of its height."""
    heads = [dataclasses.replace(actor.head, y=actor.head.y + 2 * faces * actor.head.radius) for actor in scene.actors]
    actors = zip(scene.actors, heads, strict=True)
    return dataclasses.replace(scene, actors=tuple(dataclasses.replace(actor, head=head) for actor, head in actors))


def blurred(picture: np.ndarray, sigma: float) -> np.ndarray:
    return cv2.GaussianBlur(picture, (0, 0), sigma) if sigma else picture


def measured(folder, painted, scorers: Scorers, *, has_targets: bool = False, real=()):
    """Writes the pictures, `painted(case, level)`, with photos and places of the people, and measures them."""
    rows = []
    for case in range(NUM_CASES):
        for level in range(len(LEVELS)):
            save(folder / LEVELS[level] / f"{case}.png", painted(case, level))
        photos = []
        for place, person in enumerate(people_of(case)):
            photos.append(f"photos/{case}_{place}.png")
            save(folder / photos[-1], paint(close_up(person, place), SIDE))
        row = {"case": str(case), "people": photos}
        if has_targets:
            row |= {"people": photos[:1], "targets": [f"3/{case}.png"], "references": photos}
            save(folder / photos[0], painted(case, 0))
        else:
            boxes = [face.box for face in duo(case).faces(Extent(SIDE, SIDE)).faces]
            row["places"] = [[box.x0, box.y0, box.width, box.height] for box in boxes]
            row["references"] = [f"0/{case}.png"]
        rows.append(row)
    (folder / "cases.jsonl").write_text("\n".join(map(json.dumps, rows)))
    cases = read_cases(folder / "cases.jsonl", {level: folder / level for level in LEVELS})
    return measure(cases, scorers, real=real, show=lambda done, total: None)


@pytest.fixture(scope="module")
def faces() -> Scorers:
    return Scorers(face_analysis=load_insightface_pack(FACE_PACK))


def means(found, name: str) -> list[float]:
    return [Spread.of([row[name] for row in found.rows[level]]).mean for level in LEVELS]


def is_falling(values: list[float]) -> bool:
    return all(after < before for before, after in zip(values, values[1:], strict=False))


def test_facesim_falls_with_blur(faces, tmp_path):
    found = measured(tmp_path, lambda case, level: blurred(paint(duo(case), SIDE), (0, 3, 6, 12)[level]), faces)
    assert is_falling(means(found, "FaceSim"))


def test_facesim_falls_and_bleed_rises_as_people_mix(faces, tmp_path):
    def painted(case: int, level: int) -> np.ndarray:
        one, two = people_of(case)
        share = level / 3
        return paint(recast(duo(case), (mixed(one, two, share), mixed(two, one, share))), SIDE)

    found = measured(tmp_path, painted, faces)
    assert is_falling(means(found, "FaceSim"))
    assert is_falling(means(found, "bleed")[::-1])
    assert paired(found.rows, "3", "0", measure="FaceSim").mean < 0 < paired(found.rows, "3", "0", measure="bleed").mean


def test_facesim_falls_as_faces_leave_their_places(faces, tmp_path):
    """By the IoU rule: as long as a face overlaps its place enough, it counts whole."""
    found = measured(tmp_path, lambda case, level: paint(moved(duo(case), (0, 0.1, 0.3, 0.6)[level]), SIDE), faces)
    values = means(found, "FaceSim")
    assert values[0] > values[2] > values[3] == 0 and values[1] > values[2]


def test_copying_rises_from_the_target_to_the_reference(faces, tmp_path):
    """Level 0 is the photo that was given, level 3 another one of the person, in another pose and expression."""

    def painted(case: int, level: int) -> np.ndarray:
        ours, theirs = (close_up(people_of(case)[0], seed) for seed in (100 + case, 200 + case))
        share = level / 3
        actor, other = ours.actors[0], theirs.actors[0]
        head = dataclasses.replace(
            actor.head,
            **{
                field.name: (1 - share) * getattr(actor.head, field.name) + share * getattr(other.head, field.name)
                for field in dataclasses.fields(actor.head)
            },
        )
        smile = (1 - share) * actor.smile + share * other.smile
        opened = (1 - share) * actor.mouth_open + share * other.mouth_open
        actor = dataclasses.replace(actor, head=head, smile=smile, mouth_open=opened)
        return paint(dataclasses.replace(ours, actors=(actor,)), SIDE)

    found = measured(tmp_path, painted, faces, has_targets=True)
    values = means(found, "copy-paste")
    assert is_falling(values)
    assert values[0] == pytest.approx(1, abs=1e-3) and values[-1] == pytest.approx(-1, abs=1e-3)


def test_encoders_notice_how_far_a_picture_is_from_its_reference(tmp_path):
    """Each level fades further into the picture of another case."""
    scorers = Scorers(clip_vision=tiny_vision("clip_vision_model"), dino=tiny_vision("dinov2"))

    def painted(case: int, level: int) -> np.ndarray:
        pictures = [paint(duo(number), SIDE) for number in (case, (case + 1) % NUM_CASES)]
        share = level / 3
        return ((1 - share) * pictures[0] + share * pictures[1]).round().astype(np.uint8)

    found = measured(tmp_path, painted, scorers)
    for name in ("CLIP-I", "DINO"):
        assert means(found, name)[0] == pytest.approx(1, abs=1e-6)
        assert is_falling(means(found, name))


def test_the_frechet_distance_rises_with_noise(tmp_path):
    noise = np.random.default_rng(33).normal(0, 1, (NUM_CASES, SIDE, SIDE, 3))

    def painted(case: int, level: int) -> np.ndarray:
        noisy = paint(duo(case), SIDE) + (0, 15, 40, 100)[level] * noise[case]
        return noisy.clip(0, 255).round().astype(np.uint8)

    for case in range(NUM_CASES):
        save(tmp_path / "real" / f"{case}.png", painted(case, 0))
    real = [file for files in pictures_in(tmp_path / "real").values() for file in files]
    found = measured(tmp_path, painted, Scorers(clip_vision=tiny_vision("clip_vision_model")), real=real)
    values = [found.distances[level] for level in LEVELS]
    assert values[0] == pytest.approx(0, abs=1e-6) and is_falling(values[::-1])
