"""A run over a folder of small videos and pictures, with a detector whose boxes are known."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av
from PIL import Image

from prelabel import Detections, FrameBatch, ModelTraits
from prelabel.assembly.assemble import Assembly, assemble
from prelabel.config.load import check_config
from prelabel.store.report import RunReport
from tests import running
from tests.make_media import write_once

GREY = (128, 128, 128)
BOX = (10.0, 20.0, 50.0, 60.0)


class BoxDetector:
    """Finds BOX on every frame, and a fainter one of class `other` on even frames."""

    class_names = ("thing", "other")

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [self._found(index) for index in batch.frame_indices.tolist()]

    def _found(self, index: int) -> Detections:
        if index % 2:
            return Detections([BOX], [0.75], [0])
        return Detections([BOX, (0, 0, 30, 12)], [0.75, 0.25], [0, 1])


class UnsureDetector(BoxDetector):
    """Gives boxes down to a confidence of 0.2, of which those from `conf` on become labels."""

    def __init__(self, conf: float = 0.5):
        self.traits = ModelTraits(conf=conf, raw_conf=0.2)


class OtherDetector(BoxDetector):
    class_names = ("another",)


def make_media(folder: Path, num_frames: int = 6) -> None:
    """Makes two videos and a picture, all grey."""
    write_grey_clip(folder / "first.mp4", 96, 64, num_frames)
    write_grey_clip(folder / "day 2" / "second.mp4", 64, 96, num_frames)
    Image.new("RGB", (96, 64), GREY).save(folder / "still.png")


def write_grey_clip(path: Path, width: int, height: int, num_frames: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_once(path, f"grey {width} {height} {num_frames}", lambda path: _encode_grey(path, width, height, num_frames))


def _encode_grey(path: Path, width: int, height: int, num_frames: int) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"threads": "1"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for _ in range(num_frames):
            container.mux(stream.encode(av.VideoFrame.from_image(Image.new("RGB", (width, height), GREY))))
        container.mux(stream.encode(None))


def assembly_of(folder: Path, output: Path, **sections: Mapping[str, Any]) -> Assembly:
    values = {
        "source": {"path": str(folder), "output": str(output)},
        "detector": {"use": "tests.kept:BoxDetector"},
        **sections,
    }
    return assemble(check_config(values, "test"), folder)


def run(assembly: Assembly) -> RunReport:
    report = running.run(assembly)
    assert not report.failed, report.failed
    return report
