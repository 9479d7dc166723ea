"""A contact sheet: a head with a legend, and a grid of pictures with captions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from prelabel.data.label_map import LabelledVideo
from prelabel.reports.drawing import DARK, LIGHT, find_font, fit_text, parse_colour, text_plate

MAX_WIDTH, MAX_HEIGHT = 1920, 1500
MIN_WIDTH = 480
MAX_ENLARGEMENT = 3.0
GAP = 12
TITLE_PX, TEXT_PX = 26, 17
MUTED = (150, 156, 166)


@dataclass(frozen=True, slots=True)
class Cells:
    """How the grid is laid out.

    Attributes:
        columns: pictures side by side.
        width: pixels of a picture, at most.
        height: pixels of a picture, at most.
    """

    columns: int
    width: int
    height: int


def fit_cells(width: int, height: int, num: int) -> Cells:
    """Returns the grid in which pictures of a size come out largest.

    >>> fit_cells(1920, 1080, 9)
    Cells(columns=3, width=624, height=351)
    """

    def scale(columns: int) -> float:
        rows = math.ceil(num / columns)
        across = (MAX_WIDTH - (columns + 1) * GAP) / columns / width
        down = (MAX_HEIGHT - rows * (GAP + 2 * TEXT_PX)) / rows / height
        return min(across, down, MAX_ENLARGEMENT)

    # Of equals the one without holes in the last row, then the widest.
    columns = max(range(1, num + 1), key=lambda n: (round(scale(n), 3), -(-num % n), n))
    return Cells(columns, max(1, round(width * scale(columns))), max(1, round(height * scale(columns))))


def compose_sheet(video: LabelledVideo, shown: Sequence[tuple[str, Image.Image]], cells: Cells) -> Image.Image:
    """Returns the sheet.

    Args:
        video: what the head tells of.
        shown: captions and pictures no larger than a cell.
        cells: the grid.
    """
    caption_px = TEXT_PX + GAP // 2
    rows = math.ceil(len(shown) / cells.columns)
    width = max(cells.columns * (cells.width + GAP) + GAP, MIN_WIDTH)
    head = _draw_head(video, width)
    sheet = Image.new("RGB", (width, head.height + rows * (cells.height + caption_px + GAP) + GAP), DARK)
    sheet.paste(head, (0, 0))
    canvas = ImageDraw.Draw(sheet)
    for number, (caption, picture) in enumerate(shown):
        row, column = divmod(number, cells.columns)
        x, y = GAP + column * (cells.width + GAP), head.height + row * (cells.height + caption_px + GAP)
        sheet.paste(picture, (x + (cells.width - picture.width) // 2, y + (cells.height - picture.height) // 2))
        canvas.text((x, y + cells.height + GAP // 3), caption, font=find_font(caption, TEXT_PX - 2), fill=MUTED)
    return sheet


def _draw_head(video: LabelledVideo, width: int) -> Image.Image:
    title = fit_text(video.title, "", TITLE_PX, width - 2 * GAP)
    text = fit_text(_describe(video), "", TEXT_PX, width - 2 * GAP)
    top = GAP + TITLE_PX + TEXT_PX + 2 * GAP
    places, bottom = _flow(plates := _legend(video, width - 2 * GAP), width, top)
    head = Image.new("RGB", (width, bottom + GAP), DARK)
    canvas = ImageDraw.Draw(head)
    canvas.text((GAP, GAP), title, font=find_font(title, TITLE_PX), fill=LIGHT)
    canvas.text((GAP, GAP + TITLE_PX + GAP // 2), text, font=find_font(text, TEXT_PX), fill=MUTED)
    for plate, place in zip(plates, places, strict=True):
        head.paste(plate, place)
    return head


def _describe(video: LabelledVideo) -> str:
    info, seen = video.info, len(video.detections.inferred_frames)
    parts = [] if info.frame_sizes else [f"{info.width} x {info.height}"]
    if info.average_fps > 0:
        parts += [f"{info.average_fps:.4g} frames/s", _counted(info.num_frames, "frame", "frames")]
    else:
        parts.append(_counted(info.num_frames, "picture", "pictures"))
    if seen and seen != info.num_frames:
        parts.append(f"{seen:,} looked at")
    parts.append(_counted(len(video.detections), *video.label_map.noun))
    return " · ".join(parts)


def _counted(num: int, one: str, many: str) -> str:
    return f"{num:,} {one if num == 1 else many}"


def _legend(video: LabelledVideo, width: int) -> list[Image.Image]:
    """Returns a plate for each object that was found, the most frequent first."""
    categories = video.label_map.categories
    found = video.label_map.category_index[video.detections.class_id]
    counts = np.bincount(found, minlength=len(categories))
    return [
        text_plate(
            fit_text(categories[index].name, f"  {counts[index]:,}", TEXT_PX, width),
            TEXT_PX,
            parse_colour(categories[index].color),
        )
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
    ]


def _flow(plates: Sequence[Image.Image], width: int, top: int) -> tuple[list[tuple[int, int]], int]:
    """Returns where the plates go, line after line, and where the last line ends, in pixels."""
    places, x, y, bottom = [], GAP, top, top
    for plate in plates:
        if x > GAP and x + plate.width > width - GAP:
            x, y = GAP, bottom + GAP // 2
        places.append((x, y))
        x, bottom = x + plate.width + GAP // 2, y + plate.height
    return places, bottom
