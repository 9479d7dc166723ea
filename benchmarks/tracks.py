"""Tracks against the truth, next to the library's own: how well they follow things, and what they save.

    uv run python -m benchmarks.tracks                       # generated clips, the demo's detector
    uv run python -m benchmarks.tracks --clips FOLDER        # real clips

A real clip is `NAME.mp4` with its truth beside it, `NAME.json`: COCO with `track_id`, an image for each frame in the
order of their ids. Boxes with `ignore` are neither right nor wrong. Only persons are tracked, with the limits of
`configs/tracks.yaml`; things of generated clips with the default limits. All ways get the same boxes.

HOTA and MOTA are the library's (`trackers.eval`, equal to TrackEval). "times best" is HOTA over that of the library's
best tracker with its defaults. What is saved counts as `prelabel evaluate` counts it. "by the truth" links the boxes to
the true things, so no tracker can save more. Figures are means over input sizes, or over the generated clips.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import supervision as sv
import trackers
import yaml
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from trackers.eval import evaluate_mot_sequences

from models.scenes import SceneSpec, render_frames, write_clip
from prelabel.assembly.assemble import assemble
from prelabel.assembly.stored_detector import stored_entries
from prelabel.config.load import check_config
from prelabel.config.sections import TrackerSection
from prelabel.data.boxes import clip_boxes, iou_matrix
from prelabel.data.detections import VideoDetections
from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.evaluate.compare import boxes_of_corners, compare_boxes
from prelabel.evaluate.edits import Edits, count_edits
from prelabel.labels.filter import FilteredDetections, FilterRules, filter_detections
from prelabel.labels.keyframes import Keyframes
from prelabel.labels.tracking import Linking, fill_gaps, track_detections
from prelabel.models.trackers.library import BotSortTracker, ByteTrackTracker, CBIoUTracker, OcSortTracker
from prelabel.models.trackers.tracklets import TrackletTracker
from prelabel.plugins.protocols import ShotTracker, Tracker
from prelabel.run.checks import prepare
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.raw_detections import RawRecord, read_raw

CONF = 0.25
ACCEPT_IOU = 0.8
SAME_IOU = 0.5
LIBRARY = {
    "ByteTrack": trackers.ByteTrackTracker,
    "OC-SORT": trackers.OCSORTTracker,
    "C-BIoU": trackers.CBIoUTracker,
    "BoT-SORT": trackers.BoTSORTTracker,
}
OURS: Mapping[str, Callable[..., Tracker | ShotTracker]] = {
    "cbiou": CBIoUTracker,
    "bytetrack": ByteTrackTracker,
    "ocsort": OcSortTracker,
    "botsort": BotSortTracker,
    "tracklets": TrackletTracker,
}


@dataclass(frozen=True)
class Video:
    """What was detected in a video, and its true tracks."""

    clip: str
    raw: RawRecord
    truth: VideoDetections
    ignored: VideoDetections | None = None

    @property
    def label_map(self) -> LabelMap:
        """Each class becomes an object of its name."""
        names = list(self.raw.origin.class_names)
        return build_label_map(names, Ontology.from_classes(names), {})

    def filtered(self, stride: int = 1) -> FilteredDetections:
        """Returns what a run with this stride would make labels of."""
        found = self.raw.detections.where(self.raw.detections.frame_index % stride == 0)
        found = replace(found, inferred_frames=found.inferred_frames[found.inferred_frames % stride == 0])
        return filter_detections(found, self.raw.info, self.label_map, FilterRules(conf=CONF))


Way = Callable[[Video], FilteredDetections]


def main() -> None:
    """Measures, prints a table, and ends with one line of JSON."""
    args = _parse()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.clips is None:
            videos = [_generated(seed, args.frames, folder) for seed in range(1, args.scenes + 1)]
            ways = _ways(TrackerSection(), Keyframes())
        else:
            videos = list(_real(args.clips, args.weights, args.imgsz, folder))
            config = yaml.safe_load(Path("configs/tracks.yaml").read_text())
            ways = _ways(TrackerSection(**config["tracker"]), Keyframes(**config["labels"]["keyframes"]))
        tables = {
            clip: _compare([video for video in videos if video.clip == clip], ways, folder / "score")
            for clip in dict.fromkeys(video.clip for video in videos)
        }
    console = Console(highlight=False, width=140)
    for clip, rows in tables.items():
        table = Table(*rows[0], title=clip, box=None)
        for row in rows:
            table.add_row(*(value if isinstance(value, str) else f"{value:.3f}" for value in row.values()))
        console.print(table)
    print(json.dumps(tables))


def _compare(videos: list[Video], ways: Mapping[str, Way], folder: Path) -> list[dict[str, float | str]]:
    """Returns a row for each way: means over the videos."""
    scores = {name: [_score(video, way, folder) for video in videos] for name, way in ways.items()}
    best = [max(scores[f"library: {name}"][n]["HOTA"] for name in LIBRARY) for n in range(len(videos))]
    for of_way in scores.values():
        for score, most in zip(of_way, best, strict=True):
            score["times best"] = score["HOTA"] / most
    return [
        {"way": name, **{key: round(float(np.mean([score[key] for score in of_way])), 4) for key in of_way[0]}}
        for name, of_way in scores.items()
    ]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8, help="generated clips")
    parser.add_argument("--frames", type=int, default=150, help="frames of each")
    parser.add_argument("--clips", type=Path, help="a folder of real clips with their truths")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[480, 640, 960])
    parser.add_argument("--weights", default="yolo11n")
    return parser.parse_args()


def _ways(section: TrackerSection, keyframes: Keyframes) -> dict[str, Way]:
    """Returns the ways to compare, with the options of a config's sections."""
    ways: dict[str, Way] = {f"library: {name}": partial(_by_library, tracker=LIBRARY[name]) for name in LIBRARY}
    for name, tracker in OURS.items():
        linking = Linking(
            partial(tracker, **section.options), section.max_gap_seconds, section.limits, section.smooth_seconds
        )
        ways[f"prelabel: {name}"] = partial(_by_prelabel, linking=linking)
    few = replace(linking, keyframes=keyframes)
    ways[f"prelabel: {name}, keyframes"] = partial(_by_prelabel, linking=few)
    ways[f"prelabel: {name}, keyframes, stride 5"] = partial(_by_prelabel, linking=few, stride=5)
    ways["by the truth"] = partial(_by_truth, max_gap_seconds=section.max_gap_seconds)
    return ways


def _generated(seed: int, num_frames: int, folder: Path) -> Video:
    output = folder / f"scene {seed}"
    spec = SceneSpec(seed=seed, num_frames=num_frames)
    output.mkdir(parents=True)
    write_clip(spec, output / "clip.mp4", output / "truth.json")
    source = {"path": str(output / "clip.mp4"), "output": str(output)}
    raw = _run({"source": source, "detector": {"weights": "demo"}})
    true = list(render_frames(spec))
    shown = [~frame.is_crowd for frame in true]
    counts = [int(shows.sum()) for shows in shown]
    truth = VideoDetections(
        frame_index=np.repeat(np.arange(num_frames), counts),
        xyxy=np.concatenate([frame.xyxy[shows] for frame, shows in zip(true, shown, strict=True)]),
        confidence=np.ones(sum(counts), np.float32),
        class_id=np.zeros(sum(counts), np.int64),
        track_id=np.concatenate([frame.object_id[shows] for frame, shows in zip(true, shown, strict=True)]),
    )
    return Video("generated clips", raw, truth)


def _real(clips: Path, weights: str, sizes: list[int], folder: Path) -> Iterator[Video]:
    for clip in sorted(clips.glob("*.mp4")):
        for imgsz in sizes:
            source = {"path": str(clip), "output": str(folder / f"{clip.stem} {imgsz}")}
            detector = {"use": "ultralytics", "weights": str(weights), "imgsz": imgsz, "conf": CONF}
            raw = _run({"source": source, "detector": detector, "labels": {"classes": {"person": "person"}}})
            person = raw.origin.class_names.index("person")
            raw = replace(raw, detections=raw.detections.where(raw.detections.class_id == person))
            true, is_ignored = _read_truth(clip.with_suffix(".json"), raw)
            yield Video(clip.stem, raw, true.where(~is_ignored), true.where(is_ignored))


def _read_truth(path: Path, raw: RawRecord) -> tuple[VideoDetections, NDArray[np.bool_]]:
    """Returns the true tracks, clipped to the frame, and which boxes are to be ignored."""
    document = json.loads(path.read_text())
    frame_of = {image["id"]: n for n, image in enumerate(sorted(document["images"], key=lambda image: image["id"]))}
    entries = sorted(document["annotations"], key=lambda entry: entry["image_id"])
    xywh = np.array([entry["bbox"] for entry in entries], np.float32)
    xyxy = clip_boxes(np.hstack([xywh[:, :2], xywh[:, :2] + xywh[:, 2:]]), np.array([raw.info.width, raw.info.height]))
    true = VideoDetections(
        frame_index=np.array([frame_of[entry["image_id"]] for entry in entries], np.int64),
        xyxy=xyxy,
        confidence=np.ones(len(entries), np.float32),
        class_id=np.zeros(len(entries), np.int64),
        track_id=np.array([entry["track_id"] for entry in entries], np.int64),
    )
    return true, np.array([bool(entry.get("ignore")) for entry in entries])


def _run(values: Mapping[str, object]) -> RawRecord:
    assembly = assemble(check_config(values, "benchmark"), Path())
    prepare(assembly)
    report = run_tasks(assembly, NullProgress(), StopSignal())
    assert not report.failed, report.failed
    (entry,) = stored_entries(assembly.found_store, assembly.named_source).of_source
    return read_raw(assembly.found_store.detections_path(entry))


def _by_prelabel(video: Video, linking: Linking, stride: int = 1) -> FilteredDetections:
    return track_detections(video.filtered(stride), video.raw.info, video.label_map, video.raw.cuts, linking)


def _by_library(video: Video, tracker: type) -> FilteredDetections:
    """Returns the tracks of one of the library's trackers, run as its documentation shows."""
    library = tracker(frame_rate=video.raw.info.average_fps)
    filtered = video.filtered()
    found = filtered.detections
    track_id = np.full(len(found), -1)
    for frame in found.inferred_frames.tolist():
        rows = np.flatnonzero(found.frame_index == frame)
        boxes = sv.Detections(xyxy=found.xyxy[rows], confidence=found.confidence[rows], data={"row": rows})
        linked = library.update(boxes)
        if len(linked):
            track_id[linked.data["row"]] = linked.tracker_id
    tracked = replace(found, track_id=track_id)
    return replace(filtered, detections=tracked.where(track_id >= 0))


def _by_truth(video: Video, max_gap_seconds: float) -> FilteredDetections:
    """Returns the detected boxes of each true thing as its track, with short gaps filled in."""
    filtered, truth = video.filtered(), video.truth
    found = filtered.detections
    track_id = np.full(len(found), -1)
    for frame in found.inferred_frames.tolist():
        rows, true = np.flatnonzero(found.frame_index == frame), np.flatnonzero(truth.frame_index == frame)
        row, partner = _matched(found.xyxy[rows], truth.xyxy[true])
        track_id[rows[row]] = truth.track_id[true[partner]]
    tracked = replace(found, track_id=track_id).where(track_id >= 0)
    return replace(filtered, detections=fill_gaps(tracked, video.raw.info, max_gap_seconds))


def _score(video: Video, way: Way, folder: Path) -> dict[str, float]:
    filtered = way(video)
    found, truth, info = _without_ignored(filtered.detections, video), video.truth, video.raw.info
    _write_mot(folder / "truth" / "clip.txt", truth)
    _write_mot(folder / "found" / "clip.txt", found)
    result = evaluate_mot_sequences(folder / "truth", folder / "found", metrics=["CLEAR", "HOTA"]).aggregate
    # Ids of the truth and of the tracks must differ, since boxes with the same id count as the same thing.
    other_ids = truth.track_id + 1 + found.track_id.max(initial=0)
    before, after = (
        boxes_of_corners(each.frame_index, each.xyxy.astype(float), info, ["thing"] * len(each), instance=instance)
        for each, instance in ((found, found.track_id), (truth, other_ids))
    )
    compared = compare_boxes(before, after, min_iou=SAME_IOU, accept_iou=ACCEPT_IOU)
    edits = sum(count_edits(compared, np.arange(info.num_frames), ACCEPT_IOU).values(), Edits())
    kept = filtered.thinning
    return {
        "HOTA": result.HOTA.HOTA,
        "MOTA": result.CLEAR.MOTA,
        "switches": result.CLEAR.IDSW,
        "tracks a thing": len(np.unique(found.track_id)) / len(np.unique(truth.track_id)),
        "saved": edits.saved or 0.0,
        "in editor": edits.saved_in_editor or 0.0,
        "share kept": kept.num_kept / kept.num_found if kept else 1.0,
        "mean IoU": kept.mean_iou if kept else 1.0,
    }


def _without_ignored(found: VideoDetections, video: Video) -> VideoDetections:
    """Returns the boxes without those that are matched to an ignored box."""
    truth, ignored = video.truth, video.ignored
    if ignored is None:
        return found
    is_kept = np.ones(len(found), np.bool_)
    for frame in np.unique(ignored.frame_index).tolist():
        rows, true = np.flatnonzero(found.frame_index == frame), truth.where(truth.frame_index == frame)
        both = np.concatenate([true.xyxy, ignored.xyxy[ignored.frame_index == frame]])
        row, partner = _matched(found.xyxy[rows], both)
        is_kept[rows[row[partner >= len(true)]]] = False
    return found.where(is_kept)


def _matched(found: NDArray[np.float32], true: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns the rows of matched boxes of a frame, and the rows of their partners."""
    overlap = iou_matrix(found, true)
    row, partner = linear_sum_assignment(np.where(overlap >= SAME_IOU, overlap, 0), maximize=True)
    is_pair = overlap[row, partner] >= SAME_IOU
    return row[is_pair], partner[is_pair]


def _write_mot(path: Path, tracked: VideoDetections) -> None:
    """Writes MOT Challenge lines; frames and tracks count from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    corners = tracked.xyxy.astype(float)
    sizes = corners[:, 2:] - corners[:, :2]
    columns = (tracked.frame_index + 1, tracked.track_id + 1, corners[:, 0], corners[:, 1], sizes[:, 0], sizes[:, 1])
    lines = (
        f"{frame},{track},{x:.2f},{y:.2f},{w:.2f},{h:.2f},1,1,1"
        for frame, track, x, y, w, h in zip(*columns, strict=True)
    )
    path.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
