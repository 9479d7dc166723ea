"""Counts the videos on which each tool puts every frame's number right: prelabel, Ultralytics and encord-agents.

    uv run python -m benchmarks.peers

Every frame of every clip shows its own number, so a tool that calls frame 33 what is frame 32 is seen. The clips are
those of the conformance test: valid files, of the kinds that cameras, editors and encoders make. For each tool a
clip is one of

    right      all frames are there, under their own numbers
    refused    an error, or a failed task: nobody is misled
    wrong      frames are missing, under another number or mirrored, and no error says so
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.make_media import RECIPES, Clip, read_number, write_clip

STRIDE = 7
DETECTOR = """
from prelabel import Detections
from tests.make_media import read_number

class ShownNumber:
    '''A box whose width is the number that the frame shows, plus one.'''
    class_names = ("number",)
    def detect(self, batch):
        widths = [read_number(frame.cpu().numpy()) + 1 for frame in batch.data]
        return [Detections(xyxy=[[0, 0, width, 8]], confidence=[0.9], class_id=[0]) for width in widths]
"""
Frames = dict[int, int]
"""The number that each frame shows, by the number that the tool gives it."""


def main() -> None:
    """Counts, prints a table, and ends with one line of JSON."""
    with tempfile.TemporaryDirectory() as folder:
        clips = [write_clip(Path(folder) / f"{name}{recipe.suffix}", recipe) for name, recipe in RECIPES.items()]
        tools: dict[str, Callable[[list[Clip]], list[str]]] = {
            "prelabel run": lambda clips: _by_run(clips, Path(folder), 1),
            f"prelabel run, stride {STRIDE}": lambda clips: _by_run(clips, Path(folder), STRIDE),
            "ultralytics predict(stream=True)": lambda clips: [_verdict(clip, _ultralytics, 1) for clip in clips],
            "encord-agents iter_video": lambda clips: [_verdict(clip, _iter_video, 1) for clip in clips],
            f"encord-agents iter_video_with_indices, stride {STRIDE}": lambda clips: [
                _verdict(clip, _with_indices, STRIDE) for clip in clips
            ],
        }
        verdicts = {name: dict(zip(RECIPES, tool(clips), strict=True)) for name, tool in tools.items()}
    table = Table("tool", "right", "refused", "wrong", title=f"{len(RECIPES)} kinds of valid videos", box=None)
    for name, of in verdicts.items():
        counts = Counter(of.values())
        table.add_row(name, *(str(counts[verdict]) for verdict in ("right", "refused", "wrong")))
    Console(highlight=False).print(table)
    print(
        json.dumps(
            {name: {v: [k for k in of if of[k] == v] for v in ("refused", "wrong")} for name, of in verdicts.items()}
        )
    )


def _verdict(clip: Clip, read: Callable[[Clip], Iterable[tuple[int, int]]], stride: int) -> str:
    try:
        frames = dict(read(clip))
    except Exception:
        return "refused"
    return _judge(clip, frames, stride)


def _judge(clip: Clip, frames: Frames, stride: int) -> str:
    return "right" if frames == dict(list(enumerate(clip.numbers))[::stride]) else "wrong"


def _ultralytics(clip: Clip) -> Iterable[tuple[int, int]]:
    """Yields frame numbers in the order in which `predict(stream=True)` gives its results."""
    from ultralytics.data.loaders import LoadImagesAndVideos

    shown = (image for _, images, _ in LoadImagesAndVideos(clip.path) for image in images)
    yield from enumerate(read_number(image) for image in shown)


def _iter_video(clip: Clip) -> Iterable[tuple[int, int]]:
    from encord_agents.core.video import iter_video

    for frame in iter_video(clip.path):
        yield frame.frame, read_number(frame.content)


def _with_indices(clip: Clip) -> Iterable[tuple[int, int]]:
    from encord_agents.core.video import iter_video_with_indices

    for frame in iter_video_with_indices(clip.path, range(0, len(clip.numbers), STRIDE)):
        yield frame.frame, read_number(frame.content)


def _by_run(clips: list[Clip], folder: Path, stride: int) -> list[str]:
    """Runs the command over all clips; the widths in coco.json are the numbers that frames show."""
    (folder / "shown.py").write_text(DETECTOR)
    output, config = folder / f"out{stride}", folder / f"config{stride}.yaml"
    values = {
        "source": {"path": str(folder / "*.*"), "output": str(output)},
        "detector": {"use": "shown.py:ShownNumber"},
        "reader": {"stride": stride},
        "retries": {"attempts": 1},
    }
    config.write_text(json.dumps(values))
    subprocess.run([sys.executable, "-m", "prelabel", "run", str(config)], capture_output=True, check=False)
    coco = json.loads((output / "coco.json").read_text())
    images = {image["id"]: image for image in coco["images"]}
    frames: dict[str, Frames] = {}
    for annotation in coco["annotations"]:
        image = images[annotation["image_id"]]
        frames.setdefault(image["video"], {})[image["frame_index"]] = round(annotation["bbox"][2]) - 1
    tasks = {task["title"]: task["status"] for task in json.loads((output / "report.json").read_text())["tasks"]}
    return [
        _judge(clip, frames.get(clip.path.name, {}), stride) if tasks.get(clip.path.name) == "done" else "refused"
        for clip in clips
    ]


if __name__ == "__main__":
    main()
