"""Builders for tests of labels: detections, ontologies, and label rows made by the real SDK."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
from encord.objects import LabelRowV2, Object, ObjectInstance
from encord.objects.bitmask import BitmaskCoordinates
from encord.objects.coordinates import (
    BoundingBoxCoordinates,
    PointCoordinate,
    PolygonCoordinates,
    RotatableBoundingBoxCoordinates,
)
from encord.orm.label_row import LabelRowMetadata, LabelStatus

from prelabel.data.boxes import corners_on_grid
from prelabel.data.detections import VideoDetections
from prelabel.data.frames import VideoInfo
from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.data.ontology import Ontology
from prelabel.labels.row.offline import encord_ontology, new_label_row
from prelabel.labels.row.own import LabelRow, iterate_frames

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)
SHAPES = ("bounding_box", "rotatable_bounding_box", "polygon", "bitmask")
VIDEO = VideoInfo(width=64, height=48, num_frames=40, average_fps=10.0, duration_seconds=4.0)
IMAGE = VideoInfo(width=64, height=48, num_frames=1)
IMAGE_GROUP = VideoInfo(width=64, height=48, num_frames=3, frame_sizes=((64, 48), (32, 32), (50, 70)))
MEDIA = {"video": VIDEO, "image": IMAGE, "img_group": IMAGE_GROUP}


def detections(
    *rows: tuple[int, Sequence[float], float, int], inferred_frames: Sequence[int] = (), track_id: int | list[int] = -1
) -> VideoDetections:
    """Returns columns of rows (frame_index, xyxy, confidence, class_id); `track_id` is one for all or one a row."""
    return VideoDetections(
        frame_index=np.array([row[0] for row in rows], np.int64),
        xyxy=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        confidence=np.array([row[2] for row in rows], np.float32),
        class_id=np.array([row[3] for row in rows], np.int64),
        track_id=np.array(np.broadcast_to(track_id, len(rows)), np.int64),
        inferred_frames=np.array(sorted(set(inferred_frames) | {row[0] for row in rows}), np.int64),
    )


def object_json(name: str, number: int, shape: str = "bounding_box", **more: Any) -> dict[str, Any]:
    """Returns an object of an ontology's editor JSON; its hash is made of its number."""
    return {
        "id": str(number),
        "name": name,
        "color": "#D33115",
        "shape": shape,
        "featureNodeHash": f"obj{number:05d}",
        "required": False,
        "archived": False,
        **more,
    }


def attribute_json(name: str, path: str, kind: str, *, dynamic: bool = False, required: bool = False) -> dict[str, Any]:
    """Returns an attribute: of kind text, or a radio with options Yes (with a nested text) and No."""
    attribute: dict[str, Any] = {
        "id": path,
        "name": name,
        "type": kind,
        "required": required,
        "dynamic": dynamic,
        "featureNodeHash": f"att{path.replace('.', ''):>05}",
    }
    if kind == "radio":
        attribute["options"] = [
            {
                "id": f"{path}.{n}",
                "label": label,
                "value": label.lower(),
                "featureNodeHash": f"opt{path[0]}{n}{dynamic:d}00",
            }
            for n, label in enumerate(("Yes", "No"), start=1)
        ]
        if not dynamic:
            attribute["options"][0]["options"] = [attribute_json("Why", f"{path}.1.1", "text")]
    return attribute


def ontology_of_shapes() -> Ontology:
    """Returns an ontology of an object a shape, called as the shape, with attributes, and of a classification."""
    objects = [
        object_json(
            shape,
            number,
            shape,
            attributes=[
                attribute_json("Occluded", f"{number}.1", "radio"),
                attribute_json("Moving", f"{number}.2", "radio", dynamic=True),
                attribute_json("Note", f"{number}.3", "text"),
            ],
        )
        for number, shape in enumerate(SHAPES, start=1)
    ]
    classification = {
        "id": "9",
        "featureNodeHash": "cls00009",
        "attributes": [attribute_json("Weather", "9.1", "radio")],
    }
    return Ontology.from_structure({"objects": objects, "classifications": [classification]}, "Shapes")


def map_of_shapes() -> LabelMap:
    """Returns the map of a detector whose classes are the shapes, by `class_id`."""
    return build_label_map(SHAPES, ontology_of_shapes(), {})


def new_row(info: VideoInfo, ontology: Ontology | None = None, title: str = "clip.mp4") -> LabelRow:
    """Returns an empty label row as the SDK makes it: a video, an image or an image group by `info`."""
    return new_label_row(title, title, info, encord_ontology(ontology or ontology_of_shapes()), now=NOW)


def load_in_sdk(row: LabelRow, info: VideoInfo, ontology: Ontology | None = None) -> LabelRowV2:
    """Returns a real `LabelRowV2` with the row's labels."""
    metadata = LabelRowMetadata(
        label_hash=row["label_hash"],
        created_at=NOW,
        last_edited_at=NOW,
        branch_name="main",
        data_hash=row["data_hash"],
        dataset_hash=row["dataset_hash"],
        dataset_title=row["dataset_title"],
        data_title=row["data_title"],
        data_type=row["data_type"].upper(),
        data_link=None,
        label_status=LabelStatus.LABEL_IN_PROGRESS,
        annotation_task_status=None,
        workflow_graph_node=None,
        is_shadow_data=False,
        frames_per_second=info.average_fps or None,
        number_of_frames=info.num_frames,
        duration=info.duration_seconds or None,
        height=info.height,
        width=info.width,
        audio_sample_rate=None,
        audio_codec=None,
        audio_bit_depth=None,
        audio_num_channels=None,
        spaces={},
    )
    label_row = LabelRowV2(metadata, None, encord_ontology(ontology or ontology_of_shapes()))  # type: ignore[arg-type]
    label_row.from_labels_dict(row)
    return label_row


def objects_in(row):
    return [(unit, frame, label) for unit, frame, labels in iterate_frames(row) for label in labels.get("objects", [])]


def coordinates(shape, box, size):
    x1, y1, x2, y2 = (value / 100_000 for value in box)
    width, height = (box[2] - box[0]) / 100_000, (box[3] - box[1]) / 100_000
    if shape == "bounding_box":
        return BoundingBoxCoordinates(height=height, width=width, top_left_x=x1, top_left_y=y1)
    if shape == "rotatable_bounding_box":
        return RotatableBoundingBoxCoordinates(height=height, width=width, top_left_x=x1, top_left_y=y1, theta=0.0)
    if shape == "polygon":
        return PolygonCoordinates([PointCoordinate(x, y) for x, y in ((x1, y1), (x2, y1), (x2, y2), (x1, y2))])
    mask = np.zeros((size[1], size[0]), bool)
    left, right = (int(np.floor(round(value * size[0], 6) + 0.5)) for value in (x1, x2))  # 0.57 * 50 is under 28.5
    top, bottom = (int(np.floor(round(value * size[1], 6) + 0.5)) for value in (y1, y2))
    mask[top : max(bottom, top + 1), left : max(right, left + 1)] = True
    return BitmaskCoordinates(mask)


def write_with_sdk(row, found, info, hashes):
    """Writes detections as one would with the SDK alone, tracks as one instance, under given object hashes."""
    label_row = load_in_sdk(row, info)
    grid = corners_on_grid(found.xyxy, info.sizes(found.frame_index)).tolist()
    for number, object_hash in enumerate(hashes):
        rows = np.flatnonzero(found.instance == number)
        shape = SHAPES[found.class_id[rows[0]]]
        instance = ObjectInstance(
            label_row.ontology_structure.get_child_by_title(shape, type_=Object), object_hash=object_hash
        )
        for n in rows:
            instance.set_for_frames(
                coordinates(shape, grid[n], info.sizes(found.frame_index)[n].tolist()),
                frames=int(found.frame_index[n]),
                confidence=round(float(found.confidence[n]), 5),
                manual_annotation=False,
                created_at=NOW,
                last_edited_at=NOW,
            )
        label_row.add_object_instance(instance)
    return label_row.to_encord_dict()
