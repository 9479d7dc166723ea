"""Makes the frames of a page: small JPEGs, with outlines that the browser draws over them."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import load_detections, load_probabilities
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints
from prelabel.data.label_map import LabelledVideo
from prelabel.data.skeletons import Edge
from prelabel.errors import PrelabelError
from prelabel.export.export import read_images
from prelabel.plugins.protocols import Task
from prelabel.reports.drawing import geometry_rings

MAX_SIDE_PX = 480
JPEG_QUALITY = 72

FrameKey = tuple[str, int]
"""A task's key and a frame index."""


@dataclass(frozen=True, slots=True)
class Outline:
    """A shape over a thumbnail.

    Attributes:
        path: SVG path data in pixels of the frame.
        style: CSS class.
        text: shown when the pointer is over the shape, and read by screen readers.
        colour: `#RRGGBB`; empty for that of the CSS class.
    """

    path: str
    style: str
    text: str
    colour: str = ""


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A small image of a frame, with outlines.

    Attributes:
        source: URL of the JPEG; empty if the frame cannot be read, and only the outlines are shown.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        caption: which frame it is.
        description: for people who do not see it.
        outlines: of labels.
    """

    source: str
    width: int
    height: int
    caption: str
    description: str
    outlines: tuple[Outline, ...] = ()


@dataclass(frozen=True)
class ThumbnailReader:
    """Reads frames of a config's media as thumbnails; downloads media of the platform again.

    Attributes:
        assembly: of the config.
    """

    assembly: Assembly

    def read(self, key: str, frames: Sequence[int]) -> dict[FrameKey, bytes]:
        """Returns the JPEGs of a task's frames; empty if the frames cannot be read.

        This is no error, because the page is useful without images.
        """
        if not frames:
            return {}
        load = load_probabilities if self.assembly.config.agent_kind == "classification" else load_detections
        wanted = np.array(sorted(set(frames)), np.int64)
        jpegs = {}
        try:
            task = self._find(key)
            record = None if task is None else load(self.assembly, task)
            if task is None or record is None:
                return {}
            for index, frame in read_images(self.assembly, task, record, wanted):
                image, jpeg = Image.fromarray(frame), io.BytesIO()
                image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX))
                image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
                jpegs[key, index] = jpeg.getvalue()
        except PrelabelError:
            return {}
        return jpegs

    def _find(self, key: str) -> Task | None:
        source = self.assembly.named_source
        if source.keeps_rows:  # its tasks may have moved since the run, so only a search by key finds them
            return source.find_tasks({key}).get(key)
        return self._tasks_here.get(key)

    @cached_property
    def _tasks_here(self) -> Mapping[str, Task]:
        """The tasks of a source of files by key, listed only once."""
        return {task.key: task for task in self.assembly.source.tasks()}


def detection_outlines(video: LabelledVideo, frame_index: int) -> Iterator[Outline]:
    """Yields the outlines of a frame's labels: the geometry, or the box of a label without geometry."""
    found = video.detections
    for row in range(len(found))[found.rows_on(frame_index)]:
        category, geometry = video.label_map.objects[found.class_id[row]], found.geometry[row]
        if category is None:
            continue
        track = f" #{found.track_id[row]}" if found.track_id[row] >= 0 else ""
        text = f"{category.name}{track} " + (
            "interpolated" if found.interpolated[row] else f"{found.confidence[row]:.2f}"
        )
        style = "interpolated" if found.interpolated[row] else "found"
        if geometry is None or isinstance(geometry, Keypoints):  # keypoints alone do not show the thing's extent
            yield Outline(svg_box(found.xyxy[row]), style, text, category.color)
        if isinstance(geometry, Keypoints) and (edges := svg_edges(geometry, category.skeleton_edges)):
            yield Outline(edges, style, text, category.color)
        if geometry is not None:
            yield Outline(
                svg_path(geometry), "points" if isinstance(geometry, Keypoints) else style, text, category.color
            )


def svg_box(xyxy: ArrayLike) -> str:
    """Returns the SVG path of a box, (4,) x1, y1, x2, y2.

    >>> svg_box([2, 3, 5.5, 8])
    'M2.0 3.0H5.5V8.0H2.0Z'
    """
    x1, y1, x2, y2 = np.asarray(xyxy, np.float64).round(2).tolist()
    return f"M{x1} {y1}H{x2}V{y2}H{x1}Z"


def svg_path(geometry: Geometry) -> str:
    """Returns the SVG path of a geometry's rings, or of a dot for each visible keypoint.

    >>> svg_path(Keypoints(np.array([[2, 3.0]]), np.array([0.9])))
    'M2.0 3.0h0'
    """
    if isinstance(geometry, Keypoints):
        visible = geometry.xy[geometry.confidence >= SEEN_FROM].round(1).tolist()
        return "".join(f"M{x} {y}h0" for x, y in visible)
    rings = (ring.round(1).tolist() for ring in geometry_rings(geometry))
    return "".join("M" + "L".join(f"{x} {y}" for x, y in ring) + "Z" for ring in rings)


def svg_edges(pose: Keypoints, edges: Sequence[Edge]) -> str:
    """Returns the SVG path of the edges between visible keypoints.

    >>> svg_edges(Keypoints(np.array([[2, 3.0], [4, 8], [9, 9]]), np.array([0.9, 0.8, 0.1])), [(0, 1), (1, 2)])
    'M2.0 3.0L4.0 8.0'
    """
    points, visible = pose.xy.round(1).tolist(), pose.confidence >= SEEN_FROM
    return "".join("M{} {}L{} {}".format(*points[a], *points[b]) for a, b in edges if visible[a] and visible[b])


def data_url(jpeg: bytes) -> str:
    """Returns a URL that contains the JPEG itself."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode()
