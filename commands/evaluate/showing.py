"""What an evaluation leaves behind: a table, its figures as JSON, and contact sheets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

from ...fpga_core.errors import InvalidInputError
from ...fpga_core.evaluation.scores import LOWER_IS_BETTER, MEASURES, NEEDS, as_figure
from ...fpga_core.evaluation.table import Spread, markdown, paired
from ...fpga_core.faces.labels import drawable
from ...fpga_core.packages import OPENCV, importing
from .cases import Case, read
from .measuring import Measured

TABLE, FIGURES, SHEET = "table.md", "scores.json", "sheet_{}.jpg"
DISTANCE = "FID (CLIP)"
CASES_A_SHEET = 30
CELL_PX, TEXT_PX, MARGIN_PX = 256, 15, 8
JPEG_QUALITY = 90
INK, PAPER, BEST = (35, 35, 35), (250, 250, 250), (0, 114, 178)


def table_of(measured: Measured, against: str) -> str:
    """Returns the Markdown table, and below it what was not measured."""
    renamed = {name: f"{name} (low)" if name in LOWER_IS_BETTER else name for name in measured.names}
    rows = {
        method: [{renamed[name]: value for name, value in picture.items()} for picture in pictures]
        for method, pictures in measured.rows.items()
    }
    distances = [lambda name: {f"{DISTANCE} (low)": f"{measured.distances[name]:.3f}"}] if measured.distances else []
    others = [method for method in rows if method != against]
    references = dict.fromkeys(others, against)
    text = markdown(rows, *distances, references=references, compared=list(renamed.values()))
    return "\n\n".join([text, *not_measured(measured)]) + "\n"


def not_measured(measured: Measured) -> list[str]:
    """Returns a sentence about the scores that no picture has."""
    left_out = [f"{name} (needs {NEEDS[name]})" for name in MEASURES if name not in measured.names]
    left_out += [] if measured.distances else [f"{DISTANCE} (needs a CLIP-Vision, and real pictures)"]
    return [f"Not measured: {'; '.join(left_out)}."] if left_out else []


def figures_of(measured: Measured, cases: Sequence[Case], against: str) -> dict[str, Any]:
    """Returns everything that was measured, for JSON. What is not known is null."""
    methods: dict[str, Any] = {}
    for method, pictures in measured.rows.items():
        values = {name: [row[name] for row in pictures if not math.isnan(row[name])] for name in measured.names}
        methods[method] = {name: {**as_json(Spread.of(of)), "pictures": len(of)} for name, of in values.items()}
        if method != against:
            for name in measured.names:
                methods[method][name]["paired"] = as_json(paired(measured.rows, method, against, measure=name))
        if measured.distances:
            methods[method][DISTANCE] = {"mean": measured.distances[method]}
    pictures = [
        {
            "case": case.name,
            "method": method,
            "file": str(case.pictures[method]),
            "scores": {name: known(value) for name, value in measured.rows[method][place].items()},
        }
        for place, case in enumerate(cases)
        for method in case.pictures
    ]
    return {"against": against, "cases": len(cases), "methods": methods, "pictures": pictures}


def as_json(spread: Spread) -> dict[str, Any]:
    return {"mean": known(spread.mean), "error": known(spread.error)}


def known(value: float) -> float | None:
    return None if math.isnan(value) else value


def write(folder: Path, measured: Measured, cases: Sequence[Case], *, against: str) -> list[Path]:
    """Writes the table, the figures and the contact sheets, and returns the files."""
    files = {
        TABLE: table_of(measured, against).encode(),
        FIGURES: json.dumps(figures_of(measured, cases, against), indent=1, ensure_ascii=False).encode(),
    }
    files |= {SHEET.format(number): as_jpeg(sheet) for number, sheet in enumerate(sheets(measured, cases), 1)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InvalidInputError(f"name an --output that can be written: '{folder}' cannot ({error})") from error
    return [folder / name for name in files]


def as_jpeg(sheet: Image.Image) -> bytes:
    """Encodes with OpenCV."""
    with importing(OPENCV):
        import cv2
    _, encoded = cv2.imencode(".jpg", np.asarray(sheet)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    return encoded.tobytes()


def sheets(measured: Measured, cases: Sequence[Case]) -> Iterator[Image.Image]:
    """Draws the pictures: a row for each case, a column for each method, and the scores under each picture.

    The best score of a case is blue.
    """
    for start in range(0, len(cases), CASES_A_SHEET):
        yield sheet_of(measured, cases[start : start + CASES_A_SHEET], start)


def sheet_of(measured: Measured, cases: Sequence[Case], start: int) -> Image.Image:
    methods = list(measured.rows)
    line = TEXT_PX + 4
    row_px = CELL_PX + line * (len(measured.names) + 1) + MARGIN_PX
    width = MARGIN_PX + (CELL_PX + MARGIN_PX) * len(methods)
    sheet = Image.new("RGB", (width, 2 * MARGIN_PX + line + row_px * len(cases)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = cast(ImageFont.FreeTypeFont, ImageFont.load_default(TEXT_PX))
    for column, method in enumerate(methods):
        x = MARGIN_PX + column * (CELL_PX + MARGIN_PX)
        draw.text((x, MARGIN_PX), fitting(method, font), fill=INK, font=font)
        for place, case in enumerate(cases):
            y = 2 * MARGIN_PX + line + place * row_px
            if column == 0:
                draw.text((x, y), fitting(f"{start + place + 1}. {case.name}", font), fill=INK, font=font)
            sheet.paste(thumbnail(case.pictures[method]), (x, y + line))
            scores = {m: measured.rows[m][start + place] for m in methods}
            for number, name in enumerate(measured.names, 1):
                at = (x, y + CELL_PX + line * number)
                color = BEST if is_best(name, method, scores) else INK
                draw.text(at, f"{name} {as_figure(scores[method][name])}", fill=color, font=font)
    return sheet


def is_best(name: str, method: str, scores: Mapping[str, Mapping[str, float]]) -> bool:
    """Whether a method's score is the best of a case, and better than another's."""
    values = [row[name] for row in scores.values() if not math.isnan(row[name])]
    best = (min if name in LOWER_IS_BETTER else max)(values, default=math.nan)
    return scores[method][name] == best and len(set(values)) > 1


def thumbnail(file: Path) -> Image.Image:
    """Returns a picture in the middle of a cell, as large as fits."""
    picture = Image.fromarray((read(file) * 255).round().byte().numpy())
    picture = ImageOps.contain(picture, (CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
    cell = Image.new("RGB", (CELL_PX, CELL_PX), (225, 225, 225))
    cell.paste(picture, ((CELL_PX - picture.width) // 2, (CELL_PX - picture.height) // 2))
    return cell


def fitting(text: str, font: ImageFont.FreeTypeFont) -> str:
    """Returns a text in letters that the font has, cut to the width of a cell."""
    shown = drawable(text, font)
    if font.getlength(shown) <= CELL_PX:
        return shown
    while shown and font.getlength(f"{shown}...") > CELL_PX:
        shown = shown[:-1]
    return f"{shown}..."
