"""Downloads of the media of Encord tasks: which files they are, in which order, through which links."""

from __future__ import annotations

import mimetypes
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.data.frames import Media
from prelabel.encord.project import EncordProject, EncordTask
from prelabel.errors import FetchError
from prelabel.labels.row.own import KINDS_WITH_FRAMES
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import DownloadLimits, download, session_for_links

if TYPE_CHECKING:
    from encord.storage import StorageItem


@dataclass(frozen=True, slots=True)
class MediaFetcher:
    """Downloads media of a project's tasks.

    Attributes:
        project: gives the links.
        cache: where the files are while they are in use.
        limits: of each download.
    """

    project: EncordProject
    cache: DiskCache
    limits: DownloadLimits

    @contextmanager
    def fetch(self, task: EncordTask) -> Iterator[Media]:
        """Downloads a task's media for as long as the context is open. May be called from several threads.

        Raises:
            FetchError: not all of them could be downloaded.
        """
        item = self.project.storage_item(task.item_uuid, task.title, with_link=True)
        files = self._files_of(task, item)
        with self.cache.room(sum(file.file_size or 0 for file in files), task.title) as folder:
            paths = tuple(self._download(files, folder, task.title))
            # An image group has one file per image; anything else, image sequences included, is one file.
            are_images = task.kind == "image" or files != [item]
            has_frames = task.kind in KINDS_WITH_FRAMES
            yield Media(("images" if are_images else "video") if has_frames else "file", paths)

    def _files_of(self, task: EncordTask, item: StorageItem) -> list[StorageItem]:
        """Returns the items to download, in frame order, each with a signed link.

        The platform keeps an image sequence as one video, one frame per image, and the item's link is that video's. An
        image group has no link of its own; its images have.
        """
        if item.item_type.value != "imageGroup" and self._link_of(item, task.title) is not None:
            return [item]
        if task.kind != "img_group":
            raise FetchError(f"{task.title}: the platform gives no link to its {task.kind}")
        doing = f"{task.title}: asking for the links of its images"
        images = self.project.caller.call(doing, lambda: list(item.get_child_items(get_signed_urls=True)), FetchError)
        if len(images) != task.num_frames:
            raise FetchError(
                f"{task.title}: the platform gives {len(images)} images of {task.num_frames}: does the key's user "
                "have access to all of the group's files?"
            )
        doing = f"{task.title}: asking for the order of its images"
        return _in_frame_order(images, self.project.caller.call(doing, lambda: self._image_titles(task), FetchError))

    def _image_titles(self, task: EncordTask) -> list[str]:
        """Returns the titles of an image group's images, in frame order."""
        (row,) = self.project.label_rows([task.data_hash], task.branch, with_images=True)
        return [image.title for image in sorted(row.get_frames_metadata(), key=lambda image: image.frame_number)]

    def _download(self, files: Sequence[StorageItem], folder: Path, title: str) -> Iterator[Path]:
        with session_for_links() as session:
            for number, item in enumerate(files):
                path = folder / f"{number:06d}{_suffix(item)}"
                download(
                    self._links(item, title),
                    path,
                    item.file_size,
                    title,
                    max_bytes=self.cache.max_bytes,
                    session=session,
                    limits=self.limits,
                )
                yield path

    def _links(self, item: StorageItem, title: str) -> Callable[[], str]:
        """Returns a function that returns the link that came with the item, and a fresh one at each further call."""
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


def _in_frame_order(images: Sequence[StorageItem], titles: Sequence[str]) -> list[StorageItem]:
    """Returns the images in the order of the frames' titles; unchanged where names and titles do not match."""
    if sorted(image.name for image in images) != sorted(titles):
        return list(images)
    by_name: dict[str, list[StorageItem]] = defaultdict(list)
    for image in reversed(images):  # so that `pop` takes images of one name in the order in which they came
        by_name[image.name].append(image)
    return [by_name[title].pop() for title in titles]


def _suffix(item: StorageItem) -> str:
    """Returns a file suffix, which some decoders go by: from the type, which the platform checks, not from a title."""
    family, default = {
        "image": ("image/", ".jpg"),
        "video": ("video/", ".mp4"),
        "imageSequence": ("video/", ".mp4"),
    }.get(item.item_type.value, ("", ".bin"))
    mime_type = item.mime_type or ""
    guessed = mimetypes.guess_extension(mime_type) if mime_type.startswith(family) else None
    return guessed or default
