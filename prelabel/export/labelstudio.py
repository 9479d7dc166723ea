"""Exports Label Studio predictions on videos, as one JSON file to import.

Format: https://labelstud.io/guide/predictions and https://labelstud.io/tags/videorectangle.
"""

from __future__ import annotations

from pathlib import Path
from statistics import fmean
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
import orjson

from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError
from prelabel.export.export import Export, object_instances, refuse_file
from prelabel.runtime.files import atomic_write, write_text_atomically
from prelabel.runtime.process_settings import paused_garbage_collection


def export_labelstudio(export: Export) -> list[Path]:
    """Writes `tasks.json`, with predictions for each video, and `config.xml`, the labelling configuration.

    Of masks and other geometry, only the box is written. `data.video` is the video's title: replace it with a URL that
    Label Studio can open. Images are left out and counted, because `VideoRectangle` is for videos only.

    Raises:
        ConfigError: the target is a file, or there are images and no video.
    """
    refuse_file(export.target)
    path, config_path, colours = export.target / "tasks.json", export.target / "config.xml", dict[str, str]()
    images: list[str] = []
    with atomic_write(path) as unfinished, unfinished.open("wb") as file:
        separator = b"["
        for video in export.videos:
            if video.info.average_fps <= 0:
                images.append(video.title)
                continue
            export.count_reduced(video)
            colours |= {category.name: category.color for category in video.label_map.categories}
            with paused_garbage_collection():  # a task is many objects without cycles
                file.write(separator + orjson.dumps(_task(video)))
            separator = b",\n"
        if images and separator == b"[":
            raise ConfigError(f"{images[0]}: holds images, and label-studio is for videos: use -f coco")
        file.write(b"]\n" if separator != b"[" else b"[]\n")
    if images:
        export.notes.append(f"label-studio is for videos, and left out {len(images)} tasks with images: use -f coco")
    labels = "".join(
        f"    <Label value={quoteattr(name)} background={quoteattr(colour)}/>\n" for name, colour in colours.items()
    )
    # Label Studio computes frame numbers from the frame rate that a task states, so each task states its own.
    write_text_atomically(
        config_path,
        '<View>\n  <Labels name="label" toName="video">\n'
        f"{labels}  </Labels>\n"
        '  <Video name="video" value="$video" framerate="$fps"/>\n'
        '  <VideoRectangle name="box" toName="video"/>\n</View>\n',
    )
    return [path, config_path]


def _task(video: LabelledVideo) -> dict[str, Any]:
    found = video.detections
    names = ["" if category is None else category.name for category in video.label_map.objects]
    confidence, is_interpolated = found.confidence.astype(np.float64).tolist(), found.interpolated.tolist()
    boxes = _boxes(video)
    result = []
    for number, (rows, leaves) in enumerate(object_instances(video), 1):
        measured = [confidence[row] for row in rows if not is_interpolated[row]]
        result.append(
            {
                "id": f"{number}",
                "type": "videorectangle",
                "from_name": "box",
                "to_name": "video",
                "score": round(fmean(measured), 5) if measured else 0.0,
                "value": {
                    "framesCount": video.info.num_frames,
                    "duration": video.info.duration_seconds,
                    "labels": [names[found.class_id[rows[0]]]],
                    "sequence": [
                        {**boxes[row], "enabled": not is_last}
                        for row, is_last in zip(rows, leaves, strict=True)
                        if not is_interpolated[row]  # Label Studio interpolates these boxes itself
                    ],
                },
            }
        )
    data = {"video": video.title, "fps": video.info.average_fps}
    return {"data": data, "predictions": [{"model_version": "prelabel", "result": result}]}


def _boxes(video: LabelledVideo) -> list[dict[str, float]]:
    """Returns the boxes in percent of the frame.

    Frames count from 1. Label Studio shows an `enabled` box until the next kept box.
    """
    found = video.detections
    percent = np.round(found.xyxy / np.tile(video.info.sizes(found.frame_index), 2) * 100, 4)
    xywh = np.concatenate([percent[:, :2], np.round(percent[:, 2:] - percent[:, :2], 4)], axis=1)
    seconds = np.round(found.frame_index / video.info.average_fps, 4)
    columns = zip((found.frame_index + 1).tolist(), seconds.tolist(), xywh.tolist(), strict=True)
    return [
        {"frame": frame, "time": time, "rotation": 0, "x": x, "y": y, "width": width, "height": height}
        for frame, time, (x, y, width, height) in columns
    ]
