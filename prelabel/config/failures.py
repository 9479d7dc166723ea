"""What becomes of a task that failed."""

from __future__ import annotations

from pydantic import Field

from prelabel.config.base import Section


class RetriesSection(Section):
    """How often a task that failed is tried again, where that may end otherwise."""

    attempts: int = Field(2, ge=1, le=20, description="tries that a run gives a task, each from fresh media")
    wait_seconds: float = Field(
        5.0, ge=0, le=3600, description="wait before the second try, when all others are through; then doubled"
    )
    watch_minutes: float = Field(
        10.0, gt=0, description="with --watch: how long a task that is set aside rests; doubled each time, up to a day"
    )


class OnFailureSection(Section):
    """What becomes of a task that is set aside."""

    pathway: str | None = Field(None, description="name or uuid of the pathway that it goes down; default: it stays")
    issue: bool = Field(False, description="open an issue on it, with the reason")

    @property
    def asks_something(self) -> bool:
        """Whether anything is to be done with the task."""
        return self.issue or self.pathway is not None
