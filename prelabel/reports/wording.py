"""Numbers, times and sizes as people write them, on pages and contact sheets."""

from __future__ import annotations

from prelabel.data.frames import VideoInfo


def duration(seconds: float) -> str:
    """Returns a time in words.

    >>> [duration(value) for value in (0.42, 7.3, 75, 4000)]
    ['0.4 s', '7.3 s', '1:15', '1:06:40']
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def counted(num: int, one: str, many: str | None = None) -> str:
    """Returns a number with its noun.

    >>> counted(1, "box", "boxes"), counted(2000, "frame")
    ('1 box', '2,000 frames')
    """
    return f"{num:,} {one if num == 1 else many or one + 's'}"


def file_size(num_bytes: int) -> str:
    """Returns a size in multiples of 1000 bytes.

    >>> [file_size(num) for num in (940, 52_300, 4_180_000)]
    ['1 kB', '52 kB', '4.2 MB']
    """
    return f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e6 else f"{num_bytes / 1e3:.0f} kB"


def media_facts(info: VideoInfo, num_inferred: int, *, seconds: bool = True) -> list[str]:
    """Returns size, length and frames of a task's media.

    >>> media_facts(VideoInfo(1920, 1080, 90, 25.0, 3.6), 45)
    ['1920 x 1080', '3.6 s', '25 frames/s', '90 frames', '45 inferred']
    """
    facts = [] if info.frame_sizes else [f"{info.width} x {info.height}"]
    if info.average_fps > 0:
        facts += [duration(info.duration_seconds)] if seconds else []
        facts += [f"{info.average_fps:.4g} frames/s", counted(info.num_frames, "frame")]
    else:
        facts.append(counted(info.num_frames, "image"))
    if num_inferred and num_inferred != info.num_frames:
        facts.append(f"{num_inferred:,} inferred")
    return facts
