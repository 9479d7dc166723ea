"""Writes the page of a run: its results, its costs, and the labels of each task."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
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
from prelabel.reports.thumbnails import Thumbnail, ThumbnailReader, data_url, detection_outlines
from prelabel.runtime.files import atomic_write, write_text_atomically
from prelabel.runtime.progress import NullProgress, Progress
from prelabel.store.labelled import ClassRecord
from prelabel.store.report import Price, RunReport, TaskReport

MAX_OPEN_TASKS = 5
"""Up to this many tasks, a page shows all of each task and is one file. With more, each task opens from its line, and
the pictures are files of their own, which the browser loads when they come into view."""
THUMBNAILS_PER_TASK = 4
MAX_NOTICES = 8
STEPS = ("fetch", "decode", "detect", "refine", "save")
STATES = ("failed", "in part", "without labels", "without answer", "done", "already done", "skipped")
"""The states of tasks on the page, those to look at first. `done` and `already done` rank alike."""
PICTURE_ENDING = ".preview.jpg"
"""A folder source does not take such files for media."""


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
        state: one of `STATES`.
        facts: size and length of its media, in words.
        seconds: length of the video; 0 for images, and if nothing is stored.
        confidence: mean of its labels or answers as measured; None if there are none.
        num_measured: number of labels or answers that the mean is over.
        colours: `#RRGGBB` by class.
        timeline: None if there is nothing to show over time.
        thumbnails: some of its frames.
    """

    task: TaskReport
    state: str
    facts: str = ""
    seconds: float = 0.0
    confidence: float | None = None
    num_measured: int = 0
    colours: Mapping[str, str] = field(default_factory=dict)
    timeline: Timeline | None = None
    thumbnails: tuple[Thumbnail, ...] = ()

    @property
    def words(self) -> str:
        """What a search looks in, the title first, in lower case."""
        task = self.task
        return " ".join([task.title, task.short_reason, task.pathway or "", *task.instances]).lower()

    @property
    def rank(self) -> tuple[int, float, str]:
        """Sorts tasks: first by state, then the least confident first."""
        state = "done" if self.state == "already done" else self.state
        return STATES.index(state), 1.0 if self.confidence is None else self.confidence, self.task.title


@dataclass(frozen=True, slots=True)
class Notice:
    """What the reader of the page should know first.

    Attributes:
        head: which tasks; empty for a remark about the run.
        text: what about them.
        is_bad: whether something failed.
    """

    head: str
    text: str
    is_bad: bool = False


@dataclass(frozen=True, slots=True)
class RunPage:
    """The values that the template `run_report.html.j2` shows."""

    report: RunReport
    state: str
    unit: tuple[str, str]
    notices: tuple[Notice, ...]
    figures: tuple[Figure, ...]
    steps: tuple[Bar, ...]
    classes: tuple[Bar, ...]
    classes_title: str
    dropped: tuple[Bar, ...]
    pathways: tuple[Bar, ...]
    tasks: tuple[TaskView, ...]
    states: Mapping[str, int]
    is_open: bool
    has_pictures: bool
    picture_limit: int | None


def write_run_report(assembly: Assembly, report: RunReport, path: Path, progress: Progress | None = None) -> None:
    """Writes the page of a run completely or not at all.

    A page of many tasks has its pictures in a folder next to it: `report_files` for `report.html`.

    Args:
        assembly: of the run's config.
        report: of the run.
        path: of the HTML file.
        progress: gets an event for each task whose frames are read.
    """
    folder, kept = path.with_name(f"{path.stem}_files"), set[str]()

    def save(jpeg: bytes) -> str:
        name = hashlib.sha256(jpeg).hexdigest()[:20] + PICTURE_ENDING
        with atomic_write(folder / name, durable=False) as unfinished:
            unfinished.write_bytes(jpeg)
        kept.add(name)
        return f"{folder.name}/{name}"

    is_short = len(report.tasks) <= MAX_OPEN_TASKS
    page = page_of(assembly, report, data_url if is_short else save, progress)
    write_text_atomically(path, render_page("run_report.html.j2", page=page))
    for old in folder.glob(f"*{PICTURE_ENDING}"):  # of an earlier page
        if old.name not in kept:
            old.unlink(missing_ok=True)


def page_of(
    assembly: Assembly,
    report: RunReport,
    save: Callable[[bytes], str] = data_url,
    progress: Progress | None = None,
) -> RunPage:
    """Returns the values that the page shows.

    For a task whose stored results cannot be read, these come from the report alone.

    Args:
        assembly: of the run's config.
        report: of the run; a price in the config replaces its price.
        save: takes a JPEG and returns its URL.
        progress: gets an event for each task whose frames are read.
    """
    report = replace(report, price=Price.of(assembly.config.report) or report.price)
    is_classification = assembly.config.agent_kind == "classification"
    views = sorted((_view_of(assembly, task) for task in report.tasks), key=lambda view: view.rank)
    views = list(_add_pictures(assembly, views, save, progress or NullProgress()))
    counts = dict(report.instances)
    if is_classification:
        num_unsure = sum(task.is_done and not task.instances for task in report.tasks)
        counts |= {"no answer": num_unsure} if num_unsure else {}
    busy = report.busy_seconds
    steps = [*(name for name in STEPS if name in busy), *(name for name in busy if name not in STEPS)]
    states = Counter(view.state for view in views)
    limit = assembly.config.report.pictures
    return RunPage(
        report=report,
        state=_state(report),
        unit=_unit(report),
        notices=tuple(_notices(report)),
        figures=tuple(_figures(report, views)),
        steps=tuple(Bar(name, busy[name], busy[name] / report.seconds if report.seconds else 0.0) for name in steps),
        classes=bars(counts, {name: colour for view in views for name, colour in view.colours.items()}),
        classes_title="Answers" if is_classification else f"{_unit(report)[1].capitalize()} by class",
        dropped=bars({name.replace("_", " "): number for name, number in report.dropped.items()}),
        pathways=bars(report.pathways),
        tasks=tuple(views),
        states={state: states[state] for state in STATES if states[state]},
        is_open=len(views) <= MAX_OPEN_TASKS,
        has_pictures=any(view.thumbnails for view in views),
        picture_limit=limit if limit and limit < sum(task.is_done for task in report.tasks) else None,
    )


def _view_of(assembly: Assembly, task: TaskReport) -> TaskView:
    """Returns a task without its thumbnails. Its stored results do not stay in memory."""
    is_classification = assembly.config.agent_kind == "classification"
    state: str = "in part" if task.partial else task.status
    if task.is_bare and not task.partial:
        state = "without answer" if is_classification else "without labels"
    stored = _load_stored(assembly, task) if task.is_done else None
    if stored is None:
        return TaskView(task, state, counted(task.num_frames, "frame") if task.num_frames else "")
    if isinstance(stored, ClassifiedTask):
        info, timeline, colours = stored.record.info, None, dict[str, str]()
        measured = np.array([placed.answer.confidence for placed in stored.answers])
    else:
        info, found = stored.info, stored.detections
        measured = found.confidence[~found.interpolated]
        timeline = timeline_of(stored) if info.num_frames > 1 else None
        colours = {category.name: category.color for category in stored.label_map.categories}
    return TaskView(
        task,
        state,
        " · ".join(media_facts(info, task.num_inferred)),
        info.duration_seconds,
        float(measured.mean()) if len(measured) else None,
        len(measured),
        colours,
        timeline,
    )


def _add_pictures(
    assembly: Assembly, views: Sequence[TaskView], save: Callable[[bytes], str], progress: Progress
) -> Iterator[TaskView]:
    """Yields all views, the first ones with thumbnails: as many as the config says.

    Tasks whose frames cannot be read count too. So a source that does not answer is not asked for each of 1,000 tasks.
    """
    reader, limit = ThumbnailReader(assembly), assembly.config.report.pictures
    num_left = len(views) if limit is None else limit
    for view in views:
        stored = _load_stored(assembly, view.task) if view.task.is_done and num_left else None
        if stored is None:
            yield view
            continue
        progress.event("drawing", task=view.task.title, task_id=view.task.key)
        num_left -= 1
        yield replace(view, thumbnails=tuple(_thumbnails(reader, view.task, stored, save)))


def _thumbnails(
    reader: ThumbnailReader,
    task: TaskReport,
    stored: LabelledVideo | ClassifiedTask,
    save: Callable[[bytes], str],
) -> Iterator[Thumbnail]:
    if isinstance(stored, ClassifiedTask):
        info, frames = stored.record.info, spread_evenly(stored.record.frame_index, THUMBNAILS_PER_TASK)
    else:
        info, frames = stored.info, sheet_frames(stored, THUMBNAILS_PER_TASK)
    for (_, frame), jpeg in reader.read(task.key, frames.tolist()).items():
        size = info.size_of(frame)
        if isinstance(stored, ClassifiedTask):
            answer = stored.answer_on(frame)
            yield Thumbnail(save(jpeg), *size, answer, f"Frame {frame}: {answer}")
            continue
        at = f"frame {frame} · {duration(frame / info.average_fps)}" if info.average_fps > 0 else f"image {frame + 1}"
        outlines = tuple(detection_outlines(stored, frame))
        num = int(np.count_nonzero(stored.detections.frame_index == frame))
        description = f"Frame {frame} with {counted(num, *stored.label_map.noun)}"
        yield Thumbnail(save(jpeg), *size, at, description, outlines)


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


def _state(report: RunReport) -> str:
    if report.aborted:
        return "ended early"
    if report.failed:
        return f"{len(report.failed)} failed"
    if report.unwritten:
        return "not all written"
    return "stopped" if report.stopped else "all done"


def _notices(report: RunReport) -> Iterator[Notice]:
    """Yields what concerns the run, then failed and skipped tasks by their reason, the most frequent reason first."""
    if report.aborted:
        yield Notice("", f"Ended early: {report.aborted}", is_bad=True)
    if report.unwritten:
        yield Notice("", f"Not written: {report.unwritten}", is_bad=True)
    if report.stopped:
        yield Notice("", "The run was stopped. Run the same command to continue.")
    titles: dict[tuple[str, str], list[str]] = {}
    for task in report.tasks:
        if task.status in ("failed", "skipped"):
            titles.setdefault((task.status, task.short_reason), []).append(task.title)
    for skipped in report.skipped:
        titles.setdefault(("skipped", skipped.reason), []).append(skipped.title)
    groups = sorted(titles.items(), key=lambda group: (group[0][0] != "failed", -len(group[1])))
    for (status, reason), named in groups[:MAX_NOTICES]:
        head = named[0] if len(named) == 1 else counted(len(named), "task")
        yield Notice(f"{head} {status}", reason, is_bad=status == "failed")
    if len(groups) > MAX_NOTICES:
        yield Notice("", f"{len(groups) - MAX_NOTICES:,} more reasons are in report.json")
    for warning in report.warnings:
        yield Notice("", warning)


def _figures(report: RunReport, views: Sequence[TaskView]) -> Iterator[Figure]:
    num = Counter(view.state for view in views)
    num_done, num_before = (sum(task.status == status for task in report.tasks) for status in ("done", "already done"))
    yield Figure("tasks done", f"{num_done:,}", f"{num_before:,} done before" if num_before else "")
    to_look_at = {state: num[state] for state in STATES[: STATES.index("done")] if num[state]}
    if to_look_at:
        note = ", ".join(f"{number:,} {state}" for state, number in to_look_at.items())
        yield Figure("to look at", f"{sum(to_look_at.values()):,}", note)
    if report.num_boxes:
        note = f"{report.num_boxes:,} {report.noun[1]}" if report.instances_are == "tracks" else ""
        yield Figure(_unit(report)[1], f"{sum(report.instances.values()):,}", note)
    if num_measured := sum(view.num_measured for view in views):
        total = sum(view.num_measured * view.confidence for view in views if view.confidence is not None)
        yield Figure("confidence", f"{total / num_measured:.2f}", "mean")
    if (thinning := report.thinning) is not None:
        kept = f"{thinning.num_kept:,} of {thinning.num_found:,}"
        yield Figure(
            f"{report.noun[1]} kept of tracks", kept, f"mean overlap with the detected ones {thinning.mean_iou:.3f}"
        )
    if (score := report.score) is not None:
        yield Figure("mAP", f"{score.map_50_95:.3f}", f"AP50 {score.map_50:.3f}")
    if report.num_inferred:
        yield Figure("frames inferred", f"{report.num_inferred:,}", f"{report.frames_per_second:,.1f} a second")
    yield Figure("took", duration(report.seconds))
    yield _cost(report, views)


def _cost(report: RunReport, views: Sequence[TaskView]) -> Figure:
    """Returns what the run took of machines and, with a price, of money; also for an hour of video."""
    # Only videos on which this run ran the detector count: a video that was done before has cost nothing in this run.
    video_hours = sum(view.seconds for view in views if "detect" in view.task.seconds) / 3600
    hours = f"{report.device_hours:.3f}"
    if report.cost is None or report.price is None:
        note = f"{report.device_hours / video_hours:.2f} an hour of video" if video_hours else ""
        return Figure(report.device_noun, hours, note)
    note = f"{hours} {report.device_noun} at {report.price.per_hour:,.2f}"
    note += f"; {report.cost / video_hours:,.2f} an hour of video" if video_hours else ""
    return Figure(f"cost, {report.price.currency}", f"{report.cost:,.2f}", note)


def _unit(report: RunReport) -> tuple[str, str]:
    """Returns the noun for one object instance and for several."""
    if report.instances_are == "tracks":
        return "track", "tracks"
    return report.noun if report.shapes else ("label", "labels")  # a classifier or a function has no shapes
