"""Tasks of every kind at the first of two agent stages, and a config that sorts them and labels what has frames."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from prelabel.testing.encord_server import AGENT, ANNOTATE, COMPLETE, EncordServer
from prelabel.testing.encord_server.records import DataUnit, Project
from tests.make_media import Recipe, write_clip

SORT = "Sort"
KINDS = ("video", "image", "img_group", "audio", "pdf", "plain_text")
WITH_FRAMES = ("video", "image", "img_group")
CODE = f"""
from prelabel import Detections

class Boxes:
    class_names = ("Pedestrian", "Vehicle")

    def detect(self, batch):
        return [Detections([[2, 2, 20, 20]], [0.7], [0]) for _ in batch.frame_indices]

def by_kind(task):
    return "Label it" if task.kind in {WITH_FRAMES} else "Leave it"
"""
CONFIG = """
source: {{project_hash: {project}, output: {output}, fetch_workers: 4, record: false}}
reader: {{isolate: never}}
stages:
  - {{stage: Sort, agent: {{use: mixed.py:by_kind}}}}
  - {{stage: Pre-Labeling Agent, detector: {{use: mixed.py:Boxes}}, pathway: Annotate 1}}
"""


@dataclass(frozen=True, slots=True)
class MixedTasks:
    """A project whose tasks are of all kinds in turn.

    Attributes:
        server: that has it.
        project: with a stage that sorts and one that labels.
        num_by_kind: tasks by kind.
    """

    server: EncordServer
    project: Project
    num_by_kind: dict[str, int]

    @classmethod
    def populate(cls, server: EncordServer, folder: Path, num_tasks: int) -> MixedTasks:
        """Adds tasks for a few small files."""
        stages = {SORT: "AGENT", AGENT: "AGENT", ANNOTATE: "ANNOTATION", COMPLETE: "DONE"}
        pathways = {"Label it": AGENT, "Leave it": COMPLETE, "Annotate 1": ANNOTATE}
        project = server.world.add_project(stages=stages, pathways=pathways)
        clip = write_clip(folder / "clip.mp4", Recipe(num_frames=4)).path
        picture = folder / "picture.png"
        Image.new("RGB", (64, 48), (90, 90, 90)).save(picture)
        kinds = [KINDS[number % len(KINDS)] for number in range(num_tasks)]
        for number, kind in enumerate(kinds):
            unit = _add(server, kind, clip, picture, f"{number:05d}.{kind}")
            server.world.add_task(project.stage(SORT), unit)
        return cls(server, project, dict(Counter(kinds)))

    def write_config(self, folder: Path) -> Path:
        """Writes the config, and the code that it names."""
        (folder / "mixed.py").write_text(CODE)
        path = folder / "mixed.yaml"
        path.write_text(CONFIG.format(project=self.project.uuid, output=folder / "out"))
        return path

    def lost(self) -> list[str]:
        """Returns what is not as it should be: a line for each task that is elsewhere, or labelled or moved wrongly."""
        moves = Counter(move.task.uuid for move in self.server.world.moves)
        return [line for task in self.project.tasks.values() for line in self._complaints(task, moves[task.uuid])]

    def _complaints(self, task, num_moves: int) -> list[str]:
        has_frames = task.data.data_type in WITH_FRAMES
        row = self.project.row(task.data)
        num_boxes = 0 if row is None else len(row.objects())
        expected = (ANNOTATE, 2, task.data.num_frames) if has_frames else (COMPLETE, 1, 0)
        got = (task.stage.title, num_moves, num_boxes)
        return [] if got == expected else [f"{task.data.title}: got {got}, expected {expected}"]


def _add(server: EncordServer, kind: str, clip: Path, picture: Path, title: str) -> DataUnit:
    world = server.world
    match kind:
        case "video":
            return world.add_video(clip, title=title)
        case "image":
            return world.add_image(picture, title=title)
        case "img_group":
            return world.add_image_group([picture, picture], title=title)
    return world.add_other(picture, kind, title=title)
