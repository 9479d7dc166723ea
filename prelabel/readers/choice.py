"""Which reader was chosen, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ReaderChoice:
    """Which reader reads a video, where, and why that one; in how many places at once.

    Attributes:
        use: its name, as a config has it.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        reason: in words, for the report.
        sessions: places of a video that are decoded at the same time.
    """

    use: str
    device: str
    reason: str
    sessions: int = 1
