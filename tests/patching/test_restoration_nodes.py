"""The restoration nodes, called in this process as ComfyUI calls them, with their widgets' defaults."""

import comfy.samplers
import folder_paths
import pytest
import torch
from comfy_extras.nodes_custom_sampler import SamplerCustom
from fpga.fpga_core.errors import InvalidInputError
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.nodes.face_crops import PARSERS, CropFaces, LoadFaceParser, PasteFaces
from fpga.nodes.restoration import InvertLatent, RestorationSampler, RestoreFaces
from onnx_pack import build_pack
from onnx_parser import write_network
from random_branches import random_branch
from skimage.data import astronaut
from tiny_controlnets import tiny_controlnet
from tiny_faces import HEIGHT, WIDTH, face, found, pictures, placed_cast, tiny_vae
from tiny_identities import tiny_adapter
from tiny_models import conditioning, tiny_model

LEFT, RIGHT = face(20, 20, 24, 30, 1), face(100, 60, 30, 36, 2)


@pytest.fixture(autouse=True)
def no_gradients():
    """The host runs nodes so."""
    with torch.inference_mode():
        yield


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def vae():
    return tiny_vae()


def call(node, **inputs) -> tuple:
    """A node's outputs; widgets that are not given have the schema's defaults."""
    schema = node.define_schema()
    defaults = {put.id: put.default for put in schema.inputs if getattr(put, "default", None) is not None}
    defaults = {name: getattr(value, "value", value) for name, value in defaults.items()}
    result = node.execute(**{**defaults, **inputs}).result
    assert len(result) == len(schema.outputs)
    return result


def sigmas_of(model, steps: int = 4) -> torch.Tensor:
    return comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "normal", steps)


def custom(model, conds, sampler, sigmas, latent, cfg=1.0):
    return SamplerCustom.execute(model, False, 0, cfg, *conds, sampler, sigmas, latent).result[0]["samples"]


@pytest.mark.parametrize("mode", ["full", "statistics"])
def test_invert_and_restore_in_a_graph_of_ones_own(model, mode):
    conds, sigmas = (conditioning(1), conditioning(2)), sigmas_of(model)
    latent = {"samples": torch.randn(1, 4, 12, 8, generator=torch.Generator().manual_seed(0)), "batch_index": [0]}
    mask = torch.zeros(1, 96, 64)
    mask[:, 32:64, 16:48] = 1
    inverted, inversion, residual = call(
        InvertLatent, model=model, positive=conds[0], latent=latent, sigmas=sigmas, mask=mask, cache_mode=mode
    )
    assert inverted["batch_index"] == [0] and 0 < residual < 1
    (sampler,) = call(RestorationSampler, inversion=inversion, mask=mask)
    restored = custom(model, conds, sampler, sigmas, inverted, cfg=4.0)
    outside = torch.nn.functional.adaptive_avg_pool2d(mask[:, None], (12, 8)) == 0
    outside = outside.expand_as(restored)
    torch.testing.assert_close(restored[outside], latent["samples"][outside], atol=1e-4, rtol=1e-4)
    assert float((restored - latent["samples"]).abs().max()) > 0.05
    off = {"style_source": "off", "attention_strength": 0.0, "latent_strength": 0.0}
    (plain,) = call(RestorationSampler, inversion=inversion, mask=mask, **off)
    euler = comfy.samplers.sampler_object("euler")
    torch.testing.assert_close(
        custom(model, conds, plain, sigmas, inverted),
        custom(model, conds, euler, sigmas, inverted),
        atol=2e-3,
        rtol=1e-3,
    )


def test_the_default_settings_restore_two_people(model, vae):
    image = pictures(2)
    result, before, after, mask, report = call(
        RestoreFaces,
        image=image,
        model=model,
        vae=vae,
        positive=conditioning(1),
        negative=conditioning(2),
        adapter=tiny_adapter(model),
        cast=placed_cast(p1=LEFT, p2=RIGHT),
        faces=found((LEFT, RIGHT), ()),
        repcontrolnet=random_branch(model.model.diffusion_model),
        steps=2,
        crop_size_px=64,
    )
    assert result.shape == image.shape and mask.shape == (2, HEIGHT, WIDTH)
    assert before.shape == after.shape == (2, 64, 64, 3)
    assert torch.equal(result[mask == 0], image[mask == 0]) and mask[0].any() and not mask[1].any()
    assert "2 of 2 faces restored" in report and "maximum difference 0 outside" in report


def test_without_any_hint_of_faces_the_message_says_what_to_connect(model, vae):
    inputs = dict(image=pictures(), model=model, vae=vae, positive=conditioning(1), negative=conditioning(2))
    with pytest.raises(InvalidInputError, match="connect face_analysis, faces, or a mask of each face"):
        call(RestoreFaces, **inputs)
    with pytest.raises(InvalidInputError, match="repcontrolnet and control_net are both connected"):
        branch = random_branch(model.model.diffusion_model)
        call(RestoreFaces, **inputs, repcontrolnet=branch, control_net=tiny_controlnet())


def test_a_drawing_whose_faces_are_masks(model, vae):
    masks = torch.zeros(2, HEIGHT, WIDTH)
    masks[0, 20:50, 20:44] = 1
    masks[1, 60:96, 100:130] = 1
    result, *_, changed, report = call(
        RestoreFaces,
        image=pictures(),
        model=model,
        vae=vae,
        positive=conditioning(1),
        negative=conditioning(2),
        mask=masks,
        control_net=tiny_controlnet(),
        steps=1,
        crop_size_px=64,
    )
    assert "2 of 2 faces restored" in report
    assert torch.equal(result[changed == 0], pictures()[changed == 0])


def test_crops_go_through_another_restorer_and_back():
    """In between stands what a restorer of another kind would do; the background stays as it was."""
    image = pictures(2, channels=4)
    crops, masks, taken, faces = call(CropFaces, image=image, faces=found((LEFT,), (RIGHT,)), crop_size_px=64)
    assert crops.shape == (2, 64, 64, 3) and masks.shape == (2, 64, 64) and len(taken) == 2
    assert crops.movedim(-1, 1)[:1].is_contiguous(), "as GFPGAN needs it, one face at a time"
    assert [entry.extent.width for entry in faces] == [64, 64] and faces[0].faces[0].landmarks.shape == (68, 2)
    result, changed = call(PasteFaces, image=image, face_crops=taken, crops=1 - crops, masks=masks)
    assert torch.equal(result[changed == 0], image[changed == 0]) and changed[0].any() and changed[1].any()
    assert torch.equal(result[..., 3], image[..., 3])


def test_without_a_face_the_parts_pass_a_blank_crop_and_change_nothing():
    image = pictures()
    crops, masks, taken, faces = call(CropFaces, image=image, faces=found(()), crop_size_px=64)
    assert crops.shape == (1, 64, 64, 3) and not crops.any() and not masks.any() and taken == ()
    assert faces[0].faces == ()
    result, changed = call(PasteFaces, image=image, face_crops=taken, crops=crops, masks=masks)
    assert torch.equal(result, image) and not changed.any()


@pytest.mark.filterwarnings("ignore:`estimate` is deprecated")  # in insightface
def test_a_real_detector_finds_the_astronaut(tmp_path):
    build_pack(tmp_path / "small")
    analysis = load_insightface_pack(tmp_path / "small")
    image = torch.from_numpy(astronaut()[:256, 96:352].copy()).float()[None] / 255
    crops, masks, (taken,), _ = call(CropFaces, image=image, face_analysis=analysis, size_limit_px=0.0, crop_size_px=64)
    assert 60 < taken.face.size_px < 160
    shown = (crops[0] * masks[0, ..., None]).sum((0, 1)) / masks[0].sum()
    assert shown[0] > shown[1] > shown[2] and shown[0] > 0.4  # skin


def test_a_parser_is_loaded_from_its_folder(tmp_path, monkeypatch):
    monkeypatch.setitem(folder_paths.folder_names_and_paths, PARSERS, ([str(tmp_path)], {".onnx"}))
    write_network(tmp_path / "net.onnx")
    parser, info = call(LoadFaceParser, name="net.onnx", provider="CPU")
    assert info == "net.onnx on CPUExecutionProvider"
    red = pictures() * 0
    red[..., 0] = 1
    _, masks, _, _ = call(CropFaces, image=red, faces=found((LEFT,)), face_parser=parser, crop_size_px=64)
    _, hulls, _, _ = call(CropFaces, image=red, faces=found((LEFT,)), crop_size_px=64)
    assert float(masks.sum()) > float(hulls.sum()) * 0.95
    first = LoadFaceParser.fingerprint_inputs("net.onnx", "CPU")
    write_network(tmp_path / "net.onnx", side=16)
    assert LoadFaceParser.fingerprint_inputs("net.onnx", "CPU") >= first
