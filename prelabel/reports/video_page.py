"""One video on the page of a run: its boxes and confidences over time, and some of its frames."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prelabel.assembly.classifier_parts import ClassifierParts
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Keypoints
from prelabel.data.label_map import LabelledVideo
from prelabel.labels.answers import PlacedAnswer
from prelabel.reports.charts import Area, Bins, band, line, stack
from prelabel.reports.pictures import Outline, Picture, Place, svg_edges, svg_path
from prelabel.reports.previews import sheet_frames, spread_evenly
from prelabel.reports.render import counted, duration
from prelabel.store.class_probabilities import ClassRecord
from prelabel.store.report import TaskReport


@dataclass(frozen=True, slots=True)
class ClassifiedTask:
    """What a classifier said of a task's media, and what was answered.

    Attributes:
        record: the probabilities, as they are kept.
        answers: under the config of today, in the order of their frames; none of a task that it is not sure of.
        likeliest: the most probable class over all pictures.
        probability: of that class.
    """

    record: ClassRecord
    answers: tuple[PlacedAnswer, ...]
    likeliest: str
    probability: float

    @classmethod
    def of(cls, parts: ClassifierParts, record: ClassRecord) -> ClassifiedTask:
        """Returns what is answered of a record."""
        return cls(record, tuple(parts.place_answers(record)), *parts.likeliest(record))

    @property
    def frames_to_show(self) -> list[int]:
        """The frames of which the page has pictures."""
        frames: list[int] = spread_evenly(self.record.frame_index, NUM_PICTURES).tolist()
        return frames

    def said_of(self, frame: int) -> str:
        """Returns the answer that holds on a frame, with its confidence; of none the likeliest class."""
        for placed in self.answers:
            if placed.first_frame <= frame <= placed.last_frame:
                return f"{placed.answer.name} {placed.answer.confidence:.2f}"
        return f"no answer; likeliest {self.likeliest} {self.probability:.2f}"


def view_of_answered(task: TaskReport, media: ClassifiedTask, sources: Mapping[Place, str]) -> VideoView:
    """Returns a task as the page shows it.

    Args:
        task: its report.
        media: what was answered.
        sources: pictures that could be had.
    """
    info = media.record.info
    frames = [frame for frame in media.frames_to_show if (task.key, frame) in sources]
    sizes = info.sizes(np.array(frames, np.int64)).tolist()
    pictures = tuple(
        Picture(sources[task.key, frame], width, height, said := media.said_of(frame), f"Frame {frame}: {said}", ())
        for frame, (width, height) in zip(frames, sizes, strict=True)
    )
    return VideoView(task, facts_of_media(task, info), info.duration_seconds, {}, None, pictures)


NUM_PICTURES = 4
NUM_TICKS = 5


@dataclass(frozen=True, slots=True)
class Timeline:
    """How many things there are, and confidences, over a video.

    Attributes:
        areas: of things a frame, a class each, stacked.
        most: things a frame that reach the top.
        many: what several of them are called, such as boxes.
        mean: path of the mean confidence.
        spread: path from the 10th to the 90th percentile of confidence.
        ticks: times or frame numbers below, from left to right at equal distances.
        description: in words.
    """

    areas: tuple[Area, ...]
    most: float
    many: str
    mean: str
    spread: str
    ticks: tuple[str, ...]
    description: str


@dataclass(frozen=True, slots=True)
class VideoView:
    """A task on the page.

    Attributes:
        task: its report.
        facts: size, length and so on, in words.
        seconds: length of the video; 0 of pictures, and where nothing is kept.
        colours: `#RRGGBB` by class.
        timeline: None where there is nothing to show over time.
        pictures: some of its frames.
    """

    task: TaskReport
    facts: str
    seconds: float
    colours: Mapping[str, str]
    timeline: Timeline | None
    pictures: tuple[Picture, ...]


def frames_to_show(video: LabelledVideo) -> list[int]:
    """Returns the frames of which the page has pictures."""
    frames: list[int] = sheet_frames(video, NUM_PICTURES).tolist()
    return frames


def view_of_video(task: TaskReport, video: LabelledVideo | None, sources: Mapping[Place, str]) -> VideoView:
    """Returns a task as the page shows it.

    Args:
        task: its report.
        video: what is kept of it; None: nothing.
        sources: pictures that could be had.
    """
    if video is None:
        facts = counted(task.num_frames, "frame") if task.num_frames else ""
        return VideoView(task, facts, 0.0, {}, None, ())
    frames = [frame for frame in frames_to_show(video) if (task.key, frame) in sources]
    return VideoView(
        task=task,
        facts=facts_of_media(task, video.info),
        seconds=video.info.duration_seconds,
        colours={category.name: category.color for category in video.label_map.categories},
        timeline=timeline_of(video) if video.info.num_frames > 1 else None,
        pictures=tuple(_picture(video, frame, sources[task.key, frame]) for frame in frames),
    )


def timeline_of(video: LabelledVideo) -> Timeline:
    """Returns the chart of a video."""
    found, info = video.detections, video.info
    bins = Bins.of(info.num_frames, found.frames_looked_at)
    category = video.label_map.category_index[found.class_id]
    present = [index for index in range(len(video.label_map.categories)) if (category == index).any()]
    heights = [bins.count(found.frame_index[category == index]) / np.maximum(bins.num_frames, 1) for index in present]
    total = np.sum(heights, axis=0) if heights else np.zeros(len(bins.num_frames))
    most = max(float(total.max()), 1.0)
    low, mean, high = _confidence(video, bins)
    _, many = video.label_map.noun
    return Timeline(
        areas=tuple(
            Area(video.label_map.categories[index].name, video.label_map.categories[index].color, path)
            for index, path in zip(present, stack(heights, most), strict=True)
        ),
        most=most,
        many=many,
        mean=line(mean),
        spread=band(low, high),
        ticks=_ticks(video),
        description=_describe(total, mean, many),
    )


def _confidence(video: LabelledVideo, bins: Bins) -> tuple[NDArray[np.float64], ...]:
    """Returns the 10th percentile, the mean and the 90th of what was measured in each part; NaN where nothing was."""
    found = video.detections.where(~video.detections.interpolated)
    order = np.lexsort((found.confidence, place := bins.place(found.frame_index)))
    confidence = found.confidence[order].astype(np.float64)
    starts = np.searchsorted(place[order], np.arange(len(bins.num_frames)))
    ends = np.searchsorted(place[order], np.arange(len(bins.num_frames)), side="right")
    low, mean, high = (np.full(len(starts), np.nan) for _ in range(3))
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if end > start:
            part = confidence[start:end]
            low[number], high[number] = np.quantile(part, [0.1, 0.9])
            mean[number] = part.mean()
    return low, mean, high


def _ticks(video: LabelledVideo) -> tuple[str, ...]:
    info = video.info
    parts = np.linspace(0, 1, NUM_TICKS)
    if info.average_fps <= 0:
        return tuple(f"{round(part * (info.num_frames - 1)) + 1}" for part in parts)
    return tuple(duration(part * info.duration_seconds) for part in parts.tolist())


def _describe(total: NDArray[np.float64], mean: NDArray[np.float64], many: str) -> str:
    if not total.any():
        return f"No {many}."
    measured = mean[~np.isnan(mean)]
    said = f"{total.min():.1f} to {total.max():.1f} {many} a frame"
    return f"{said}, mean confidence {measured.min():.2f} to {measured.max():.2f}." if len(measured) else f"{said}."


def facts_of_media(task: TaskReport, info: VideoInfo) -> str:
    """Returns size, length and so on, in words."""
    parts = [] if info.frame_sizes else [f"{info.width} x {info.height}"]
    if info.average_fps > 0:
        parts += [
            duration(info.duration_seconds),
            f"{info.average_fps:.4g} frames/s",
            counted(info.num_frames, "frame"),
        ]
    else:
        parts.append(counted(info.num_frames, "picture"))
    if task.num_inferred and task.num_inferred != info.num_frames:
        parts.append(f"{task.num_inferred:,} looked at")
    return " · ".join(parts)


def _picture(video: LabelledVideo, frame: int, source: str) -> Picture:
    found = video.detections
    here = slice(*np.searchsorted(found.frame_index, [frame, frame + 1]).tolist())
    (width, height) = video.info.sizes(np.array([frame]))[0].tolist()
    outlines = []
    columns = (found.xyxy, found.class_id, found.confidence, found.track_id, found.interpolated, found.geometry)
    rows = zip(*(column[here].tolist() for column in columns), strict=True)
    for (x1, y1, x2, y2), class_id, confidence, track_id, is_filled_in, known in rows:
        category = video.label_map.objects[class_id]
        if category is not None:
            track = f" #{track_id}" if track_id >= 0 else ""
            text = f"{category.name}{track} {'filled in' if is_filled_in else f'{confidence:.2f}'}"
            place = (x1 / width, y1 / height, (x2 - x1) / width, (y2 - y1) / height)
            path = "" if known is None or isinstance(known, Keypoints) else svg_path(known)
            outlines.append(Outline(*place, "filled-in" if is_filled_in else "found", category.color, text, path))
            if isinstance(known, Keypoints):  # points alone do not show what is whose
                if edges := svg_edges(known, category.skeleton_edges):
                    outlines.append(Outline(*place, "found", category.color, text, edges))
                outlines.append(Outline(*place, "points", category.color, text, svg_path(known)))
    shown = counted(here.stop - here.start, *video.label_map.noun)
    return Picture(source, width, height, _caption(video, frame), f"Frame {frame} with {shown}", tuple(outlines))


def _caption(video: LabelledVideo, frame: int) -> str:
    if video.info.average_fps <= 0:
        return f"picture {frame + 1}"
    return f"frame {frame} · {duration(frame / video.info.average_fps)}"
