"""Eq. 1 with regions written a second time, from the formula: forward hooks on an untouched model's cross attentions.

The pack's attention takes no part. The hooks recognise whose turn it is by the text in the context, and the part of the
picture by the size of the cropped latent, so a test with areas gives each area its own size.
"""

import math
import re
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

NAME = re.compile(r"(input|middle|output)_block[s]?\.(?:(\d+)\.)?1\.transformer_blocks\.(\d+)\.attn2$")


@dataclass
class Carried:
    """What one text carries: tokens (identities, num_tokens, token_dim), weights (identities, height, width)."""

    text: torch.Tensor
    tokens: torch.Tensor
    weights: torch.Tensor
    areas: list[tuple[int, int, int, int]] = field(default_factory=list)  # height, width, top, left
    projections: dict | None = None

    def cropped(self, height, width):
        if (height, width) == tuple(self.weights.shape[-2:]):
            return self.weights
        (area,) = [area for area in self.areas if area[:2] == (height, width)]
        return self.weights[:, area[2] : area[2] + height, area[3] : area[3] + width]


def relative_error(actual, expected):
    return float((actual - expected).norm() / expected.norm())


def carried(text, adapter, people, extent, strength=1.0, null=False, **options):
    """Returns the part of a cast that a text carries, for the reference."""
    make = adapter.null_tokens if null else adapter.tokens
    tokens = torch.cat([make(member.identity) for member in people.members])
    strengths = torch.tensor([strength * member.strength for member in people.members])
    weights = people.rasterise(extent) * strengths[:, None, None]
    return Carried(text[0][0][0], tokens, weights, projections=adapter.projections, **options)


def both(positive, negative, adapter, people, extent, **options):
    return [
        carried(positive, adapter, people, extent, **options),
        carried(negative, adapter, people, extent, null=True, **options),
    ]


def cell_means(weights, height, width):
    """Mean over what each cell of a grid covers, as loops."""
    means = torch.zeros(len(weights), height, width, dtype=torch.float64)
    rows, columns = weights.shape[-2:]
    for y in range(height):
        for x in range(width):
            down = slice(y * rows // height, math.ceil((y + 1) * rows / height))
            across = slice(x * columns // width, math.ceil((x + 1) * columns / width))
            means[:, y, x] = weights[:, down, across].double().mean((1, 2))
    return means


def softmax_attention(q, k, v, num_heads):
    """Plain attention in float64, (queries, dim) on (tokens, dim)."""
    q, k, v = (part.double().unflatten(-1, (num_heads, -1)).transpose(0, 1) for part in (q, k, v))
    scores = q @ k.transpose(1, 2) / math.sqrt(q.shape[-1])
    return (scores.exp() / scores.exp().sum(-1, keepdim=True) @ v).transpose(0, 1).flatten(1)


@contextmanager
def eq1_on(unet, carried, acts=lambda sigma: True, layer_scale=lambda layer, num_layers: 1.0):
    """Adds every text's identities to the cross attentions of an untouched UNet or ControlNet, while inside."""
    attentions = [(NAME.search(name), module) for name, module in unet.named_modules() if NAME.search(name)]
    order = {"input": 0, "middle": 1, "output": 2}
    attentions.sort(key=lambda item: (order[item[0][1]], int(item[0][2] or 0), int(item[0][3])))
    hooks, drawn = [], {}

    def weights_of(entry, latent, grid):
        latent = tuple((latent or entry.weights.shape)[-2:])
        if (id(entry), latent, grid) not in drawn:
            drawn[id(entry), latent, grid] = cell_means(entry.cropped(*latent), *grid).flatten(1)
        return drawn[id(entry), latent, grid]

    def hook_for(layer, slot):
        def hook(module, args, kwargs, output):
            options = kwargs["transformer_options"]
            if "sigmas" in options and not acts(float(options["sigmas"][0])):  # ComfyUI tells a ControlNet nothing
                return output
            x, context = args[0], kwargs["context"]
            grid, latent = tuple(options["activations_shape"][-2:]), options.get("original_shape")
            result = output.clone()
            for b in range(len(x)):
                for entry in carried:
                    if entry.text.shape != context[b].shape or not torch.equal(entry.text.to(context), context[b]):
                        continue
                    q, weights = module.to_q(x[b]), weights_of(entry, latent, grid)
                    for tokens, weight in zip(entry.tokens, weights, strict=True):
                        if entry.projections is None:
                            k, v = module.to_k(tokens.to(x)), module.to_v(tokens.to(x))
                        else:
                            k, v = (tokens.double() @ matrix.double().T for matrix in entry.projections[slot])
                        term = weight[:, None] * softmax_attention(q, k, v, module.heads)
                        term = (term * layer_scale(layer, len(attentions))).to(x)
                        # through the layer itself, which may carry a live branch; its bias is in `output` already
                        result[b] += module.to_out(term) - module.to_out(torch.zeros_like(term))
            return result

        return hook

    try:
        for layer, (name, module) in enumerate(attentions):
            slot = (name[1], int(name[2] or 0), int(name[3]))
            hooks.append(module.register_forward_hook(hook_for(layer, slot), with_kwargs=True))
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def low_rank_on(unet, lora):
    """Adds `up(down(x))` to the output of each linear layer that a LoRA names, while inside; None adds nothing."""
    hooks = [
        unet.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, low_rank=low_rank: output + inputs[0] @ low_rank.down.T @ low_rank.up.T
        )
        for path, low_rank in (lora or {}).items()
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
