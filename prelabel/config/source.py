"""The section `source` of a config. Each source has its own section class."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    SerializeAsAny,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
)

from prelabel.config.base import PluginSection
from prelabel.errors import ConfigError, did_you_mean
from prelabel.plugins.affects import Affects
from prelabel.plugins.load import describe_first, load_plugin
from prelabel.runtime.buckets import Address


def read_location(value: object) -> Path | Address:
    """Returns the path, or the address of a bucket or a link, that a text holds.

    Raises:
        ValueError: it is neither.
    """
    if isinstance(value, Address):
        return value
    if not isinstance(value, str | Path):
        raise ValueError(f"got {value!r:.60}, expected a path or an address")
    return Address.read(str(value)) or Path(value)


def _refuse_address(location: Path | Address) -> Path | Address:
    if isinstance(location, Address):
        raise ValueError(f"{location} is an address, expected a folder: only labels in files go to a bucket")
    return location


def _refuse_link(location: Path | Address) -> Path | Address:
    if isinstance(location, Address) and location.is_link:
        raise ValueError(f"{location} cannot be written to, expected a folder or s3://, gs://, abfs://")
    return location


Location = Annotated[
    Path | Address,
    PlainValidator(read_location),
    PlainSerializer(
        lambda location: location.url if isinstance(location, Address) else str(location), when_used="json"
    ),
    WithJsonSchema({"type": "string", "format": "path"}),
]
"""A path on this machine, or the address of a bucket or a link."""
OutputFolder = Annotated[Location, AfterValidator(_refuse_address)]
"""A folder on this machine."""
PreviewKind = Literal["none", "sheet", "clip", "both"]


class SourceSection(PluginSection):
    """The source of the tasks. The section class of each source derives from this class.

    Attributes:
        has_workflow: whether tasks wait at a stage of a workflow. If so, the config sets the pathways of finished and
            failed tasks.
    """

    has_workflow: ClassVar[bool] = False
    options_affect: ClassVar[Affects] = Affects.PLACE

    use: Annotated[str, Affects.PLACE] = Field(description="encord | folder | demo | module:Name | mine.py:Mine")
    output: Annotated[OutputFolder, Affects.PLACE] = Field(
        Path("out"), description="folder for everything that a run writes"
    )

    @property
    def run_folder(self) -> Path:
        """The folder on this machine to which runs write; the files for people go from there to a bucket, if any."""
        if isinstance(self.output, Path):
            return self.output
        return Path("out", self.output.scheme, self.output.root, self.output.key)

    @property
    def bucket(self) -> Address | None:
        """The address to which a run uploads the files for people; None if they stay on this machine."""
        return self.output if isinstance(self.output, Address) else None

    # Subclasses override these if they have such keys.

    @property
    def stage_name(self) -> str:
        """The title or uuid of the stage at which tasks wait; empty without a workflow."""
        return ""

    @property
    def ontology_file(self) -> Path | None:
        """Path of an Encord ontology as JSON."""
        return None

    @property
    def truth_file(self) -> Path | None:
        """Path of the COCO ground truth to score a run against."""
        return None

    @property
    def preview_kind(self) -> PreviewKind:
        """The previews that a run draws at its end."""
        return "none"


class FileLabelsSection(SourceSection):
    """Tasks of a source whose labels go to files. Keys that are not listed here are the source's own."""

    ontology: Annotated[Path | None, Affects.LABELS] = Field(
        None, description="Encord ontology as JSON; default: made from the model's classes"
    )
    truth: Annotated[Path | None, Affects.NOTHING] = Field(
        None, description="COCO ground truth to score against; its images matched by video and frame index"
    )
    output: Annotated[Location, AfterValidator(_refuse_link), Affects.PLACE] = Field(
        Path("out"),
        description="folder for label rows, raw detections, coco.json and report.json; or s3://bucket/…, gs://, abfs://",
    )
    preview: Annotated[PreviewKind, Affects.NOTHING] = Field(
        "none", description="draw the boxes after the run: clip | sheet | both | none"
    )

    @property
    def ontology_file(self) -> Path | None:
        """The value of `ontology`."""
        return self.ontology

    @property
    def truth_file(self) -> Path | None:
        """The value of `truth`."""
        return self.truth

    @property
    def preview_kind(self) -> PreviewKind:
        """The value of `preview`."""
        return self.preview


CLOSED = ConfigDict(extra="forbid")
"""Model config of sections that reject unknown keys, for sources without further options."""


def section_of(use: str, folder: Path) -> type[SourceSection]:
    """Returns the section class of the source that `use` names."""
    section = getattr(load_plugin("source", use, folder).factory, "Section", FileLabelsSection)
    return section if isinstance(section, type) and issubclass(section, SourceSection) else FileLabelsSection


def _read(values: Any, info: ValidationInfo) -> SourceSection:
    """Returns the section for the source that `use` names; the path of a plug-in is relative to the context's folder.

    Raises:
        ConfigError: the first mistake. Unknown keys come first, since they often explain why another key is missing.
        PluginError: there is no such source.
    """
    if isinstance(values, SourceSection):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"source: got {values!r:.60}, expected a section with keys: use, output, ...")
    use = str(values.get("use") or ("folder" if "path" in values else "encord"))
    section = section_of(use, (info.context or {}).get("folder", Path()))
    try:
        return section.model_validate({**values, "use": use})
    except ValidationError as error:
        unknown = next((entry["loc"][-1] for entry in error.errors() if entry["type"] == "extra_forbidden"), None)
        if unknown is None:
            raise ConfigError(describe_first(error, "source")) from error
        hint = did_you_mean(str(unknown), section.model_fields)
        raise ConfigError(f"source.{unknown}: is not a key of the config: {hint}") from None


AnySource = Annotated[SerializeAsAny[SourceSection], BeforeValidator(_read)]
"""The section of any source, checked by that source's section class."""
