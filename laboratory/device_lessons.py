"""The lessons, rendered in parallel and kept on the GPU, where reading files would take most of a training's time.

The samples and their order are those of the training set that `train.write_lessons` writes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import comfy.sd
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..commands.train import load_models, plan_of, progress_bar
from ..commands.train_options import parse
from ..fpga_core.shapes import PIXELS_PER_LATENT
from ..fpga_core.training.comfy.encoding import ComfyEncoder
from ..fpga_core.training.comfy.run import train_on
from ..fpga_core.training.data.batch import TrainingBatch
from ..fpga_core.training.data.encodings import content_key
from ..fpga_core.training.data.face_encoding import FaceEncoder
from ..fpga_core.training.engine.loop import Hooks, Outcome
from ..fpga_core.training.engine.processes import start_processes
from .autoencoder import read_autoencoder
from .base import latents_of
from .gallery import Gallery
from .lessons import SOURCE, WorldRecogniser, parts_of
from .loop import DEVICE

ENCODED_AT_ONCE = 500


class DeviceLessons:
    """All lessons, encoded; a `batch.BatchSource` whose batches are already on the GPU.

    Args:
        galleries: the rendered scenes; each is numbered from 0.
        checkpoint: the base, with the autoencoder and the text encoder.
        clip: the same text encoder, as ComfyUI loads it.
        recogniser: embeds the faces.
    """

    def __init__(
        self,
        galleries: Sequence[Gallery],
        checkpoint: Path,
        *,
        clip: comfy.sd.CLIP,
        recogniser: WorldRecogniser,
    ) -> None:
        pictures, skeletons, landmarks = (
            np.concatenate([getattr(gallery, name) for gallery in galleries])
            for name in ("pictures", "skeletons", "landmarks")
        )
        numbered = [(scene, number) for gallery in galleries for number, scene in enumerate(gallery.scenes)]
        with multiprocessing.Pool() as pool:
            parts = pool.starmap(parts_of, numbered, chunksize=50)
        masks, faces = (np.stack(part) for part in zip(*parts, strict=True))
        captions = [scene.caption for scene, _ in numbered]
        steps = range(0, len(pictures), ENCODED_AT_ONCE)
        autoencoder = read_autoencoder(checkpoint)
        self._latents = torch.cat([latents_of(autoencoder, pictures[i : i + ENCODED_AT_ONCE]) for i in steps])
        self._text = torch.cat([encode_captions(clip, captions[i : i + ENCODED_AT_ONCE]) for i in steps]).half()
        self._null_text = encode_captions(clip, [""])
        embeddings = [recogniser.embed(faces[i : i + ENCODED_AT_ONCE]) for i in steps]
        self._embeddings = torch.from_numpy(np.concatenate(embeddings))
        coverage = torch.from_numpy(masks)[:, None].float() / 255
        self._masks = functional.avg_pool2d(coverage, PIXELS_PER_LATENT)
        self._skeletons, self._landmarks = (torch.from_numpy(drawn).movedim(-1, 1) for drawn in (skeletons, landmarks))
        for name, value in list(vars(self).items()):
            setattr(self, name, value.to(DEVICE))
        self.fingerprint = content_key("device lessons", str(checkpoint.stat().st_size), str(len(self)))[:16]

    def __len__(self) -> int:
        return len(self._latents)

    def batch(self, indices: Sequence[int]) -> TrainingBatch:
        """See `BatchSource`."""
        chosen = torch.tensor(list(indices), device=DEVICE)
        return TrainingBatch(
            latents=self._latents[chosen],
            text=self._text[chosen].float(),
            null_text=self._null_text,
            skeleton=self._skeletons[chosen].float() / 255,
            landmarks=self._landmarks[chosen].float() / 255,
            embeddings=self._embeddings[chosen],
            face_masks=self._masks[chosen],
        )


def encode_captions(clip: comfy.sd.CLIP, captions: Sequence[str]) -> Tensor:
    """Returns embedded captions, (num, num_tokens, width) float32, encoded together as the windows of one long text."""
    windows = [clip.tokenize(caption) for caption in captions]
    together = {name: [window for one in windows for window in one[name]] for name in windows[0]}
    encoded = clip.encode_from_tokens(together)[0].float()
    return encoded.reshape(len(captions), -1, encoded.shape[-1]).clone()


def train_on_device(words: Sequence[str], galleries: Sequence[Gallery], recogniser: WorldRecogniser) -> Outcome:
    """Trains as `fpga-portrait train` with these words does, on lessons that are on the GPU already."""
    given = parse(list(words))
    plan, models = plan_of(given), load_models(given)
    accelerator = start_processes(plan.settings.precision, use_cpu=DEVICE.type == "cpu")
    faces = FaceEncoder(None, None, stored_recogniser=recogniser.hash)
    with torch.inference_mode(False), torch.no_grad():
        batches = DeviceLessons(galleries, given.checkpoint, clip=models.clip, recogniser=recogniser)
    show = progress_bar("training", is_shown=True)
    return train_on(
        plan,
        models,
        batches,
        faces=faces,
        decode=ComfyEncoder(models.model, models.clip, models.vae, faces=faces).decode_latents,
        source=SOURCE,
        folder=given.output,
        accelerator=accelerator,
        hooks=Hooks(report=lambda line: show(int(line["iteration"]) + 1, plan.settings.iterations)),
        start=given.start_from,
    )
