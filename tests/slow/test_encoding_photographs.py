"""Encodes photographs that packages ship as an identity, with insightface and a real pack of ONNX files."""

from importlib.resources import files

import cv2
import pytest
import torch
from fpga.fpga_core.errors import FaceNotFoundError
from fpga.fpga_core.faces.insightface_pack import load_insightface_pack
from fpga.fpga_core.faces.onnx_runtimes import Provider
from fpga.fpga_core.identity.encoding import encode_photos
from onnx_pack import build_pack
from skimage.data import astronaut

pytestmark = pytest.mark.filterwarnings("ignore:`estimate` is deprecated")  # in insightface


@pytest.fixture(scope="module")
def pack(tmp_path_factory):
    return load_insightface_pack(build_pack(tmp_path_factory.mktemp("models") / "small"), Provider.CPU)


@pytest.fixture(scope="module")
def collins() -> torch.Tensor:
    """Returns Eileen Collins's portrait, unchanged and in two variants."""
    straight = torch.from_numpy(astronaut()[:256, 96:352].copy()).float()[None] / 255
    return torch.cat([straight, straight * 0.85, straight.clamp(0.05, 0.9)])


def test_real_photos_give_one_person_and_a_stranger_stands_out(pack, collins):
    group = cv2.imread(str(files("insightface") / "data" / "images" / "t1.jpg"))[..., ::-1]
    stranger = torch.from_numpy(group[200:460, 400:660].copy()).float()[None] / 255
    encoding = encode_photos([collins, stranger], pack, None, drop_outliers=True, name="Eileen")
    assert encoding.outliers == encoding.dropped == (4,)
    assert encoding.identity.num_photos == 3 and list(encoding.identity.embeddings) == [pack.recogniser]
    assert min(encoding.likeness[:3]) > 0.8 > 0.6 > encoding.likeness[3]
    eyes = encoding.crops[0, 95:112, 60:165].mean()  # ArcFace's template at 224: eyes darker than the cheeks below
    assert eyes < encoding.crops[0, 125:140, 60:100].mean()


def test_an_alpha_channel_changes_nothing(pack, collins):
    rgba = torch.cat([collins[:1], torch.zeros(1, 256, 256, 1)], dim=-1)
    with_alpha, without = (encode_photos([images], pack, None) for images in (rgba, collins[:1]))
    assert torch.equal(with_alpha.crops, without.crops)
    assert torch.equal(with_alpha.identity.embeddings[pack.recogniser], without.identity.embeddings[pack.recogniser])


def test_a_landscape_is_told_from_a_portrait(pack, collins):
    landscape = torch.linspace(0, 1, 256)[None, :, None, None].expand(1, 256, 256, 3)
    with pytest.raises(FaceNotFoundError, match="^photo 2 shows no face"):
        encode_photos([collins[:1], landscape], pack, None)
