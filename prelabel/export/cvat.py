"""Exports CVAT for video 1.1 (an XML file for each video, with a track for each object instance) and Pascal VOC.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. CVAT imports it as "CVAT 1.1".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from prelabel.data.geometry import SEEN_FROM, Geometry, Keypoints, Mask, Polygons, RotatedBox
from prelabel.data.label_map import LabelledVideo
from prelabel.data.ontology import OntologyObject
from prelabel.export.export import Export, object_instances, refuse_file
from prelabel.export.yolo import join_rings
from prelabel.runtime.files import atomic_write, safe_name, write_text_atomically

LABEL_TYPES = {"polygon": "polygon", "bitmask": "mask", "skeleton": "skeleton"}
"""CVAT's type of a label by the ontology's shape; boxes, also rotated ones, are `rectangle`."""


def export_cvat(export: Export) -> list[Path]:
    """Writes `VIDEO.xml` for each video; with frames also `images/VIDEO/frame_000012.jpg`.

    CVAT interpolates between the shapes of a track. Where the object leaves, a shape marked `outside` ends this. CVAT
    has no confidences.
    """
    refuse_file(export.target)
    paths = []
    for video in export.videos:
        name = safe_name(video.title)
        paths.append(export.target / f"{name}.xml")
        with atomic_write(paths[-1]) as unfinished, unfinished.open("w", encoding="utf-8") as file:
            file.write('<?xml version="1.0" encoding="utf-8"?>\n<annotations>\n<version>1.1</version>\n')
            for element in (_meta(video), *_tracks(video)):
                ElementTree.indent(element)
                file.write(ElementTree.tostring(element, "unicode") + "\n")
            file.write("</annotations>\n")
        folder = export.target / "images" / name
        export.save_frames(video, (folder / f"frame_{index:06d}.jpg" for index in video.detections.frames_looked_at))
    return paths


def _meta(video: LabelledVideo) -> ElementTree.Element:
    meta = ElementTree.Element("meta")
    task = ElementTree.SubElement(meta, "task")
    values = {"name": video.title, "size": video.info.num_frames, "mode": "interpolation", "overlap": 0}
    for key, value in {**values, "start_frame": 0, "stop_frame": video.info.num_frames - 1}.items():
        ElementTree.SubElement(task, key).text = str(value)
    labels = ElementTree.SubElement(task, "labels")
    for category in video.label_map.categories:
        label = ElementTree.SubElement(labels, "label")
        for key, text in (
            ("name", category.name),
            ("color", category.color),
            ("type", LABEL_TYPES.get(category.shape, "rectangle")),
            ("attributes", ""),
        ):
            ElementTree.SubElement(label, key).text = text
    size = ElementTree.SubElement(task, "original_size")
    ElementTree.SubElement(size, "width").text = str(video.info.width)
    ElementTree.SubElement(size, "height").text = str(video.info.height)
    return meta


def _tracks(video: LabelledVideo) -> Iterator[ElementTree.Element]:
    found = video.detections
    is_mask = np.array([isinstance(geometry, Mask) for geometry in found.geometry], np.bool_)
    # CVAT reads only the first shape of a mask's track, so each mask gets its own.
    for number, (rows, leaves) in enumerate(object_instances(video, single=is_mask)):
        category = video.label_map.objects[found.class_id[rows[0]]]
        assert category is not None
        track = ElementTree.Element("track", id=str(number), label=category.name, source="file")
        for row, is_last in zip(rows.tolist(), leaves.tolist(), strict=True):
            index, box, geometry = int(found.frame_index[row]), found.xyxy[row].astype(np.float64), found.geometry[row]
            shape = _shape(category, box, geometry)
            track.append(_in_state(shape, index, is_keyframe=not found.interpolated[row]))
            if is_last and index + 1 < video.info.num_frames:
                end = _shape(category, box, geometry)
                track.append(_in_state(end, index + 1, is_keyframe=True, is_outside=True))
        yield track


def _in_state(
    shape: ElementTree.Element, frame: int, *, is_keyframe: bool, is_outside: bool = False
) -> ElementTree.Element:
    shape.set("frame", str(frame))
    shape.set("z_order", "0")
    for element in shape.iter():  # each point of a skeleton has a state of its own
        element.set("keyframe", str(int(is_keyframe)))
        element.set("outside", str(int(is_outside)))
        element.set("occluded", element.get("occluded", "0"))
    return shape


def _shape(category: OntologyObject, xyxy: NDArray[np.float64], geometry: Geometry | None) -> ElementTree.Element:
    match geometry:
        case Mask():
            window = {key: str(getattr(geometry, key)) for key in ("left", "top", "width", "height")}
            return ElementTree.Element("mask", {"rle": ", ".join(map(str, geometry.counts.tolist())), **window})
        case Polygons(parts=parts):
            ring = join_rings([rings[0].astype(np.float64) for rings in parts])
            return ElementTree.Element("polygon", points=";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist()))
        case Keypoints():
            skeleton = ElementTree.Element("skeleton")
            points = zip(category.skeleton, geometry.xy.tolist(), geometry.confidence >= SEEN_FROM, strict=True)
            for point, (x, y), is_seen in points:
                values = {"label": point.name, "points": f"{x:.2f},{y:.2f}", "occluded": str(int(not is_seen))}
                ElementTree.SubElement(skeleton, "points", values)
            return skeleton
        case RotatedBox():
            half = np.array([geometry.width, geometry.height]) / 2
            centre = np.array([geometry.centre_x, geometry.centre_y])
            xyxy = np.concatenate([centre - half, centre + half])
    corners = zip(("xtl", "ytl", "xbr", "ybr"), xyxy.tolist(), strict=True)
    box = ElementTree.Element("box", {key: f"{value:.2f}" for key, value in corners})
    if isinstance(geometry, RotatedBox):
        box.set("rotation", f"{geometry.angle_degrees % 360:.2f}")
    return box


def export_voc(export: Export) -> list[Path]:
    """Writes Pascal VOC: `Annotations/VIDEO_000012.xml` for each inferred frame.

    `ImageSets/Main/trainval.txt` lists the names of the frames. `labelmap.txt` lists the classes, which CVAT and
    datumaro need. With frames, the images are in `JPEGImages`. Pixels are whole numbers from 1. The maximum corner of a
    box is its last pixel.
    """
    refuse_file(export.target)
    names_path, colours = export.target / "ImageSets" / "Main" / "trainval.txt", dict[str, str]()
    with atomic_write(names_path) as unfinished, unfinished.open("w", encoding="utf-8") as names_file:
        for video in export.videos:
            frames = video.detections.frames_looked_at.tolist()
            stem = safe_name(video.title).replace("/", "_")  # the layout has no subfolders
            names = [f"{stem}_{index:06d}" for index in frames]
            export.save_frames(video, (export.target / "JPEGImages" / f"{name}.jpg" for name in names))
            for name, index in zip(names, frames, strict=True):
                with atomic_write(export.target / "Annotations" / f"{name}.xml") as path:
                    ElementTree.ElementTree(_annotation(video, name, index)).write(path, "utf-8")
            names_file.writelines(f"{name}\n" for name in names)
            for category in video.label_map.categories:
                colours[category.name] = ",".join(map(str, category.rgb))
    labels = "".join(f"{name}:{colour}::\n" for name, colour in colours.items())
    write_text_atomically(
        export.target / "labelmap.txt", f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{labels}"
    )
    return [export.target / "Annotations", names_path]


def _annotation(video: LabelledVideo, name: str, frame_index: int) -> ElementTree.Element:
    found = video.detections
    width, height = video.info.size_of(frame_index)
    root = ElementTree.Element("annotation")
    _add(root, {"folder": "JPEGImages", "filename": f"{name}.jpg"})
    _add(ElementTree.SubElement(root, "source"), {"database": video.title})
    _add(ElementTree.SubElement(root, "size"), {"width": width, "height": height, "depth": 3})
    _add(root, {"segmented": 0})
    for row in range(len(found))[found.rows_on(frame_index)]:
        category = video.label_map.objects[found.class_id[row]]
        thing = ElementTree.SubElement(root, "object")
        _add(thing, {"name": "" if category is None else category.name, "pose": "Unspecified", "truncated": 0})
        x1, y1, x2, y2 = np.round(found.xyxy[row]).astype(int).tolist()
        box = {"xmin": x1 + 1, "ymin": y1 + 1, "xmax": max(x2, x1 + 1), "ymax": max(y2, y1 + 1)}
        _add(ElementTree.SubElement(thing, "bndbox"), box)
        _add(thing, {"difficult": 0})
    ElementTree.indent(root)
    return root


def _add(element: ElementTree.Element, values: Mapping[str, object]) -> None:
    for key, value in values.items():
        ElementTree.SubElement(element, key).text = str(value)
