"""The test server's project, reached as a run reaches it, with no waits between tries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.encord.calls import CALL_BACKOFF
from prelabel.encord.connection import connect
from prelabel.encord.project import EncordProject
from prelabel.encord.source import EncordSection, EncordSource
from prelabel.runtime.backoff import Backoff
from prelabel.runtime.download import DownloadLimits
from prelabel.testing.encord_server import AGENT
from tests.encord_fixtures import Platform


def reach(platform: Platform) -> EncordProject:
    """Returns the platform's project; the key is in the environment (fixture `encord_environment`)."""
    return connect(
        platform.project.uuid, platform.server.url, backoff=replace(CALL_BACKOFF, sleep=lambda seconds: None)
    )


def encord_source(platform: Platform, output: Path, **keys: Any) -> EncordSource:
    """Returns a source of the platform's project, with no waits between tries.

    Args:
        platform: the test server's.
        output: the section's; downloads are below it.
        keys: further ones of the section.
    """
    section = EncordSection(**{"project_hash": platform.project.uuid, "stage": AGENT, "output": output, **keys})
    limits = DownloadLimits(backoff=Backoff(sleep=lambda seconds: None))
    return EncordSource(section, reach=lambda: reach(platform), limits=limits)


def map_of_roads(project: EncordProject) -> LabelMap:
    """Returns a map of the classes person and car onto the objects of the server's default ontology."""
    return build_label_map(("person", "car"), project.ontology(), {"person": "Pedestrian", "car": "Vehicle"})
