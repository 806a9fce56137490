"""Restore Faces by each person's own way of being known: reference pictures, a LoRA, words, or an adapter."""

from collections import Counter
from dataclasses import replace

import comfy.lora
import comfy.model_management
import comfy.sample
import comfy.sd
import pytest
import torch
from comfy_extras.nodes_edit_model import ReferenceLatent
from fpga.fpga_core.errors import UnsupportedModeError
from fpga.fpga_core.identity.cast import Cast
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.patching.restoration import restorer
from fpga.fpga_core.patching.restoration.faces import restore_faces
from fpga.fpga_core.patching.restoration.restorer import FaceRestorer
from fpga.fpga_core.restoration.fusion import StyleSource
from fpga.fpga_core.restoration.matching import MatchBy
from fpga.fpga_core.restoration.settings import RECOMMENDED_FUSION, CropSettings, InversionSettings, RestoreSettings
from tiny_faces import ScriptedAnalysis, face, found, pictures, placed_cast, tiny_vae, tiny_video_vae
from tiny_identities import tiny_adapter
from tiny_loras import lora_of
from tiny_models import conditioning, tiny_model
from tiny_transformers import TINY

CROP = CropSettings(size_px=64, size_limit_px=50, is_upright=False)
# No style: AdaIN would take back what a reference gives all tokens of a face alike: in random models, most of it.
SETTINGS = RestoreSettings(
    steps=2,
    scheduler="simple",
    crop=CROP,
    inversion=InversionSettings(repetitions=0),
    fusion=replace(RECOMMENDED_FUSION, style_source=StyleSource.OFF),
    cfg=3.0,
)
LEFT, RIGHT, THIRD = face(20, 20, 24, 30, 1), face(100, 60, 30, 36, 2), face(60, 10, 28, 34, 3)
REFERENCES = ("FLUX.1 dev", "FLUX.2", "Qwen-Image", "Krea 2")
LORAS = ("SD1.5", "FLUX.1 dev", "Qwen-Image", "Z-Image")


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


class Words:
    """A text encoder whose text is seeded by its words."""

    def __init__(self, prompt):
        self.prompt = prompt

    def tokenize(self, text):
        return text

    def encode_from_tokens_scheduled(self, text):
        return self.prompt(len(text))


@pytest.fixture(scope="module")
def base(request):
    """A model with its autoencoder and its prompts."""
    name = request.param
    with torch.inference_mode(False), torch.no_grad():
        if name == "SD1.5":
            return {"model": tiny_model(), "vae": tiny_vae()}, conditioning
        family = TINY[name]
        overrides = {"default_ref_method": "index"} if name == "Krea 2" else {}
        vae = tiny_video_vae() if len(family.latent) > 1 else tiny_vae(latent_channels=family.latent[0])
        return {"model": family.model(**overrides), "vae": vae}, family.prompt


@pytest.fixture
def restore(base):
    parts, prompt = base

    def run(faces=None, **options):
        faces = found((LEFT, RIGHT)) if faces is None else faces
        texts = {"positive": prompt(1), "negative": prompt(2)}
        return restore_faces(pictures(), faces, FaceRestorer(**{**parts, "settings": SETTINGS, **texts, **options}))

    return run


def cast_of(*people) -> Cast:
    """People at the places of the left, the right and the third face."""
    placed = placed_cast(p1=LEFT, p2=RIGHT, p3=THIRD)
    members = [replace(member, identity=person) for member, person in zip(placed.members, people, strict=False)]
    return replace(placed, members=tuple(members))


def shown(seed: int, height: int = 128, width: int = 192) -> Identity:
    """A person known by a picture whose colours are the person's own: noise alone would be the same to the model."""
    colour = torch.tensor([seed % 2, seed // 2 % 2, seed // 4 % 2], dtype=torch.float32)
    noise = torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed))
    picture = 0.8 * colour + 0.2 * noise
    return Identity(f"person {seed}", pictures=(picture,))


def trained(base, seed: int) -> Identity:
    return Identity(f"person {seed}", lora=lora_of(base[0]["model"], seed))


def difference(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).abs().max())


def together_and_one_by_one(restore, people, **options):
    """The crops of all faces at once, and those of each face alone."""
    faces = (LEFT, RIGHT, THIRD)[: len(people)]
    together = restore(found(faces), cast=cast_of(*people), **options)
    assert together.report.endswith("background: maximum difference 0 outside the masks")
    assert torch.equal(together.images[together.masks == 0], pictures()[together.masks == 0])
    return together, [restore(found((one,)), cast=cast_of(*people), **options).after[0] for one in faces]


@pytest.mark.parametrize("base", REFERENCES, indirect=True)
class TestReferences:
    def test_faces_go_row_by_row_where_sizes_agree_and_are_as_one_by_one(self, restore, monkeypatch):
        sizes = []
        record = restorer.record_inversion
        monkeypatch.setattr(
            restorer, "record_inversion", lambda *a, **named: sizes.append(len(a[2])) or record(*a, **named)
        )
        people = shown(1), shown(2), shown(3, 192, 128)
        together, alone = together_and_one_by_one(restore, people)
        assert sizes == [2, 1, 1, 1, 1]
        for number, expected in enumerate(alone):
            assert difference(expected, together.after[number]) <= 1e-4
        exchanged = restore(cast=cast_of(shown(2), shown(1))).after
        for number in (0, 1):
            assert difference(exchanged[number], together.after[number]) > 5e-4
        assert "identities: #1 person 1 by reference pictures, #2 person 2 by" in together.report

    def test_a_crop_is_sampled_as_with_the_host_s_own_reference(self, base, restore, monkeypatch):
        (parts, prompt), person = base, shown(1)
        latent = {"samples": parts["vae"].encode(person.pictures[0][None])}
        texts = [ReferenceLatent.execute(prompt(seed), latent).result[0] for seed in (1, 2)]
        sampled = beside(monkeypatch, parts["model"], *texts)
        after = restore(found((LEFT,)), cast=cast_of(person)).after
        assert difference(*sampled) <= 1e-5 * max(1, float(sampled[1].abs().max()))
        monkeypatch.undo()
        assert difference(restore(found((LEFT,))).after, after) > 1e-3

    def test_the_strength_of_an_identity_mixes_what_is_seen_with_and_without_its_reference(self, restore):
        settings = [replace(SETTINGS, identity_strength=strength) for strength in (0.0, 0.5, 1.0)]
        without, half, whole = (restore(cast=cast_of(shown(1), shown(2)), settings=one).after for one in settings)
        assert torch.equal(without, restore().after)
        assert difference(half, without) > 1e-4 and difference(half, whole) > 1e-4

    def test_an_error_or_an_interrupt_leaves_the_model_as_it_was(self, base, restore, monkeypatch):
        leaves_the_model_as_it_was(base, restore, monkeypatch, cast_of(shown(1), shown(2)))


def beside(monkeypatch, model, positive, negative) -> list[torch.Tensor]:
    """Samples every restoration a second time, with a model and prompts of the host; returns both latents."""
    sampled, restored = [], restorer.restore_latent

    def both(*told, **named):
        sampled.extend((restored(*told, **named), restored(model, positive, negative, **named)))
        return sampled[-2]

    monkeypatch.setattr(restorer, "restore_latent", both)
    return sampled


def leaves_the_model_as_it_was(base, restore, monkeypatch, people):
    """Before a restoration, after it, after one that was stopped, and after one that failed."""
    (parts, prompt) = base
    latent = torch.zeros_like(parts["vae"].encode(torch.rand(1, 64, 64, 3)))

    def plain():
        noise = comfy.sample.prepare_noise(latent, 5)
        return comfy.sample.sample(
            parts["model"], noise, 1, 3.0, "euler", "simple", prompt(1), prompt(2), latent, seed=5
        )

    before, options = plain(), dict(parts["model"].model_options["transformer_options"])
    assert restore(cast=people).after.isfinite().all()
    assert torch.equal(plain(), before)

    def failing(error):
        def make_callback(model, steps):
            def fail(step, x0, x, total):
                raise error

            return fail

        return make_callback

    for error in (comfy.model_management.InterruptProcessingException(), RuntimeError("out of order")):
        with pytest.raises(type(error)):
            restore(cast=people, make_callback=failing(error))
        assert torch.equal(plain(), before)
    assert parts["model"].model_options["transformer_options"] == options and not parts["model"].patches


@pytest.mark.parametrize("base", LORAS, indirect=True)
class TestLoras:
    def test_all_faces_are_the_faces_one_by_one(self, base, restore):
        people = trained(base, 1), trained(base, 2)
        together, alone = together_and_one_by_one(restore, people)
        for number, expected in enumerate(alone):
            assert difference(expected, together.after[number]) <= 1e-4
        assert difference(restore().after, together.after) > 1e-3
        assert "identities: #1 person 1 by LoRA, #2 person 2 by LoRA" in together.report

    def test_a_face_is_restored_as_by_the_host_s_lora_loader(self, base, restore):
        person = trained(base, 1)
        loaded, _ = comfy.sd.load_lora_for_models(base[0]["model"], None, dict(person.lora.weights), 0.8 * 0.7, 0)
        settings = replace(SETTINGS, identity_strength=0.7)
        ours = restore(found((LEFT,)), cast=cast_of(person), settings=settings).after
        assert difference(ours, restore(found((LEFT,)), model=loaded).after) <= 1e-5

    def test_each_lora_is_loaded_once_for_all_faces_of_the_person(self, base, restore, monkeypatch):
        """Also if its faces go in several batches; the weights are what `calculate_weight` of the host patches."""
        cast, patched = cast_of(trained(base, 1), trained(base, 2)), Counter()
        calculate = comfy.lora.calculate_weight

        def counted(patches, weight, key, *args, **named):
            patched[key] += 1
            return calculate(patches, weight, key, *args, **named)

        monkeypatch.setattr(comfy.lora, "calculate_weight", counted)
        monkeypatch.setattr(restorer, "free_bytes", lambda model: 0)  # one face a batch
        restore(cast=cast)
        assert patched and set(patched.values()) == {2}
        patched.clear()
        everyone = replace(SETTINGS, match_by=MatchBy.FIRST)
        restore(found((LEFT, RIGHT, THIRD)), cast=cast, settings=everyone)
        assert patched and set(patched.values()) == {1}

    def test_an_error_or_an_interrupt_leaves_the_model_as_it_was(self, base, restore, monkeypatch):
        leaves_the_model_as_it_was(base, restore, monkeypatch, cast_of(trained(base, 1), trained(base, 2)))


@pytest.mark.parametrize("base", ["SD1.5", "Z-Image"], indirect=True)
class TestWords:
    def test_all_faces_are_the_faces_one_by_one(self, base, restore):
        people, words = (Identity("Ann", words="red hair"), Identity("Bob", words="a grey beard")), Words(base[1])
        together, alone = together_and_one_by_one(restore, people, clip=words)
        for number, expected in enumerate(alone):
            assert difference(expected, together.after[number]) <= 1e-4
        assert difference(restore().after, together.after) > 1e-3

    def test_a_crop_is_sampled_as_with_the_host_s_combined_prompt(self, base, restore, monkeypatch):
        parts, prompt = base
        sampled = beside(monkeypatch, parts["model"], [*prompt(1), *prompt(len("red hair"))], prompt(2))
        restore(found((LEFT,)), cast=cast_of(Identity("Ann", words="red hair")), clip=Words(prompt))
        assert difference(*sampled) <= 1e-5


@pytest.mark.parametrize("base", ["SD1.5"], indirect=True)
class TestMixed:
    def test_each_person_is_known_in_their_own_way(self, base, restore):
        """An encoded person among others is as in a cast of encoded people. The autoencoder sees all crops at once."""
        adapter, encoded = tiny_adapter(base[0]["model"]), placed_cast(p1=LEFT).members[0].identity
        mixed = cast_of(trained(base, 2), encoded)
        faces = found((LEFT, RIGHT))
        both = restore(faces, cast=mixed, adapter=adapter)
        assert "identities: #1 person 2 by LoRA, #2 person 1 by adapter tiny" in both.report
        alone = restore(found((RIGHT,)), cast=replace(mixed, members=mixed.members[1:]), adapter=adapter)
        assert difference(both.after[1], alone.after[0]) <= 1e-4 and "identities:" not in alone.report
        lora = restore(found((LEFT,)), cast=replace(mixed, members=mixed.members[:1]))
        assert difference(both.after[0], lora.after[0]) <= 1e-4

    def test_a_retry_makes_a_lora_stronger(self, base, restore, monkeypatch):
        """On the ladder of retries, the identity is 1, then 1.25, then 1.5 times as strong."""
        strengths, restored = [], restorer.restore_latent

        def watched(model, *told, **named):
            (of_a_layer, *_) = model.patches.values()
            strengths.append(sum(patch[0] for patch in of_a_layer))
            return restored(model, *told, **named)

        monkeypatch.setattr(restorer, "restore_latent", watched)
        person = replace(placed_cast(p1=LEFT).members[0].identity, lora=trained(base, 1).lora)
        settings = replace(SETTINGS, retry_below=0.9, max_retries=2, identity_strength=0.5)
        analysis = ScriptedAnalysis([0.1, 0.2, 0.3, 0.4])
        restore(found((LEFT,)), cast=cast_of(person), settings=settings, face_analysis=analysis)
        assert strengths == pytest.approx([0.8 * 0.5, 0.8 * 0.5 * 1.25, 0.8 * 0.5 * 1.5])

    @pytest.mark.parametrize(
        ("known", "remedy"),
        [({"words": "red hair"}, "connect clip"), ({"pictures": (torch.rand(8, 8, 3),)}, "connect vae, and use a")],
    )
    def test_people_whom_the_model_cannot_know_are_refused(self, restore, known, remedy):
        with pytest.raises(UnsupportedModeError, match=f"^{remedy}.*'Ann'"):
            restore(cast=cast_of(Identity("Ann", **known)))
