"""Clips of generated scenes: their frames in order, the COCO truth about them, and both as files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from models.scene_art import CLASS_NAMES, SceneFrame, make_shot, render_shot

if TYPE_CHECKING:
    from av.container import OutputContainer
    from av.video.stream import VideoStream


SHUTTER = 0.5  # part of a frame's time that the shutter is open
_BT601, _LIMITED_RANGE = 6, 1  # ITU-T H.273: matrix coefficients; AVCOL_RANGE_MPEG


@dataclass(frozen=True)
class SceneSpec:
    """One clip: its format and the seed of everything in it."""

    width: int = 640
    height: int = 360
    num_frames: int = 150
    fps: float = 25.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.width % 2 or self.height % 2 or min(self.width, self.height) < 64:
            raise ValueError(f"scene size: got {self.width}x{self.height}, expected even sides of 64 px or more")
        if self.num_frames < 2 or self.fps <= 0:
            raise ValueError(f"scene length: got {self.num_frames} frames at {self.fps} fps, expected 2 or more")


def cut_frame_index(spec: SceneSpec) -> int:
    """Return the first frame of the second shot; the hard cut lies near the middle."""
    rng = np.random.default_rng([spec.seed, 0])
    return max(1, int(spec.num_frames * rng.uniform(0.4, 0.6)))


def render_frames(spec: SceneSpec) -> Iterator[SceneFrame]:
    """Yield the clip's frames in order; the same spec gives the same pixels."""
    cut = cut_frame_index(spec)
    for shot_index, frame_indices in enumerate([range(cut), range(cut, spec.num_frames)]):
        rng = np.random.default_rng([spec.seed, 1 + shot_index])
        shot = make_shot(rng, spec.width, spec.height, first_object_id=100 * shot_index)
        for frame_index in frame_indices:
            yield render_shot(shot, frame_index / spec.fps, exposure_seconds=SHUTTER / spec.fps)


def random_frames(rng: np.random.Generator, width: int, height: int, num_frames: int) -> Iterator[SceneFrame]:
    """Yield random moments of one new scene, for training: a new moment costs less than a new scene."""
    shot = make_shot(rng, width, height, first_object_id=0)
    for seconds in rng.uniform(0, 20, num_frames):
        yield render_shot(shot, float(seconds), exposure_seconds=SHUTTER / 25)


def write_clip(spec: SceneSpec, video_path: Path, truth_path: Path, crf: int = 18) -> None:
    """Write the clip as H.264 (yuv420p, BT.601, with B-frames) of x264's quality `crf`, and its truth as COCO JSON."""
    import av

    with av.open(str(video_path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(spec.fps).limit_denominator(1001))
        stream.width, stream.height, stream.pix_fmt = spec.width, spec.height, "yuv420p"
        stream.options = {"crf": str(crf), "preset": "slower", "g": "50", "bf": "2"}
        stream.codec_context.colorspace, stream.codec_context.color_range = _BT601, _LIMITED_RANGE
        truth = coco_truth(spec, video_path.name, _encode(container, stream, render_frames(spec)))
    truth_path.write_text(json.dumps(truth, separators=(",", ":")))


def coco_truth(spec: SceneSpec, video_name: str, frames: Iterable[SceneFrame]) -> dict[str, object]:
    """Return the frames' truth as a COCO dictionary; an image's id is its frame index plus 1."""
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for frame_index, frame in enumerate(frames):
        images.append(
            {
                "id": frame_index + 1,
                "file_name": f"{video_name}/{frame_index:06d}.jpg",
                "frame_index": frame_index,
                "video": video_name,
                "width": spec.width,
                "height": spec.height,
            }
        )
        annotations += frame_annotations(frame, image_id=frame_index + 1, first_id=len(annotations) + 1)
    categories = [{"id": class_id + 1, "name": name} for class_id, name in enumerate(CLASS_NAMES)]
    info = {"description": repr(spec)}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def frame_annotations(frame: SceneFrame, image_id: int, first_id: int) -> list[dict[str, object]]:
    """Return a frame's truth as COCO annotations: `bbox` is x, y, width, height in pixels, categories count from 1."""
    rows = zip(frame.xyxy.tolist(), frame.class_id, frame.object_id, frame.is_crowd, strict=True)
    return [
        {
            "id": first_id + row,
            "image_id": image_id,
            "category_id": int(class_id) + 1,
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": (x2 - x1) * (y2 - y1),
            "iscrowd": int(is_crowd),
            "object_id": int(object_id),
        }
        for row, ((x1, y1, x2, y2), class_id, object_id, is_crowd) in enumerate(rows)
    ]


def _encode(container: OutputContainer, stream: VideoStream, frames: Iterator[SceneFrame]) -> Iterator[SceneFrame]:
    """Hand frames on, each after it went to the encoder; the encoder is empty when they end."""
    import av

    for frame in frames:
        container.mux(stream.encode(av.VideoFrame.from_ndarray(frame.image, format="rgb24")))
        yield frame
    container.mux(stream.encode())
