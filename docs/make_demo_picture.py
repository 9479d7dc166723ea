"""Makes docs/demo.webp and docs/demo.jpg, the README's images, from the demo.

Run it with `uv run python docs/make_demo_picture.py`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from prelabel.assembly.assemble import Assembly, assemble_without_detector
from prelabel.assembly.stored import load_detections, stored_videos
from prelabel.config.load import load_config
from prelabel.data.detections import Detections
from prelabel.export.export import read_images
from prelabel.reports.drawing import FrameAnnotator, draw_caption

DOCS = Path(__file__).parent
CONFIG = DOCS.parent / "configs" / "demo.yaml"
SIZE = (640, 360)
FRAME_MS = 67
"""Slower than the clip's 40 ms: six seconds take ten, and things move calmly."""
WIPE = (25, 60)
"""The first and the last frame on which the labels move in from the left."""
QUALITY = 55
MAX_BYTES = 3_000_000


def compare(before: Image.Image, after: Image.Image, share: float) -> Image.Image:
    """Returns the left `share` of one image and the rest of the other, with a line between."""
    border = round(share * before.width)
    image = before.copy()
    image.paste(after.crop((0, 0, border, after.height)), (0, 0))
    if 0 < border < image.width:
        ImageDraw.Draw(image).line((border, 0, border, image.height), fill=(255, 255, 255), width=2)
    return image


def demo_frames(assembly: Assembly) -> Iterator[Image.Image]:
    """Yields the demo's frames, first without labels and then with them."""
    (video,), (task,) = stored_videos(assembly), assembly.source.tasks()
    record, found = load_detections(assembly, task), video.detections
    assert record is not None
    annotator = FrameAnnotator(video.label_map, *SIZE)
    for index, frame in read_images(assembly, task, record, np.arange(video.info.num_frames)):
        rows = found.rows_on(index)
        labels = Detections(found.xyxy[rows], found.confidence[rows], found.class_id[rows])
        share = float(np.clip((index - WIPE[0]) / (WIPE[1] - WIPE[0]), 0, 1))
        before = annotator.annotate(frame, Detections.empty())
        image = compare(before, annotator.annotate(frame, labels, found.track_id[rows]), share)
        draw_caption(image, "before" if share == 0 else "after: prelabel run configs/demo.yaml")
        yield image


def main() -> None:
    """Runs the demo and writes both images."""
    with tempfile.TemporaryDirectory() as folder:
        settings = ["labels.instances=tracks", f"source.output={folder}"]
        options = [word for setting in settings for word in ("--set", setting)]
        subprocess.run([sys.executable, "-m", "prelabel", "run", CONFIG, *options], check=True)
        first, *others = demo_frames(assemble_without_detector(load_config(CONFIG, settings), CONFIG.parent))
        path = DOCS / "demo.webp"
        first.save(path, save_all=True, append_images=others, duration=FRAME_MS, loop=0, quality=QUALITY, method=4)
        sheet = Image.open(Path(folder) / "demo.preview.jpg")
        sheet.thumbnail((1440, 1440))
        sheet.save(DOCS / "demo.jpg", quality=85)
    if path.stat().st_size > MAX_BYTES:
        raise SystemExit(f"{path}: is larger than {MAX_BYTES / 1e6:.0f} MB: lower QUALITY")


if __name__ == "__main__":
    main()
