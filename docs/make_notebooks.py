"""Runs the notebooks, keeps their outputs, and writes a page of each: `uv run python docs/make_notebooks.py`."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

NOTEBOOKS = sorted(Path(__file__).with_name("notebooks").glob("*.ipynb"))


def run_notebook(path: Path) -> nbformat.NotebookNode:
    """Returns the notebook with the outputs of a fresh run.

    Raises:
        CellExecutionError: a cell failed.
    """
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, kernel_name="python3", record_timing=False, coalesce_streams=True).execute()
    return notebook


def make_page(path: Path) -> dict[Path, bytes]:
    """Returns the files of a notebook's page by path: its Markdown and its pictures."""
    notebook = nbformat.read(path, as_version=4)
    text, found = MarkdownExporter().from_notebook_node(
        notebook, resources={"unique_key": path.stem, "output_files_dir": path.stem}
    )
    lines = [line.rstrip() for line in text.replace("![jpeg]", "![What the cell shows]").strip().split("\n")]
    lines[1:1] = ["", f"Download [this page as a notebook]({path.name})."]
    pictures = {path.parent / name: content for name, content in found["outputs"].items()}
    return {path.with_suffix(".md"): "\n".join([*lines, ""]).encode(), **pictures}


if __name__ == "__main__":
    for path in NOTEBOOKS:
        nbformat.write(run_notebook(path), path)
        for file, content in make_page(path).items():
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(content)
