"""Where a run's tasks come from and which way they go, each made when first asked for."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from prelabel.assembly.shared import Shared
from prelabel.config import Config, DemoSection, EncordSection, FolderSection, make_router
from prelabel.label_row import KINDS_WITH_FRAMES
from prelabel.ontology import Ontology
from prelabel.protocols import TaskSource
from prelabel.routing import Router

if TYPE_CHECKING:
    from prelabel.encord_api.client import EncordProject


@dataclass(frozen=True)
class ProjectParts:
    """What a config's source belongs to.

    Attributes:
        config: whose source it is.
        shared: parts that other assemblies of the same run may have, too.
    """

    config: Config
    shared: Shared = field(default_factory=Shared)

    @cached_property
    def encord(self) -> EncordProject:
        """The project on the platform."""
        from prelabel.encord_api.connection import connect

        source = self.config.source
        assert isinstance(source, EncordSection)
        made_of = ("project", source.project_hash, source.domain)
        return self.shared.once(made_of, lambda: connect(source.project_hash, source.domain or None))

    @cached_property
    def ontology(self) -> Ontology | None:
        """The project's or the config's; None where it is made from the model's classes."""
        section = self.config.source
        if isinstance(section, EncordSection):
            return self.encord.ontology()
        if isinstance(section, FolderSection) and section.ontology is not None:
            return Ontology.load(section.ontology)
        return None


class TaskParts(Protocol):
    """Where tasks come from, and which way they go."""

    @property
    def source(self) -> TaskSource:
        """Gives the tasks, and moves them."""
        ...

    @property
    def router(self) -> Router:
        """Which pathway a task takes."""
        ...


@dataclass(frozen=True)
class WaitingTasks:
    """The tasks that wait where a config says.

    Attributes:
        config: what to make.
        project: which the source is of.
    """

    config: Config
    project: ProjectParts

    @cached_property
    def source(self) -> TaskSource:
        """Where tasks come from."""
        section = self.config.source
        if isinstance(section, FolderSection):
            from prelabel.sources.folder import FolderSource

            return FolderSource(section.path, section.output)
        if isinstance(section, DemoSection):
            from prelabel.sources.demo import DemoSource

            return DemoSource(section.output, section.seed, section.num_frames)
        return self._waiting_at(section)

    def _waiting_at(self, section: EncordSection) -> TaskSource:
        from prelabel.sources.encord import EncordSource
        from prelabel.sources.encord_fetching import Fetching
        from prelabel.sources.encord_listing import Wanted

        is_shuffled, is_function = section.order == "shuffled", self.config.agent is not None
        fetching = Fetching(
            cache=section.output / ".prelabel" / "cache",
            max_cache_bytes=int(section.cache_gb * 1e9),
            num_workers=section.fetch_workers,
            refuses_begun=self.config.labels.skips_begun,
            refuses_moved=is_shuffled,
        )
        wanted = Wanted(
            kinds=None if is_function else KINDS_WITH_FRAMES,
            with_metadata=self.router.asks_metadata or is_function,
            is_shuffled=is_shuffled,
        )
        return EncordSource(self.project.encord, section.stage, fetching, wanted, self.config.on_failure)

    @cached_property
    def router(self) -> Router:
        """Which pathway a task takes; of files, which have nowhere to go, only what rules would say is of interest."""
        moves = isinstance(self.config.source, EncordSection)
        return make_router(self.config.routing, self.config.pathway if moves else None, self.config.priority)
