"""Draws a contact sheet: a head with a legend, and a grid of captioned images."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from prelabel.data.label_map import LabelledVideo
from prelabel.reports.fonts import DARK, LIGHT, draw_label, find_font, fit_text
from prelabel.reports.wording import counted, media_facts

MAX_WIDTH, MAX_HEIGHT = 1920, 1500
MIN_WIDTH = 480
MAX_ENLARGEMENT = 3.0
GAP = 12
TITLE_PX, TEXT_PX = 26, 17
CAPTION_PX = TEXT_PX + GAP // 2
MUTED = (150, 156, 166)


def fit_grid(width: int, height: int, num: int) -> tuple[int, int, int]:
    """Returns columns, cell width and cell height of the grid that shows images of a size largest.

    >>> fit_grid(1920, 1080, 9)
    (3, 624, 351)
    """

    def scale(columns: int) -> float:
        rows = math.ceil(num / columns)
        horizontal = (MAX_WIDTH - (columns + 1) * GAP) / columns / width
        vertical = (MAX_HEIGHT - rows * (GAP + 2 * TEXT_PX)) / rows / height
        return min(horizontal, vertical, MAX_ENLARGEMENT)

    # Of equal grids, the one with the fewest holes in its last row, then the widest.
    columns = max(range(1, num + 1), key=lambda n: (round(scale(n), 3), -(-num % n), n))
    return columns, max(1, round(width * scale(columns))), max(1, round(height * scale(columns)))


def compose_sheet(
    video: LabelledVideo, shown: Sequence[tuple[str, Image.Image]], grid: tuple[int, int, int]
) -> Image.Image:
    """Returns the sheet.

    Args:
        video: what the head describes.
        shown: captions and images; none is larger than a cell.
        grid: columns, cell width and cell height.
    """
    columns, cell_width, cell_height = grid
    rows = math.ceil(len(shown) / columns)
    head = _draw_head(video, max(columns * (cell_width + GAP) + GAP, MIN_WIDTH))
    sheet = Image.new("RGB", (head.width, head.height + rows * (cell_height + CAPTION_PX + GAP) + GAP), DARK)
    sheet.paste(head, (0, 0))
    canvas = ImageDraw.Draw(sheet)
    for number, (caption, image) in enumerate(shown):
        row, column = divmod(number, columns)
        x, y = GAP + column * (cell_width + GAP), head.height + row * (cell_height + CAPTION_PX + GAP)
        sheet.paste(image, (x + (cell_width - image.width) // 2, y + (cell_height - image.height) // 2))
        canvas.text((x, y + cell_height + GAP // 3), caption, font=find_font(caption, TEXT_PX - 2), fill=MUTED)
    return sheet


def _draw_head(video: LabelledVideo, width: int) -> Image.Image:
    """Returns the title, the facts, and a label for each ontology object that occurs, most frequent first."""
    found, categories = video.detections, video.label_map.categories
    counts = np.bincount(video.label_map.category_index[found.class_id], minlength=len(categories))
    labels = [
        draw_label(
            fit_text(categories[index].name, f"  {counts[index]:,}", TEXT_PX, width - 2 * GAP),
            TEXT_PX,
            categories[index].rgb,
        )
        for index in np.argsort(-counts, kind="stable").tolist()
        if counts[index]
    ]
    x, y = GAP, GAP + TITLE_PX + TEXT_PX + 2 * GAP
    bottom, places = y, []
    for label in labels:
        if x > GAP and x + label.width > width - GAP:  # the line is full
            x, y = GAP, bottom + GAP // 2
        places.append((x, y))
        x, bottom = x + label.width + GAP // 2, y + label.height
    head = Image.new("RGB", (width, bottom + GAP), DARK)
    canvas = ImageDraw.Draw(head)
    facts = media_facts(video.info, len(found.inferred_frames), seconds=False)
    text = " · ".join([*facts, counted(len(found), *video.label_map.noun)])
    lines = ((video.title, TITLE_PX, LIGHT, GAP), (text, TEXT_PX, MUTED, GAP + TITLE_PX + GAP // 2))
    for line, size_px, colour, top in lines:
        fitted = fit_text(line, "", size_px, width - 2 * GAP)
        canvas.text((GAP, top), fitted, font=find_font(fitted, size_px), fill=colour)
    for label, place in zip(labels, places, strict=True):
        head.paste(label, place)
    return head
