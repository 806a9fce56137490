"""Pictures of painted people as files, some of them with a known fault, to build training sets from."""

import csv
import io
import json
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from fpga.fpga_core.faces.face import PictureFaces
from fpga.fpga_core.shapes import Extent
from fpga.laboratory.painter import paint
from fpga.laboratory.reader import PictureReader, answers
from fpga.laboratory.scenes import Scene, Shot, random_scene
from fpga.laboratory.shipped import READER
from PIL import Image

SIDE_PX = 256
SMALLEST_PX = 192
"""What the sets of these pictures ask for; pictures that are too small have 64 to 150 pixels."""

BLUR, SMALL, GROUP, DUPLICATE, DAMAGED, CAPTION = "blur", "small", "group", "duplicate", "damaged", "caption"
FAULTS = (BLUR, SMALL, GROUP, DUPLICATE, DAMAGED, CAPTION)
SHARE = 0.08
"""Of the pictures, for each fault; about half have none."""

SINGLES = (Shot.CLOSE, Shot.HALF, Shot.FULL)


@dataclass(frozen=True)
class Painted:
    """A picture.

    Attributes:
        number: its name is `000123.jpg`.
        fault: one of FAULTS, or empty.
        of: the picture that a duplicate is one of.
    """

    number: int
    fault: str
    of: int | None = None


def plan(seed: int, num: int) -> list[Painted]:
    """Draws which pictures have which fault. A duplicate is one of any picture without a fault before it."""
    rng = np.random.default_rng((seed, 1))
    planned: list[Painted] = []
    good: list[int] = []
    for number in range(num):
        place = int(rng.random() / SHARE)
        fault = FAULTS[place] if place < len(FAULTS) else ""
        fault = "" if fault == DUPLICATE and not good else fault
        planned.append(Painted(number, fault, int(rng.choice(good)) if fault == DUPLICATE else None))
        good += [] if fault else [number]
    return planned


def scene_of(seed: int, picture: Painted) -> Scene:
    rng = np.random.default_rng((seed, 2, picture.number if picture.of is None else picture.of))
    shots = (Shot.DUO, Shot.TRIO) if picture.fault == GROUP else SINGLES
    return random_scene(rng, shots[rng.integers(len(shots))])


def write_pictures(folder: Path, seed: int, num: int, *, processes: int = 1) -> list[Painted]:
    """Writes pictures, the key points of their bodies, and a table `pictures.csv` with captions and their scores."""
    folder.mkdir(parents=True, exist_ok=True)
    planned = plan(seed, num)
    write = partial(write_picture, folder, seed)
    if processes == 1:
        scores = [write(picture) for picture in planned]
    else:
        with multiprocessing.get_context("fork").Pool(processes) as pool:
            scores = pool.map(write, planned, chunksize=50)
    with (folder / "pictures.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["path", "caption", "caption_score", "pose", "licence"])
        for picture, (caption, score) in zip(planned, scores, strict=True):
            name = f"{picture.number:06}"
            table.writerow([f"{name}.jpg", caption, score, f"{name}.pose.json", "CC0"])
    return planned


def write_picture(folder: Path, seed: int, picture: Painted) -> tuple[str, float | str]:
    """Writes one, and returns its caption and how well that fits; empty for groups, which the reader cannot read."""
    rng = np.random.default_rng((seed, 3, picture.number))
    scene = scene_of(seed, picture)
    painted = paint(scene, SIDE_PX)
    name = folder / f"{picture.number:06}"
    name.with_suffix(".jpg").write_bytes(damaged(encoded(painted, picture.fault, rng), picture.fault, rng))
    faces = scene.faces(Extent(SIDE_PX, SIDE_PX))
    name.with_suffix(".pose.json").write_text(json.dumps(pose_of(faces, with_faces=False)))
    if picture.fault == GROUP:
        return scene.caption, ""
    told = scene if picture.fault != CAPTION else random_scene(rng, SINGLES[rng.integers(3)])
    return told.caption, score(painted, told)


def pose_of(faces: PictureFaces, *, with_faces: bool) -> dict:
    """Returns the exact key points in OpenPose's format."""
    people = [{"pose_keypoints_2d": body.keypoints.ravel().tolist()} for body in faces.bodies]
    for person, face in zip(people, faces.faces if with_faces else (), strict=False):
        person["face_keypoints_2d"] = np.column_stack([face.landmarks, np.ones(68)]).ravel().tolist()
    return {"canvas_width": faces.extent.width, "canvas_height": faces.extent.height, "people": people}


def score(painted: np.ndarray, told: Scene) -> float:
    """Returns how much of a caption the world's reader sees in a picture, from 0 to 1."""
    _, ((*seen,),) = reader().read(cv2.resize(painted, (128, 128), interpolation=cv2.INTER_AREA)[None])
    return float(np.mean([said == saw for said, saw in zip(answers(told), seen, strict=True)]))


def reader(opened: list[PictureReader] = []) -> PictureReader:  # noqa: B006 - one for each process
    if not opened:
        opened.append(PictureReader(READER))
    return opened[0]


def encoded(painted: np.ndarray, fault: str, rng: np.random.Generator) -> bytes:
    quality = int(rng.integers(80, 96))
    if fault == BLUR:
        painted = cv2.GaussianBlur(painted, (0, 0), SIDE_PX * rng.uniform(0.008, 0.03))
    if fault == SMALL:
        side = int(rng.integers(64, 151))
        painted = cv2.resize(painted, (side, side), interpolation=cv2.INTER_AREA)
    if fault == DUPLICATE:
        quality = int(rng.integers(50, 91))
        border = int(rng.integers(0, 3))
        painted = painted[border : SIDE_PX - border, border : SIDE_PX - border]
        side = round(SIDE_PX * rng.uniform(0.8, 1.3))
        painted = cv2.resize(painted, (side, side), interpolation=cv2.INTER_AREA)
        painted = np.clip(painted * rng.uniform(0.95, 1.05) + rng.uniform(-5, 5), 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(painted).save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def damaged(content: bytes, fault: str, rng: np.random.Generator) -> bytes:
    if fault != DAMAGED:
        return content
    ways = (
        content[: int(len(content) * rng.uniform(0.1, 0.9))],
        rng.bytes(len(content)),
        b"",
        b"<!DOCTYPE html><title>404</title>",
    )
    return ways[rng.integers(4)]
