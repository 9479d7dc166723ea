"""Generated video scenes with known contents: what the demo shows, its detector learns from and tests measure by."""

from __future__ import annotations

from prelabel.scenes.clips import (
    SceneSpec,
    coco_truth,
    cut_frame_index,
    is_written,
    random_frames,
    render_frames,
    write_clip,
)
from prelabel.scenes.shots import SceneFrame
from prelabel.scenes.sprites import CLASS_NAMES

__all__ = [
    "CLASS_NAMES",
    "SceneFrame",
    "SceneSpec",
    "coco_truth",
    "cut_frame_index",
    "is_written",
    "random_frames",
    "render_frames",
    "write_clip",
]
