"""Grey videos with labels in known colours, and what their previews show."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import av
import numpy as np
import torch

from prelabel.data.frames import FrameBatch, VideoInfo
from prelabel.data.label_map import LabelledVideo, LabelMap, build_label_map
from prelabel.data.ontology import Ontology
from tests.builders import video_detections

GREY, RED, BLUE = (128, 128, 128), (200, 20, 20), (20, 40, 200)


def label_map(*names: str, colours: Sequence[str] = ("#C81414", "#1428C8")) -> LabelMap:
    structure = Ontology.from_classes(names or ("thing", "other")).structure
    objects = [{**entry, "color": colour} for entry, colour in zip(structure["objects"], colours, strict=False)]
    ontology = Ontology.from_structure({"objects": objects}, "Colours")
    return build_label_map([entry["name"] for entry in objects], ontology, {})


def labelled(
    rows: Sequence[tuple] = (), *, width=320, height=240, num_frames=6, fps=25.0, inferred=None, **more
) -> LabelledVideo:
    info = VideoInfo(width=width, height=height, num_frames=num_frames, average_fps=fps, **more)
    found = video_detections(rows, list(range(num_frames)) if inferred is None else inferred)
    return LabelledVideo("clip.mp4", info, found, label_map())


def grey_batches(video: LabelledVideo, size: int = 2, seconds: Sequence[float] = ()) -> Iterator[FrameBatch]:
    info = video.info
    pts_seconds = np.array(seconds or np.arange(info.num_frames) / 25)
    for start in range(0, info.num_frames, size):
        indices = np.arange(start, min(start + size, info.num_frames))
        width, height = info.sizes(indices)[0].tolist()
        data = torch.full((len(indices), height, width, 3), GREY[0], dtype=torch.uint8)
        yield FrameBatch(data, indices, pts_seconds[indices])


def decode(path: Path) -> list[np.ndarray]:
    with av.open(path) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


def is_near(pixel: np.ndarray, colour: tuple[int, int, int], tolerance: int = 60) -> bool:
    return bool((np.abs(pixel.astype(int) - colour) <= tolerance).all())


def grey_extent(sheet: np.ndarray) -> tuple[int, int, int, int]:
    """Returns where the only grey image is on a sheet: x1, y1, x2, y2."""
    # The head's muted text is of another grey, a bluish one.
    grey = (np.abs(sheet.astype(int) - GREY[0]) <= 4).all(axis=2)
    rows, columns = np.flatnonzero(grey.mean(axis=1) > 0.3), np.flatnonzero(grey.mean(axis=0) > 0.3)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1
