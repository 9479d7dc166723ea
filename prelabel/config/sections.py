"""What is done with a task: a section for each part of the way, and the config that holds them all."""

from __future__ import annotations

import hashlib
import json
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from prelabel.config.base import (
    ClassName,
    DemoSection,
    EncordSection,
    FolderSection,
    Fraction,
    NumberExpression,
    OnFailureSection,
    PluginSection,
    RetriesSection,
    Rules,
    Section,
    Source,
)
from prelabel.labels.filter import FilterRules
from prelabel.labels.flicker import Flicker
from prelabel.labels.keyframes import Keyframes
from prelabel.labels.size_and_zones import SizeLimits, Zones
from prelabel.models.tiling import Tiles

DECODING_KEYS = {"isolate", "stall_seconds", "max_memory_gb", "sessions"}
"""Of the reader section; they say where and how frames are decoded, and change none."""

COMPUTING_KEYS = {"batch_size", "streams"}
"""Of a detector or a classifier; they say how much is computed at once, and change no result."""

VIDEO_READERS = ("decord", "pyav", "torchcodec")
"""Built-in readers of videos, each of which can begin at any keyframe."""


WHETHER_KEYS = {"if_begun"}
"""Of the labels section; they say whether a row is written, and change no label."""


class ReaderSection(PluginSection):
    """How videos are read."""

    use: str = Field("auto", description="auto | decord | torchcodec | pyav | mine.py:Mine")
    device: str = Field("auto", description="auto | cpu | cuda | cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    stride: int = Field(1, ge=1, description="look at every Nth frame")
    only_keyframes: bool = Field(False, description="look at the frames that decode on their own, which is far quicker")
    frame_ranges: tuple[tuple[int, int], ...] = Field(
        (), description="look at these frames only: [[first, last], …], 0-based, both included"
    )
    isolate: Literal["auto", "always", "never"] = Field(
        "auto",
        description="decode in a process of its own, so that a crash or a hang of a decoder costs one task: "
        "auto: where frames are decoded on the CPU; always | never",
    )
    stall_seconds: float = Field(
        60.0, gt=0, description="such a process is ended once it has neither given frames nor read on for so long"
    )
    max_memory_gb: float = Field(8.0, gt=0, description="and once it takes more memory than this, in 10^9 bytes")
    sessions: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="decode a long video in so many places at once, between keyframes; frames ahead of their turn take "
        "at most half of max_memory_gb: auto: a GPU's number of decoding engines, 1 on a CPU",
    )

    @model_validator(mode="after")
    def _sessions_of_built_in_readers(self) -> ReaderSection:
        if self.sessions not in ("auto", 1) and self.use not in ("auto", *VIDEO_READERS):
            raise ValueError(f"sessions: got {self.sessions}, but {self.use!r} reads from front to back: leave it out")
        return self

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
    streams: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto",
        description="on a CPU, parts of a batch that are computed beside each other, each on its share of the cores: "
        "auto: one a core, up to 4, where the detector can; 1: all cores on one",
    )
    tiles: Tiles | None = Field(None, description="look at each frame in overlapping tiles too, for small things")


class ClassifierSection(PluginSection):
    """What tells one class from another."""

    use: str = Field(
        "", description="torchvision | ultralytics | openai | module:Name | mine.py:Mine; default: the card's"
    )
    batch_size: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="pictures a batch, of as many tasks as it takes to fill one"
    )
    conf: Fraction = Field(0.5, description="least confidence of an answer; below it the task goes `otherwise`")
    frames_per_video: Annotated[int, Field(ge=1)] | None = Field(
        8, description="frames looked at in a video, spread evenly; null: all that the section reader leaves"
    )


class AgentSection(PluginSection):
    """A function of your own that is called for each task."""

    use: str = Field(description="mine.py:function | module:function; also a class whose objects can be called")


class TrackerSection(PluginSection):
    """How boxes are linked into tracks, where labels.instances asks for them."""

    use: str = Field("bytetrack", description="bytetrack | module:Name | mine.py:Mine")
    max_gap_seconds: float = Field(
        0.2, ge=0, description="longest gap in a track that is filled in, on a straight line, and marked"
    )
    min_length: int = Field(3, ge=1, description="fewest boxes of a track; shorter ones are dropped")
    smooth_seconds: float = Field(
        0.0, ge=0, description="take the detector's jitter out of boxes, over about so long to either side; 0: leave it"
    )


class SinkSection(PluginSection):
    """Where labels go, if not where the source wants them."""

    use: str = Field(description="module:Name | mine.py:Mine")


class LabelsSection(Section):
    """What becomes of boxes, or of a class."""

    classes: dict[ClassName, str | None] = Field(
        {},
        description="model's class: ontology object, or option of the classification; many to one; null: ignore; "
        "default: the same name",
    )
    classification: str | None = Field(
        None, description="classification that a classifier answers, by name or feature hash; default: the only one"
    )
    answers: Literal["range", "per_frame"] = Field(
        "range", description="range: one answer for the whole task; per_frame: one for each frame that was looked at"
    )
    if_begun: Literal["merge", "skip"] = Field(
        "merge",
        description="a row with labels that prelabel did not write, or that somebody has changed: merge: add to them; "
        "skip: leave row and task as they are",
    )
    unmapped: Literal["ignore", "error"] = Field(
        "ignore", description="what to do with classes that meet nothing in the ontology"
    )
    conf: Fraction | dict[ClassName, Fraction] = Field(
        {}, description="least confidence: one, or by ontology object or option"
    )
    size: SizeLimits = Field(SizeLimits(), description="how large a box must be and may be")
    zones: Zones = Field(Zones(), description="where in the frame things are labelled, and where not")
    nms_iou: Annotated[float, Field(gt=0, le=1)] | None = Field(
        None, description="of two boxes on a frame that overlap more, whatever their classes, the surer stays"
    )
    flicker: Flicker | None = Field(None, description="drop boxes of things seen on too few frames around")
    max_per_frame: Annotated[int, Field(ge=1)] | None = Field(
        None, description="most boxes that a frame may have; the surest stay"
    )
    keyframes: Keyframes | None = Field(
        None, description="keep of each track only the boxes between which straight lines reproduce the rest"
    )
    instances: Literal["per_frame", "tracks"] = Field(
        "per_frame", description="per_frame: an object instance a box; tracks: one a thing, over all its frames"
    )
    polygon_tolerance_px: float = Field(
        1.0, ge=0, description="of a model with masks: how far a polygon may lie from the mask's edge, in pixels"
    )
    keypoints: dict[str, str] = Field(
        {}, description="of a model with keypoints: its keypoint: the skeleton's point; default: the same name"
    )
    max_row_mb: float = Field(50.0, gt=0, description="largest label row that may be sent, in 10^6 bytes")

    @model_validator(mode="after")
    def _keyframes_of_tracks(self) -> LabelsSection:
        if self.keyframes is not None and self.instances != "tracks":
            raise ValueError("keyframes: are of tracks: add instances: tracks")
        return self

    @property
    def skips_begun(self) -> bool:
        """Whether rows that somebody has begun to work on are left as they are."""
        return self.if_begun == "skip"

    @property
    def rules(self) -> FilterRules:
        """What a detection must be like to become a label."""
        return FilterRules(
            conf=self.conf,
            size=self.size,
            zones=self.zones,
            nms_iou=self.nms_iou,
            flicker=self.flicker,
            max_per_frame=self.max_per_frame,
        )


AGENT_SECTIONS = ("detector", "classifier", "agent")
"""Sections that say what is done with each task; a config has one of them."""


class Config(Section):
    """A whole config."""

    source: Annotated[Source, Field(discriminator="use")]
    reader: ReaderSection = ReaderSection()
    detector: DetectorSection | None = None
    classifier: ClassifierSection | None = None
    agent: AgentSection | None = None
    labels: LabelsSection = LabelsSection()
    tracker: TrackerSection = TrackerSection()
    sink: SinkSection | None = None
    pathway: str | None = Field(None, description="name or uuid of the pathway that finished tasks take")
    routing: Rules = Field((), description="pathway by what was found: the first rule that holds")
    priority: NumberExpression | None = Field(
        None, description="of the task at its next stage, 0 to 1, by what was found, such as 1 - confidence.mean"
    )
    frames: Literal["strict", "warn"] = Field(
        "strict",
        description="frames that are missing or damaged, or a count that differs from the platform's: "
        "strict: the task fails; warn: what was read is labelled, and the report says so",
    )

    retries: RetriesSection = RetriesSection()
    on_failure: OnFailureSection = OnFailureSection()

    @model_validator(mode="after")
    def _one_agent(self) -> Config:
        named = [name for name in AGENT_SECTIONS if getattr(self, name) is not None]
        if not named:
            raise ValueError(f"{AGENT_SECTIONS[0]}: is missing: add it, or one of {', '.join(AGENT_SECTIONS[1:])}")
        if len(named) > 1:
            raise ValueError(f"{' and '.join(named)}: a config has one of them: give each a config of its own")
        return self

    @model_validator(mode="after")
    def _functions_see_the_row(self) -> Config:
        if self.agent is not None and self.labels.skips_begun:
            raise ValueError("labels.if_begun: a function of your own sees the row and decides: leave it out")
        return self

    @model_validator(mode="after")
    def _answers_are_no_boxes(self) -> Config:
        if self.classifier is None:
            return self
        preview = "none" if isinstance(self.source, EncordSection) else self.source.preview
        for key, is_for_boxes in {
            "labels.instances": self.labels.instances == "tracks",
            "sink": self.sink is not None,
            "source.preview": preview != "none",
            "source.truth": isinstance(self.source, FolderSection) and self.source.truth is not None,
            "source.use": isinstance(self.source, DemoSection),
        }.items():
            if is_for_boxes:
                raise ValueError(f"{key}: is for boxes, and a classifier gives none: leave it out")
        return self

    @model_validator(mode="after")
    def _pathway_where_tasks_move(self) -> Config:
        if self.routing and self.pathway is not None:
            raise ValueError("pathway and routing: both say where tasks go: leave one out")
        goes = self.pathway is not None or self.routing or self.agent is not None  # a function may say itself
        if isinstance(self.source, EncordSection) and not goes:
            raise ValueError("pathway: is missing: name the one that finished tasks take")
        return self

    @model_validator(mode="after")
    def _failures_go_where_tasks_move(self) -> Config:
        if self.on_failure.asks_something and not isinstance(self.source, EncordSection):
            raise ValueError("on_failure: only tasks of an Encord stage have pathways and issues: leave it out")
        return self

    def digest(self) -> str:
        """Returns a hash of all that decides what the labels say; where things lie does not count."""
        place = {"output", "cache_gb", "fetch_workers", "order", "truth", "preview"}
        where: dict[str, Any] = {
            "source": place,
            "reader": DECODING_KEYS,
            "detector": COMPUTING_KEYS,
            "classifier": COMPUTING_KEYS,
            "labels": WHETHER_KEYS,
            "retries": True,
            "on_failure": True,
        }
        decides = self.model_dump(mode="json", exclude=where)
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
