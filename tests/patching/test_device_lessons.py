"""The lessons that a GPU keeps are those that the files hold."""

import torch
from fpga.fpga_core.training.comfy.encoding import ComfyEncoder
from fpga.fpga_core.training.data.encoded_set import EncodedSet
from fpga.fpga_core.training.data.encodings import EncodingStore
from fpga.fpga_core.training.data.face_encoding import FaceEncoder
from fpga.fpga_core.training.data.reading import TrainingSet
from fpga.laboratory.device_lessons import DeviceLessons
from fpga.laboratory.gallery import crop_number, gallery
from fpga.laboratory.lessons import WorldRecogniser, lessons, write_set
from fpga.laboratory.shipped import CHECKPOINT, RECOGNISER, load_checkpoint

NUM_SCENES, NUM_CROPS = 6, 3
PARTS = ("latents", "text", "null_text", "skeleton", "landmarks", "embeddings", "face_masks")


def test_lessons_on_the_device_are_those_of_the_files(tmp_path):
    scenes = gallery(tmp_path / "scenes", NUM_SCENES)
    crops = gallery(tmp_path / "crops", NUM_CROPS, scene_of=crop_number)
    write_set(
        tmp_path / "files",
        RECOGNISER,
        lambda recogniser: (
            sample
            for pictures, keys in ((scenes, ""), (crops, "crop"))
            for sample in lessons(pictures, recogniser, keys=keys)
        ),
    )
    model, clip, vae = load_checkpoint()
    recogniser = WorldRecogniser(RECOGNISER)
    data = TrainingSet(tmp_path / "files")
    faces = FaceEncoder(None, None, stored_recogniser=recogniser.hash)
    files = EncodedSet(data, ComfyEncoder(model, clip, vae, faces=faces), EncodingStore(None))
    device = DeviceLessons((scenes, crops), CHECKPOINT, clip=clip, recogniser=recogniser)
    assert len(device) == len(files) == NUM_SCENES + NUM_CROPS
    expected, found = (batches.batch(range(len(batches))) for batches in (files, device))
    for part in PARTS:  # text is kept in half precision
        torch.testing.assert_close(getattr(found, part).cpu(), getattr(expected, part), rtol=1e-3, atol=1e-3)
