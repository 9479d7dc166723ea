"""Pictures inside a page: small JPEGs as data addresses, with boxes drawn over them by the browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from PIL import Image

from prelabel.assemble import Assembly
from prelabel.config import EncordSection
from prelabel.errors import PrelabelError
from prelabel.kept import kept_record
from prelabel.preview import read_pictures

WIDTH_PX = 480
JPEG_QUALITY = 72

Place = tuple[str, int]
"""Key of the task, and frame."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A box over a picture.

    Attributes:
        x: of its left side, in fractions of the picture's width.
        y: of its top, in fractions of the picture's height.
        width: in fractions of the picture's width.
        height: in fractions of the picture's height.
        style: CSS class.
        colour: `#RRGGBB`; empty: that of the CSS class.
        text: what it is, told where a pointer rests on it and by screen readers.
    """

    x: float
    y: float
    width: float
    height: float
    style: str
    colour: str
    text: str


@dataclass(frozen=True, slots=True)
class Picture:
    """A frame with boxes.

    Attributes:
        source: address of the JPEG; empty: the frame cannot be had, the boxes can.
        width: pixels of the frame.
        height: pixels of the frame.
        caption: which frame it is.
        description: in words, for those who do not see it.
        outlines: boxes.
    """

    source: str
    width: int
    height: int
    caption: str
    description: str
    outlines: tuple[Outline, ...]


def read_sources(assembly: Assembly, places: Sequence[Place]) -> Mapping[Place, str]:
    """Returns JPEGs as data addresses, of those frames whose media are still on this machine.

    A picture that cannot be had is left out: a page without it says as much.
    """
    if isinstance(assembly.config.source, EncordSection):
        return {}
    wanted = {key: [frame for _, frame in group] for key, group in groupby(sorted(places), key=lambda place: place[0])}
    return {place: source for key, frames in wanted.items() for place, source in _of_task(assembly, key, frames)}


def _of_task(assembly: Assembly, key: str, frames: Sequence[int]) -> Iterator[tuple[Place, str]]:
    try:
        task = next((task for task in assembly.source.tasks() if task.key == key), None)
        record = None if task is None else kept_record(assembly, task)
        if task is None or record is None:
            return
        for frame, picture in read_pictures(assembly, task, record, np.array(sorted(set(frames)), np.int64)):
            yield (key, frame), _as_address(picture)
    except PrelabelError:
        return


def _as_address(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((WIDTH_PX, WIDTH_PX))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
