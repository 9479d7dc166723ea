"""Exports COCO: one JSON file for all videos, with an image for every inferred frame.

Format: https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import orjson
from numpy.typing import NDArray

from prelabel.data.boxes import box_areas
from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.label_map import LabelledVideo
from prelabel.data.masks import text_down_columns
from prelabel.data.ontology import OntologyObject
from prelabel.errors import ConfigError
from prelabel.export.export import Export
from prelabel.runtime.files import atomic_write, safe_name

Size = tuple[int, int]
"""Width and height in pixels."""


def frame_file_name(title: str, frame_index: int) -> str:
    """Returns the name of a frame in COCO: a path with the suffix of an image, because tools load it as one.

    >>> frame_file_name("clip.mp4", 12)
    'clip.mp4/000012.jpg'
    """
    return f"{safe_name(title)}/{frame_index:06d}.jpg"


def export_coco(export: Export) -> list[Path]:
    """Writes one COCO file; with frames also the folder `images` next to it.

    The target is a folder or a file that ends in `.json`.
    """
    is_file = export.target.suffix.lower() == ".json"
    if export.target.exists() and export.target.is_dir() == is_file:
        raise ConfigError(f"{export.target}: is a {'folder' if is_file else 'file'}: name another target")
    path = export.target if is_file else export.target / "coco.json"
    write_coco(path, _saving_frames(export, path.parent / "images"))
    return [path, *export.written_images(path.parent / "images")]


def _saving_frames(export: Export, folder: Path) -> Iterator[LabelledVideo]:
    for video in export.videos:
        frames = video.detections.frames_looked_at.tolist()
        export.save_frames(video, (folder / frame_file_name(video.title, index) for index in frames))
        yield video


def write_coco(path: Path, videos: Iterable[LabelledVideo]) -> None:
    """Writes the `images`, `annotations` (with `score`) and `categories` of all videos.

    Ids count from 1 over all videos. `bbox` is x, y, width and height in pixels of the displayed frame. Masks, polygons
    and rotated boxes are in `segmentation`, poses in `keypoints`. `bbox` is the model's own box, but the box around a
    mask that `refine` made.

    Args:
        path: of the JSON file; replaced once the new file is complete.
        videos: read one at a time.
    """
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        # The document lists all images before all annotations. So the annotations go to a temporary file first, which
        # needs little memory.
        with tempfile.TemporaryFile(dir=path.parent) as annotations:
            file.write(b'{"images": [')
            categories = _write_lists(videos, file, annotations)
            file.write(b'],\n"annotations": [')
            annotations.seek(0)
            shutil.copyfileobj(annotations, file)
        file.write(b'],\n"categories": ' + orjson.dumps(categories) + b"}\n")


def coco_keys(geometry: Geometry, size: Size) -> dict[str, Any]:
    """Returns the keys of an annotation that contain a geometry, in pixels of the displayed frame.

    Keypoints have COCO's visibility 2 (visible) or 1 (labelled, but not visible).

    Args:
        geometry: within its frame.
        size: of the frame.

    >>> coco_keys(Keypoints(np.array([[1.5, 2]]), np.array([0.9])), (8, 4))
    {'keypoints': [1.5, 2.0, 2], 'num_keypoints': 1}
    """
    match geometry:
        case Mask():
            return {"segmentation": _run_lengths(geometry, size), "area": geometry.area}
        case Polygons(parts=parts) if all(len(rings) == 1 for rings in parts):
            rings = [rings[0] for rings in parts]
            return {"segmentation": [_flat(ring) for ring in rings], "area": round(sum(map(_area, rings)), 3)}
        case Polygons():
            mask = _filled(geometry, size)
            return {} if mask is None else {"segmentation": _run_lengths(mask, size), "area": mask.area}
        case RotatedBox():
            return {"segmentation": [_flat(geometry.corners)], "area": round(geometry.width * geometry.height, 3)}
        case Keypoints():
            visibility = np.where(geometry.confidence >= SEEN_FROM, 2, 1).tolist()
            points = zip(np.round(geometry.xy.astype(np.float64), 3).tolist(), visibility, strict=True)
            return {
                "keypoints": [value for (x, y), visible in points for value in (x, y, visible)],
                "num_keypoints": len(visibility),
            }


def _box_around(geometry: Mask | Polygons) -> list[float]:
    """Returns x, y, width and height of the smallest box around a mask or polygons, as COCO's `toBbox`."""
    if isinstance(geometry, Mask):
        return [geometry.left, geometry.top, geometry.width, geometry.height]
    corners = np.concatenate([rings[0] for rings in geometry.parts]).astype(np.float64)
    low, high = corners.min(axis=0), corners.max(axis=0)
    box: list[float] = np.round([*low, *(high - low)], 3).tolist()
    return box


def _flat(ring: NDArray[np.float32]) -> list[float]:
    values: list[float] = np.round(ring.astype(np.float64), 3).reshape(-1).tolist()
    return values


def _area(ring: NDArray[np.float32]) -> float:
    """Returns the area within a ring, by the shoelace formula."""
    (x, y), (next_x, next_y) = ring.astype(np.float64).T, np.roll(ring.astype(np.float64), -1, axis=0).T
    return abs(float((x * next_y - next_x * y).sum())) / 2


def _run_lengths(mask: Mask, size: Size) -> dict[str, Any]:
    width, height = size
    return {"size": [height, width], "counts": text_down_columns(mask, width, height)}


def _filled(polygons: Polygons, size: Size) -> Mask | None:
    """Returns the mask of polygons with holes, because COCO's lists of rings have no holes; None if it is empty."""
    outer = _fill([rings[0] for rings in polygons.parts], size)
    holes = [hole for rings in polygons.parts for hole in rings[1:]]
    return Mask.of(outer & ~_fill(holes, size) if holes else outer)


def _fill(rings: Sequence[NDArray[np.float32]], size: Size) -> NDArray[np.bool_]:
    from faster_coco_eval.core import mask as coco_mask

    width, height = size
    encoded = coco_mask.frPyObjects([_flat(ring) for ring in rings], height, width)
    filled: NDArray[np.bool_] = coco_mask.decode(coco_mask.merge(encoded)).astype(np.bool_)
    return filled


def _write_lists(videos: Iterable[LabelledVideo], images: IO[bytes], annotations: IO[bytes]) -> list[dict[str, Any]]:
    category_ids: dict[OntologyObject, int] = {}
    num_images = num_annotations = 0
    for video in videos:
        for category in video.label_map.categories:
            category_ids.setdefault(category, len(category_ids) + 1)
        first_image_id = num_images + 1
        for image in _images(video, first_image_id):
            images.write((b",\n" if num_images else b"\n") + orjson.dumps(image))
            num_images += 1
        for annotation in _annotations(video, category_ids, first_image_id, num_annotations + 1):
            annotations.write((b",\n" if num_annotations else b"\n") + orjson.dumps(annotation))
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
    corners = found.xyxy.astype(np.float64)
    columns = (
        (np.searchsorted(found.frames_looked_at, found.frame_index) + first_image_id).tolist(),
        ids[found.class_id].tolist(),
        np.round(np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1), 3).tolist(),
        np.round(box_areas(found.xyxy).astype(np.float64), 3).tolist(),
        np.round(found.confidence.astype(np.float64), 5).tolist(),
        found.track_id.tolist(),
        found.frame_index.tolist(),
        found.geometry.tolist(),
        found.class_id.tolist(),
    )
    for number, (image_id, category_id, bbox, area, score, track_id, frame_index, known, class_id) in enumerate(
        zip(*columns, strict=True)
    ):
        annotation: dict[str, Any] = {
            "id": first_id + number,
            "image_id": image_id,
            "category_id": category_id,
            "bbox": bbox,
            "area": area,
            "iscrowd": 0,
            "score": score,
        }
        if known is not None:
            annotation |= coco_keys(known, video.info.size_of(frame_index))
            if class_id in video.label_map.refined and isinstance(known, Mask | Polygons):
                annotation["bbox"] = _box_around(known)
        yield annotation if track_id < 0 else {**annotation, "track_id": track_id}
