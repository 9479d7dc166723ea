"""What a classifier answered, as a table that spreadsheets open: `classifications.csv`."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.runtime.files import atomic_write
from prelabel.store.class_probabilities import read_classes
from prelabel.store.report import RunReport, TaskReport

COLUMNS = (
    "task",
    "first_frame",
    "last_frame",
    "answer",
    "confidence",
    "pathway",
    "likeliest_class",
    "probability",
)


def write_predictions(path: Path, assembly: Assembly, report: RunReport) -> None:
    """Writes a row for each answer, and one without an answer for each task that has none.

    Args:
        path: the CSV file.
        assembly: of a config with a classifier.
        report: of the run; its tasks that are done are written.
    """
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for task in report.tasks:
            if task.is_done:
                writer.writerows(_rows(assembly, task))


def _rows(assembly: Assembly, task: TaskReport) -> Iterator[tuple[str | int, ...]]:
    record = read_classes(assembly.store.classes_path(task))
    likeliest, probability = assembly.classification.likeliest(record)
    rest = (task.pathway or "", likeliest, f"{probability:.5f}")
    answers = assembly.classification.place_answers(record)
    for placed in answers:
        said = (placed.answer.name, f"{placed.answer.confidence:.5f}")
        yield (task.title, placed.first_frame, placed.last_frame, *said, *rest)
    if not answers:
        yield (task.title, "", "", "", "", *rest)
