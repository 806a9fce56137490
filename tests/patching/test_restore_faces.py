"""DIIR from end to end on a small real model: every face of a batch, its own identity, and nothing else changed."""

from dataclasses import replace

import comfy.model_management
import comfy.model_patcher
import pytest
import torch
from fpga.fpga_core.errors import InvalidInputError, PatchConflictError, ShapeMismatchError
from fpga.fpga_core.faces.face import Face, PictureFaces
from fpga.fpga_core.geometry import Box
from fpga.fpga_core.identity.cast import Cast
from fpga.fpga_core.patching.cast.apply import apply_cast
from fpga.fpga_core.patching.conditioning import for_crops
from fpga.fpga_core.patching.repcontrolnet.fold import fold_branch
from fpga.fpga_core.patching.restoration import restorer, sampling
from fpga.fpga_core.patching.restoration.checks import family_of
from fpga.fpga_core.patching.restoration.controls import ControlNetFaces, RepControlNetFaces
from fpga.fpga_core.patching.restoration.faces import check_model_is_plain, restore_faces
from fpga.fpga_core.patching.restoration.identities import CastInCrops
from fpga.fpga_core.patching.restoration.restorer import LADDER, FaceRestorer
from fpga.fpga_core.restoration.face_crops import crop_faces
from fpga.fpga_core.restoration.feature_cache import CacheMode
from fpga.fpga_core.restoration.fusion import FusionSettings, StyleSource
from fpga.fpga_core.restoration.masks import MAX_AREA, hull_area
from fpga.fpga_core.restoration.matching import Match, MatchBy
from fpga.fpga_core.restoration.settings import CropSettings, IdentityIn, InversionSettings, RestoreSettings
from fpga.fpga_core.shapes import Extent
from random_branches import random_branch
from tiny_controlnets import tiny_controlnet
from tiny_faces import HEIGHT, WIDTH, ScriptedAnalysis, face, found, pictures, placed_cast, tiny_vae
from tiny_identities import cast, member, tiny_adapter
from tiny_models import conditioning, tiny_model, tiny_sdxl

CROP = CropSettings(size_px=64, size_limit_px=50, is_upright=False)
QUICK = InversionSettings(repetitions=0)
SETTINGS = RestoreSettings(steps=2, crop=CROP, inversion=QUICK, cfg=3.0, identity_strength=3.0)

LEFT, RIGHT, LARGE = face(20, 20, 24, 30, 1), face(100, 60, 30, 36, 2), face(60, 10, 60, 80)


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def vae():
    return tiny_vae()


@pytest.fixture(scope="module")
def adapter(model):
    return tiny_adapter(model)


@pytest.fixture(autouse=True)
def no_gradients():
    """The host runs nodes so."""
    with torch.inference_mode():
        yield


@pytest.fixture
def restore(model, vae, adapter):
    def run(images=None, faces=None, people="both", masks=None, parser=None, **options):
        images = pictures() if images is None else images
        faces = found((LEFT, RIGHT)) if faces is None else faces
        if people == "both":
            people = placed_cast(p1=LEFT, p2=RIGHT)
        who = {"cast": people, "adapter": people and adapter}
        prompts = {"positive": conditioning(1), "negative": conditioning(2)}
        defaults = {"model": model, "vae": vae, "settings": SETTINGS, **prompts, **who}
        return restore_faces(images, faces, FaceRestorer(**{**defaults, **options}), masks=masks, parser=parser)

    return run


@pytest.mark.parametrize("channels", [3, 4])
def test_small_faces_of_every_picture_are_restored_and_nothing_else_changes(restore, channels):
    images = pictures(2, channels)
    result = restore(images, found((LEFT, LARGE, RIGHT), (LEFT,)))
    assert result.images.shape == images.shape and result.masks.shape == images.shape[:3]
    assert torch.equal(result.images[result.masks == 0], images[result.masks == 0])
    assert torch.equal(result.images[..., 3:], images[..., 3:])
    assert result.before.shape == result.after.shape == (3, 64, 64, 3)
    assert int((result.masks[1] > 0).sum()) <= MAX_AREA * hull_area(LEFT)
    assert float((result.images - images)[0, 30:40, 28:36].abs().mean()) > 0.01
    lines = result.report.splitlines()
    assert lines[0] == "3 of 4 faces restored; 3 under 50 px"
    assert lines[1].startswith("picture 1, face 1, 30 px: person 1 (by place, overlap 1.00), FaceSim not measured")
    assert lines[2].startswith("picture 1, face 3, 36 px: person 2")
    assert lines[-1] == "background: maximum difference 0 outside the masks"


@pytest.mark.parametrize("mode", CacheMode)
def test_all_faces_at_once_are_the_faces_one_by_one(restore, mode, model):
    """Different people, masks and landmarks in one batch; the control's drawings too."""
    control = RepControlNetFaces(random_branch(model.model.diffusion_model))
    settings = replace(SETTINGS, inversion=InversionSettings(repetitions=0, mode=mode))
    options = dict(settings=settings, control=control)
    together = restore(**options).after
    for number, alone in enumerate((LEFT, RIGHT)):
        result = restore(faces=found((alone,)), people=placed_cast(**{f"p{number + 1}": alone}), **options)
        assert float((result.after[0] - together[number]).abs().max()) <= 1e-4
    assert float((together[0] - together[1]).abs().max()) > 0.01


def test_each_face_gets_its_own_identity(restore):
    as_placed = restore().after
    exchanged = restore(people=placed_cast(p1=RIGHT, p2=LEFT)).after
    same_left = restore(people=placed_cast(p1=LEFT, p3=RIGHT)).after
    assert float((as_placed - exchanged).abs().amax((1, 2, 3)).min()) > 1e-3
    torch.testing.assert_close(as_placed[0], same_left[0], atol=1e-5, rtol=1e-5)
    assert float((as_placed[1] - same_left[1]).abs().max()) > 1e-3
    swapped = restore(settings=replace(SETTINGS, match_by=MatchBy.FIRST))
    assert "person 1 (the first identity for every face)" in swapped.report.splitlines()[2]


def test_each_face_is_steered_by_its_own_landmarks(restore, model, vae):
    moved = face(100, 60, 30, 36, 7)
    faces = found((LEFT, moved))
    control = RepControlNetFaces(random_branch(model.model.diffusion_model))
    before, after = restore(control=control).after, restore(faces=faces, control=control).after
    torch.testing.assert_close(before[0], after[0], atol=1e-5, rtol=1e-5)
    assert float((before[1] - after[1]).abs().max()) > 1e-3


def test_without_a_cast_faces_are_restored_by_the_prompt(restore):
    result = restore(people=None)
    assert "face 1, 30 px: restored without an identity" in result.report
    assert int((result.masks > 0).sum()) > 500


def test_a_face_of_nobody_is_left_alone_and_an_identity_without_a_face_does_no_harm(restore):
    images = pictures()
    stranger = face(60, 90, 20, 24, 9)
    result = restore(images, found((LEFT, stranger, RIGHT)), people=placed_cast(p1=LEFT, p5=face(140, 2, 10, 10)))
    assert "face 2, 24 px: left alone, nobody in the cast matches it" in result.report
    assert result.report.startswith("1 of 3 faces restored")
    assert torch.equal(result.images[0, 85:], images[0, 85:])


@pytest.mark.parametrize(
    ("faces", "text"),
    [
        (found(()), "no face found, nothing changed"),
        (found((LARGE,)), "none of the 1 faces is under 50 px (size_limit_px 0 takes all), nothing changed"),
    ],
)
def test_no_face_and_only_large_faces_change_nothing(restore, faces, text):
    result = restore(faces=faces)
    assert torch.equal(result.images, pictures()) and not result.masks.any()
    assert result.before.shape == result.after.shape == (1, 64, 64, 3) and not result.after.any()
    assert result.report.startswith(text)


def test_likeness_serves_where_the_cast_has_no_places(restore):
    result = restore(people=cast(member(2), member(1)))
    assert "face 1, 30 px: person 1 (by likeness 1.00)" in result.report
    assert "face 2, 36 px: person 2 (by likeness 1.00)" in result.report


def test_pixels_that_are_not_numbers(restore):
    images = pictures()
    images[0, 30, 25] = float("nan")
    images[0, 100, 10] = float("inf")
    result = restore(images)
    outside = result.masks == 0
    assert torch.equal(result.images[outside].view(torch.int32), images[outside].view(torch.int32))
    assert torch.isfinite(result.after).all() and "maximum difference 0" in result.report


def test_a_model_that_overflows_leaves_the_face_alone_and_says_so(restore):
    broken = tiny_vae()
    with torch.no_grad():
        broken.first_stage_model.taesd_decoder[1].bias.fill_(float("nan"))
    result = restore(vae=broken)
    assert torch.equal(result.images, pictures()) and not result.masks.any()
    assert result.report.count("left alone, the model or the VAE gave values that are not finite") == 2


def test_a_picture_of_eight_thousand_pixels(restore):
    """The whole of it is read and compared, but only the crop goes through the model."""
    width, height = 7680, 4320
    images = torch.zeros(1, height, width, 3)
    images[0, 4000:4120, 7000:7160] = pictures()[0]
    moved = face(7020, 4020, 24, 30, 1)
    faces = (PictureFaces(Extent(width, height), (moved,)),)
    result = restore(images, faces, people=None)
    outside = result.masks == 0
    assert 0 < int((~outside).sum()) <= MAX_AREA * hull_area(moved)
    assert torch.equal(result.images[outside], images[outside])
    assert result.report.endswith("background: maximum difference 0 outside the masks")


def test_a_picture_of_one_pixel(restore):
    tiny = (PictureFaces(Extent(1, 1), (Face(Box(0, 0, 1, 1)),)),)
    result = restore(torch.rand(1, 1, 1, 3), tiny, people=None)
    assert result.images.shape == (1, 1, 1, 3) and torch.isfinite(result.images).all()


def test_a_given_mask_and_a_parser_decide_what_changes(restore):
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[0, 25:35, 25:35] = 1
    result = restore(masks=mask)
    assert not result.masks[0, :, 60:].any() and result.masks[0, 30, 30] == 1
    parsed = restore(parser=lambda crops: torch.zeros(len(crops), 64, 64))
    assert torch.equal(parsed.masks, restore().masks)  # a parser that sees nothing: the outline


def test_what_belongs_to_the_whole_picture_is_stripped_from_the_prompt(restore, model, adapter):
    text, options = conditioning(1)[0]
    _, positive, negative = apply_cast(
        model, conditioning(1), conditioning(2), adapter=adapter, cast=placed_cast(p1=LEFT)
    )
    whole = {"area": (4, 4, 0, 0), "strength": 0.3, "mask": torch.ones(1, 8, 8), "control": object(), "gligen": ()}
    elsewhere = [torch.randn(1, 7, 64), {**options, "area": (4, 4, 8, 8)}]
    cluttered = [[text, {**positive[0][1], "control": object(), "control_apply_to_uncond": False}], elsewhere]
    plain, stripped = restore(), restore(positive=cluttered, negative=negative)
    assert torch.equal(plain.images, stripped.images)
    only_regional = for_crops([[text, {**options, **whole}]])
    assert len(only_regional) == 1 and only_regional[0][1] == options


def test_a_model_that_carries_the_whole_pictures_patches_is_refused(restore, model, adapter):
    folded = fold_branch(model, random_branch(model.model.diffusion_model, name="pose"))
    with pytest.raises(PatchConflictError, match="carries the RepControlNet 'pose'.*before Apply RepControlNet"):
        restore(model=folded)
    with_cast, _, _ = apply_cast(model, conditioning(1), conditioning(2), adapter=adapter, cast=placed_cast(p1=LEFT))
    with pytest.raises(PatchConflictError, match="carries a cast.*before Apply Cast"):
        restore(model=with_cast)
    check_model_is_plain(model)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"adapter": None}, InvalidInputError, "a cast and its identity adapter belong together"),
        ({"settings": RestoreSettings(crop=CROP, retry_below=0.5)}, InvalidInputError, "FaceSim cannot be measured"),
        (
            {"faces": found((LEFT,), (LEFT,))},
            ShapeMismatchError,
            "the faces belong to a batch of 2, but the images are a batch of 1",
        ),
        (
            {"settings": replace(SETTINGS, inversion=InversionSettings(budget_mib=0))},
            InvalidInputError,
            "set cache_budget_mib to 1 or more",
        ),
    ],
)
def test_inputs_that_do_not_fit_are_refused(restore, options, error, text):
    with pytest.raises(error, match=text):
        restore(**options)


def test_faces_that_do_not_fit_the_memory_at_once_go_one_by_one(restore, monkeypatch):
    together = restore()
    batches = []

    def counted(*args, **kwargs):
        batches.append(args[2].shape[0])
        return sampling.record_inversion(*args, **kwargs)

    monkeypatch.setattr(restorer, "record_inversion", counted)
    monkeypatch.setattr(restorer, "free_bytes", lambda model: 0)
    torch.testing.assert_close(restore().after, together.after, atol=1e-5, rtol=1e-5)
    assert batches == [1, 1]


def test_weights_are_patched_once_for_inversion_restoration_and_all_batches(restore, model, monkeypatch):
    monkeypatch.setattr(restorer, "free_bytes", lambda model: 0)
    branch = random_branch(model.model.diffusion_model)
    patched = []
    original = comfy.model_patcher.ModelPatcher.patch_weight_to_device

    def counted(self, key, *args, **kwargs):
        patched.append(key)
        return original(self, key, *args, **kwargs)

    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "patch_weight_to_device", counted)
    restore(control=RepControlNetFaces(branch))
    weights = {f"diffusion_model.{name}" for name in branch.weights}
    assert set(patched) >= weights
    assert all(patched.count(key) == 1 for key in weights)


def test_weak_faces_are_restored_again_up_a_ladder_and_the_best_is_kept(restore):
    """Two faces before (0.1, 0.2), after (0.3, 0.7); the weak one then 0.5, 0.4, 0.55."""
    central = face(20, 20, 24, 24, 1), face(100, 60, 24, 24, 2)
    script = [0.1, 0.2, 0.3, 0.7, 0.5, 0.4, 0.55]
    settings = replace(SETTINGS, identity_strength=1.0, retry_below=0.6, max_retries=3)
    analysis = ScriptedAnalysis(script)
    first, second = placed_cast(p1=central[0], p11=central[1]).members
    people = Cast((first, replace(second, identity=first.identity)), Extent(WIDTH, HEIGHT))
    result = restore(faces=found(central), people=people, settings=settings, face_analysis=analysis)
    assert analysis.likeness == []
    assert "FaceSim 0.100 -> 0.550 (best of 4)" in result.report
    assert "FaceSim 0.200 -> 0.700, inversion residual" in result.report
    stopped = ScriptedAnalysis([0.1, 0.2, 0.3, 0.7, 0.65])
    result = restore(faces=found(central), people=people, settings=settings, face_analysis=stopped)
    assert "FaceSim 0.100 -> 0.650 (best of 2)" in result.report


def test_the_ladder_climbs():
    rungs = LADDER
    assert rungs[0].identity_factor == rungs[0].style_factor == 1 and rungs[0].noise_strength == 0
    for lower, upper in zip(rungs[:-1], rungs[1:], strict=True):
        assert upper.identity_factor >= lower.identity_factor
        assert upper.style_factor <= lower.style_factor
        assert upper.noise_strength >= lower.noise_strength
    assert len({(r.identity_factor, r.style_factor, r.noise_strength) for r in rungs[:5]}) == 5


def test_face_tokens_act_in_the_crop_of_their_own_face_only():
    regions = torch.zeros(2, 16, 16)
    regions[0, :8] = 1
    regions[1, :, :8] = 1
    people = cast(member(1), member(2), member(3))
    acting = CastInCrops(
        tokens=torch.zeros(3, 4, 8),
        cast=people,
        strength=0.5,
        members=torch.tensor([2, 0]),
        regions=regions,
    )
    weights = acting.weights(Extent(4, 2))
    assert weights.shape == (2, 3, 2, 4)
    assert torch.equal(weights[0, 2], torch.tensor([[0.5] * 4, [0.0] * 4]))
    assert torch.equal(weights[1, 0], torch.tensor([[0.5, 0.5, 0.0, 0.0]] * 2))
    assert not weights[0, :2].any() and not weights[1, 1:].any()


def test_each_consumer_reads_its_own_mask(model, vae, adapter):
    """The identity acts in one mask, fusion regenerates in another; what is pasted does not matter to either."""
    prompts = {"positive": conditioning(1), "negative": conditioning(2)}
    who = {"cast": placed_cast(p1=LEFT), "adapter": adapter}
    run = FaceRestorer(model=model, vae=vae, settings=SETTINGS, **prompts, **who)
    (face,) = crop_faces(pictures(), found((LEFT,)), CROP, matches=[[Match(0, "")]])
    empty = torch.zeros_like(face.paste_mask)

    def restored(restorer, **masks):
        (result,) = restorer.restore([replace(face, **masks)])
        return result.crop

    plain = restored(run)
    assert torch.equal(restored(run, paste_mask=empty), plain)
    nobody = restored(replace(run, settings=replace(SETTINGS, identity_strength=0.0)))
    torch.testing.assert_close(restored(run, identity_mask=empty), nobody, atol=1e-5, rtol=1e-5)
    assert float((nobody - plain).abs().max()) > 1e-3
    replayed = vae.decode(vae.encode(face.crop[None]))[0].clamp(0, 1)
    torch.testing.assert_close(restored(run, fusion_mask=empty), replayed, atol=1e-3, rtol=1e-3)
    assert float((replayed - plain).abs().max()) > 1e-2


class Stop(Exception):
    pass


@pytest.mark.parametrize("phase", [0, 1])
@pytest.mark.parametrize("error", [Stop, torch.OutOfMemoryError])
def test_a_stopped_run_frees_its_cache_and_the_next_one_is_right(restore, model, monkeypatch, phase, error):
    expected, caches = restore(), []

    class Watched(sampling.FeatureCache):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            caches.append(self)

    monkeypatch.setattr(sampling, "FeatureCache", Watched)
    made = []

    def make_callback(patched, steps):
        made.append(steps)

        def callback(step, x0, x, total):
            if len(made) == phase + 1 and step == 1:
                assert caches[0].num_bytes > 0
                raise error("stop")

        return callback

    control = RepControlNetFaces(random_branch(model.model.diffusion_model))
    with pytest.raises(error):
        restore(make_callback=make_callback, control=control)
    assert len(made) == phase + 1
    assert [cache.num_bytes for cache in caches] == [0]
    assert torch.equal(restore().images, expected.images)
    assert caches[1].num_bytes == 0


def test_the_native_size_follows_the_architecture(model):
    assert family_of(model).native_size_px(model) == 512
    sdxl = tiny_sdxl()
    assert family_of(sdxl).native_size_px(sdxl) == 1024


def test_sdxl_restores_too(restore):
    sdxl = tiny_sdxl()
    result = restore(model=sdxl, people=None, settings=replace(SETTINGS, steps=1))
    assert "2 of 2 faces restored" in result.report


def test_an_ordinary_controlnet_sees_each_faces_own_drawing(restore, vae):
    control = ControlNetFaces(tiny_controlnet(), vae)
    result = restore(control=control)
    moved = restore(faces=found((LEFT, face(100, 60, 30, 36, 7))), control=control)
    torch.testing.assert_close(result.after[0], moved.after[0], atol=1e-5, rtol=1e-5)
    assert float((result.after[1] - moved.after[1]).abs().max()) > 1e-3
    off = restore(control=ControlNetFaces(tiny_controlnet(), vae, strength=0.0))
    assert torch.equal(off.after, restore().after)


@pytest.mark.parametrize("where", [IdentityIn.CONTROLNET, IdentityIn.BOTH])
def test_identities_act_inside_the_controlnet_of_their_own_face(restore, vae, where):
    settings = replace(SETTINGS, identity_in=where)
    options = dict(control=ControlNetFaces(tiny_controlnet(), vae), adapter=tiny_adapter(), settings=settings)
    together = restore(**options).after
    for number, alone in enumerate((LEFT, RIGHT)):
        result = restore(faces=found((alone,)), people=placed_cast(**{f"p{number + 1}": alone}), **options)
        assert float((result.after[0] - together[number]).abs().max()) <= 1e-4
    other = restore(people=placed_cast(p1=LEFT, p3=RIGHT), **options).after
    torch.testing.assert_close(other[0], together[0], atol=1e-5, rtol=1e-5)
    assert float((other[1] - together[1]).abs().max()) > 1e-4


def test_identities_need_a_controlnet_to_act_in(restore, model):
    settings = replace(SETTINGS, identity_in=IdentityIn.CONTROLNET)
    for control in (None, RepControlNetFaces(random_branch(model.model.diffusion_model))):
        with pytest.raises(InvalidInputError, match="identity_in is controlnet, but no ControlNet is connected"):
            restore(settings=settings, control=control)


def test_off_means_no_fusion(restore):
    off = FusionSettings(style_source=StyleSource.OFF, attention_strength=0, latent_strength=0)
    settings = replace(SETTINGS, fusion=off)
    assert float((restore(settings=settings).after - restore().after).abs().max()) > 1e-2
