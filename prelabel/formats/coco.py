"""COCO detection results: one JSON file for all videos, an image for every frame that was looked at."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from prelabel.boxes import box_areas
from prelabel.files import whole_file
from prelabel.formats.coco_geometry import coco_keys
from prelabel.labelled import LabelledVideo
from prelabel.ontology import OntologyObject


def frame_file_name(title: str, frame_index: int) -> str:
    """Returns what a frame is called in exports.

    >>> frame_file_name("clip.mp4", 12)
    'clip.mp4#000012'
    """
    return f"{title}#{frame_index:06d}"


def write_coco(path: Path, videos: Iterable[LabelledVideo]) -> None:
    """Writes `images`, `annotations` with `score`, and `categories` with ids from 1.

    Boxes are x, y, width and height in pixels of the displayed frame; ids run through all videos. What is known beyond
    the box is there as `segmentation` or `keypoints`.

    Args:
        path: of the JSON file; replaced at once when all is written.
        videos: taken one at a time.
    """
    with whole_file(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        # Annotations wait on disk until the images are all written: both are lists of one document.
        with tempfile.TemporaryFile("w+", encoding="utf-8", dir=path.parent) as annotations:
            file.write('{"images": [')
            categories = _write_lists(videos, file, annotations)
            file.write('],\n"annotations": [')
            annotations.seek(0)
            shutil.copyfileobj(annotations, file)
        file.write('],\n"categories": ')
        json.dump(categories, file)
        file.write("}\n")


def _write_lists(videos: Iterable[LabelledVideo], images: IO[str], annotations: IO[str]) -> list[dict[str, Any]]:
    category_ids: dict[OntologyObject, int] = {}
    num_images = num_annotations = 0
    for video in videos:
        for category in video.label_map.categories:
            category_ids.setdefault(category, len(category_ids) + 1)
        first_image_id = num_images + 1
        for image in _images(video, first_image_id):
            images.write((",\n" if num_images else "\n") + json.dumps(image))
            num_images += 1
        for annotation in _annotations(video, category_ids, first_image_id, num_annotations + 1):
            annotations.write((",\n" if num_annotations else "\n") + json.dumps(annotation))
            num_annotations += 1
    return [_category(category, number) for category, number in category_ids.items()]


def _category(category: OntologyObject, number: int) -> dict[str, Any]:
    entry = {"id": number, "name": category.name, "supercategory": "", "feature_hash": category.feature_hash}
    points = [point.name for point in category.skeleton]
    edges = [[one + 1, other + 1] for one, other in category.skeleton_edges]
    return {**entry, "keypoints": points, "skeleton": edges} if points else entry


def _images(video: LabelledVideo, first_id: int) -> Iterator[dict[str, Any]]:
    frames = video.detections.frames_looked_at
    sizes = video.info.sizes(frames).tolist()
    for number, (frame_index, (width, height)) in enumerate(zip(frames.tolist(), sizes, strict=True)):
        yield {
            "id": first_id + number,
            "file_name": frame_file_name(video.title, frame_index),
            "video": video.title,
            "frame_index": frame_index,
            "width": width,
            "height": height,
        }


def _annotations(
    video: LabelledVideo, category_ids: dict[OntologyObject, int], first_image_id: int, first_id: int
) -> Iterator[dict[str, Any]]:
    found = video.detections
    ids = np.array([0 if obj is None else category_ids[obj] for obj in video.label_map.objects], np.int64)
    columns = (
        (np.searchsorted(found.frames_looked_at, found.frame_index) + first_image_id).tolist(),
        ids[found.class_id].tolist(),
        found.xyxy.astype(np.float64).tolist(),
        box_areas(found.xyxy).astype(np.float64).tolist(),
        found.confidence.astype(np.float64).tolist(),
        found.track_id.tolist(),
        found.frame_index.tolist(),
        found.geometry.tolist(),
    )
    for number, (image_id, category_id, (x1, y1, x2, y2), area, score, track_id, frame_index, known) in enumerate(
        zip(*columns, strict=True)
    ):
        annotation: dict[str, Any] = {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": [round(value, 3) for value in (x1, y1, x2 - x1, y2 - y1)],
            "area": round(area, 3),
            "iscrowd": 0,
            "score": round(score, 5),
        }
        if known is not None:
            annotation |= coco_keys(known, video.info.size_of(frame_index))
        yield annotation if track_id < 0 else {**annotation, "track_id": track_id}
