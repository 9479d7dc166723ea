"""Downloads the media of Encord tasks: chooses the files, their order and their links."""

from __future__ import annotations

import mimetypes
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from prelabel.data.frames import FileLink, Media, MediaKind, MediaLocation
from prelabel.encord.project import EncordProject, EncordTask
from prelabel.errors import FetchError
from prelabel.labels.row.own import KINDS_WITH_FRAMES
from prelabel.runtime.disk_cache import DiskCache
from prelabel.runtime.download import DownloadLimits, download, session_for_links

if TYPE_CHECKING:
    from encord.storage import StorageItem


@dataclass(frozen=True, slots=True)
class MediaFetcher:
    """Downloads the media of a project's tasks.

    Attributes:
        project: gives the links.
        cache: holds the files while they are in use.
        limits: of each download.
    """

    project: EncordProject
    cache: DiskCache
    limits: DownloadLimits

    @contextmanager
    def fetch(self, task: EncordTask) -> Iterator[Media]:
        """Downloads a task's media, and deletes them when the context ends. Several threads may call it.

        Raises:
            FetchError: not all files could be downloaded.
        """
        kind, files = self._files_of(task)
        with self.cache.room(sum(file.file_size or 0 for file in files), task.title) as folder:
            yield Media(kind, tuple(self._download(files, folder, task.title)))

    def locate(self, task: EncordTask) -> MediaLocation:
        """Returns the signed links of a task's media, for a worker that has no key. Several threads may call it.

        Raises:
            FetchError: the platform does not give all links.
        """
        kind, files = self._files_of(task)
        links = [FileLink(self._links(item, task.title)(), item.file_size, _suffix(item)) for item in files]
        return MediaLocation(kind, links=tuple(links))

    def _files_of(self, task: EncordTask) -> tuple[MediaKind, list[StorageItem]]:
        """Returns the kind of media and the items to download, in frame order, each with a signed link.

        The platform stores an image sequence as a video with one frame for each image, and the item's link is that of
        the video. An image group has no link, but its images have.
        """
        item = self.project.storage_item(task.item_uuid, task.title, with_link=True)
        kind: MediaKind = "file"
        if task.kind in KINDS_WITH_FRAMES:
            kind = "images" if task.kind == "image" else "video"
        if item.item_type.value != "imageGroup" and self._link_of(item, task.title) is not None:
            return kind, [item]
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
        titles = self.project.caller.call(doing, lambda: self._image_titles(task), FetchError)
        return "images", _in_frame_order(images, titles)

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
        """Returns a function for the item's links.

        Its first call returns the link that came with the item. Each further call requests a new link.
        """
        ready = [item]

        def new_link() -> str:
            source = ready.pop() if ready else self.project.storage_item(item.uuid, title, with_link=True)
            link = self._link_of(source, title)
            if link is None:
                raise FetchError(f"{title}: the platform gives no link to {item.name!r}")
            return link

        return new_link

    def _link_of(self, item: StorageItem, title: str) -> str | None:
        """Returns the item's link; requests it if the item came without one. None if the platform has none."""
        return self.project.caller.call(f"{title}: asking for its link", item.get_signed_url, FetchError)


def _in_frame_order(images: Sequence[StorageItem], titles: Sequence[str]) -> list[StorageItem]:
    """Returns the images in the order of the frames' titles; unchanged if names and titles do not match."""
    if sorted(image.name for image in images) != sorted(titles):
        return list(images)
    by_name: dict[str, list[StorageItem]] = defaultdict(list)
    for image in reversed(images):  # so that `pop` returns images with the same name in their original order
        by_name[image.name].append(image)
    return [by_name[title].pop() for title in titles]


def _suffix(item: StorageItem) -> str:
    """Returns a file suffix for an item, which some decoders need.

    It comes from the item's type, which the platform checks, and not from its title.
    """
    family, default = {
        "image": ("image/", ".jpg"),
        "video": ("video/", ".mp4"),
        "imageSequence": ("video/", ".mp4"),
    }.get(item.item_type.value, ("", ".bin"))
    mime_type = item.mime_type or ""
    guessed = mimetypes.guess_extension(mime_type) if mime_type.startswith(family) else None
    return guessed or default
