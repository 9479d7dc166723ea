"""What masks cost on top of boxes: found, kept, made polygons or bitmasks, and written onto the row.

    python -m benchmarks.masks [--weights yolo11n-seg.pt] [--masks 2000] [--rounds 5]

Masks are made: blobs of the size of a person 400 pixels tall in 1080p, each of its own outline. CPU seconds of the
process, medians over rounds that are interleaved. With `--weights`, frames of coloured blocks go through an Ultralytics
segmentation checkpoint as well: asked for masks, not asked, and by Ultralytics' own `predict` with `retina_masks`. The
last line is the result as JSON.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.geometry import Mask, OutputSpec
from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.labels.filter import filter_detections
from prelabel.labels.fit import fit_geometry
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.write import write_detections
from prelabel.store.raw_detections import DetectionProvenance, RawRecord, read_raw, write_raw

HEIGHT, WIDTH, PER_FRAME = 400, 170, 10
Step = Callable[[], object]
NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


def make_pixels(rng: np.random.Generator) -> np.ndarray:
    """Returns a blob: an ellipse whose radius wobbles, as a body's outline does."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    angle = np.arctan2((y - HEIGHT / 2) / HEIGHT, (x - WIDTH / 2) / WIDTH)
    heights, phases = rng.normal(0, 0.05, 7), rng.uniform(0, 2 * np.pi, 7)
    waves = sum(heights[k] * np.sin((k + 2) * angle + phases[k]) for k in range(7))
    return np.hypot((y - HEIGHT / 2) / HEIGHT, (x - WIDTH / 2) / WIDTH) < 0.4 + 0.4 * waves


def make_found(num: int, pixels: list[np.ndarray]) -> tuple[VideoInfo, VideoDetections]:
    num_frames = -(-num // PER_FRAME)
    info = VideoInfo(1920, 1080, num_frames, average_fps=30.0, duration_seconds=num_frames / 30)
    rng = np.random.default_rng(1)
    lefts, tops = rng.integers(0, 1920 - WIDTH, num), rng.integers(0, 1080 - HEIGHT, num)
    masks = np.full(num, None, object)
    masks[:] = [Mask.of(shape, int(left), int(top)) for shape, left, top in zip(pixels, lefts, tops, strict=True)]
    boxes = np.array([[m.left, m.top, m.left + m.width, m.top + m.height] for m in masks], np.float32)
    return info, VideoDetections(
        frame_index=np.repeat(np.arange(num_frames), PER_FRAME)[:num],
        xyxy=boxes,
        confidence=rng.uniform(0.25, 1, num).astype(np.float32),
        class_id=np.zeros(num, np.int64),
        track_id=np.full(num, -1),
        inferred_frames=np.arange(num_frames),
        geometry=masks,
    )


def map_to(shape: str) -> tuple[Ontology, LabelMap]:
    ontology = Ontology.from_classes(["person"], shape=shape)
    return ontology, build_label_map(["person"], ontology, {}, offer=OutputSpec("mask"))


def fit(found: VideoDetections, info: VideoInfo, label_map: LabelMap) -> VideoDetections:
    return fit_geometry(filter_detections(found, info, label_map).detections, info, label_map, 1.0)


def steps_of(info: VideoInfo, found: VideoDetections, pixels: list[np.ndarray], folder: Path) -> dict[str, Step]:
    path = folder / "clip.parquet"
    record = RawRecord(info, found, DetectionProvenance(("person",), None, "f", offer=OutputSpec("mask")))
    steps: dict[str, Step] = {
        "to run lengths": lambda: [Mask.of(shape) for shape in pixels],
        "kept": lambda: write_raw(path, record),
        "read again": lambda: read_raw(path),
    }
    for shape in ("bounding_box", "bitmask", "polygon"):
        ontology, label_map = map_to(shape)
        blank = new_label_row("clip.mp4", "clip.mp4", info, encord_ontology(ontology), now=NOW)

        fitted = fit(found, info, label_map)
        steps[f"{shape}: filtered"] = partial(fit, found, info, label_map)
        steps[f"{shape}: on the row"] = partial(write_detections, blank, fitted, info, label_map, now=NOW)
    return steps


def detector_steps(weights: str) -> dict[str, Step]:
    import torch
    from ultralytics import YOLO

    from prelabel.data.frames import FrameBatch
    from prelabel.models.detectors.ultralytics import UltralyticsDetector

    frames = np.random.default_rng(2).integers(0, 256, (4, 27, 48, 3), np.uint8).repeat(40, axis=1).repeat(40, axis=2)
    batch = FrameBatch(torch.from_numpy(frames), np.arange(4), np.arange(4) / 25)
    detector = UltralyticsDetector(weights=weights, device="cpu", engine="torch")
    asked = detector.with_geometry(frozenset(range(len(detector.class_names))))
    print(f"{sum(map(len, asked.detect(batch)))} masks on 4 frames", flush=True)
    bgr = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames]
    model = YOLO(weights)
    return {
        "4 frames, boxes": lambda: detector.detect(batch),
        "4 frames, masks": lambda: asked.detect(batch),
        "4 frames, masks by predict": lambda: model.predict(
            bgr, device="cpu", verbose=False, conf=detector.traits.raw_conf, retina_masks=True
        ),
    }


def cpu_seconds(step: Step) -> float:
    began = time.process_time()
    step()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights")
    parser.add_argument("--masks", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    pixels = [make_pixels(rng) for _ in range(arguments.masks)]
    info, found = make_found(arguments.masks, pixels)
    with tempfile.TemporaryDirectory() as folder:
        steps = steps_of(info, found, pixels, Path(folder))
        if arguments.weights:
            steps |= detector_steps(arguments.weights)
        seconds: dict[str, list[float]] = {name: [] for name in steps}
        for _ in range(arguments.rounds):
            for name, step in steps.items():
                seconds[name].append(cpu_seconds(step))
        size = (Path(folder) / "clip.parquet").stat().st_size
    _, label_map = map_to("polygon")
    polygons = fit(found, info, label_map).geometry
    result = {name: round(statistics.median(values), 4) for name, values in seconds.items()}
    result |= {
        "masks": arguments.masks,
        "bytes_kept": size,
        "corners": statistics.median(each.num_points for each in polygons),
    }
    for name, value in result.items():
        print(f"{name:>28}  {value}")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
