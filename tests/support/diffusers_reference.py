"""diffusers and ComfyUI around one set of UNet weights, one call of each: the identities by diffusers' own loader."""

import comfy.samplers
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from diffusers import UNet2DConditionModel
from diffusers_unets import DIFFUSERS_CONFIGS
from torch.nn.functional import normalize

NUM_HEADS = 8  # ComfyUI's SD1.5 family always has 8; diffusers calls the number attention_head_dim


@torch.no_grad()
def same_unet(model: ModelPatcher, architecture: str) -> UNet2DConditionModel:
    """diffusers' UNet of an architecture with the weights of a ComfyUI model."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**DIFFUSERS_CONFIGS[architecture] | {"attention_head_dim": NUM_HEADS}).eval()
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    weights = model.model.diffusion_model.state_dict()
    unet.load_state_dict({name: weights[names[name]] for name in unet.state_dict()}, assign=True)  # no copy
    return unet


@torch.no_grad()
def load_adapter(unet: UNet2DConditionModel, file: dict, shortcut: bool = True) -> None:
    """Loads an adapter file with diffusers' loader, the LoRA inside it included, as its pipelines do."""
    unet._load_ip_adapter_weights([file], low_cpu_mem_usage=False)
    for number, lora in unet._load_ip_adapter_loras([file]).items():
        unet.load_lora_adapter(lora, prefix="unet", adapter_name=f"faceid_{number}")
    for network in unet.encoder_hid_proj.image_projection_layers:
        network.shortcut = shortcut
    unet.eval()


@torch.no_grad()
def diffusers_output(unet, latent, timestep, text, identities, recogniser=None, clip=None, masks=None, null=False):
    """One call of diffusers' UNet.

    Args:
        latent: the UNet's input, (batch, 4, height, width).
        text: (1, tokens, width).
        identities: the pack's `Identity`, one for each mask.
        recogniser, clip: keys of what the adapter reads, or None.
        masks: (identities, height, width) at a size of which the latent's levels are whole fractions, or None.
        null: whether the identities' place is taken by what the negative carries.
    """
    embeds = [normalize(identity.embeddings[recogniser]) for identity in identities] if recogniser else []
    hidden = [(identity.clip_null if null else identity.clip_hidden)[clip] for identity in identities] if clip else []
    (network,) = unet.encoder_hid_proj.image_projection_layers
    batch = len(latent)
    if hidden:
        hidden = torch.stack(hidden, dim=1).expand(batch, -1, -1, -1)  # (batch, identities, tokens, width)
        network.clip_embeds = hidden
    if embeds:
        embeds = torch.stack(embeds, dim=1).expand(batch, -1, -1) * (0 if null else 1)
    return unet(
        latent,
        timestep,
        text.expand(batch, -1, -1),
        added_cond_kwargs={"image_embeds": [embeds if recogniser else hidden]},
        cross_attention_kwargs=None if masks is None else {"ip_adapter_masks": [masks[None]]},
    ).sample


def comfyui_output(model, conditioning, latent, timestep):
    """One call of ComfyUI's UNet inside a sampling run, with everything that the model's nodes put around it."""
    outputs = []

    def once(denoiser, x, sigmas, extra_args, **_):
        sigma = model.get_model_object("model_sampling").sigma(torch.tensor(float(timestep)))
        x = latent * (sigma**2 + 1) ** 0.5  # the inverse of what the host does to the UNet's input
        outputs.append((x - denoiser(x, sigma.repeat(len(x)), **extra_args)) / sigma)
        return x

    guider = comfy.samplers.CFGGuider(model)
    guider.set_conds(conditioning, conditioning)
    guider.set_cfg(1.0)
    guider.sample(latent, torch.zeros_like(latent), comfy.samplers.KSAMPLER(once), torch.tensor([1.0, 0.0]))
    return outputs[0]
