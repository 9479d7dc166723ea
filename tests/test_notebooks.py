"""The notebooks run from start to end, and are kept with outputs and pictures."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest

from docs.make_notebooks import NOTEBOOKS, make_page, run_notebook
from tests.models.detectors.word_models import save_word_model


@pytest.fixture(autouse=True)
def commands_on_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


def text_of(notebook: nbformat.NotebookNode) -> str:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return "".join(output.get("text", "") for output in outputs)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_from_start_to_end_runs():
    said = text_of(run_notebook(NOTEBOOKS[0]))
    for result in (
        "2 tasks wait",
        "dry run: nothing was saved or moved",
        "camera 2.mp4 is at Annotate 1",
        "camera 1.mp4 is at Complete",
        "2 actions to correct",
        "skipped camera 1.mp4: has gone on to 'Complete'",
    ):
        assert result in said


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_notebook_about_a_folder_runs_with_a_model_that_reads_words(tmp_path: Path, monkeypatch):
    monkeypatch.setenv("PRELABEL_WORDS_MODEL", str(save_word_model(tmp_path / "model", "Grounding DINO")))
    said = text_of(run_notebook(NOTEBOOKS[1]))
    for result in ("boxes kept", "against the truth", "1 done; 5 frames"):
        assert result in said
    assert "Skipped" not in said


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_kept_with_its_outputs(path: Path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("image/jpeg" in output.get("data", {}) for output in outputs)
    assert path.stat().st_size < 500_000


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_page_of_a_notebook_shows_what_the_notebook_does(path: Path):
    page = make_page(path)
    assert [file for file, content in page.items() if file.read_bytes() != content] == [], "run: make notebooks"
