"""Pascal VOC: an XML file for each frame, boxes only.

Format: http://host.robots.ox.ac.uk/pascal/VOC/voc2012/devkit_doc.pdf, section 8.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from prelabel.data.label_map import LabelledVideo
from prelabel.export.export import Export, refuse_file
from prelabel.runtime.files import atomic_write, safe_name, write_text_atomically


def export_voc(export: Export) -> list[Path]:
    """Writes `Annotations/VIDEO_000012.xml` for each inferred frame, and their names to `ImageSets/Main/trainval.txt`.

    `labelmap.txt` names the classes, which CVAT and datumaro need. With frames, the images are in `JPEGImages`.
    Pixels are whole and count from 1. A box ends at its last pixel.
    """
    refuse_file(export.target)
    names_path, colours = export.target / "ImageSets" / "Main" / "trainval.txt", dict[str, str]()
    with atomic_write(names_path) as unfinished, unfinished.open("w", encoding="utf-8") as names_file:
        for video in export.videos:
            frames = video.detections.frames_looked_at.tolist()
            stem = safe_name(video.title).replace("/", "_")  # the layout has no folders of its own
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
