"""Which model made a row's labels, put on record where the platform can show it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import prelabel
from prelabel.encord.client import EncordProject, EncordRow, EncordTask
from prelabel.errors import SaveError

RECORD_KEY = "prelabel"


@dataclass(frozen=True, slots=True)
class ModelNote:
    """A note in the client metadata of a task's storage item, since label rows have no field for the model.

    The web app shows and filters by it; `StorageItem.client_metadata` and
    `list_label_rows_v2(include_client_metadata=True)` return it. An item may be in several projects; the note is that
    of the last write, and names its project. Assumed of the platform: a write of client metadata may replace all of it,
    so other keys are read first and written back.

    Attributes:
        project: whose tasks.
        record: what to note beside version, branch, time and number of instances; what is None is left out.
    """

    project: EncordProject
    record: Mapping[str, str | None]

    def put(self, task: EncordTask | EncordRow, num_instances: int) -> None:
        """Notes the model of a task's labels, over the note of an earlier write.

        Raises:
            FetchError: the platform did not give the item.
            SaveError: it did not take the note: who may write labels may not always write metadata.
        """
        note = {key: value for key, value in self.record.items() if value is not None} | {
            "prelabel": prelabel.__version__,
            "project": self.project.project_hash,
            "branch": task.branch,
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "instances": num_instances,
        }
        item = self.project.storage_item(task.item_uuid, task.title, with_link=False)
        metadata = {**(item.client_metadata or {}), RECORD_KEY: note}
        doing = f"{task.title}: noting the model in the client metadata"
        self.project.caller.call(doing, lambda: item.update(client_metadata=metadata), SaveError)
