"""The published token formulas as plain float64 functions over state dicts, to compare the pack with.

Source: ip_adapter/resampler.py and ip_adapter/ip_adapter_faceid.py of tencent-ailab/IP-Adapter, read and written again.
"""

import math

import torch


def layer_norm(x, weights, name):
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / torch.sqrt((centred**2).mean(-1, keepdim=True) + 1e-5)
    return scaled * weights[f"{name}.weight"].double() + weights[f"{name}.bias"].double()


def linear(x, weights, name):
    y = x @ weights[f"{name}.weight"].double().T
    return y + weights[f"{name}.bias"].double() if f"{name}.bias" in weights else y


def gelu(x):
    return x / 2 * (1 + torch.erf(x / math.sqrt(2)))


def face_projection(weights, embedding):
    """(batch, 512) -> (batch, tokens, width)."""
    x = linear(gelu(linear(embedding.double(), weights, "proj.0")), weights, "proj.2")
    return layer_norm(x.reshape(len(x), -1, len(weights["norm.weight"])), weights, "norm")


def perceiver(weights, prefix, latents, features):
    """(batch, tokens, dim) and (batch, features, width) -> (batch, tokens, out), head by head."""
    features = linear(features.double(), weights, f"{prefix}proj_in")
    for layer in range(4):
        attention, feed_forward = f"{prefix}layers.{layer}.0", f"{prefix}layers.{layer}.1"
        image = layer_norm(features, weights, f"{attention}.norm1")
        query = layer_norm(latents, weights, f"{attention}.norm2")
        q = linear(query, weights, f"{attention}.to_q")
        k, v = linear(torch.cat([image, query], 1), weights, f"{attention}.to_kv").split(q.shape[-1], -1)
        heads = []
        for start in range(0, q.shape[-1], 64):
            part = slice(start, start + 64)
            scores = q[..., part] @ k[..., part].transpose(1, 2) / math.sqrt(64)
            heads.append(torch.softmax(scores, -1) @ v[..., part])
        latents = linear(torch.cat(heads, -1), weights, f"{attention}.to_out") + latents
        inner = gelu(linear(layer_norm(latents, weights, f"{feed_forward}.0"), weights, f"{feed_forward}.1"))
        latents = linear(inner, weights, f"{feed_forward}.3") + latents
    return layer_norm(linear(latents, weights, f"{prefix}proj_out"), weights, f"{prefix}norm_out")


def face_plus(weights, embedding, features, shortcut, scale=1.0):
    x = face_projection(weights, embedding)
    r = perceiver(weights, "perceiver_resampler.", x, features)
    return x + scale * r if shortcut else r


def feature_resampler(weights, features):
    latents = weights["latents"].double().expand(len(features), -1, -1)
    return perceiver(weights, "", latents, features)


def relative_error(found, expected):
    return ((found.double() - expected.double()).norm() / expected.double().norm()).item()
