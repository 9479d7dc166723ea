"""What a run has found, to look at: an annotated clip, and a contact sheet."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import NEXT_STEP, label_stored, load_detections
from prelabel.data.frames import FrameBatch, Media
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError, ReadError, did_you_mean
from prelabel.media.open import open_media
from prelabel.plugins.protocols import Task
from prelabel.reports.drawing import Pen, draw_caption
from prelabel.reports.sheet import compose_sheet, fit_cells
from prelabel.runtime.files import atomic_write
from prelabel.runtime.progress import NullProgress, Progress
from prelabel.store.class_probabilities import ClassRecord
from prelabel.store.raw_detections import RawRecord

MAX_SIDE_PX = 1280
NUM_SHEET_FRAMES = 9
BATCH_SIZE = 4
MAX_GAP_FRAMES = 300
TICKS = 90_000
"""A second in a clip's time stamps: the usual frame rates are whole numbers of them."""
BT709 = 1
"""ITU-T H.273: what players take a video of this size for; marked, so that none has to guess."""


def write_clip(video: LabelledVideo, batches: Iterable[FrameBatch], path: Path) -> None:
    """Writes the frames with their boxes as an H.264 mp4, at the times at which they are shown.

    Frames that a stride has left out are there without boxes, and say so.

    Args:
        video: a video, not pictures.
        batches: frames to show, rising; taken one batch at a time.
        path: of the mp4; replaced at once when all is written.

    Raises:
        ReadError: if there is no frame to show.
    """
    import av

    if video.info.average_fps <= 0:
        raise ValueError(f"{video.title}: got pictures, expected a video: write a sheet")
    width, height = _clip_size(video.info.width, video.info.height)
    rate = Fraction(video.info.average_fps).limit_denominator(1001)
    start_seconds: float | None = None
    with atomic_write(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        coder = stream.codec_context
        coder.time_base = Fraction(1, TICKS)
        coder.colorspace = coder.color_primaries = coder.color_trc = coder.color_range = BT709
        for shown in _paint(video, batches, Pen(video.label_map, width, height)):
            start_seconds = shown.seconds if start_seconds is None else start_seconds
            draw_caption(shown.picture, shown.caption)
            frame = av.VideoFrame.from_image(shown.picture)
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = round((shown.seconds - start_seconds) * TICKS), coder.time_base
            frame.duration = round(TICKS / rate)
            container.mux(stream.encode(frame))
        if start_seconds is None:
            raise ReadError(f"{video.title}: there is no frame to show")
        container.mux(stream.encode(None))


def write_sheet(
    video: LabelledVideo, batches: Iterable[FrameBatch], path: Path, num_frames: int = NUM_SHEET_FRAMES
) -> None:
    """Writes a JPEG of frames with their boxes, spread evenly over those that the detector has seen.

    Args:
        video: of any kind.
        batches: with the frames of `sheet_frames` among theirs, rising; taken one batch at a time.
        path: of the JPEG; replaced at once when all is written.
        num_frames: pictures on the sheet, at most.

    Raises:
        ReadError: if there is no frame to show.
    """
    wanted = sheet_frames(video, num_frames)
    cells = fit_cells(video.info.width, video.info.height, max(len(wanted), 1))
    pen = Pen(video.label_map, cells.width, cells.height)
    shown = [(frame.caption, frame.picture) for frame in _paint(video, _only(batches, wanted), pen)]
    if not shown:
        raise ReadError(f"{video.title}: there is no frame to show")
    with atomic_write(path) as unfinished:
        compose_sheet(video, shown, cells).save(unfinished, "JPEG", quality=90, subsampling=0)


def sheet_frames(video: LabelledVideo, num_frames: int = NUM_SHEET_FRAMES) -> NDArray[np.int64]:
    """Returns the frames on a contact sheet, int64 (M,), rising: the middles of equal parts of what was looked at."""
    seen = video.detections.inferred_frames
    if not len(seen):
        seen = np.arange(video.info.num_frames)
    return spread_evenly(seen, num_frames)


def spread_evenly(seen: NDArray[np.int64], num_frames: int) -> NDArray[np.int64]:
    """Returns the middles of so many equal parts of frames, int64 (M,); all of them where they are fewer."""
    num = min(num_frames, len(seen))
    return seen[(2 * np.arange(num) + 1) * len(seen) // (2 * max(num, 1))]


def preview_run(
    assembly: Assembly,
    titles: Sequence[str],
    kind: Literal["clip", "sheet", "both"],
    progress: Progress | None = None,
) -> list[Path]:
    """Draws what an earlier run found: `NAME.preview.mp4` and `NAME.preview.jpg` in the output.

    A clip goes from the first to the last frame that the detector has seen. Pictures get a sheet whatever the kind.

    Args:
        assembly: of the run's config.
        titles: tasks to draw; none: all that have detections.
        kind: clip, sheet or both.
        progress: told of every task that is drawn.

    Returns:
        The files written.

    Raises:
        ConfigError: a title is not one of the source's, or has no detections yet.
        TaskError: the media cannot be had, or are not those that the detections are of.
    """
    written = []
    for task, record in _chosen(assembly, titles):
        video = label_stored(assembly.detection, task.title, record)
        (progress or NullProgress()).event("drawing", task=task.title, task_id=task.key)
        with task.open() as media:
            reading = _Reading(assembly, task.title, media, record)
            if kind != "sheet" and media.kind == "video":
                clip = assembly.names.path(task.key, task.title, ".preview.mp4")
                write_clip(video, reading.batches(_span(record)), clip)
                written.append(clip)
            if kind != "clip" or media.kind == "images":
                sheet = assembly.names.path(task.key, task.title, ".preview.jpg")
                write_sheet(video, reading.batches(sheet_frames(video)), sheet)
                written.append(sheet)
    return written


def read_pictures(
    assembly: Assembly, task: Task, record: RawRecord | ClassRecord, frame_indices: NDArray[np.int64]
) -> Iterator[tuple[int, Image.Image]]:
    """Yields frames of a task's media, each with its number, in order.

    Args:
        assembly: of the config.
        task: whose media.
        record: what a run found in them.
        frame_indices: int64 (M,), rising.

    Raises:
        TaskError: the media cannot be had, or are not those that the record is of.
    """
    with task.open() as media:
        reading = _Reading(assembly, task.title, media, record)
        for wanted in _parts_to_read(frame_indices):
            for batch in reading.batches(wanted):
                pictures = map(Image.fromarray, batch.data.cpu().numpy())
                yield from zip(batch.frame_indices.tolist(), pictures, strict=True)


def _parts_to_read(frame_indices: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Returns frames that are near each other together: to open anew costs less than to decode what is between."""
    return [
        part
        for part in np.split(frame_indices, np.flatnonzero(np.diff(frame_indices) > MAX_GAP_FRAMES) + 1)
        if len(part)
    ]


@dataclass(frozen=True, slots=True)
class _Shown:
    """A frame with its boxes."""

    seconds: float
    caption: str
    picture: Image.Image


def _paint(video: LabelledVideo, batches: Iterable[FrameBatch], pen: Pen) -> Iterator[_Shown]:
    """Yields the frames in the size of the pen's pictures; pictures of other proportions are fitted into it."""
    found = video.detections
    for batch in batches:
        frames = batch.data.cpu().numpy()
        for row, index in enumerate(batch.frame_indices.tolist()):
            height, width = frames[row].shape[:2]
            pen_here = pen.fitted(width, height)
            size = (pen_here.width, pen_here.height)
            picture = Image.fromarray(frames[row]).resize(size, Image.Resampling.BILINEAR)
            here = slice(*np.searchsorted(found.frame_index, [index, index + 1]).tolist())
            scale = np.array(size) / (width, height)
            columns = (found.xyxy[here] * np.tile(scale, 2), found.confidence[here], found.class_id[here])
            pen_here.draw(picture, *columns, found.track_id[here], geometry=found.geometry[here], scale=scale)
            seconds = float(batch.pts_seconds[row])
            yield _Shown(seconds, _caption(video, index, seconds), picture)


def _caption(video: LabelledVideo, frame_index: int, seconds: float) -> str:
    seen = video.detections.inferred_frames
    place = int(np.searchsorted(seen, frame_index))
    skipped = len(seen) > 0 and (place == len(seen) or seen[place] != frame_index)
    time = f"  {int(seconds) // 60}:{seconds % 60:05.2f}" if video.info.average_fps > 0 else ""
    return f"frame {frame_index}{time}" + ("  not looked at" if skipped else "")


def _only(batches: Iterable[FrameBatch], wanted: NDArray[np.int64]) -> Iterator[FrameBatch]:
    for batch in batches:
        keep = np.flatnonzero(np.isin(batch.frame_indices, wanted))
        if len(keep):
            yield FrameBatch(batch.data[keep], batch.frame_indices[keep], batch.pts_seconds[keep])


def _clip_size(width: int, height: int) -> tuple[int, int]:
    """Returns a size of even sides, as 4:2:0 needs them.

    >>> _clip_size(1920, 1080), _clip_size(97, 65)
    ((1280, 720), (96, 64))
    """
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


def _span(record: RawRecord) -> NDArray[np.int64]:
    seen = record.detections.inferred_frames
    return np.arange(seen[0], seen[-1] + 1) if len(seen) else seen


def _chosen(assembly: Assembly, titles: Sequence[str]) -> Iterator[tuple[Task, RawRecord]]:
    tasks = list(assembly.source.tasks())
    known = {task.title for task in tasks}
    for title in titles:
        if title not in known:
            raise ConfigError(f"task {title!r}: is not, or no longer, at the source: {did_you_mean(title, known)}")
    num = 0
    for task in tasks:
        record = load_detections(assembly, task) if not titles or task.title in titles else None
        if record is not None:
            num += 1
            yield task, record
        elif task.title in titles:
            raise ConfigError(f"task {task.title!r}: has no detections in {assembly.output} yet: {NEXT_STEP}")
    if not num:
        raise ConfigError(f"{assembly.output}: holds no detections of the source's tasks yet: {NEXT_STEP}")


@dataclass(frozen=True, slots=True)
class _Reading:
    """A task's media, read as the run read them."""

    assembly: Assembly
    title: str
    media: Media
    record: RawRecord | ClassRecord

    def batches(self, frame_indices: NDArray[np.int64]) -> Iterator[FrameBatch]:
        section = self.assembly.config.reader
        with open_media(self.media, section, self.assembly.folder) as opened:
            reader = opened.reader
            if reader.info != self.record.info:
                raise ReadError(f"{self.title}: has changed since the detector looked at it: {NEXT_STEP}")
            try:
                yield from reader.batches(frame_indices, BATCH_SIZE)
            except ReadError:
                if self.record.partial is None:  # else the run has said what is missing
                    raise
