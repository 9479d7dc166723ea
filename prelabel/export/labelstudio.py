"""Exports Label Studio predictions on videos, as one JSON file to import.

Format: https://labelstud.io/guide/predictions and https://labelstud.io/tags/videorectangle.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np

from prelabel.data.label_map import LabelledVideo
from prelabel.errors import ConfigError
from prelabel.export.export import Export, object_instances, refuse_file
from prelabel.runtime.files import atomic_write, write_text_atomically


def export_labelstudio(export: Export) -> list[Path]:
    """Writes `tasks.json`, with predictions for each video, and `config.xml`, the labelling configuration.

    Of masks and other geometry, only the box is written. `data.video` is the video's title: replace it with a URL that
    Label Studio can open.

    Raises:
        ConfigError: the target is a file, or a task has images, because `VideoRectangle` is for videos only.
    """
    refuse_file(export.target)
    path, config_path, colours = export.target / "tasks.json", export.target / "config.xml", dict[str, str]()
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8") as file:
        separator = "["
        for video in export.videos:
            if video.info.average_fps <= 0:
                raise ConfigError(f"{video.title}: holds images, and labelstudio is for videos: use -f coco")
            colours |= {category.name: category.color for category in video.label_map.categories}
            file.write(separator + json.dumps(_task(video)))
            separator = ",\n"
        file.write("]\n" if separator != "[" else "[]\n")
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
    result = []
    for number, (rows, leaves) in enumerate(object_instances(video), 1):
        category = video.label_map.objects[found.class_id[rows[0]]]
        measured = rows[~found.interpolated[rows]]
        result.append(
            {
                "id": f"{number}",
                "type": "videorectangle",
                "from_name": "box",
                "to_name": "video",
                "score": round(float(found.confidence[measured].mean()), 5) if len(measured) else 0.0,
                "value": {
                    "framesCount": video.info.num_frames,
                    "duration": video.info.duration_seconds,
                    "labels": ["" if category is None else category.name],
                    "sequence": [
                        _keyframe(video, row, goes_on=not is_last)
                        for row, is_last in zip(rows.tolist(), leaves.tolist(), strict=True)
                        if not found.interpolated[row]  # Label Studio interpolates these boxes itself
                    ],
                },
            }
        )
    data = {"video": video.title, "fps": video.info.average_fps}
    return {"data": data, "predictions": [{"model_version": "prelabel", "result": result}]}


def _keyframe(video: LabelledVideo, row: int, *, goes_on: bool) -> dict[str, Any]:
    """Returns a kept box in percent of the frame.

    Frames count from 1. Label Studio shows an `enabled` box until the next kept box.
    """
    index = int(video.detections.frame_index[row])
    x1, y1, x2, y2 = (video.detections.xyxy[row] / np.tile(video.info.size_of(index), 2) * 100).round(4).tolist()
    return {
        "frame": index + 1,
        "time": round(index / video.info.average_fps, 4),
        "enabled": goes_on,
        "rotation": 0,
        "x": x1,
        "y": y1,
        "width": round(x2 - x1, 4),
        "height": round(y2 - y1, 4),
    }
