"""What a user's function said of a task, kept from the call until the task has moved: it is not called twice for it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from prelabel.agents.returned import Answer
from prelabel.assembly import Assembly
from prelabel.files import write_text_atomically
from prelabel.protocols import Task


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a call.

    Attributes:
        fingerprint: of function, options and media.
        answer: what the function said.
        changed: whether it changed the label row.
        added: instances that it put there: names by object or classification hash.
        num_frames: that the media have, 0 where nobody asked.
    """

    fingerprint: str
    answer: Answer
    changed: bool = False
    added: Mapping[str, str] = field(default_factory=dict)
    num_frames: int = 0


def outcome_path(assembly: Assembly, task: Task) -> Path:
    """Returns where the outcome of a task's call is kept."""
    return assembly.names.path(task.key, task.title, ".agent.json")


def write_outcome(path: Path, outcome: Outcome) -> None:
    """Writes an outcome, whole or not at all."""
    write_text_atomically(path, json.dumps(asdict(outcome), indent=1, ensure_ascii=False) + "\n")


def read_outcome(path: Path) -> Outcome | None:
    """Returns the outcome of a file; None if there is none, or it is damaged."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        return Outcome(**{**values, "answer": Answer(**values["answer"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
