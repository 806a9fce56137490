"""`dev.py thumbnails` runs workflows on the small world, and draws the pictures that the template browser shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ..fpga_core.shapes import Extent
from ..laboratory.scenes import Shot
from .client import ComfyClient
from .demo import ARGUMENTS, OUTPUT, Demonstration, enlarged, prompt_of
from .demo_world import GROUP, GROUP_2, POSES, ROWS, WALK, Run, prompts, write_pictures
from .environment import cache_folder
from .launch import ROOT
from .server import ComfyServer
from .stand_ins import PACKS, place_world

SIDE_PX, INSET_PX, RULE_PX = 400, 120, 4
POSE = next(iter(POSES))
RESULT, BEFORE, AFTER = "Save Image", "Faces before", "Faces after"

Pictures = Mapping[str, Image.Image]
"""Title of a node, or name of an input file -> picture."""


def with_photos(*photos: str) -> Callable[[Pictures], Image.Image]:
    """The result, with photos in its lower left corner."""

    def draw(pictures: Pictures) -> Image.Image:
        canvas = square(pictures[RESULT])
        for number, photo in enumerate(photos):
            left = number * (INSET_PX + RULE_PX)
            canvas.paste("white", (left, SIDE_PX - INSET_PX - RULE_PX, left + INSET_PX + RULE_PX, SIDE_PX))
            canvas.paste(square(pictures[photo], INSET_PX), (left, SIDE_PX - INSET_PX))
        return canvas

    return draw


def halves(pictures: Pictures) -> Image.Image:
    """The middle of a face before and after, side by side."""
    canvas, half = Image.new("RGB", (SIDE_PX, SIDE_PX), "white"), SIDE_PX // 2
    for number, title in enumerate((BEFORE, AFTER)):
        face = square(pictures[title]).crop((half // 2, 0, half // 2 + half - RULE_PX // 2, SIDE_PX))
        canvas.paste(face, (number * (half + RULE_PX // 2), 0))
    return canvas


def square(picture: Image.Image, side: int = SIDE_PX) -> Image.Image:
    return picture.convert("RGB").resize((side, side), Image.Resampling.LANCZOS)


@dataclass(frozen=True)
class Thumbnail:
    """A run, and how its thumbnail is drawn from its pictures."""

    run: Run
    draw: Callable[[Pictures], Image.Image]


POSED, CAST, (BROKEN, RESTORED), SWAPPED = ROWS[0].runs[0], ROWS[1].runs[0], ROWS[2].runs, ROWS[3].runs[0]
PHOTOS_OF_THREE = {f"Photo of {name}": {"image": f"{name.lower()}.png"} for name in ("Anna", "Bea", "Carl")}
MASKED = "full_body_masked.png"
THUMBNAILS = {
    "single_identity": Thumbnail(ROWS[0].runs[2], with_photos("anna.png")),
    "identity_controlnet": Thumbnail(ROWS[0].runs[3], with_photos("anna.png", tuple(POSES)[3])),
    "people_in_their_places": Thumbnail(
        Run("multi_identity_cast", {**prompts(GROUP_2), **PHOTOS_OF_THREE, "Pose photo": {"image": "group_2.png"}}, {}),
        with_photos("anna.png", "bea.png", "carl.png"),
    ),
    "restore_stylised": Thumbnail(
        Run(
            "restore_stylised",
            {
                "Positive": {"text": WALK.caption.replace(Shot.FULL.value, Shot.CLOSE.value)},
                "Negative": {"text": ""},
                "Drawing, with the face masked": {"image": MASKED},
                "Photo of Eileen": {"image": "anna.png"},
            },
            {},
        ),
        with_photos("anna.png"),
    ),
    "posed_identity": Thumbnail(POSED, with_photos("anna.png", POSE)),
    "multi_identity_cast": Thumbnail(CAST, with_photos("anna.png", "bea.png", "carl.png")),
    "restore_faces": Thumbnail(RESTORED, halves),
    "face_swap": Thumbnail(SWAPPED, with_photos("carl_half_body.png", "bea.png")),
    "rep_controlnet_pose": Thumbnail(
        Run("rep_controlnet_pose", {**prompts(POSES[POSE]), "Pose photo": {"image": POSE}}, {}), with_photos(POSE)
    ),
    "generate_and_restore": Thumbnail(
        Run(
            "generate_and_restore",
            {
                **prompts(GROUP),
                **PHOTOS_OF_THREE,
                "Pose photo": {"image": "group.png"},
            },
            {},
        ),
        with_photos("anna.png", "bea.png", "carl.png"),
    ),
}
"""Workflow -> its thumbnail.

The world's RepControlNet stands in for every ControlNet. It has no identity without a pose, no ControlNet that carries
one and no bodies as Make Cast draws them, so three thumbnails are made by other workflows that show the same. It has no
other restorer either, so restore_with_codeformer has no thumbnail.
"""


def masked(picture: Image.Image) -> Image.Image:
    """Returns Anna's full-body picture with her face painted over, as ComfyUI's mask editor saves it."""
    (face,) = WALK.faces(Extent(*picture.size)).faces
    alpha = Image.new("L", picture.size, 255)
    ImageDraw.Draw(alpha).ellipse((face.box.x0, face.box.y0, face.box.x1, face.box.y1), fill=0)
    picture = picture.convert("RGB")
    picture.putalpha(alpha)
    return picture


def main() -> None:
    base = cache_folder() / "demo"
    place_world(base)
    inputs, folder = base / "input", OUTPUT / "thumbnails"
    write_pictures(inputs)
    photos = {file.name: Image.open(file) for file in inputs.glob("*.png")}
    with ComfyServer(base, packs=PACKS, arguments=ARGUMENTS) as server:
        demonstration = Demonstration(ComfyClient(server.address))
        broken, _ = demonstration.run(prompt_of(BROKEN), folder)
        full_body = enlarged(broken[RESULT][0])
        full_body.save(inputs / str(BROKEN.kept_as))
        masked(full_body).save(inputs / MASKED)
        for name, thumbnail in THUMBNAILS.items():
            shown, _ = demonstration.run(prompt_of(thumbnail.run), folder)
            pictures = {**photos, **{title: Image.open(paths[0]) for title, paths in shown.items()}}
            thumbnail.draw(pictures).save(ROOT / "workflows" / f"{name}.jpg", quality=88, optimize=True)


if __name__ == "__main__":
    main()
