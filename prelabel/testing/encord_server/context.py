"""What an endpoint gets: the world, the settings and the user."""

from __future__ import annotations

from dataclasses import dataclass

from .media import Links
from .records import Project, StorageItem
from .state import World


@dataclass
class Settings:
    """How the platform behaves where that can be configured, or is not documented."""

    page_size: int = 50
    # Offsets skip tasks when earlier ones leave the stage while it is read; stable tokens do not.
    stable_page_tokens: bool = False
    max_body_bytes: int = 50_000_000
    item_link_lifetime_seconds: float = 3600
    row_link_lifetime_seconds: float = 7 * 86400


@dataclass
class Context:
    """One request's surroundings; `user` is the e-mail of the key's holder."""

    world: World
    links: Links
    settings: Settings
    user: str

    def may_enter(self, project: Project) -> bool:
        return project.members is None or self.user in project.members

    def item_link(self, item: StorageItem) -> str | None:
        return self.links.sign(item, self.settings.item_link_lifetime_seconds)

    def row_link(self, item: StorageItem) -> str | None:
        return self.links.sign(item, self.settings.row_link_lifetime_seconds)
