"""Media of Encord tasks, brought here: which files they are, in which order, through which links."""

from __future__ import annotations

import mimetypes
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.data.frames import Media
from prelabel.encord.client import EncordProject, EncordTask
from prelabel.errors import FetchError
from prelabel.labels.row.own import KINDS_WITH_FRAMES
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import DownloadLimits, download, session_for_links

if TYPE_CHECKING:
    from encord.storage import StorageItem


@dataclass(frozen=True, slots=True)
class MediaFetcher:
    """Fetches media of a project's tasks.

    Attributes:
        project: gives the links.
        cache: where the files are while they are in use.
        limits: how long a download may take its time.
    """

    project: EncordProject
    cache: DiskCache
    limits: DownloadLimits

    @contextmanager
    def fetch(self, task: EncordTask) -> Iterator[Media]:
        """Brings a task's media here for as long as the context is open.

        Raises:
            FetchError: if they cannot be had whole.
        """
        item = self.project.storage_item(task.item_uuid, task.title, with_link=True)
        files = self._files_of(task, item)
        with self.cache.room(sum(file.file_size or 0 for file in files), task.title) as folder:
            paths = tuple(self._bring(files, folder, task.title))
            # A group without a file of its own is a file a picture; all else, image sequences included, is one file.
            as_pictures = task.kind == "image" or files != [item]
            has_frames = task.kind in KINDS_WITH_FRAMES
            yield Media(("images" if as_pictures else "video") if has_frames else "file", paths)

    def _files_of(self, task: EncordTask, item: StorageItem) -> list[StorageItem]:
        """Returns the items to download, in frame order, each with a signed link.

        An image sequence is kept by the platform as one video, a frame a picture, and that is its item's link. An image
        group has no link of its own; its pictures have.
        """
        if item.item_type.value != "imageGroup" and self._link_of(item, task.title) is not None:
            return [item]
        if task.kind != "img_group":
            raise FetchError(f"{task.title}: the platform gives no link to its {task.kind}")
        doing = f"{task.title}: asking for the links of its pictures"
        pictures = self.project.caller.call(doing, lambda: list(item.get_child_items(get_signed_urls=True)), FetchError)
        if len(pictures) != task.num_frames:
            raise FetchError(
                f"{task.title}: the platform gives {len(pictures)} pictures of {task.num_frames}: does the key's user "
                "have access to all of the group's files?"
            )
        return _in_frame_order(pictures, self._picture_titles(task))

    def _picture_titles(self, task: EncordTask) -> list[str]:
        def read() -> list[str]:
            (row,) = self.project.label_rows([task.data_hash], task.branch, with_pictures=True)
            return [picture.title for picture in sorted(row.get_frames_metadata(), key=lambda p: p.frame_number)]

        return self.project.caller.call(f"{task.title}: asking for the order of its pictures", read, FetchError)

    def _bring(self, files: Sequence[StorageItem], folder: Path, title: str) -> Iterator[Path]:
        with session_for_links() as session:
            for number, item in enumerate(files):
                path = folder / f"{number:06d}{_suffix(item)}"
                new_link = self._links(item, title)
                download(
                    new_link,
                    path,
                    item.file_size,
                    title,
                    max_bytes=self.cache.max_bytes,
                    session=session,
                    limits=self.limits,
                )
                yield path

    def _links(self, item: StorageItem, title: str) -> Callable[[], str]:
        """Returns what gives the link that came with the item first, and a fresh one at every further call."""
        ready = [item]

        def new_link() -> str:
            source = ready.pop() if ready else self.project.storage_item(item.uuid, title, with_link=True)
            link = self._link_of(source, title)
            if link is None:
                raise FetchError(f"{title}: the platform gives no link to {item.name!r}")
            return link

        return new_link

    def _link_of(self, item: StorageItem, title: str) -> str | None:
        """Returns the item's link; asks the platform once more if it came without one."""
        return self.project.caller.call(f"{title}: asking for its link", item.get_signed_url, FetchError)


def _in_frame_order(pictures: Sequence[StorageItem], titles: Sequence[str]) -> list[StorageItem]:
    """Returns the pictures in the order of the frames' titles; as they came where the two have other names."""
    if sorted(picture.name for picture in pictures) != sorted(titles):
        return list(pictures)
    by_name: dict[str, list[StorageItem]] = defaultdict(list)
    for picture in reversed(pictures):
        by_name[picture.name].append(picture)
    return [by_name[title].pop() for title in titles]


def _suffix(item: StorageItem) -> str:
    """Returns a file suffix for decoders that go by it: from the type, which the platform checks, not from a title."""
    family, default = {
        "image": ("image/", ".jpg"),
        "video": ("video/", ".mp4"),
        "imageSequence": ("video/", ".mp4"),
    }.get(item.item_type.value, ("", ".bin"))
    mime_type = item.mime_type or ""
    guessed = mimetypes.guess_extension(mime_type) if mime_type.startswith(family) else None
    return guessed or default
