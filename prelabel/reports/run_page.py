"""Writes the page of a run: its results, its costs, and the labels of each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import labelled_video, load_probabilities
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import PrelabelError
from prelabel.labels.answers import PlacedAnswer
from prelabel.reports.previews import sheet_frames, spread_evenly
from prelabel.reports.render import (
    Bar,
    Figure,
    Timeline,
    bars,
    counted,
    duration,
    media_facts,
    render_page,
    timeline_of,
)
from prelabel.reports.thumbnails import FrameKey, Thumbnail, ThumbnailReader, detection_outlines
from prelabel.runtime.files import write_text_atomically
from prelabel.store.labelled import ClassRecord
from prelabel.store.report import RunReport, TaskReport

MAX_TASKS_WITH_THUMBNAILS = 40
THUMBNAILS_PER_TASK = 4
STEPS = ("fetch", "decode", "detect", "save")


@dataclass(frozen=True, slots=True)
class ClassifiedTask:
    """A task with the classifier's answers, computed with the current config.

    Attributes:
        record: the stored probabilities.
        answers: in the order of their frames; empty if the classifier is not sure.
        likeliest: the most probable class over all images.
        probability: of that class.
    """

    record: ClassRecord
    answers: tuple[PlacedAnswer, ...]
    likeliest: str
    probability: float

    def answer_on(self, frame: int) -> str:
        """Returns the answer on a frame, otherwise the likeliest class, with its confidence, as text."""
        for placed in self.answers:
            if placed.first_frame <= frame <= placed.last_frame:
                return f"{placed.answer.name} {placed.answer.confidence:.2f}"
        return f"no answer; likeliest {self.likeliest} {self.probability:.2f}"


@dataclass(frozen=True, slots=True)
class TaskView:
    """A task on the page.

    Attributes:
        task: the report of the task.
        facts: size and length of its media, in words.
        seconds: length of the video; 0 for images, and if nothing is stored.
        colours: `#RRGGBB` by class.
        timeline: None if there is nothing to show over time.
        thumbnails: some of its frames.
    """

    task: TaskReport
    facts: str
    seconds: float = 0.0
    colours: Mapping[str, str] = field(default_factory=dict)
    timeline: Timeline | None = None
    thumbnails: tuple[Thumbnail, ...] = ()


@dataclass(frozen=True, slots=True)
class RunPage:
    """The values that the template `run_report.html.j2` shows."""

    report: RunReport
    state: str
    figures: tuple[Figure, ...]
    steps: tuple[Bar, ...]
    classes: tuple[Bar, ...]
    classes_title: str
    dropped: tuple[Bar, ...]
    pathways: tuple[Bar, ...]
    tasks: tuple[TaskView, ...]


def write_run_report(assembly: Assembly, report: RunReport, path: Path) -> None:
    """Writes the page of a run completely or not at all.

    Args:
        assembly: of the run's config.
        report: of the run.
        path: of the HTML file.
    """
    write_text_atomically(path, render_page("run_report.html.j2", page=page_of(assembly, report)))


def page_of(assembly: Assembly, report: RunReport) -> RunPage:
    """Returns the values that the page shows.

    For a task whose stored results cannot be read, these come from the report alone.
    """
    tasks = tuple(_task_views(assembly, report))
    counts = dict(report.instances)
    is_classification = assembly.config.agent_kind == "classification"
    if is_classification:
        num_unsure = sum(task.is_done and not task.instances for task in report.tasks)
        counts |= {"no answer": num_unsure} if num_unsure else {}
    busy = report.busy_seconds
    steps = [*(name for name in STEPS if name in busy), *(name for name in busy if name not in STEPS)]
    return RunPage(
        report=report,
        state=_state(report),
        figures=tuple(_figures(report, tasks)),
        steps=tuple(Bar(name, busy[name], busy[name] / report.seconds if report.seconds else 0.0) for name in steps),
        classes=bars(counts, {name: colour for view in tasks for name, colour in view.colours.items()}),
        classes_title="Answers" if is_classification else f"{_unit(report).capitalize()} by class",
        dropped=bars({name.replace("_", " "): number for name, number in report.dropped.items()}),
        pathways=bars(report.pathways),
        tasks=tasks,
    )


def _task_views(assembly: Assembly, report: RunReport) -> Iterator[TaskView]:
    """Yields all tasks except the failed ones; the stored results of only one task are in memory at a time."""
    reader, num_shown = ThumbnailReader(assembly), 0
    for task in report.tasks:
        if task.status == "failed":
            continue
        stored = _load_stored(assembly, task) if task.is_done else None
        if stored is None:
            yield TaskView(task, counted(task.num_frames, "frame") if task.num_frames else "")
            continue
        if isinstance(stored, ClassifiedTask):
            frames: list[int] = spread_evenly(stored.record.frame_index, THUMBNAILS_PER_TASK).tolist()
        else:
            frames = sheet_frames(stored, THUMBNAILS_PER_TASK).tolist()
        sources = reader.read(task.key, frames) if num_shown < MAX_TASKS_WITH_THUMBNAILS else {}
        num_shown += bool(sources)
        yield (
            _classified_view(task, stored, sources)
            if isinstance(stored, ClassifiedTask)
            else _labelled_view(task, stored, sources)
        )


def _load_stored(assembly: Assembly, task: TaskReport) -> LabelledVideo | ClassifiedTask | None:
    try:
        if assembly.config.agent_kind == "classification":
            record = load_probabilities(assembly, task)
            if record is None:
                return None
            parts = assembly.classification
            return ClassifiedTask(record, tuple(parts.place_answers(record)), *parts.likeliest(record))
        return labelled_video(assembly, task, task.title) if assembly.config.agent_kind == "detection" else None
    except PrelabelError:
        return None


def _classified_view(task: TaskReport, stored: ClassifiedTask, sources: Mapping[FrameKey, str]) -> TaskView:
    info, thumbnails = stored.record.info, []
    for (_, frame), source in sources.items():
        answer = stored.answer_on(frame)
        thumbnails.append(Thumbnail(source, *info.size_of(frame), answer, f"Frame {frame}: {answer}"))
    facts = " · ".join(media_facts(info, task.num_inferred))
    return TaskView(task, facts, info.duration_seconds, thumbnails=tuple(thumbnails))


def _labelled_view(task: TaskReport, video: LabelledVideo, sources: Mapping[FrameKey, str]) -> TaskView:
    info, thumbnails = video.info, []
    for (_, frame), source in sources.items():
        at = f"frame {frame} · {duration(frame / info.average_fps)}" if info.average_fps > 0 else f"image {frame + 1}"
        num = int(np.count_nonzero(video.detections.frame_index == frame))
        description = f"Frame {frame} with {counted(num, *video.label_map.noun)}"
        outlines = tuple(detection_outlines(video, frame))
        thumbnails.append(Thumbnail(source, *info.size_of(frame), at, description, outlines))
    return TaskView(
        task=task,
        facts=" · ".join(media_facts(info, task.num_inferred)),
        seconds=info.duration_seconds,
        colours={category.name: category.color for category in video.label_map.categories},
        timeline=timeline_of(video) if info.num_frames > 1 else None,
        thumbnails=tuple(thumbnails),
    )


def _state(report: RunReport) -> str:
    if report.aborted:
        return "ended early"
    if report.failed:
        return f"{len(report.failed)} failed"
    if report.unwritten:
        return "not all written"
    return "stopped" if report.stopped else "all done"


def _figures(report: RunReport, tasks: Sequence[TaskView]) -> Iterator[Figure]:
    num = {status: sum(task.status == status for task in report.tasks) for status in ("done", "already done", "failed")}
    yield Figure(
        "tasks done", f"{num['done']:,}", f"{num['already done']:,} done before" if num["already done"] else ""
    )
    if num["failed"]:
        yield Figure("failed", f"{num['failed']:,}")
    if report.num_inferred:
        yield Figure("frames inferred", f"{report.num_inferred:,}", f"{report.frames_per_second:,.1f} a second")
    if report.num_boxes:
        note = f"{report.num_boxes:,} {report.noun[1]}" if report.instances_are == "tracks" else ""
        yield Figure(_unit(report), f"{sum(report.instances.values()):,}", note)
    if (thinning := report.thinning) is not None:
        kept = f"{thinning.num_kept:,} of {thinning.num_found:,}"
        yield Figure(
            f"{report.noun[1]} kept of tracks", kept, f"mean overlap with the detected ones {thinning.mean_iou:.3f}"
        )
    if (score := report.score) is not None:
        yield Figure("mAP", f"{score.map_50_95:.3f}", f"AP50 {score.map_50:.3f}")
    yield Figure("took", duration(report.seconds))
    hours = report.seconds / 3600
    # Only videos on which this run ran the detector count: a video that was done before has cost nothing in this run.
    video_hours = sum(view.seconds for view in tasks if view.task.seconds.get("detect")) / 3600
    unit = "GPU-hours" if report.device.startswith("cuda") else "machine-hours"
    yield Figure(unit, f"{hours:.3f}", f"{hours / video_hours:.2f} an hour of video" if video_hours else "")


def _unit(report: RunReport) -> str:
    return "tracks" if report.instances_are == "tracks" else report.noun[1]
