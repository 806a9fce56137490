"""Training of the ControlNet form on a small real model, compared with what ComfyUI and the pack then compute."""

import comfy.controlnet
import comfy.supported_models
import comfy.utils
import pytest
import torch
from eq1_reference import relative_error
from fpga.fpga_core.checkpoints import read_safetensors
from fpga.fpga_core.identity.adapter_layouts import read_identity_adapter
from fpga.fpga_core.identity.cast import Cast, CastMember
from fpga.fpga_core.identity.identity import Identity
from fpga.fpga_core.identity.regions import Region
from fpga.fpga_core.patching.cast.controlnet import apply_cast_controlnet
from fpga.fpga_core.shapes import Extent
from fpga.fpga_core.training.comfy.attention import attention_options
from fpga.fpga_core.training.comfy.controlnet import ControlNetTraining
from fpga.fpga_core.training.method.curriculum import Curriculum
from fpga.fpga_core.training.method.fusion import MultiModeFusion
from fpga.fpga_core.training.method.identity_network import IdentityRecipe, Projections
from tiny_models import TINY_SDXL_UNET, tiny_model, tiny_sdxl
from training_batches import tiny_batch
from training_runs import RECOGNISER, predicted, sampled_once, seeded, train
from unet_configs import TINY_UNET

DEPTH = TINY_SDXL_UNET["transformer_depth"]
BOTH = Curriculum(MultiModeFusion(0, 0, 1000))


@pytest.fixture
def tiny_family(monkeypatch):
    """ComfyUI's loader recognises ControlNets by their UNet's family, so the tiny one is registered."""

    class Tiny(comfy.supported_models.SD15):
        unet_config = {
            "context_dim": TINY_UNET["context_dim"],
            "model_channels": TINY_UNET["model_channels"],
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
        }
        unet_extra_config = {"num_heads": 8, "num_head_channels": -1}

    class TinyXL(comfy.supported_models.SDXL):
        unet_config = {**comfy.supported_models.SDXL.unet_config, "model_channels": 32, "transformer_depth": DEPTH}
        unet_config |= {"context_dim": 64, "adm_in_channels": 6 * 256 + 16}

    monkeypatch.setattr(comfy.supported_models, "models", [*comfy.supported_models.models, Tiny, TinyXL])


def test_an_untrained_controlnet_adds_nothing_and_copies_the_encoder():
    training = ControlNetTraining.of(tiny_model(), BOTH)
    batch = tiny_batch()
    times = torch.full((2,), 500)
    with torch.no_grad():
        alone = training.unet(batch.latents, times, text=batch.text, options=attention_options(training.unet.layers))
    assert torch.equal(predicted(training, batch), alone)
    copied = training.unet.network.state_dict()
    shared = {name: tensor for name, tensor in training.control_net.state_dict().items() if name in copied}
    assert len(shared) > 100 and all(torch.equal(tensor, copied[name]) for name, tensor in shared.items())


@pytest.mark.parametrize("is_sdxl", [False, True], ids=["sd1", "sdxl"])
@pytest.mark.parametrize("projections", list(Projections))
def test_the_exported_files_give_what_was_trained(tmp_path, tiny_family, projections, is_sdxl):
    """The stock loader reads the ControlNet, and the pack puts the identity into it."""
    batch = tiny_batch(pooled_dim=16 if is_sdxl else 0)
    of_family = tiny_sdxl if is_sdxl else tiny_model
    training = ControlNetTraining.of(of_family(), BOTH, IdentityRecipe(recogniser=RECOGNISER, projections=projections))
    train(training, batch, 3)
    files = training.export(tmp_path, "random numbers")
    assert [file.name for file in files] == ["controlnet.safetensors", "identity_adapter.safetensors"]
    assert read_safetensors(files[0])[1] == {
        "trained_on": "random numbers",
        "conditions": '["skeleton", "landmarks"]',
    }
    control_net = comfy.controlnet.load_controlnet(str(files[0]))
    adapter = read_identity_adapter(*read_safetensors(files[1]), "adapter")
    assert adapter.branch_hash is None
    expected, model = predicted(training, batch), of_family()
    plain = sampled_once(model, batch, 0, lambda *args: args)
    assert relative_error(plain, expected[:1]) > 1e-3
    for row in range(len(batch)):

        def patched(model, positive, negative, row=row):
            image = batch.skeleton[row : row + 1].movedim(1, -1)
            person = Identity("someone", {RECOGNISER: batch.embeddings[row : row + 1]})
            cast = Cast((CastMember(person, Region.from_mask(batch.face_masks[row, 0])),), Extent(128, 128))
            return model, *apply_cast_controlnet(
                positive, negative, control_net, adapter=adapter, cast=cast, image=image
            )

        assert relative_error(sampled_once(model, batch, row, patched), expected[row : row + 1]) < 1e-4


def test_gradients_reach_everything_but_the_base():
    training = ControlNetTraining.of(tiny_model(), BOTH, IdentityRecipe(recogniser=RECOGNISER))
    batch = tiny_batch(8)
    train(training, batch, 2)  # the zero convolutions hide the rest from the first gradient
    training.zero_grad()
    training(batch, 9, seeded())["loss"].backward()
    without = [name for name, parameter in training.named_parameters() if parameter.grad is None]
    still = [name for name, parameter in training.named_parameters() if not without and not parameter.grad.any()]
    assert without == [] and [name for name in still if "null" not in name] == []
    assert all(parameter.grad is None for parameter in training.unet.network.parameters())


def test_clone_face_tuning_compares_the_controlnets_first_layer():
    training = ControlNetTraining.of(tiny_model(), BOTH, IdentityRecipe(recogniser=RECOGNISER))
    parts = training(tiny_batch(), 9, seeded())
    assert parts["l_cfa"] > 0 and parts["cfa_feature_norm"] > 0
    parts["loss"].backward()
    first = training.control_net.input_blocks[1][1].transformer_blocks[0].attn2
    assert first.to_k.weight.grad.any() and first.to_q.weight.grad.any()


def test_checkpointing_changes_memory_alone():
    gradients = []
    for is_checkpointed in (False, True):
        training = ControlNetTraining.of(
            tiny_model(), BOTH, IdentityRecipe(recogniser=RECOGNISER), is_checkpointed=is_checkpointed
        )
        train(training, tiny_batch(), 2)
        training.zero_grad()
        training(tiny_batch(), 9, seeded())["loss"].backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in training.parameters()]))
    assert relative_error(*gradients) < 1e-5


def test_fifty_steps_lower_the_loss():
    training = ControlNetTraining.of(tiny_model(), BOTH, IdentityRecipe(recogniser=RECOGNISER))
    losses = train(training, tiny_batch(), 50, rate=1e-3)
    assert losses[-1] < 0.95 * losses[0]
