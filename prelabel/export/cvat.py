"""Exports CVAT for video 1.1 (an XML file for each video, with a track for each object instance) and Pascal VOC.

Format: https://docs.cvat.ai/docs/dataset_management/formats/format-cvat/. CVAT imports it as "CVAT 1.1".
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape, quoteattr

import numpy as np

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
            meta = _meta(video)
            ElementTree.indent(meta)
            file.write(ElementTree.tostring(meta, "unicode") + "\n")
            file.writelines(_tracks(video))
            file.write("</annotations>\n")
        folder = export.target / "images" / name
        export.save_frames(video, (folder / f"frame_{index:06d}.jpg" for index in video.detections.frames_looked_at))
    return [*paths, *export.written_images(export.target / "images")]


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


def _tracks(video: LabelledVideo) -> Iterator[str]:
    found, objects = video.detections, video.label_map.objects
    class_ids, frames, boxes = found.class_id.tolist(), found.frame_index.tolist(), found.xyxy.tolist()
    geometries, is_interpolated = found.geometry.tolist(), found.interpolated.tolist()
    # CVAT reads only the first shape of a mask's track, so each mask gets its own.
    is_mask = np.array([isinstance(geometry, Mask) for geometry in geometries], np.bool_)
    for number, (rows, leaves) in enumerate(object_instances(video, single=is_mask)):
        category = objects[class_ids[rows[0]]]
        assert category is not None
        yield f'<track id="{number}" label={quoteattr(category.name)} source="file">\n'
        for row, is_last in zip(rows, leaves, strict=True):
            yield _shape(category, boxes[row], geometries[row], frames[row], is_keyframe=not is_interpolated[row])
            if is_last and frames[row] + 1 < video.info.num_frames:
                yield _shape(category, boxes[row], geometries[row], frames[row] + 1, is_keyframe=True, is_outside=True)
        yield "</track>\n"


def _shape(
    category: OntologyObject,
    xyxy: list[float],
    geometry: Geometry | None,
    frame: int,
    *,
    is_keyframe: bool,
    is_outside: bool = False,
) -> str:
    """Returns the XML element of a label."""
    x1, y1, x2, y2 = xyxy
    state = f'keyframe="{is_keyframe:d}" outside="{is_outside:d}"'
    start, end = f'frame="{frame}" z_order="0" {state} occluded="0"', "/>\n"
    match geometry:
        case Mask():
            runs = ", ".join(map(str, geometry.counts.tolist()))
            window = " ".join(f'{key}="{getattr(geometry, key)}"' for key in ("left", "top", "width", "height"))
            return f'  <mask {start} rle="{runs}" {window}{end}'
        case Polygons(parts=parts):
            ring = join_rings([rings[0].astype(np.float64) for rings in parts])
            points = ";".join(f"{x:.2f},{y:.2f}" for x, y in ring.tolist())
            return f'  <polygon {start} points="{points}"{end}'
        case Keypoints():
            columns = zip(category.skeleton, geometry.xy.tolist(), geometry.confidence >= SEEN_FROM, strict=True)
            points = "".join(  # each point has a state of its own
                f'    <points label={quoteattr(point.name)} points="{x:.2f},{y:.2f}" {state} '
                f'occluded="{not is_seen:d}"{end}'
                for point, (x, y), is_seen in columns
            )
            return f"  <skeleton {start}>\n{points}  </skeleton>\n"
        case RotatedBox(centre_x=x, centre_y=y, width=width, height=height, angle_degrees=degrees):
            x1, y1, x2, y2 = x - width / 2, y - height / 2, x + width / 2, y + height / 2
            end = f' rotation="{degrees % 360:.2f}"{end}'
    return f'  <box {start} xtl="{x1:.2f}" ytl="{y1:.2f}" xbr="{x2:.2f}" ybr="{y2:.2f}"{end}'


def export_voc(export: Export) -> list[Path]:
    """Writes Pascal VOC: `Annotations/VIDEO_000012.xml` for each inferred frame.

    `ImageSets/Main/trainval.txt` lists the names of the frames. `labelmap.txt` lists the classes, which CVAT and
    datumaro need. With frames, the images are in `JPEGImages`. Pixels are whole numbers from 1. The maximum corner of a
    box is its last pixel.
    """
    refuse_file(export.target)
    names_path, colours = export.target / "ImageSets" / "Main" / "trainval.txt", dict[str, str]()
    stems: set[str] = set()
    with atomic_write(names_path) as unfinished, unfinished.open("w", encoding="utf-8") as names_file:
        for video in export.videos:
            export.count_reduced(video)
            frames = video.detections.frames_looked_at.tolist()
            stem = safe_name(video.title).replace("/", "_")  # the layout has no subfolders
            if stem in stems:  # day/a.mp4 and day_a.mp4
                stem = f"{stem}-{hashlib.sha256(video.title.encode(errors='surrogatepass')).hexdigest()[:10]}"
            stems.add(stem)
            names = [f"{stem}_{index:06d}" for index in frames]
            export.save_frames(video, (export.target / "JPEGImages" / f"{name}.jpg" for name in names))
            objects = _voc_objects(video)
            for name, index in zip(names, frames, strict=True):
                text = _annotation(video, name, index, objects[video.detections.rows_on(index)])
                # To wait for the disk after each file would take most of the time, and an export can be made again.
                with atomic_write(export.target / "Annotations" / f"{name}.xml", durable=False) as path:
                    path.write_text(text, encoding="utf-8")
            names_file.writelines(f"{name}\n" for name in names)
            for category in video.label_map.categories:
                colours[category.name] = ",".join(map(str, category.rgb))
    unlisted = [name for name in colours if ":" in name or name.startswith("#")]
    if unlisted:
        export.notes.append(
            "labelmap.txt, which CVAT and datumaro need, cannot hold names with a colon or with # at the start: "
            f"left out {', '.join(map(repr, unlisted))}: map them to other names under labels.classes"
        )
    labels = "".join(f"{name}:{colour}::\n" for name, colour in colours.items() if name not in unlisted)
    write_text_atomically(
        export.target / "labelmap.txt", f"# label:color_rgb:parts:actions\nbackground:0,0,0::\n{labels}"
    )
    return [export.target / "Annotations", names_path, *export.written_images(export.target / "JPEGImages")]


def _annotation(video: LabelledVideo, name: str, frame_index: int, objects: list[str]) -> str:
    width, height = video.info.size_of(frame_index)
    return (
        f"<annotation>\n  <folder>JPEGImages</folder>\n  <filename>{escape(name)}.jpg</filename>\n"
        f"  <source>\n    <database>{escape(video.title)}</database>\n  </source>\n"
        f"  <size>\n    <width>{width}</width>\n    <height>{height}</height>\n    <depth>3</depth>\n  </size>\n"
        f"  <segmented>0</segmented>\n{''.join(objects)}</annotation>\n"
    )


def _voc_objects(video: LabelledVideo) -> list[str]:
    """Returns the XML element of each label."""
    found = video.detections
    names = ["" if category is None else escape(category.name) for category in video.label_map.objects]
    corners = np.round(found.xyxy).astype(np.int64)
    corners[:, 2:] = np.maximum(corners[:, 2:], corners[:, :2] + 1)
    corners[:, :2] += 1
    return [
        f"  <object>\n    <name>{names[class_id]}</name>\n    <pose>Unspecified</pose>\n"
        f"    <truncated>0</truncated>\n    <bndbox>\n      <xmin>{x1}</xmin>\n      <ymin>{y1}</ymin>\n"
        f"      <xmax>{x2}</xmax>\n      <ymax>{y2}</ymax>\n    </bndbox>\n    <difficult>0</difficult>\n"
        "  </object>\n"
        for class_id, (x1, y1, x2, y2) in zip(found.class_id.tolist(), corners.tolist(), strict=True)
    ]
