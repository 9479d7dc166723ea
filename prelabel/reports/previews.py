"""Draws previews of an earlier run's labels: an annotated video (a clip) and a contact sheet for each task."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import labelled_video, load_detections
from prelabel.assembly.stored_detector import NEXT_STEP, stored_entries
from prelabel.data.detections import Detections
from prelabel.data.frames import FrameBatch
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError, ReadError, did_you_mean
from prelabel.export.export import read_frames
from prelabel.plugins.protocols import Task
from prelabel.reports.drawing import DARK, LIGHT, FrameAnnotator, draw_caption, draw_label, find_font, fit_text
from prelabel.reports.render import counted, media_facts
from prelabel.runtime.files import atomic_write
from prelabel.runtime.progress import NullProgress, Progress
from prelabel.store.raw_detections import RawRecord

MAX_WIDTH, MAX_HEIGHT = 1920, 1500
MIN_WIDTH = 480
MAX_ENLARGEMENT = 3.0
GAP = 12
TITLE_PX, TEXT_PX = 26, 17
CAPTION_PX = TEXT_PX + GAP // 2
MUTED = (150, 156, 166)


def fit_grid(width: int, height: int, num: int) -> tuple[int, int, int]:
    """Returns columns, cell width and cell height of the grid that shows the images as large as possible.

    Args:
        width: of each image.
        height: of each image.
        num: number of images.

    >>> fit_grid(1920, 1080, 9)
    (3, 624, 351)
    """

    def scale(columns: int) -> float:
        rows = math.ceil(num / columns)
        horizontal = (MAX_WIDTH - (columns + 1) * GAP) / columns / width
        vertical = (MAX_HEIGHT - rows * (GAP + 2 * TEXT_PX)) / rows / height
        return min(horizontal, vertical, MAX_ENLARGEMENT)

    # Of equally good grids, this takes the one with the fewest empty cells in its last row, then the widest one.
    columns = max(range(1, num + 1), key=lambda n: (round(scale(n), 3), -(-num % n), n))
    return columns, max(1, round(width * scale(columns))), max(1, round(height * scale(columns)))


def compose_sheet(
    video: LabelledVideo, shown: Sequence[tuple[str, Image.Image]], grid: tuple[int, int, int]
) -> Image.Image:
    """Returns the contact sheet.

    Args:
        video: the video or images that the head describes.
        shown: captions and images; no image is larger than a cell.
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
    """Returns an image of the title, the facts, and a label for each ontology object that occurs.

    The most frequent object comes first.
    """
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
        if x > GAP and x + label.width > width - GAP:  # the label does not fit into this line
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


MAX_SIDE_PX = 1280
NUM_SHEET_FRAMES = 9
TICKS_PER_SECOND = 90_000
"""The time base of a clip, in which a frame lasts a whole number of ticks at the usual frame rates."""
BT709 = 1
"""The ITU-T H.273 code of BT.709, which players assume for a video of this size. The file says so explicitly."""


def preview_run(
    assembly: Assembly,
    titles: Sequence[str],
    kind: Literal["clip", "sheet", "both"],
    progress: Progress | None = None,
) -> list[Path]:
    """Writes `NAME.preview.mp4` and `NAME.preview.jpg` to the output folder, and returns the files.

    A clip goes from the first to the last frame that the detector has seen. Images get a sheet for every kind.

    Args:
        assembly: of the run's config.
        titles: of the tasks to draw; empty for all tasks that have detections.
        kind: clip, sheet or both.
        progress: gets an event for each task.

    Raises:
        ConfigError: no task of the source has this title, it has no detections yet, or its media are gone.
        TaskError: the media cannot be fetched or read, or have changed since the run.
    """
    written = []
    for task, record in _chosen_tasks(assembly, titles):
        video = labelled_video(assembly, task, task.title)
        (progress or NullProgress()).event("drawing", task=task.title, task_id=task.key)
        with task.open() as media:
            if kind != "sheet" and media.kind == "video":
                seen = record.detections.inferred_frames
                span = np.arange(seen[0], seen[-1] + 1) if len(seen) else seen
                written.append(assembly.store.path(task, ".preview.mp4"))
                write_clip(video, read_frames(assembly, task, media, record, span), written[-1])
            if kind != "clip" or media.kind == "images":
                frames = sheet_frames(video)
                written.append(assembly.store.path(task, ".preview.jpg"))
                write_sheet(video, read_frames(assembly, task, media, record, frames), written[-1])
    return written


def write_clip(video: LabelledVideo, batches: Iterable[FrameBatch], path: Path) -> None:
    """Writes an H.264 mp4 of the frames with their labels.

    Each frame appears at the same time as in the video. Frames that a stride has left out have no labels, and their
    caption says so.

    Args:
        video: a video, not images.
        batches: frames to show, in order; read one batch at a time.
        path: of the mp4; replaced once the new file is complete.

    Raises:
        ReadError: there is no frame to show.
    """
    import av

    if video.info.average_fps <= 0:
        raise ValueError(f"{video.title}: got images, expected a video: write a sheet")
    width, height = _clip_size(video.info.width, video.info.height)
    rate = Fraction(video.info.average_fps).limit_denominator(1001)
    start_seconds: float | None = None
    with atomic_write(path) as unfinished, av.open(str(unfinished), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": "23", "preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        coder = stream.codec_context
        coder.time_base = Fraction(1, TICKS_PER_SECOND)
        coder.colorspace = coder.color_primaries = coder.color_trc = coder.color_range = BT709
        for seconds, caption, image in _annotated_frames(video, batches, width, height):
            start_seconds = seconds if start_seconds is None else start_seconds
            draw_caption(image, caption)
            frame = av.VideoFrame.from_image(image)
            frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709", dst_color_range="MPEG")
            frame.pts, frame.time_base = round((seconds - start_seconds) * TICKS_PER_SECOND), coder.time_base
            frame.duration = round(TICKS_PER_SECOND / rate)
            container.mux(stream.encode(frame))
        if start_seconds is None:
            raise ReadError(f"{video.title}: there is no frame to show")
        container.mux(stream.encode(None))


def write_sheet(
    video: LabelledVideo, batches: Iterable[FrameBatch], path: Path, num_frames: int = NUM_SHEET_FRAMES
) -> None:
    """Writes a JPEG of some frames with their labels.

    The frames are spread evenly over those that the detector has seen.

    Args:
        video: a video or images.
        batches: at least the frames of `sheet_frames`, in order; read one batch at a time.
        path: of the JPEG; replaced once the new file is complete.
        num_frames: largest number of frames on the sheet.

    Raises:
        ReadError: there is no frame to show.
    """
    wanted = sheet_frames(video, num_frames)
    grid = fit_grid(video.info.width, video.info.height, max(len(wanted), 1))
    frames = _annotated_frames(video, batches, *grid[1:], only=set(wanted.tolist()))
    shown = [(caption, image) for _, caption, image in frames]
    if not shown:
        raise ReadError(f"{video.title}: there is no frame to show")
    with atomic_write(path) as unfinished:
        compose_sheet(video, shown, grid).save(unfinished, "JPEG", quality=90, subsampling=0)


def sheet_frames(video: LabelledVideo, num_frames: int = NUM_SHEET_FRAMES) -> NDArray[np.int64]:
    """Returns the frames on a contact sheet, int64 (M,), rising."""
    seen = video.detections.inferred_frames
    return spread_evenly(seen if len(seen) else np.arange(video.info.num_frames), num_frames)


def spread_evenly(frames: NDArray[np.int64], num: int) -> NDArray[np.int64]:
    """Returns the middle frame of each of `num` equal parts; all frames if there are fewer.

    >>> spread_evenly(np.arange(90), 3).tolist(), spread_evenly(np.arange(2), 3).tolist()
    ([15, 45, 75], [0, 1])
    """
    num = min(num, len(frames))
    return frames[(2 * np.arange(num) + 1) * len(frames) // (2 * max(num, 1))]


def _annotated_frames(
    video: LabelledVideo, batches: Iterable[FrameBatch], width: int, height: int, only: set[int] | None = None
) -> Iterator[tuple[float, str, Image.Image]]:
    """Yields time in seconds, caption and labelled image of each frame, scaled to fit into a size."""
    found = video.detections
    annotator = FrameAnnotator(video.label_map, width, height)
    for batch in batches:
        frames = batch.array
        for frame, index, seconds in zip(frames, batch.frame_indices.tolist(), batch.pts_seconds.tolist(), strict=True):
            if only is None or index in only:
                rows = found.rows_on(index)
                columns = (found.xyxy[rows], found.confidence[rows], found.class_id[rows], found.geometry[rows])
                image = annotator.annotate(frame, Detections(*columns), found.track_id[rows])
                yield seconds, _caption(video, index, seconds), image


def _caption(video: LabelledVideo, frame_index: int, seconds: float) -> str:
    seen = video.detections.inferred_frames
    skipped = len(seen) > 0 and not np.isin(frame_index, seen)
    time = f"  {int(seconds) // 60}:{seconds % 60:05.2f}" if video.info.average_fps > 0 else ""
    return f"frame {frame_index}{time}" + ("  not inferred" if skipped else "")


def _clip_size(width: int, height: int) -> tuple[int, int]:
    """Returns the size of a clip; its sides are even, as 4:2:0 chroma needs them.

    >>> _clip_size(1920, 1080), _clip_size(97, 65)
    ((1280, 720), (96, 64))
    """
    scale = min(1.0, MAX_SIDE_PX / max(width, height))
    return max(2, int(width * scale) // 2 * 2), max(2, int(height * scale) // 2 * 2)


def _chosen_tasks(assembly: Assembly, titles: Sequence[str]) -> Iterator[tuple[Task, RawRecord]]:
    """Yields the tasks with these titles, or all tasks if none is given, with their stored detections.

    Tasks that have moved since the run are included.
    """
    stored = stored_entries(assembly.found_store, assembly.named_source).of_source
    known = {entry.title for entry in stored}
    for title in titles:
        if title not in known:
            hint = did_you_mean(title, known)
            raise ConfigError(f"task {title!r}: has no detections in {assembly.output}: {hint}; or {NEXT_STEP}")
    chosen = [entry for entry in stored if not titles or entry.title in titles]
    tasks = assembly.named_source.find_tasks({entry.key for entry in chosen})
    for entry in chosen:
        record = load_detections(assembly, entry)
        if entry.key in tasks and record is not None:
            yield tasks[entry.key], record
        elif titles:
            raise ConfigError(f"task {entry.title!r}: its media are no longer at the source")
    if not tasks:
        raise ConfigError(f"{assembly.output}: the media of its tasks are no longer at the source")
