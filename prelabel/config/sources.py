"""Where tasks come from: a section for each source."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, BeforeValidator, Field, model_validator

from prelabel.config.base import Section

PreviewKind = Literal["none", "sheet", "clip", "both"]


def _not_empty(path: object) -> object:
    if path == "":
        raise ValueError("is empty, expected a file, a folder or a glob")  # else it would be all that lies here
    return path


class FolderSection(Section):
    """Videos and pictures on this machine."""

    use: Literal["folder"] = "folder"
    path: Annotated[Path, BeforeValidator(_not_empty)] = Field(
        description="a file, a folder (searched through) or a glob such as clips/*.mp4"
    )
    ontology: Path | None = Field(
        None, description="Encord ontology as JSON; default: made from the detector's classes"
    )
    truth: Path | None = Field(None, description="COCO ground truth to score against; file_name as in coco.json")
    output: Path = Field(Path("out"), description="folder for label rows, raw detections, coco.json and report.json")
    preview: PreviewKind = Field("none", description="draw the boxes after the run: clip | sheet | both | none")


class DemoSection(Section):
    """A short clip with known contents, made on the spot."""

    use: Literal["demo"] = "demo"
    seed: int = Field(1, description="another seed is another clip")
    num_frames: int = Field(150, ge=2, le=10_000, description="length of the clip")
    output: Path = Field(Path("out/demo"), description="folder for the clip and for everything that a run writes")
    preview: PreviewKind = Field("both", description="draw the boxes after the run: clip | sheet | both | none")


class EncordSection(Section):
    """An agent stage of an Encord workflow."""

    use: Literal["encord"] = "encord"
    project_hash: str = Field("", description="or from ENCORD_PROJECT_HASH")
    stage: str = Field(description="title or uuid of the agent stage")
    domain: str = Field("", description="the API's address, or from ENCORD_DOMAIN; default: the EU platform")
    output: Path = Field(Path("out"), description="folder for raw detections, the ledger and report.json")
    cache_gb: float = Field(20.0, gt=0, description="disk that downloads may take, in 10^9 bytes")
    fetch_workers: int = Field(4, ge=1, le=64, description="tasks whose media are fetched at the same time")
    order: Literal["listed", "shuffled"] = Field(
        "listed",
        description="in which tasks are taken up: listed: the platform's; shuffled: each run its own, for several "
        "workers that share no output, and each task is looked up again before it is fetched",
    )
    record: bool = Field(True, description="note model and version in the item's client metadata, key 'prelabel'")

    @model_validator(mode="before")
    @classmethod
    def _from_environment(cls, values: Any) -> Any:
        if isinstance(values, dict):
            known = {"project_hash": "ENCORD_PROJECT_HASH", "domain": "ENCORD_DOMAIN"}
            found = {key: os.environ[name] for key, name in known.items() if os.environ.get(name)}
            return {**found, **{key: value for key, value in values.items() if value not in ("", None)}}
        return values

    @model_validator(mode="after")
    def _has_project(self) -> EncordSection:
        if not self.project_hash:
            raise ValueError("has no project_hash: set it, or ENCORD_PROJECT_HASH in the environment")
        return self


Source: TypeAlias = FolderSection | DemoSection | EncordSection
SOURCES: dict[object, type[BaseModel]] = {"folder": FolderSection, "demo": DemoSection, "encord": EncordSection}
