"""The page of a run: how it went, what it cost, and what was found in each video."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.assembly.stored import label_stored, load_probabilities, raw_path
from prelabel.data.label_map import LabelledVideo
from prelabel.errors import PrelabelError
from prelabel.reports.pictures import ThumbnailReader
from prelabel.reports.render import Figure, duration, render_page
from prelabel.reports.video_page import ClassifiedTask, VideoView, frames_to_show, view_of_answered, view_of_video
from prelabel.runtime.files import write_text_atomically
from prelabel.store.raw_detections import read_raw
from prelabel.store.report import RunReport, TaskReport

MAX_VIDEOS_WITH_PICTURES = 40
STAGES = ("fetch", "decode", "detect", "save")


@dataclass(frozen=True, slots=True)
class Stage:
    """How busy a stage was.

    Attributes:
        name: fetch, decode, detect, save.
        seconds: busy, over all tasks.
        share: of the run's time; above 1 where several worked at once.
        is_limit: it was the busiest.
    """

    name: str
    seconds: float
    share: float
    is_limit: bool


@dataclass(frozen=True, slots=True)
class Bar:
    """A line of a bar chart in a table.

    Attributes:
        name: of what.
        colour: `#RRGGBB`; empty: the page's own.
        value: the number.
        share: of the largest.
    """

    name: str
    colour: str
    value: int
    share: float


@dataclass(frozen=True, slots=True)
class RunPage:
    """What the template shows."""

    report: RunReport
    state: str
    tiles: tuple[Figure, ...]
    stages: tuple[Stage, ...]
    classes: tuple[Bar, ...]
    classes_are: str
    dropped: tuple[Bar, ...]
    pathways: tuple[Bar, ...]
    videos: tuple[VideoView, ...]


def write_run_report(assembly: Assembly, report: RunReport, path: Path) -> None:
    """Writes the page of a run, whole or not at all.

    Args:
        assembly: of the run's config.
        report: how the run went.
        path: of the HTML file.
    """
    write_text_atomically(path, render_page("run_report.html.j2", page_of(assembly, report)))


def page_of(assembly: Assembly, report: RunReport) -> RunPage:
    """Returns what the page shows; videos whose detections cannot be read are shown by what the report says."""
    videos = tuple(_views(assembly, report))
    colours = {name: colour for view in videos for name, colour in view.colours.items()}
    return RunPage(
        report=report,
        state=_state(report),
        tiles=tuple(_tiles(report, videos)),
        stages=tuple(_stages(report)),
        classes=_bars(report.instances | _unanswered(assembly, report), colours),
        classes_are="Answers" if assembly.config.classifier is not None else f"{_unit(report).capitalize()} by class",
        dropped=_bars({name.replace("_", " "): number for name, number in report.dropped.items()}),
        pathways=_bars(report.pathways),
        videos=videos,
    )


def _views(assembly: Assembly, report: RunReport) -> Iterator[VideoView]:
    """Yields all tasks but those that failed, with one video's detections in memory at a time."""
    shelf, num_shown = ThumbnailReader(assembly), 0
    for task in report.tasks:
        if task.status == "failed":
            continue
        video, answered = _labelled(assembly, task), _answered(assembly, task)
        frames = frames_to_show(video) if video else answered.frames_to_show if answered else []
        sources = shelf.read(task.key, frames) if num_shown < MAX_VIDEOS_WITH_PICTURES else {}
        num_shown += bool(sources)
        yield view_of_answered(task, answered, sources) if answered else view_of_video(task, video, sources)


def _labelled(assembly: Assembly, task: TaskReport) -> LabelledVideo | None:
    path = raw_path(assembly.found_names, task.key, task.title)
    if assembly.config.detector is None or not task.is_done or not path.exists():
        return None
    try:
        return label_stored(assembly.detection, task.title, read_raw(path))
    except PrelabelError:
        return None


def _answered(assembly: Assembly, task: TaskReport) -> ClassifiedTask | None:
    if assembly.config.classifier is None or not task.is_done:
        return None
    try:
        record = load_probabilities(assembly, task)
        return ClassifiedTask.of(assembly.classification, record) if record is not None else None
    except PrelabelError:
        return None


def _unanswered(assembly: Assembly, report: RunReport) -> dict[str, int]:
    """Returns how many tasks a classifier was not sure of; nothing where it was of all, or where there is none."""
    if assembly.config.classifier is None:
        return {}
    number = sum(task.is_done and not task.instances for task in report.tasks)
    return {"no answer": number} if number else {}


def _state(report: RunReport) -> str:
    if report.aborted:
        return "ended early"
    if report.failed:
        return f"{len(report.failed)} failed"
    if report.unwritten:
        return "not all written"
    return "stopped" if report.stopped else "all done"


def _tiles(report: RunReport, videos: Sequence[VideoView]) -> list[Figure]:
    num = {status: sum(task.status == status for task in report.tasks) for status in ("done", "already done", "failed")}
    earlier = f"{num['already done']:,} done before" if num["already done"] else ""
    tiles = [Figure("tasks done", f"{num['done']:,}", earlier)]
    if num["failed"]:
        tiles.append(Figure("failed", f"{num['failed']:,}"))
    if report.num_inferred:
        pace = f"{report.frames_per_second:,.1f} a second"
        tiles.append(Figure("frames looked at", f"{report.num_inferred:,}", pace))
    if report.num_boxes:
        note = f"{report.num_boxes:,} {report.noun[1]}" if report.instances_are == "tracks" else ""
        tiles.append(Figure(_unit(report), f"{sum(report.instances.values()):,}", note))
    if (thinning := report.thinning) is not None:
        kept = f"{thinning.num_kept:,} of {thinning.num_found:,}"
        tiles.append(
            Figure(f"{report.noun[1]} kept of tracks", kept, f"overlap with those found {thinning.mean_iou:.3f}")
        )
    if (score := report.score) is not None:
        tiles.append(Figure("mAP", f"{score.map_50_95:.3f}", f"AP50 {score.map_50:.3f}"))
    return [*tiles, Figure("took", duration(report.seconds)), _cost(report, videos)]


def _unit(report: RunReport) -> str:
    return "tracks" if report.instances_are == "tracks" else report.noun[1]


def _cost(report: RunReport, videos: Sequence[VideoView]) -> Figure:
    """Returns machine-hours, and what an hour of video costs: of the tasks that the detector looked at in this run."""
    hours = report.seconds / 3600
    video_hours = sum(view.seconds for view in videos if view.task.seconds.get("detect")) / 3600
    note = f"{hours / video_hours:.2f} an hour of video" if video_hours else ""
    return Figure("GPU-hours" if report.device.startswith("cuda") else "machine-hours", f"{hours:.3f}", note)


def _stages(report: RunReport) -> list[Stage]:
    busy = report.busy_seconds
    names = [*(name for name in STAGES if name in busy), *(name for name in busy if name not in STAGES)]
    return [
        Stage(name, busy[name], busy[name] / report.seconds if report.seconds else 0.0, name == report.limit)
        for name in names
    ]


def _bars(counts: Mapping[str, int], colours: Mapping[str, str] | None = None) -> tuple[Bar, ...]:
    most = max(counts.values(), default=1)
    known = colours or {}
    return tuple(Bar(name, known.get(name, ""), number, number / most) for name, number in counts.items())
