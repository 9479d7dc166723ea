"""The test server's project, reached as a run reaches it, with no waits between tries."""

from __future__ import annotations

from dataclasses import replace

from prelabel.data.label_map import LabelMap, build_label_map
from prelabel.encord.calls import CALL_BACKOFF
from prelabel.encord.client import EncordProject
from prelabel.encord.connection import connect
from tests.encord_server.populated import Platform


def reach(platform: Platform) -> EncordProject:
    """Returns the platform's project; the key is in the environment (fixture `encord_environment`)."""
    return connect(
        platform.project.uuid, platform.server.url, backoff=replace(CALL_BACKOFF, sleep=lambda seconds: None)
    )


def map_of_roads(project: EncordProject) -> LabelMap:
    """Returns a map of the classes person and car onto the objects of the server's default ontology."""
    return build_label_map(("person", "car"), project.ontology(), {"person": "Pedestrian", "car": "Vehicle"})
