from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.assignment import Assignment
from fpga.fpga_core.identity.cast import Cast, CastMember, as_cast
from fpga.fpga_core.identity.casting import choose_canvas, make_cast
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.places import FoundPlaces, Place
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.identity.strengths import parse_strengths
from fpga.fpga_core.shapes import Extent
from hypothesis import given, settings
from hypothesis import strategies as st

CANVAS = Extent(640, 480)
RECOGNISER = "a" * 64
NAMES = ("Ann", "Bob", "Cat", "Dan", "Eve", "Fay")

fuzz = settings(deadline=None, max_examples=50)


def embedding(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(512).astype(np.float32)


def identity(name: str, seed: int = 0, recogniser: str = RECOGNISER) -> Identity:
    return Identity(name, {recogniser: torch.from_numpy(embedding(seed))[None]})


def place(number: int, x: float, seed: int | None = None) -> Place:
    """Makes a box of a tenth of the picture at `x`, with the face of the person of `seed`."""
    box = Box(x, 0.4, x + 0.1, 0.6)
    embeddings = {} if seed is None else {RECOGNISER: embedding(seed)}
    return Place(f"box {number}", Region.from_box(box), box, embeddings)


def broken(number: int) -> Place:
    return Place(f"box {number}", None, problem="it is empty")


def who_is_where(casting) -> dict[str, float]:
    """Name -> left side of the face box."""
    return {member.identity.name: member.face_box.x0 for member in casting.cast.members}


def test_without_places_everyone_acts_in_the_whole_picture():
    alone = make_cast([identity("Ann")], CANVAS)
    assert alone.cast.members[0].region is None and alone.cast.members[0].face_box is None
    assert alone.text == "#1 Ann: the whole picture"
    two = make_cast([identity("Ann"), identity("Bob")], CANVAS)
    assert "2 people share the whole picture, so their faces will mix" in two.notes[0]


def test_order_pairs_place_1_with_identity_1():
    places = FoundPlaces((place(1, 0.7), place(2, 0.1)))
    casting = make_cast([identity("Ann"), identity("Bob")], CANVAS, places)
    assert who_is_where(casting) == {"Ann": 0.7, "Bob": 0.1}
    assert casting.text == "#1 Ann: box 1\n#2 Bob: box 2"


def test_left_to_right_pairs_the_leftmost_place_with_identity_1():
    places = FoundPlaces((place(1, 0.7), place(2, 0.1), broken(3), place(4, 0.4)))
    people = [identity(name) for name in NAMES[:3]]
    casting = make_cast(people, CANVAS, places, assign=Assignment.LEFT_TO_RIGHT)
    assert who_is_where(casting) == {"Ann": 0.1, "Bob": 0.4, "Cat": 0.7}
    assert casting.notes == ("box 3 is not used: it is empty",)


def named(number: int, x: float, name: str) -> Place:
    return replace(place(number, x), name=name)


def test_a_named_place_belongs_to_the_person_of_that_name_whatever_the_rule():
    people = [identity(name) for name in NAMES[:3]]
    places = FoundPlaces((named(1, 0.7, "cat "), place(2, 0.4), named(3, 0.1, "ANN")))
    for assign in (Assignment.ORDER, Assignment.LEFT_TO_RIGHT):
        casting = make_cast(people, CANVAS, places, assign=assign)
        assert who_is_where(casting) == {"Ann": 0.1, "Bob": 0.4, "Cat": 0.7}
        assert casting.notes == ()


def test_a_place_whose_name_nobody_has_stays_empty_and_the_notes_list_the_names():
    places = FoundPlaces((named(1, 0.1, "Zoe"), place(2, 0.4), named(3, 0.7, "Ann"), named(4, 0.85, "Ann")))
    casting = make_cast([identity("Ann"), identity("Bob")], CANVAS, places)
    assert who_is_where(casting) == {"Ann": 0.7, "Bob": 0.4}
    assert casting.notes[:2] == (
        "box 1 is not used: it is named Zoe, but the people are called Ann, Bob",
        "box 4 is not used: Ann already has a place",
    )
    with pytest.raises(InvalidInputError, match="named Zoe, but the people are called Ann; use the same names"):
        make_cast([identity("Ann")], CANVAS, FoundPlaces((named(1, 0.1, "Zoe"),)))


def test_with_order_a_broken_place_leaves_its_identity_out_and_nobody_moves_up():
    places = FoundPlaces((place(1, 0.1), broken(2), place(3, 0.7)), ("read with care",))
    casting = make_cast([identity(name) for name in NAMES[:3]], CANVAS, places)
    assert who_is_where(casting) == {"Ann": 0.1, "Cat": 0.7}
    assert casting.text.splitlines() == [
        "#1 Ann: box 1",
        "#3 Cat: box 3",
        "Note: read with care",
        "Note: box 2 is not used: it is empty",
        "Note: identity 2 (Bob) is left out: it has no place",
    ]


@pytest.mark.parametrize("assign", [Assignment.ORDER, Assignment.LEFT_TO_RIGHT])
def test_muting_a_person_leaves_their_place_and_strength_empty_and_nobody_moves(assign):
    places = FoundPlaces((place(1, 0.1), place(2, 0.4), place(3, 0.7)))
    ann, bob, cat = (identity(name) for name in NAMES[:3])
    everyone = make_cast([ann, bob, cat], CANVAS, places, assign=assign, strengths=(0.1, 0.2, 0.3))
    muted = make_cast([ann, cat], CANVAS, places, assign=assign, strengths=(0.1, 0.2, 0.3), numbers=(1, 3))
    first, _, third = everyone.cast.members
    for before, after in zip((first, third), muted.cast.members, strict=True):
        assert (after.identity, after.number, after.strength) == (before.identity, before.number, before.strength)
        assert (after.face_box, after.region) == (before.face_box, before.region)
    assert muted.text.splitlines() == [
        "#1 Ann: box 1, strength 0.1",
        "#3 Cat: box 3, strength 0.3",
        "Note: box 2 is not used: it has no identity",
    ]
    last = make_cast([ann, bob], CANVAS, places, assign=assign, strengths=(0.1, 0.2, 0.3))
    assert [member.strength for member in last.cast.members] == [0.1, 0.2]


def test_muted_people_keep_their_number_in_the_whole_picture_and_in_the_scores():
    muted = make_cast([identity("Ann"), identity("Cat")], CANVAS, numbers=(1, 3))
    assert muted.summaries == ("#1 Ann: the whole picture", "#3 Cat: the whole picture")
    assert [portrait.number for portrait in muted.cast.portraits(RECOGNISER)] == [1, 3]


def test_an_empty_batch_is_no_canvas():
    assert choose_canvas(None, 640, 480) == Extent(640, 480)
    assert choose_canvas(torch.zeros(2, 30, 40, 3), 640, 480) == Extent(40, 30)
    with pytest.raises(InvalidInputError, match="there is no picture to place people in; connect at least one"):
        choose_canvas(torch.zeros(0, 30, 40, 3), 640, 480)


def test_places_and_people_that_remain_are_named():
    people = [identity(name) for name in NAMES[:3]]
    fewer = make_cast(people, CANVAS, FoundPlaces((place(1, 0.1),)))
    assert fewer.notes == (
        "identity 2 (Bob) is left out: it has no place",
        "identity 3 (Cat) is left out: it has no place",
    )
    more = make_cast(people[:1], CANVAS, FoundPlaces((place(1, 0.1), place(2, 0.5))))
    assert more.notes == ("box 2 is not used: it has no identity",)
    assert [unused.label for unused in more.unused] == ["box 2"]


@fuzz
@given(st.integers(1, 4), st.integers(1, 4), st.integers(0, 2**16))
def test_likeness_finds_the_best_of_all_pairings(num_people, num_faces, seed):
    rng = np.random.default_rng(seed)
    embeddings = rng.standard_normal((num_people + num_faces, 512)).astype(np.float32)
    people = [Identity(NAMES[i], {RECOGNISER: torch.from_numpy(embeddings[i : i + 1])}) for i in range(num_people)]
    places = tuple(
        Place(f"face {k}", (p := place(k, k / 5)).region, p.face_box, {RECOGNISER: embeddings[num_people + k]})
        for k in range(num_faces)
    )
    casting = make_cast(people, CANVAS, FoundPlaces(places), assign=Assignment.LIKENESS)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosine = unit[:num_people] @ unit[num_people:].T
    found = sum(cosine[NAMES.index(name), round(x * 5)] for name, x in who_is_where(casting).items())
    short, long = sorted((num_people, num_faces))
    table = cosine if num_people <= num_faces else cosine.T
    best = max(sum(table[i, o] for i, o in enumerate(order)) for order in permutations(range(long), short))
    assert len(casting.cast.members) == short
    assert found == pytest.approx(best, abs=1e-5)


def test_likeness_tells_how_alike_and_warns_of_strangers():
    people = [identity("Ann", seed=1), identity("Bob", seed=2)]
    casting = make_cast(
        people, CANVAS, FoundPlaces((place(1, 0.1, seed=7), place(2, 0.5, seed=1))), assign=Assignment.LIKENESS
    )
    assert casting.summaries[0] == "#1 Ann: box 2, likeness 1.00"
    assert len(casting.notes) == 1
    assert casting.notes[0].startswith("#2 Bob and box 1 hardly resemble each other (")


def test_likeness_combines_the_photos_of_a_person():
    photos = torch.from_numpy(np.stack([embedding(1), embedding(2)]))
    both = Identity("Ann", {RECOGNISER: photos})
    face = place(1, 0.1, seed=1)
    casting = make_cast([both], CANVAS, FoundPlaces((face,)), assign=Assignment.LIKENESS)
    unit = torch.nn.functional.normalize(photos)
    expected = torch.cosine_similarity(unit.mean(0), unit[0], dim=0).item()
    assert casting.summaries == (f"#1 Ann: box 1, likeness {expected:.2f}",)


def test_likeness_needs_one_recogniser_for_all():
    places = FoundPlaces((place(1, 0.1, seed=1),))
    with pytest.raises(InvalidInputError, match=r"no recogniser saw both the identities \(Ann: recogniser bbbb"):
        make_cast([identity("Ann", recogniser="b" * 64)], CANVAS, places, assign=Assignment.LIKENESS)
    with pytest.raises(InvalidInputError, match="box 1 does not show who it is"):
        make_cast([identity("Ann")], CANVAS, FoundPlaces((place(1, 0.1),)), assign=Assignment.LIKENESS)


@fuzz
@given(st.permutations(range(4)), st.sampled_from(Assignment), st.lists(st.integers(0, 3), unique=True, max_size=2))
def test_permuting_identities_permutes_the_cast(order, assign, unusable):
    people = [identity(NAMES[i], seed=i) for i in range(4)]
    strengths = (0.5, 1.0, 1.5, 2.0)
    lefts = (0.6, 0.0, 0.4, 0.2)
    places = [broken(i) if i in unusable else place(i, lefts[i], seed=i) for i in range(4)]
    straight = make_cast(people, CANVAS, FoundPlaces(tuple(places)), assign=assign, strengths=strengths)
    shuffled_places = [places[i] for i in order] if assign is Assignment.ORDER else places
    shuffled = make_cast(
        [people[i] for i in order],
        CANVAS,
        FoundPlaces(tuple(shuffled_places)),
        assign=assign,
        strengths=[strengths[i] for i in order],
    )
    names = [member.identity.name for member in shuffled.cast.members]
    assert len(set(names)) == len(names) == 4 - len(unusable)
    assert names == [NAMES[i] for i in order if NAMES[i] in names]
    strength_of = {member.identity.name: member.strength for member in shuffled.cast.members}
    assert strength_of == {name: strengths[NAMES.index(name)] for name in names}
    if assign is Assignment.LEFT_TO_RIGHT:  # the places follow the order of the list, whoever is on it
        assert list(who_is_where(shuffled).values()) == sorted(who_is_where(straight).values())
    else:
        assert who_is_where(shuffled) == who_is_where(straight)


def test_one_person_may_stand_in_two_places():
    ann = identity("Ann")
    casting = make_cast([ann, ann], CANVAS, FoundPlaces((place(1, 0.1), place(2, 0.6))))
    assert [member.face_box.x0 for member in casting.cast.members] == [0.1, 0.6]


def test_overlaps_are_measured_and_shared():
    places = FoundPlaces((place(1, 0.1), place(2, 0.15), place(3, 0.8)))
    casting = make_cast([identity(name) for name in NAMES[:3]], CANVAS, places)
    assert casting.notes == (
        "the regions of #1 Ann and #2 Bob overlap by 50% of the smaller one: they share the strength there",
    )
    weights = casting.cast.rasterise(Extent(20, 5))
    assert weights.shape == (3, 5, 20)
    torch.testing.assert_close(weights[:, 2, 2:5], torch.tensor([[1, 0.5, 0], [0, 0.5, 1], [0, 0, 0]]))


def test_a_whole_picture_member_is_rasterised_as_ones():
    cast = Cast((CastMember(identity("Ann")),), CANVAS)
    assert torch.equal(cast.rasterise(Extent(5, 3)), torch.ones(1, 3, 5))


@pytest.mark.parametrize(
    ("places", "told"),
    [
        ((), "connected but holds none"),
        ((broken(1), broken(2)), r"no place can be used \(box 1: it is empty; box 2: it is empty\)"),
        ((broken(1), place(2, 0.1)), "place 1 belongs to identity 1"),
    ],
)
def test_no_usable_place_is_an_error(places, told):
    with pytest.raises(InvalidInputError, match=told):
        make_cast([identity("Ann")], CANVAS, FoundPlaces(places))


def test_a_cast_of_nobody_is_an_error():
    with pytest.raises(InvalidInputError, match="at least one identity"):
        make_cast([], CANVAS)


def test_strengths_are_read_and_checked():
    assert parse_strengths("  ") == ()
    assert parse_strengths("1, 0.8,2") == (1, 0.8, 2)
    people = [identity("Ann"), identity("Bob")]
    casting = make_cast(people, CANVAS, strengths=(1, 0.8))
    assert [member.strength for member in casting.cast.members] == [1, 0.8]
    assert casting.summaries[1] == "#2 Bob: the whole picture, strength 0.8"
    with pytest.raises(InvalidInputError, match="'1; 2'"):
        parse_strengths("1; 2")
    with pytest.raises(InvalidInputError, match="1 strengths are given, but the last identity is number 2"):
        make_cast(people, CANVAS, strengths=(1,))
    for wrong in (-0.1, 5.1, float("nan"), float("inf")):
        with pytest.raises(InvalidInputError, match="strength 2 is"):
            make_cast(people, CANVAS, strengths=(1, wrong))


def test_portraits_carry_the_ungrown_face_boxes():
    casting = make_cast([identity("Ann", seed=3)], CANVAS, FoundPlaces((place(1, 0.25),)))
    (portrait,) = casting.cast.portraits(RECOGNISER)
    assert (portrait.name, portrait.face_box) == ("Ann", Box(0.25, 0.4, 0.35, 0.6))
    np.testing.assert_allclose(portrait.embedding, embedding(3))
    with pytest.raises(InvalidInputError, match="no recogniser"):
        casting.cast.portraits(None)
    with pytest.raises(InvalidInputError, match="scoring a cast needs"):
        casting.cast.portraits("c" * 64)


def test_one_identity_is_a_cast_of_the_whole_picture():
    ann = identity("Ann")
    alone = as_cast(ann)
    assert [member.identity for member in alone.members] == [ann]
    assert alone.members[0].region is None and bool((alone.rasterise(Extent(5, 3)) == 1).all())
    assert as_cast(alone) is alone
