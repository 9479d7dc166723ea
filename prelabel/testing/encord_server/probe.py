"""Facts of a media file, found the platform's way: by decoding it with FFmpeg."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path


@dataclass(frozen=True)
class MediaFacts:
    """Facts of a media file. An image has one frame; `width` and `height` are in pixels of the displayed frame."""

    width: int | None = None
    height: int | None = None
    num_frames: int = 1
    fps: float | None = None
    duration_seconds: float | None = None


def probe_video(path: Path) -> MediaFacts:
    """Returns the facts of a video, with its frames counted one by one.

    Frames are decoded, not read from the header: edit lists and damaged tails make the two differ.
    """
    return _probe_video(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _probe_video(path: Path, _modified_ns: int) -> MediaFacts:
    import av

    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        fps = float(stream.average_rate or stream.guessed_rate or 25)
        num_frames, rotation = 0, 0
        for frame in container.decode(stream):
            num_frames += 1
            rotation = frame.rotation
        width, height = stream.width, stream.height
    if rotation % 180:
        width, height = height, width
    return MediaFacts(width, height, num_frames, fps, num_frames / fps)


def probe_image(path: Path) -> MediaFacts:
    from PIL import Image

    with Image.open(path) as image:
        return MediaFacts(*image.size)
