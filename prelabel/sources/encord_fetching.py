"""The media of a task brought here, unless the task is somebody else's by then."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from prelabel.encord_api.client import EncordProject
from prelabel.encord_api.labels import labels_as_sent
from prelabel.encord_api.media import MediaFetcher
from prelabel.encord_api.tasks import EncordTask
from prelabel.errors import FetchError
from prelabel.frames import Media
from prelabel.label_row import LabelRow, refuse_begun
from prelabel.transfer.disk_cache import DiskCache
from prelabel.transfer.download import Patience


@dataclass(frozen=True, slots=True)
class Fetching:
    """How media are brought here.

    Attributes:
        cache: folder for downloads in use; several processes may share it.
        max_cache_bytes: that downloads in use may take there.
        num_workers: tasks that may be fetched at the same time.
        refuses_begun: whether a task is refused where labels of anybody else stand on its row.
        refuses_moved: whether a task is refused that another has moved on since it was listed.
        patience: how long a download may take its time.
    """

    cache: Path
    max_cache_bytes: int
    num_workers: int = 1
    refuses_begun: bool = False
    refuses_moved: bool = False
    patience: Patience = field(default_factory=Patience)


class TaskFetcher:
    """Fetches what is not another's: the sink looks again, but a video looked at for nothing is dear."""

    def __init__(self, project: EncordProject, fetching: Fetching) -> None:
        """Deletes what processes that are gone have left in the cache."""
        self._project, self._fetching = project, fetching
        self._cache = DiskCache(fetching.cache, fetching.max_cache_bytes)
        self._cache.sweep()
        self._media = MediaFetcher(project, self._cache, fetching.patience)

    def fetch(self, task: EncordTask) -> AbstractContextManager[Media]:
        """Brings a task's media here for as long as the context is open. May be called from several threads.

        Raises:
            FetchError: they cannot be had whole.
            TakenError: the task is another's.
        """
        if self._fetching.refuses_moved:
            self._project.refuse_if_moved(task, FetchError)
        if self._fetching.refuses_begun:
            self._refuse_if_begun(task)
        return self._media.fetch(task)

    def close(self) -> None:
        """Ends all waiting for room on disk, and deletes what is fetched. Tasks may be fetched again afterwards."""
        self._cache.close()

    def _refuse_if_begun(self, task: EncordTask) -> None:
        doing = f"{task.title}: looking whether somebody has begun its labels"
        row = self._project.caller.call(doing, lambda: self._standing_row(task), FetchError)
        if row is not None:
            refuse_begun(task.title, row)

    def _standing_row(self, task: EncordTask) -> LabelRow | None:
        rows = self._project.label_rows([task.data_hash], task.branch)
        return labels_as_sent(rows[0]) if rows and rows[0].label_hash else None
