"""Restore Faces from end to end on every family of transformers: faces, autoencoder, model and paste."""

from dataclasses import replace

import comfy.model_management
import comfy.sample
import pytest
import torch
from comfy_extras.nodes_model_patch import QwenImageDiffsynthControlnet
from fpga.fpga_core.errors import InvalidInputError, PatchConflictError, UnsupportedModeError
from fpga.fpga_core.patching.restoration.checks import family_of
from fpga.fpga_core.patching.restoration.controls import RepControlNetFaces, choose_control
from fpga.fpga_core.patching.restoration.faces import restore_faces
from fpga.fpga_core.patching.restoration.restorer import FaceRestorer
from fpga.fpga_core.restoration.feature_cache import CacheMode
from fpga.fpga_core.restoration.settings import CropSettings, InversionSettings, RestoreSettings
from random_branches import random_branch
from tiny_faces import face, found, pictures, placed_cast, tiny_vae, tiny_video_vae
from tiny_flow_controlnets import NETWORKS, tiny_flow_controlnet, tiny_model_patch
from tiny_identities import tiny_adapter
from tiny_models import tiny_model
from tiny_transformers import TINY

CROP = CropSettings(size_px=64, size_limit_px=50, is_upright=False)
SETTINGS = RestoreSettings(steps=2, scheduler="simple", crop=CROP, inversion=InversionSettings(repetitions=0), cfg=3.0)
LEFT, RIGHT, LARGE = face(20, 20, 24, 30, 1), face(100, 60, 30, 36, 2), face(60, 10, 60, 80)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module", params=TINY)
def family(request):
    return TINY[request.param]


@pytest.fixture(scope="module")
def parts(family):
    with torch.inference_mode(False), torch.no_grad():
        vae = tiny_video_vae() if len(family.latent) > 1 else tiny_vae(latent_channels=family.latent[0])
    return {"model": family.model(), "vae": vae}


@pytest.fixture
def restore(family, parts):
    def run(faces=None, **options):
        faces = found((LEFT, RIGHT)) if faces is None else faces
        prompts = {"positive": family.prompt(1), "negative": family.prompt(2)}
        return restore_faces(pictures(), faces, FaceRestorer(**{**parts, "settings": SETTINGS, **prompts, **options}))

    return run


@pytest.mark.parametrize("mode", [CacheMode.FULL, CacheMode.STATISTICS])
def test_all_faces_at_once_are_the_faces_one_by_one_and_nothing_else_changes(restore, mode):
    settings = replace(SETTINGS, inversion=InversionSettings(repetitions=0, mode=mode))
    together = restore(found((LEFT, LARGE, RIGHT)), settings=settings)
    assert together.report.startswith("2 of 3 faces restored; 2 under 50 px")
    assert together.report.endswith("background: maximum difference 0 outside the masks")
    assert torch.equal(together.images[together.masks == 0], pictures()[together.masks == 0])
    for number, alone in enumerate((LEFT, RIGHT)):
        after = restore(found((alone,)), settings=settings).after
        assert float((after[0] - together.after[number]).abs().max()) <= 1e-4
        assert float((together.after - together.before)[number].abs().max()) > 1e-2


def test_a_stopped_run_leaves_the_model_as_it_was(restore, parts):
    expected = restore().images

    def make_callback(model, steps):
        def stop(step, x0, x, total):
            raise comfy.model_management.InterruptProcessingException

        return stop

    with pytest.raises(comfy.model_management.InterruptProcessingException):
        restore(make_callback=make_callback)
    assert not parts["model"].model_options["transformer_options"] and not parts["model"].patches
    assert torch.equal(restore().images, expected)


@pytest.mark.parametrize("family", ["Z-Image"], indirect=True)
class TestIdentities:
    def test_a_cast_alone_says_whose_face_is_whose_and_the_report_that_no_identity_acts(self, restore):
        stranger = face(60, 90, 20, 24, 9)
        faces = found((LEFT, stranger, RIGHT))
        result = restore(faces, cast=placed_cast(p1=LEFT, p2=RIGHT))
        lines = result.report.splitlines()
        assert lines[1].startswith("picture 1, face 1, 30 px: person 1 (by place")
        assert lines[2] == "picture 1, face 2, 24 px: left alone, nobody in the cast matches it"
        assert "there are no identity adapters for Z-Image and Lumina 2" in result.report
        assert torch.equal(result.after, restore().after)

    def test_a_control_of_another_model_is_refused_by_name(self, restore, parts):
        for patch in (tiny_model_patch("Qwen-Image"), parts["model"]):
            control = choose_control(None, patch, vae=parts["vae"], strength=1.0)
            with pytest.raises(UnsupportedModeError, match="and the model NextDiT. Z-Image has its Fun ControlNet"):
                restore(control=control)

    def test_an_adapter_and_a_repcontrolnet_are_refused_by_name(self, restore):
        with pytest.raises(UnsupportedModeError, match="disconnect the adapter: .* family Z-Image and Lumina 2"):
            restore(adapter=tiny_adapter(), cast=placed_cast(p1=LEFT))
        control = RepControlNetFaces(random_branch(tiny_model().model.diffusion_model))
        with pytest.raises(UnsupportedModeError, match="disconnect the RepControlNet"):
            restore(control=control)


@pytest.mark.parametrize("family", ["FLUX.2"], indirect=True)
def test_crops_are_whole_latent_pixels(restore):
    settings = replace(SETTINGS, crop=replace(CROP, size_px=72))
    with pytest.raises(InvalidInputError, match="set crop_size_px to a multiple of 16: it is 72"):
        restore(settings=settings)


@pytest.mark.parametrize("family", ["FLUX.1 dev"], indirect=True)
def test_cfg_beside_embedded_guidance_is_warned_of(restore, caplog):
    restore()
    assert "set cfg to 1" in caplog.text
    caplog.clear()
    restore(settings=replace(SETTINGS, cfg=1.0))
    assert "cfg" not in caplog.text


CONTROLS = [(name, name, tiny_flow_controlnet) for name in NETWORKS]
CONTROLS += [(name, name, tiny_model_patch) for name in ("Z-Image", "Qwen-Image")]


@pytest.mark.parametrize(("family", "name", "make"), CONTROLS, indirect=["family"])
def test_a_control_sees_each_faces_own_drawing(restore, parts, name, make):
    """Also that of Qwen-Image, whose autoencoder would take two drawings for a video."""
    network, before = make(name), dict(parts["model"].model_options["transformer_options"])
    control = choose_control(None, network, vae=parts["vae"], strength=1.0)
    together = restore(control=control).after
    assert parts["model"].model_options["transformer_options"] == before
    for number, alone in enumerate((LEFT, RIGHT)):
        after = restore(found((alone,)), control=control).after[0]
        assert float((after - together[number]).abs().max()) <= 1e-4
    moved = restore(found((LEFT, face(100, 60, 30, 36, 7))), control=control).after
    torch.testing.assert_close(moved[0], together[0], atol=1e-5, rtol=1e-5)
    assert float((moved[1] - together[1]).abs().max()) > 1e-3
    off = choose_control(None, network, vae=parts["vae"], strength=0.0)
    assert torch.equal(restore(control=off).after, restore().after)


@pytest.mark.parametrize(("family", "name"), [("Z-Image",) * 2, ("Qwen-Image",) * 2], indirect=["family"])
def test_a_model_patch_acts_as_from_the_hosts_own_node(family, parts, name):
    patch, hint = tiny_model_patch(name), torch.rand(1, 64, 64, 3)
    (expected,) = QwenImageDiffsynthControlnet().diffsynth_controlnet(parts["model"], patch, parts["vae"], hint, 0.7)
    control = choose_control(None, patch, vae=parts["vae"], strength=0.7)
    latent, prompts = torch.zeros(1, *family.latent, 8, 8), (family.prompt(1), family.prompt(2))
    noise = torch.randn(latent.shape, generator=torch.Generator().manual_seed(7))
    ours, theirs, without = (
        comfy.sample.sample(model, noise, 1, 3.0, "euler", "simple", *prompts, latent, seed=1)
        for model in (control.follow(parts["model"], hint), expected, parts["model"])
    )
    assert torch.equal(ours, theirs) and not torch.equal(ours, without)


@pytest.mark.parametrize("family", ["Z-Image"], indirect=True)
@pytest.mark.parametrize(
    "patch",
    [
        lambda model, held: model.set_model_double_block_patch(held),
        lambda model, held: model.set_model_patch_replace(held, "dit", "double_block", 0),
    ],
)
def test_patches_that_hold_a_mask_of_the_whole_picture_are_refused_by_name(restore, parts, patch):
    class RegionalPrompts:
        def __init__(self):
            self.region_masks = [torch.ones(1, 8, 8)]

        def __call__(self, inputs, extra=None):
            return inputs

    patched = parts["model"].clone()
    patch(patched, RegionalPrompts())
    with pytest.raises(PatchConflictError, match="RegionalPrompts"):
        restore(model=patched)


def test_native_sizes(family, parts):
    size = family_of(parts["model"]).native_size_px(parts["model"])
    assert size == (1328 if family is TINY["Qwen-Image"] else 1024)


@pytest.mark.parametrize("family", ["FLUX.1 dev"], indirect=True)
def test_memory_is_planned_before_the_run(restore, parts):
    """A face of 1024 pixels in 2 steps: 4 layers of 64x64 tokens, 64 channels wide, in halves, and the latents."""
    settings = replace(SETTINGS, crop=replace(CROP, size_px=1024), inversion=InversionSettings(budget_mib=6))
    decided, remarks = FaceRestorer(**parts, positive=[], negative=[], settings=settings).decided()
    maps, latents = 2 * 4 * 64 * 64 * 64 * 2, 3 * 16 * 128 * 128 * 4
    assert decided.settings.inversion.mode is CacheMode.STATISTICS
    assert f"complete maps need {(maps + latents) // 2**20} MiB a face" in remarks[0]
