"""Tracks against the truth, next to the library's own; and what kept boxes save.

    uv run python -m benchmarks.tracks                                # generated clips, the demo's detector
    uv run python -m benchmarks.tracks --clip a.mp4 --truth a.json    # a real clip
    uv run python -m benchmarks.tracks --clip a.mp4                   # without a truth: against OC-SORT

A truth is COCO with `track_id`, a frame an image in the order of their ids; boxes with `ignore` are neither right nor
wrong. Without one, OC-SORT of the library stands in: that tells how far the ways agree and not how good they are.
HOTA, IDF1 and MOTA are the library's (`trackers.eval`, equal to TrackEval). All ways get the same boxes, of confidence
0.1 and more; of a real clip persons only.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import supervision as sv
import trackers
from rich.console import Console
from rich.table import Table
from scipy.optimize import linear_sum_assignment
from trackers.eval import evaluate_mot_sequences

from models.scenes import SceneSpec, render_frames, write_clip
from prelabel.assembly.assemble import assemble
from prelabel.assembly.stored import stored_entries
from prelabel.config.load import check_config
from prelabel.config.sections import TrackerSection
from prelabel.data.boxes import clip_boxes, iou_matrix
from prelabel.data.detections import VideoDetections
from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.evaluate.compare import boxes_of_corners, compare_boxes
from prelabel.evaluate.edits import Edits, count_edits
from prelabel.labels.filter import FilteredDetections, FilterRules, filter_detections
from prelabel.labels.keyframes import Keyframes, KeyframeStats, sum_up
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.size import row_num_bytes
from prelabel.labels.row.write import write_detections
from prelabel.labels.tracking import Linking, track_detections
from prelabel.models.trackers.library import BotSortTracker, ByteTrackTracker, CBIoUTracker, OcSortTracker
from prelabel.run.checks import prepare
from prelabel.run.runner import run_tasks
from prelabel.runtime.interrupts import StopSignal
from prelabel.runtime.progress import NullProgress
from prelabel.store.raw_detections import RawRecord, read_raw

CONF = 0.1
ACCEPT_IOU = 0.8
SURE_FROM = {"high_conf_det_threshold": 0.25}
TRACKER = TrackerSection()
LINKING = Linking(CBIoUTracker, TRACKER.max_gap_seconds, TRACKER.limits)
FEW = replace(LINKING, keyframes=Keyframes())
OURS = {"cbiou": CBIoUTracker, "bytetrack": ByteTrackTracker, "ocsort": OcSortTracker, "botsort": BotSortTracker}


@dataclass(frozen=True)
class Video:
    """What was found in a video, and its true tracks where they are known."""

    name: str
    raw: RawRecord
    truth: VideoDetections | None
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
    """Measures, prints tables, and ends with one line of JSON."""
    args = _parse()
    with tempfile.TemporaryDirectory() as folder:
        if args.clip is None:
            videos = [_generated(seed, args.frames, Path(folder)) for seed in range(1, args.scenes + 1)]
        else:
            videos = [_real(args.clip, args.truth, args.weights, args.imgsz, Path(folder))]
        of_library = {
            "ByteTrack": trackers.ByteTrackTracker,
            "OC-SORT": trackers.OCSORTTracker,
            "C-BIoU": trackers.CBIoUTracker,
            "BoT-SORT": trackers.BoTSORTTracker,
        }
        ways: dict[str, Way] = {
            f"library: {name}": partial(_by_library, tracker=of_library[name]) for name in of_library
        }
        ways |= {
            f"prelabel: {name}": partial(_by_prelabel, linking=replace(LINKING, new_tracker=tracker))
            for name, tracker in OURS.items()
        }
        ways["prelabel: cbiou, keyframes"] = partial(_by_prelabel, linking=FEW)
        ways["prelabel: cbiou, keyframes, stride 5"] = partial(_by_prelabel, linking=FEW, stride=5)
        scores = [
            {"way": name, **_score(videos, way, Path(folder) / str(n))} for n, (name, way) in enumerate(ways.items())
        ]
    sizes = _sizes(videos)
    clips = "generated clips" if args.clip is None else "a real clip"
    against = "OC-SORT" if args.clip is not None and args.truth is None else "the truth"
    for title, rows in ((f"{clips}, against {against}", scores), ("label rows", sizes)):
        table = Table(*rows[0], title=title, box=None)
        for row in rows:
            table.add_row(*(f"{value:,}" if not isinstance(value, str) else value for value in row.values()))
        Console(highlight=False).print(table)
    print(json.dumps({"videos": [video.name for video in videos], "scores": scores, "rows": sizes}))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=8, help="generated clips")
    parser.add_argument("--frames", type=int, default=150, help="frames of each")
    parser.add_argument("--clip", type=Path)
    parser.add_argument("--truth", type=Path, help="COCO with track_id")
    parser.add_argument("--imgsz", type=int, default=640)
    parser.add_argument("--weights", default="yolo11n")
    return parser.parse_args()


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
    return Video(f"scene {seed}", raw, truth)


def _real(clip: Path, truth: Path | None, weights: str, imgsz: int, folder: Path) -> Video:
    source = {"path": str(clip), "output": str(folder / "real")}
    detector = {"use": "ultralytics", "weights": str(weights), "imgsz": imgsz, "conf": CONF}
    raw = _run({"source": source, "detector": detector, "labels": {"classes": {"person": "person"}}})
    if truth is None:
        return Video(clip.stem, raw, None)
    document = json.loads(truth.read_text())
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
    is_ignored = np.array([bool(entry.get("ignore")) for entry in entries])
    return Video(clip.stem, raw, true.where(~is_ignored), true.where(is_ignored))


def _run(values: Mapping[str, object]) -> RawRecord:
    assembly = assemble(check_config(values, "benchmark"), Path())
    prepare(assembly)
    report = run_tasks(assembly, NullProgress(), StopSignal())
    assert not report.failed, report.failed
    (entry,) = stored_entries(assembly.found_store, assembly.named_source).of_source
    return read_raw(assembly.found_store.detections_path(entry))


def _by_prelabel(video: Video, linking: Linking, stride: int = 1) -> FilteredDetections:
    return track_detections(video.filtered(stride), video.raw.info, video.label_map, video.raw.cuts, linking)


def _by_library(video: Video, tracker: type, **options: float) -> FilteredDetections:
    """Returns the tracks of one of the library's trackers, run as its documentation shows."""
    library = tracker(frame_rate=video.raw.info.average_fps, **options)
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


def _score(videos: list[Video], way: Way, folder: Path) -> dict[str, float]:
    kept: list[KeyframeStats] = []
    edits = Edits()
    num_tracks = num_things = 0
    for video in videos:
        filtered = way(video)
        truth = video.truth
        if truth is None:
            truth = _by_library(video, trackers.OCSORTTracker, **SURE_FROM, minimum_consecutive_frames=1).detections
        found, frames = (
            _without_ignored(filtered.detections, truth, video.ignored),
            np.arange(video.raw.info.num_frames),
        )
        _write_mot(folder / "truth" / f"{video.name}.txt", truth)
        _write_mot(folder / "found" / f"{video.name}.txt", found)
        num_tracks += len(np.unique(found.track_id))
        num_things += len(np.unique(truth.track_id))
        before, after = (
            boxes_of_corners(
                each.frame_index, each.xyxy.astype(float), video.raw.info, ["thing"] * len(each), instance=each.track_id
            )
            for each in (found, truth)
        )
        compared = compare_boxes(before, after, min_iou=0.5, accept_iou=ACCEPT_IOU)
        edits = sum(count_edits(compared, frames, ACCEPT_IOU).values(), edits)
        kept += [filtered.thinning] if filtered.thinning is not None else []
    result = evaluate_mot_sequences(folder / "truth", folder / "found", metrics=["CLEAR", "HOTA", "Identity"]).aggregate
    stats = sum_up(kept)
    return {
        "HOTA": round(result.HOTA.HOTA, 3),
        "IDF1": round(result.Identity.IDF1, 3),
        "MOTA": round(result.CLEAR.MOTA, 3),
        "switches": int(result.CLEAR.IDSW),
        "tracks": num_tracks,
        "things": num_things,
        "saved": round(edits.saved or 0.0, 3),
        "in editor": round(edits.saved_in_editor or 0.0, 3),
        "share kept": round(stats.num_kept / stats.num_found, 3) if stats else 1.0,
        "mean IoU": round(stats.mean_iou, 3) if stats else 1.0,
    }


def _without_ignored(
    found: VideoDetections, truth: VideoDetections, ignored: VideoDetections | None
) -> VideoDetections:
    """Returns the boxes without those that are matched to an ignored box."""
    if ignored is None:
        return found
    is_kept = np.ones(len(found), np.bool_)
    for frame in np.unique(ignored.frame_index).tolist():
        rows, true = np.flatnonzero(found.frame_index == frame), truth.where(truth.frame_index == frame)
        both = np.concatenate([true.xyxy, ignored.xyxy[ignored.frame_index == frame]])
        overlap = iou_matrix(found.xyxy[rows], both)
        chosen, partner = linear_sum_assignment(np.where(overlap >= 0.5, overlap, 0), maximize=True)
        is_kept[rows[chosen[(overlap[chosen, partner] >= 0.5) & (partner >= len(true))]]] = False
    return found.where(is_kept)


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


def _sizes(videos: list[Video]) -> list[dict[str, object]]:
    """Returns instances and bytes of the label rows that each form of the labels makes."""
    empty = replace(LINKING, keyframes=Keyframes(between="empty"))
    forms: Mapping[str, Way] = {
        "a box an instance": lambda video: video.filtered(),
        "tracks": lambda video: _by_prelabel(video, LINKING),
        "keyframes, filled": lambda video: _by_prelabel(video, FEW),
        "keyframes, empty": lambda video: _by_prelabel(video, empty),
    }
    rows: list[dict[str, object]] = []
    for name, form in forms.items():
        instances = boxes = num_bytes = 0
        for video in videos:
            detections, info, label_map = form(video).detections, video.raw.info, video.label_map
            now = datetime.now(UTC)
            ontology = encord_ontology(Ontology.from_classes(list(label_map.class_names)))
            row = new_label_row("clip", "clip.mp4", info, ontology, now=now)
            num_bytes += row_num_bytes(write_detections(row, detections, info, label_map, now=now).row)
            instances += len(np.unique(detections.instance))
            boxes += len(detections)
        rows.append({"labels": name, "instances": instances, "boxes": boxes, "megabytes": round(num_bytes / 1e6, 3)})
    return rows


if __name__ == "__main__":
    main()
