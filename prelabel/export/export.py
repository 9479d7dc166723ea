"""Exports stored detections in the format of another tool, with the config's current thresholds and classes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import distinct_titles, load_detections, stored_videos
from prelabel.assembly.stored_detector import NEXT_STEP, stored_entries
from prelabel.data.frames import FrameBatch, Media
from prelabel.data.geometry import GeometryKind
from prelabel.data.label_map import LabelledVideo
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, ReadError, TaskError
from prelabel.media.open import FramePolicy, open_frames
from prelabel.plugins.load import installed_names, load_plugin
from prelabel.plugins.protocols import Task
from prelabel.store.labelled import ClassRecord
from prelabel.store.raw_detections import RawRecord


def object_instances(
    video: LabelledVideo, single: NDArray[np.bool_] | None = None
) -> Iterator[tuple[list[int], list[bool]]]:
    """Yields the K rows of each object instance, and whether the object leaves after each of them.

    Rows are in frame order. An object leaves if the next inferred frame has no label of it. Frames that the detector
    has not seen are no gap.

    Args:
        video: with N labels.
        single: bool (N,), labels that become an instance of their own; by default those without a track.
    """
    found = video.detections
    instance = found.instance
    if single is not None:
        instance = np.where(single, len(found) + np.arange(len(found)), instance)
    order = np.argsort(instance, kind="stable")  # rows of one instance stay in frame order
    place = np.searchsorted(found.frames_looked_at, found.frame_index[order])
    is_last = np.diff(instance[order], append=-1) != 0
    leaves = (is_last | (np.diff(place, append=0) > 1)).tolist()
    rows = order.tolist()
    for start, end in pairwise([0, *(np.flatnonzero(is_last) + 1).tolist()]):
        yield rows[start:end], leaves[start:end]


BATCH_SIZE = 4
MAX_GAP_FRAMES = 300
"""The longest gap between wanted frames; over longer ones, opening the video again is faster than decoding on."""


def read_frames(
    assembly: Assembly, task: Task, media: Media, record: RawRecord | ClassRecord, frame_indices: NDArray[np.int64]
) -> Iterator[FrameBatch]:
    """Yields frames of a task's media, read with the same reader settings as in the run.

    Args:
        assembly: of the config.
        task: named in errors.
        media: of the task, open.
        record: the record that a run stored of these media.
        frame_indices: int64 (M,), frames to read, rising.

    Raises:
        ReadError: a frame cannot be read, or the media have changed since the run.
    """
    # The run has already reported what a partial record lacks.
    policy: FramePolicy = "strict" if record.partial is None else "warn"
    for part in np.split(frame_indices, np.flatnonzero(np.diff(frame_indices) > MAX_GAP_FRAMES) + 1):
        with open_frames(media, assembly.config.reader, assembly.folder, policy, title=task.title) as opened:
            if opened.info != record.info:
                raise ReadError(f"{task.title}: has changed since the run read it: {NEXT_STEP}")
            yield from opened.batches(part, BATCH_SIZE)


def read_images(
    assembly: Assembly, task: Task, record: RawRecord | ClassRecord, frame_indices: NDArray[np.int64]
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Yields index and pixels, uint8 (H, W, 3) RGB, of frames of a task's media, as `read_frames` does.

    Raises:
        TaskError: the media cannot be fetched or read, or have changed since the run.
    """
    with task.open() as media:
        for batch in read_frames(assembly, task, media, record, frame_indices):
            yield from zip(batch.frame_indices.tolist(), batch.array, strict=True)


JPEG_QUALITY = 95


@dataclass(frozen=True)
class MediaOfVideos:
    """The media of exported videos.

    Attributes:
        assembly: of the config.
        tasks: of the source, by the title of their exported video.
    """

    assembly: Assembly
    tasks: Mapping[str, Task]

    def read(self, title: str, frame_indices: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Yields index and pixels, uint8 (H, W, 3) RGB, of frames of a video.

        Raises:
            TaskError: the media cannot be fetched or read, or have changed since the run.
        """
        task = self.tasks.get(title)
        record = None if task is None else load_detections(self.assembly, task)
        if task is None or record is None:
            raise TaskError(f"{title}: is no longer at the source: export without --frames")
        return read_images(self.assembly, task, record, frame_indices)


@dataclass(frozen=True)
class Export:
    """The input of an export format.

    A format is a function that takes an `Export` and returns the files and folders to show to the user. The user names
    it in `--format file.py:function`, or installs it as an entry point of the group `prelabel.exports`.

    Attributes:
        target: file or folder to write to.
        videos: the videos one at a time, so that memory does not grow with their number; can be iterated only once.
        ontology: of the project, or made for a folder.
        media: reads frames; None without `--frames`. With it, `videos` contain only the chosen frames.
        reduced: number of labels of which only the box was written, by kind of geometry.
        notes: what else the format could not hold.
    """

    target: Path
    videos: Iterator[LabelledVideo]
    ontology: Ontology
    media: MediaOfVideos | None = None
    reduced: Counter[GeometryKind] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def count_reduced(self, video: LabelledVideo) -> None:
        """Counts the masks, polygons, rotated boxes and poses of a video, if the format holds only their boxes."""
        self.reduced.update(geometry.kind for geometry in video.detections.geometry if geometry is not None)

    def save_frames(self, video: LabelledVideo, paths: Iterable[Path]) -> None:
        """Writes a JPEG of each frame of the video; does nothing without `--frames`.

        Args:
            video: one of `videos`.
            paths: of the JPEGs, one for each of the video's `frames_looked_at`.

        Raises:
            TaskError: the media cannot be fetched or read, or have changed since the run.
        """
        frames = video.detections.frames_looked_at
        if self.media is None or not len(frames):
            return
        path_of = dict(zip(frames.tolist(), paths, strict=True))
        for index, frame in self.media.read(video.title, frames):
            path_of[index].parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(frame).save(path_of[index], "JPEG", quality=JPEG_QUALITY)

    def written_images(self, folder: Path) -> list[Path]:
        """Returns the folder of the images, to show to the user; empty if there are none."""
        return [folder] if self.media is not None and folder.exists() else []


NOUNS: Mapping[GeometryKind, str] = {
    "mask": "masks",
    "polygons": "polygons",
    "rotated_box": "rotated boxes",
    "keypoints": "poses",
}
WITHOUT_IMAGES = ("encord", "label-studio")
"""Formats that write no images."""


def export_run(
    assembly: Assembly,
    format: str,
    target: Path,
    *,
    frames: str | None = None,
    tell: Callable[[str], None] = lambda note: None,
) -> list[Path]:
    """Exports every video with stored detections; returns the files and folders to show to the user.

    Args:
        assembly: of the config; its thresholds and classes apply, even if they were others in the run.
        format: name of an installed format, with or without its hyphens, `file.py:function` or `module:function`.
        target: file or folder to write to.
        frames: which frames to write as images: `labelled` for those with labels, or a number N for every Nth inferred
            frame; None for none.
        tell: called with what the format could not hold.

    Raises:
        ConfigError: no run has stored detections, the detector has other classes now, or an argument is wrong.
        TaskError: a requested frame cannot be read from its media.
    """
    names = installed_names("export")
    if ":" not in format:
        fitting = [name for name in names if name.replace("-", "") == format.replace("-", "")]
        if not fitting:
            raise ConfigError(f"--format: got {format!r}, expected {' | '.join(names)} | file.py:function")
        format = fitting[0]
    plugin = load_plugin("export", format, Path.cwd())
    videos, media = stored_videos(assembly), None
    if frames is not None:
        if format in WITHOUT_IMAGES:
            raise ConfigError(f"--frames: {format} writes no images: leave it out, or add an export such as -f coco")
        step = 0 if frames == "labelled" else _step(frames)
        videos = (_choose_frames(video, step) for video in videos)
        titles = distinct_titles(stored_entries(assembly.found_store, assembly.named_source).of_source)
        tasks = assembly.named_source.find_tasks(set(titles))  # also tasks that have moved since the run
        media = MediaOfVideos(assembly, {titles[key]: task for key, task in tasks.items()})
    export = Export(target, videos, assembly.ontology, media)
    paths = list(plugin.build(export, options={}))
    if export.reduced:
        kinds = ", ".join(f"{NOUNS[kind]} {num}" for kind, num in export.reduced.most_common())
        tell(f"{format} cannot hold these shapes, and got their boxes: {kinds}")
    for note in export.notes:
        tell(note)
    return paths


def _step(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ConfigError(f"--frames: got {text!r}, expected labelled, or a number N for every Nth frame")
    return int(text)


def _choose_frames(video: LabelledVideo, step: int) -> LabelledVideo:
    """Returns the video with only every `step`th inferred frame or, if `step` is 0, only its labelled frames."""
    found = video.detections
    chosen = found.frames_looked_at[::step] if step else np.unique(found.frame_index)
    kept = found.where(np.isin(found.frame_index, chosen))
    return replace(video, detections=replace(kept, inferred_frames=chosen))


def refuse_file(target: Path) -> None:
    """Checks that a target is a folder, or can become one.

    Raises:
        ConfigError: the target is a file.
    """
    if target.exists() and not target.is_dir():
        raise ConfigError(f"{target}: is a file, expected a folder: name another target")
