"""A clock by which a process that hangs does so for minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from prelabel.media.isolation import process as processes


def let_time_fly_for(begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the time between two looks at a process a minute, once it has written its id to the file."""
    complaint = processes._Watch.complaint

    def complaint_a_minute_later(self) -> str:
        if begun.exists() and begun.read_text() == str(self.pid):
            self.began, self.moved_at = self.began - 60, self.moved_at - 60
        return complaint(self)

    monkeypatch.setattr(processes._Watch, "complaint", complaint_a_minute_later)
