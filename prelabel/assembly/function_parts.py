"""The parts of an agent that calls a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from prelabel.config.sections import AgentSection, Config
from prelabel.data.label_map import NO_BOXES
from prelabel.data.ontology import Ontology
from prelabel.errors import ConfigError, OntologyError
from prelabel.plugins.load import Plugin, load_plugin
from prelabel.plugins.protocols import ModelRecord


@dataclass(frozen=True)
class FunctionParts:
    """What a config with a function names.

    Attributes:
        config: which has an agent.
        folder: the config's, to which plug-in paths are relative.
        find_ontology: returns the source's ontology; None: it has none.
    """

    config: Config
    folder: Path
    find_ontology: Callable[[], Ontology | None]
    label_map = NO_BOXES

    @property
    def section(self) -> AgentSection:
        """The config's section.

        Raises:
            ConfigError: the config has none.
        """
        if self.config.agent is None:
            raise ConfigError("agent: is missing: this config has no function of your own")
        return self.config.agent

    @cached_property
    def plugin(self) -> Plugin:
        """The function."""
        return load_plugin("agent", self.section.use, self.folder)

    @property
    def model(self) -> ModelRecord:
        """The function, which stands in for a model."""
        return self.plugin.model

    @cached_property
    def ontology(self) -> Ontology:
        """What may be labelled.

        Raises:
            OntologyError: the source has no ontology.
        """
        given = self.find_ontology()
        if given is None:
            raise OntologyError("source.ontology: is missing: the function gets label rows, and these need one")
        return given
