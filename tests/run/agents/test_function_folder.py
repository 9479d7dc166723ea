"""A user's function over a folder: the same call, with no account."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from prelabel.cli.commands import run_config
from prelabel.errors import SetupError
from prelabel.testing.encord_server.ontologies import editor, ontology_object
from tests.kept import write_grey_clip
from tests.run.agents.platforms import text_classification

CODE = """
from encord.objects import Classification

def handle(task, label_row, media, text="grey"):
    if task.title == "broken.mp4":
        raise ValueError("no luck")
    if label_row.get_classification_instances():
        return "Seen before"
    instance = label_row.ontology_structure.get_child_by_title("Caption", type_=Classification).create_instance()
    instance.set_answer(f"{text} {media.frame().array[0, 0, 0]}")
    instance.set_for_frames(0)
    label_row.add_classification_instance(instance)
    return "Captioned"
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "my_agent.py").write_text(CODE)
    (tmp_path / "ontology.json").write_text(
        json.dumps(editor([ontology_object("Car")], [text_classification("Caption")]))
    )
    write_grey_clip(tmp_path / "clips" / "a.mp4", 64, 48, 4)
    Image.new("RGB", (32, 32), (128, 128, 128)).save(tmp_path / "clips" / "b.png")
    path = tmp_path / "config.yaml"
    path.write_text(
        f"source: {{path: {tmp_path / 'clips'}, ontology: {tmp_path / 'ontology.json'}, output: {tmp_path / 'out'}}}\n"
        "retries: {attempts: 1}\nagent: {use: my_agent.py:handle}\n"
    )
    return path


def run(config: Path, *settings: str, dry_run: bool = False) -> list[tuple[str, str, str | None]]:
    run_config(config, settings, dry_run=dry_run)
    folder = config.parent / "out" / ("dry-run" if dry_run else "")
    report = json.loads((folder / "report.json").read_text())
    return sorted((task["title"], task["status"], task["pathway"]) for task in report["tasks"])


def caption_of(config: Path, name: str) -> list[str]:
    row = json.loads((config.parent / "out" / f"{name}.labels.json").read_text())
    return [answer["classifications"][0]["answers"] for answer in row["classification_answers"].values()]


def test_rows_are_written_and_pathways_told(config: Path) -> None:
    assert run(config) == [("a.mp4", "done", "Captioned"), ("b.png", "done", "Captioned")]
    assert caption_of(config, "b") == ["grey 128"]


def test_a_second_run_calls_nothing(config: Path) -> None:
    run(config)
    assert run(config) == [("a.mp4", "already done", "Captioned"), ("b.png", "already done", "Captioned")]


def test_other_options_call_it_again_on_the_row_that_stands_there(config: Path) -> None:
    run(config)
    assert run(config, "agent.text=dull") == [("a.mp4", "done", "Seen before"), ("b.png", "done", "Seen before")]
    assert caption_of(config, "b") == ["grey 128"]


def test_a_row_that_is_gone_is_made_again(config: Path) -> None:
    run(config)
    (config.parent / "out" / "a.labels.json").unlink()
    assert run(config) == [("a.mp4", "done", "Captioned"), ("b.png", "already done", "Captioned")]
    assert len(caption_of(config, "a")) == 1


def test_a_failure_costs_its_file(config: Path) -> None:
    write_grey_clip(config.parent / "clips" / "broken.mp4", 64, 48, 4)
    assert ("broken.mp4", "failed", None) in run(config)
    assert not (config.parent / "out" / "broken.labels.json").exists()
    assert caption_of(config, "a")


def test_a_dry_run_has_an_output_of_its_own(config: Path) -> None:
    assert run(config, dry_run=True) == [("a.mp4", "done", "Captioned"), ("b.png", "done", "Captioned")]
    assert not (config.parent / "out" / "a.labels.json").exists()
    assert (config.parent / "out" / "dry-run" / "a.labels.json").exists()


def test_a_function_without_a_label_row_needs_no_ontology(config: Path) -> None:
    (config.parent / "my_agent.py").write_text(
        "def handle(task, media): return 'Long' if media.info.num_frames > 3 else None\n"
    )
    done = run(config, "source.ontology=null")
    assert done == [("a.mp4", "done", "Long"), ("b.png", "done", None)]
    assert run(config, "source.ontology=null") == [(title, "already done", pathway) for title, _, pathway in done]


def test_a_label_row_needs_an_ontology(config: Path) -> None:
    with pytest.raises(SetupError, match=r"source\.ontology: is missing: the function gets label rows"):
        run(config, "source.ontology=null")


def test_what_only_the_platform_has_is_named_beforehand(config: Path) -> None:
    (config.parent / "my_agent.py").write_text("def handle(task, project): pass\n")
    with pytest.raises(SetupError, match="asks for 'project', which only tasks of Encord have"):
        run(config)


def test_a_page_tells_which_way_they_went(config: Path) -> None:
    run_config(config, page=True)
    page = (config.parent / "out" / "report.html").read_text()
    assert "Captioned" in page
    assert "a.mp4" in page


ENDING_READER = """
from prelabel.media.pyav import PyAVReader

class EndsEarly(PyAVReader):
    def batches(self, frame_indices, batch_size):
        return super().batches(frame_indices[frame_indices < 2], batch_size)
"""


def test_a_frame_before_which_the_reader_ended_is_named(config: Path) -> None:
    (config.parent / "mine.py").write_text(ENDING_READER)
    (config.parent / "my_agent.py").write_text(
        "def handle(media):\n    media.frame(1)\n    assert len(list(media.frames())) == 2\n    media.frame(3)\n"
    )
    (config.parent / "clips" / "b.png").unlink()
    run_config(config, ["source.ontology=null", "reader.use=mine.py:EndsEarly", "frames=warn"])
    (task,) = json.loads((config.parent / "out" / "report.json").read_text())["tasks"]
    said = "a.mp4: the reader ended before frame 3, after 0 of 1 frames"
    assert (task["status"], task["reason"]) == ("failed", said)


def test_frames_that_the_function_did_not_get_are_named(config: Path) -> None:
    (config.parent / "mine.py").write_text(ENDING_READER)
    (config.parent / "my_agent.py").write_text("def handle(media):\n    assert len(list(media.frames())) == 2\n")
    (config.parent / "clips" / "b.png").unlink()
    settings = ["source.ontology=null", "reader.use=mine.py:EndsEarly", "frames=warn"]
    for _ in range(2):  # the second run remembers it
        run_config(config, settings)
        (task,) = json.loads((config.parent / "out" / "report.json").read_text())["tasks"]
        assert task["partial"] == "the reader ended before frame 2, after 2 of 4 frames"
