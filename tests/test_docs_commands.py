"""Every command in the docs runs, on a short video and with small models in place of the documented ones.

A block that cannot run here follows a line `<!-- not run: REASON -->` in its page.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import sys
from itertools import islice, pairwise
from pathlib import Path

import av
import pytest
from encord import EncordUserClient

from prelabel.cli.app import main
from prelabel.files.demo import CLIP_NAME, FOLDER
from prelabel.testing import EncordServer
from prelabel.testing.encord_server import AGENT, COMPLETE, REVIEW
from prelabel.testing.encord_server.ontologies import editor, ontology_object
from prelabel.testing.encord_server.records import Project
from tests.models.detectors.word_models import save_word_model
from tests.test_docs import PAGES, ROOT, blocks

GENERATED = {"cli.md"}
NOT_RUN = re.compile(r"<!-- not run: \S.*? -->\n```(?:bash|sh)\n.*?^```", re.DOTALL | re.MULTILINE)
BLOCK = re.compile(r"^```(?:bash|sh)\n(.*?)^```", re.DOTALL | re.MULTILINE)
OF_OTHERS = {"export", "yolo", "pytest"}  # the environment is the test's; other tools have tests of their own
NUM_FRAMES = 10
BEFORE = {  # what the reader of a page has done before
    "evaluation.md": ["init --project $ENCORD_PROJECT_HASH", "run prelabel.yaml", "init clips/ -o clips.yaml"],
    "export.md": ["init clips/ -o clips.yaml"],
    "labels.md": ["init --project $ENCORD_PROJECT_HASH", "run prelabel.yaml"],
}


def commands(page: Path) -> list[list[str]]:
    """Returns the words of each command of the page that can run here."""
    shown = "".join(BLOCK.findall(NOT_RUN.sub("", page.read_text(encoding="utf-8")))).replace("\\\n", " ")
    parts = [shlex.split(part, comments=True) for line in shown.splitlines() for part in line.split("&&")]
    return [words[2:] if words[:2] == ["uv", "run"] else words for words in parts if words]


WITH_COMMANDS = [page for page in PAGES if page.name not in GENERATED and commands(page)]


def test_what_cannot_run_says_why():
    for page in WITH_COMMANDS:
        others = {words[0] for words in commands(page)} - OF_OTHERS
        assert others <= {"prelabel"}, f"{page.name}: {others}: put <!-- not run: REASON --> before the block"


def test_the_readme_shows_no_other_commands_than_the_docs():
    in_docs = [words for page in PAGES if page.name in ("index.md", "encord.md") for words in commands(page)]
    assert [words for words in commands(ROOT / "README.md") if words not in in_docs and words[0] != "pytest"] == []


@pytest.fixture
def project(encord_server: EncordServer, encord_environment: None, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose ontology has classes of the small model, with two videos at the agent stage."""
    objects = editor([ontology_object(name) for name in ("ball", "crate", "cone", "ring")])
    project = encord_server.world.add_project(ontology=encord_server.world.add_ontology(objects))
    monkeypatch.setenv("ENCORD_PROJECT_HASH", project.uuid)
    return project


@pytest.fixture
def place(tmp_path: Path, project: Project, encord_server: EncordServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory of a reader: videos, a truth, the repository's configs."""
    clip = write_start_of_demo(tmp_path / "my.mp4")
    (tmp_path / "clips").mkdir()
    for copy in ("clip.mp4", "clips/a.mp4", "clips/b.mp4"):
        shutil.copy(clip, tmp_path / copy)
    for title in ("first.mp4", "second.mp4"):
        encord_server.world.add_task(project.stage(AGENT), encord_server.world.add_video(clip, title=title))
    images = [{"id": 1, "file_name": "a.mp4/000000.jpg", "width": 640, "height": 360}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [10, 10, 50, 50], "area": 2500, "iscrowd": 0}]
    truth = {"images": images, "annotations": boxes, "categories": [{"id": 1, "name": "ball"}]}
    (tmp_path / "truth.json").write_text(json.dumps(truth))
    shutil.copytree(ROOT / "configs", tmp_path / "configs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_start_of_demo(path: Path) -> Path:
    with av.open(FOLDER / CLIP_NAME) as source, av.open(path, "w") as target:
        stream = target.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 640, 360, "yuv420p"
        for frame in islice(source.decode(video=0), NUM_FRAMES):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(frame.to_ndarray(format="rgb24"))))
        target.mux(stream.encode(None))
    return path


@pytest.fixture(scope="module")
def word_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_word_model(tmp_path_factory.mktemp("words"), "Grounding DINO")


def with_small_models(words: list[str], word_model: Path) -> list[str]:
    """Returns the command with weights that are here, where it names or fetches others."""
    words = [os.path.expandvars(word) for word in words]
    words = without(without(words, "--weights"), "--set", "detector.engine=")
    needs_weights = words[0] in ("run", "init") and not words[1].endswith(".yaml")
    return [*words, "--weights", str(word_model) if "--words" in words else "demo"] if needs_weights else words


def without(words: list[str], option: str, value: str = "") -> list[str]:
    """Returns the words without an option whose value begins like this."""
    for place, (word, following) in enumerate(pairwise(words)):
        if word == option and following.startswith(value):
            return words[:place] + words[place + 2 :]
    return words


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in WITH_COMMANDS if page.parent != ROOT], ids=lambda page: page.name)
def test_the_commands_of_a_page_run(
    page: Path,
    place: Path,
    project: Project,
    word_model: Path,
    encord_client: EncordUserClient,
    encord_server,
    monkeypatch,
    capsys,
):
    def run(words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", ["prelabel", *with_small_models(words, word_model)])
        with pytest.raises(SystemExit) as ended:
            main()
        assert not ended.value.code, f"{shlex.join(words)}\n{capsys.readouterr().err}"

    for line in BEFORE.get(page.name, ()):
        run(shlex.split(line))
    if page.name == "evaluation.md":
        finish(project, encord_server)
        export_rows(encord_client, project, place / "exported")
        run(["run", "clips.yaml"])
    if page.name == "export.md":
        (code,) = [text for text in blocks("python", "docs/export.md") if "# mine.py" in text]
        (place / "mine.py").write_text(code)
    for words in commands(page):
        if words[0] == "prelabel":
            run(words[1:])


def finish(project: Project, encord_server: EncordServer) -> None:
    """Moves one task to review and one to the end."""
    for task, stage in zip(project.tasks.values(), (REVIEW, COMPLETE), strict=True):
        encord_server.world.move_task(task, project.stage(stage), user="owner@example.com")


def export_rows(client: EncordUserClient, project: Project, folder: Path) -> None:
    folder.mkdir()
    for row in client.get_project(project.uuid).list_label_rows_v2():
        row.initialise_labels()
        (folder / f"{row.data_title}.json").write_text(json.dumps([row.to_encord_dict()]))
