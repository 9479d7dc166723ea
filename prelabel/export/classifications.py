"""Writes a classifier's answers to `classifications.csv`, a table for spreadsheets."""

from __future__ import annotations

import csv
from pathlib import Path

from prelabel.assembly.assemble import Assembly
from prelabel.runtime.files import atomic_write
from prelabel.store.labelled import read_classes
from prelabel.store.report import RunReport

COLUMNS = ("task", "first_frame", "last_frame", "answer", "confidence", "pathway", "likeliest_class", "probability")


def write_predictions(path: Path, assembly: Assembly, report: RunReport) -> None:
    """Writes a row for each answer of the run's done tasks; a task without answers gets a row too.

    Args:
        path: of the CSV file.
        assembly: of a config with a classifier.
        report: of the run whose tasks to write.
    """
    with atomic_write(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for task in report.tasks:
            if not task.is_done:
                continue
            record = read_classes(assembly.store.classes_path(task))
            likeliest, probability = assembly.classification.likeliest(record)
            task_columns = (task.pathway or "", likeliest, f"{probability:.5f}")
            answers = assembly.classification.place_answers(record)
            for placed in answers:
                answer = (placed.answer.name, f"{placed.answer.confidence:.5f}")
                writer.writerow((task.title, placed.first_frame, placed.last_frame, *answer, *task_columns))
            if not answers:
                writer.writerow((task.title, "", "", "", "", *task_columns))
