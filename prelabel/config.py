"""The config: YAML and `--set` into frozen, checked sections; a mistake is named with its key and the nearest known."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from prelabel.errors import ConfigError, did_you_mean
from prelabel.plugins import describe_first

PreviewKind = Literal["none", "sheet", "clip", "both"]
Fraction = Annotated[float, Field(ge=0, le=1)]


def _as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


ClassName = Annotated[str, BeforeValidator(_as_text)]


class Section(BaseModel):
    """A part of the config: frozen, and closed to unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PluginSection(BaseModel):
    """A part of the config that names a plug-in: what is not ours is the plug-in's own option."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @property
    def options(self) -> dict[str, Any]:
        """The plug-in's own options, as they stand in the config."""
        return dict(self.model_extra or {})


class FolderSection(Section):
    """Videos and pictures on this machine."""

    use: Literal["folder"] = "folder"
    path: Path = Field(description="a file, a folder (searched through) or a glob such as clips/*.mp4")
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
            raise ValueError("a project: set project_hash, or ENCORD_PROJECT_HASH in the environment")
        return self


_SOURCES: dict[object, type[BaseModel]] = {"folder": FolderSection, "demo": DemoSection, "encord": EncordSection}


class ReaderSection(PluginSection):
    """How videos are read."""

    use: str = Field("auto", description="auto | decord | torchcodec | pyav | mine.py:Mine")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    stride: int = Field(1, ge=1, description="look at every Nth frame")
    only_keyframes: bool = Field(False, description="look at the frames that decode on their own, which is far quicker")
    frame_ranges: tuple[tuple[int, int], ...] = Field(
        (), description="look at these frames only: [[first, last], …], 0-based, both included"
    )

    @model_validator(mode="after")
    def _ranges_rise(self) -> ReaderSection:
        for first, last in self.frame_ranges:
            if not 0 <= first <= last:
                raise ValueError(f"frame_ranges: got [{first}, {last}], expected 0 <= first <= last")
        return self


class DetectorSection(PluginSection):
    """What finds the boxes."""

    use: str = Field("", description="ultralytics | torchvision | module:Name | mine.py:Mine; default: the card's")
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field("auto", description="frames a batch")


class TrackerSection(PluginSection):
    """How boxes are linked into tracks, where labels.instances asks for them."""

    use: str = Field("bytetrack", description="bytetrack | module:Name | mine.py:Mine")
    max_gap_seconds: float = Field(
        0.2, ge=0, description="longest gap in a track that is filled in, on a straight line, with confidence 0"
    )
    min_length: int = Field(3, ge=1, description="fewest boxes of a track; shorter ones are dropped")


class SinkSection(PluginSection):
    """Where labels go, if not where the source wants them."""

    use: str = Field(description="module:Name | mine.py:Mine")


class LabelsSection(Section):
    """What becomes of the boxes."""

    classes: dict[ClassName, str | None] = Field(
        {}, description="detector's class: ontology object; many to one; null: ignore; default: the same name"
    )
    unmapped: Literal["ignore", "error"] = Field("ignore", description="what to do with classes that meet no object")
    conf: Fraction | dict[ClassName, Fraction] = Field({}, description="least confidence: one, or by ontology object")
    instances: Literal["per_frame", "tracks"] = Field(
        "per_frame", description="per_frame: an object instance a box; tracks: one a thing, over all its frames"
    )
    max_row_mb: float = Field(50.0, gt=0, description="largest label row that may be sent, in 10^6 bytes")


class Config(Section):
    """A whole config."""

    source: Annotated[FolderSection | DemoSection | EncordSection, Field(discriminator="use")]
    reader: ReaderSection = ReaderSection()
    detector: DetectorSection
    labels: LabelsSection = LabelsSection()
    tracker: TrackerSection = TrackerSection()
    sink: SinkSection | None = None
    pathway: str | None = Field(None, description="name or uuid of the pathway that finished tasks take")
    frames: Literal["strict", "warn"] = Field(
        "strict",
        description="frames that are missing or damaged, or a count that differs from the platform's: "
        "strict: the task fails; warn: what was read is labelled, and the report says so",
    )

    @model_validator(mode="after")
    def _pathway_where_tasks_move(self) -> Config:
        if isinstance(self.source, EncordSection) and self.pathway is None:
            raise ValueError("a pathway: name the one that finished tasks take, pathway: …")
        return self

    def digest(self) -> str:
        """Returns a hash of all that decides what the labels say; where things lie does not count."""
        decides = self.model_dump(mode="json", exclude={"source": {"output", "cache_gb", "truth", "preview"}})
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


def load_config(path: Path, settings: Sequence[str] = ()) -> Config:
    """Returns the config of a file, with `key=value` settings laid over it.

    Relative paths are looked up in the working directory; where nothing is there, beside the config.

    Args:
        path: a YAML file.
        settings: as given to `--set`: a dotted key and a YAML value, `detector.conf=0.4`.

    Raises:
        ConfigError: the first mistake, with the file, the key, what it is and what is expected.
    """
    values = _read_yaml(path)
    for setting in settings:
        _lay_over(values, setting)
    _anchor_paths(values, path.parent)
    return check_config(values, str(path))


def check_config(values: Mapping[str, Any], name: str) -> Config:
    """Returns the config of plain values.

    Args:
        values: sections by name.
        name: what errors call the config.

    Raises:
        ConfigError: the first mistake.
    """
    try:
        return Config.model_validate(_with_source_use(values))
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from None
    except ValidationError as error:
        raise ConfigError(f"{name}: {_describe(error)}") from error


def _with_source_use(values: Mapping[str, Any]) -> dict[str, Any]:
    source = values.get("source")
    if isinstance(source, dict) and source.get("use", "") not in ("", *_SOURCES):
        hint = did_you_mean(str(source["use"]), map(str, _SOURCES))
        raise ConfigError(f"source.use: there is no source {source['use']!r}: {hint}")
    if isinstance(source, dict) and "use" not in source:
        guess = "folder" if "path" in source else "encord"
        return {**values, "source": {"use": guess, **source}}
    return dict(values)


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeyLoader)  # a SafeLoader
    except FileNotFoundError:
        raise ConfigError(f"{path}: there is no such config; `prelabel init` writes one") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: got {type(values).__name__}, expected sections: source, detector, …")
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's safe loader, which besides refuses a key given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise yaml.YAMLError(f"the key {key!r} stands twice in the mapping that begins in line {line}")
        return super().construct_mapping(node, deep)


def _lay_over(values: dict[str, Any], setting: str) -> None:
    key, separator, text = setting.partition("=")
    if not separator or not key.strip():
        raise ConfigError(f"--set {setting}: expected key=value, such as detector.conf=0.4")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {setting}: the value is not YAML: {' '.join(str(error).split())}") from error
    *sections, last = key.strip().split(".")
    place = values
    for name in sections:
        inner = place.get(name)
        place[name] = place = dict(inner) if isinstance(inner, dict) else {}
    place[last] = value


_PATH_KEYS = (("source", "path"), ("source", "ontology"), ("source", "truth"), ("detector", "weights"))


def _anchor_paths(values: dict[str, Any], folder: Path) -> None:
    for section, key in _PATH_KEYS:
        inner = values.get(section)
        if not isinstance(inner, dict) or not isinstance(inner.get(key), str):
            continue
        here, beside = Path(inner[key]), folder / inner[key]
        if not here.exists() and beside.exists():
            values[section] = {**inner, key: str(beside)}


def _describe(error: ValidationError) -> str:
    """Returns the first complaint, unknown keys before all others: they are mostly why another is missing."""
    errors = error.errors(include_url=False)
    unknown = next((entry for entry in errors if entry["type"] == "extra_forbidden"), None)
    if unknown is None:
        return re.sub(r"^source\.(folder|encord|demo)\b", "source", describe_first(error))
    location = [str(part) for part in unknown["loc"] if part not in _SOURCES]
    hint = did_you_mean(location[-1], _known_keys(unknown["loc"]))
    return f"{'.'.join(location)}: is not a key of the config: {hint}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    sections: dict[object, type[BaseModel]] = {**_SOURCES, "labels": LabelsSection}
    model = next((sections[part] for part in reversed(location[:-1]) if part in sections), Config)
    return list(model.model_fields)
