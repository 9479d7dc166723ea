"""Pictures inside a page: small JPEGs as data addresses, with boxes drawn over them by the browser."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import load_detections, load_probabilities
from prelabel.config.base import EncordSection
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints
from prelabel.data.skeletons import Edge
from prelabel.errors import PrelabelError
from prelabel.plugins.protocols import Task
from prelabel.reports.drawing import rings_of, seen_edges
from prelabel.reports.previews import read_pictures

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
        path: of an SVG in pixels of the frame, drawn in the box's place; empty: the box is.
    """

    x: float
    y: float
    width: float
    height: float
    style: str
    colour: str
    text: str
    path: str = ""


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


@dataclass(frozen=True)
class ThumbnailReader:
    """The frames of a config's media, where these are still on this machine.

    Attributes:
        assembly: of the config.
    """

    assembly: Assembly

    def read(self, key: str, frames: Sequence[int]) -> dict[Place, str]:
        """Returns frames of a task as data addresses of JPEGs; none that cannot be had, the page is worth more."""
        task = self._tasks.get(key)
        if task is None or not frames:
            return {}
        try:
            kept = load_detections if self.assembly.config.classifier is None else load_probabilities
            record = kept(self.assembly, task)
            if record is None:
                return {}
            wanted = np.array(sorted(set(frames)), np.int64)
            pictures = read_pictures(self.assembly, task, record, wanted)
            return {(key, frame): _as_address(picture) for frame, picture in pictures}
        except PrelabelError:
            return {}

    @cached_property
    def _tasks(self) -> Mapping[str, Task]:
        if isinstance(self.assembly.config.source, EncordSection):
            return {}
        try:
            return {task.key: task for task in self.assembly.source.tasks()}
        except PrelabelError:  # the folder is gone
            return {}


def svg_path(geometry: Geometry) -> str:
    """Returns the SVG path of the rings around a thing and its holes, or of a dot for each keypoint that is seen.

    >>> svg_path(Keypoints(np.array([[2, 3.0]]), np.array([0.9])))
    'M2.0 3.0h0'
    """
    if isinstance(geometry, Keypoints):
        seen = geometry.xy[geometry.confidence >= SEEN_FROM].round(1).tolist()
        return "".join(f"M{x} {y}h0" for x, y in seen)
    rings = (ring.round(1).tolist() for ring in rings_of(geometry))
    return "".join("M" + "L".join(f"{x} {y}" for x, y in ring) + "Z" for ring in rings)


def svg_edges(pose: Keypoints, edges: Sequence[Edge]) -> str:
    """Returns the SVG path of the edges between points that are seen; empty where there is none.

    >>> svg_edges(Keypoints(np.array([[2, 3.0], [4, 8], [9, 9]]), np.array([0.9, 0.8, 0.1])), [(0, 1), (1, 2)])
    'M2.0 3.0L4.0 8.0'
    """
    points = pose.xy.round(1).tolist()
    return "".join("M{} {}L{} {}".format(*points[one], *points[other]) for one, other in seen_edges(pose, edges))


def _as_address(picture: Image.Image) -> str:
    small = picture.copy()
    small.thumbnail((WIDTH_PX, WIDTH_PX))
    written = io.BytesIO()
    small.save(written, "JPEG", quality=JPEG_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(written.getvalue()).decode()
