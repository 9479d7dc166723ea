"""What is done with a task: a section for each part of the way, and the config that holds them all."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, model_validator

from prelabel.config.base import (
    Fraction,
    Name,
    NumberExpression,
    OneOrMore,
    OnFailureSection,
    PluginSection,
    RetriesSection,
    Rules,
    Section,
    read_device,
    read_name,
)
from prelabel.config.source import AnySource
from prelabel.labels.filter import FilterRules
from prelabel.labels.flicker import Flicker
from prelabel.labels.keyframes import Keyframes
from prelabel.labels.size_and_zones import SizeLimits, Zones
from prelabel.models.tiling import Tiles
from prelabel.plugins.affects import Affects

VIDEO_READERS = ("decord", "pyav", "torchcodec")
"""Built-in readers of videos, each of which can begin at any keyframe."""


class ReaderSection(PluginSection):
    """How videos are read."""

    use: Annotated[str, Affects.DETECTIONS] = Field(
        "auto", description="auto | decord | torchcodec | pyav | mine.py:Mine"
    )
    device: Annotated[str, BeforeValidator(read_device), Affects.DETECTIONS] = Field(
        "auto", description="auto | cpu | cuda | cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    stride: Annotated[int, Affects.DETECTIONS] = Field(1, ge=1, description="look at every Nth frame")
    only_keyframes: Annotated[bool, Affects.DETECTIONS] = Field(
        False, description="look at the frames that decode on their own, which is far quicker"
    )
    frame_ranges: Annotated[tuple[tuple[int, int], ...], Affects.DETECTIONS] = Field(
        (), description="look at these frames only: [[first, last], …], 0-based, both included"
    )
    isolate: Annotated[Literal["auto", "always", "never"], Affects.NOTHING] = Field(
        "auto",
        description="decode in a process of its own, so that a crash or a hang of a decoder costs one task: "
        "auto: where frames are decoded on the CPU; always | never",
    )
    stall_seconds: Annotated[float, Affects.NOTHING] = Field(
        60.0, gt=0, description="such a process is ended once it has neither given frames nor read on for so long"
    )
    max_memory_gb: Annotated[float, Affects.NOTHING] = Field(
        8.0, gt=0, description="and once it takes more memory than this, in 10^9 bytes"
    )
    decode_workers: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto",
        description="decode a long video in so many places at once, between keyframes; frames ahead of their turn take "
        "at most half of max_memory_gb: auto: a GPU's number of decoding engines, 1 on a CPU",
    )

    @model_validator(mode="after")
    def _decode_workers_of_built_in_readers(self) -> ReaderSection:
        if self.decode_workers not in ("auto", 1) and self.use not in ("auto", *VIDEO_READERS):
            raise ValueError(
                f"decode_workers: got {self.decode_workers}, but {self.use!r} reads from front to back: leave it out"
            )
        return self

    @model_validator(mode="after")
    def _ranges_rise(self) -> ReaderSection:
        for first, last in self.frame_ranges:
            if not 0 <= first <= last:
                raise ValueError(f"frame_ranges: got [{first}, {last}], expected 0 <= first <= last")
        return self


class ModelSection(PluginSection):
    """A section that names a model; its option `classes`, if it has one, holds names and numbers."""

    @model_validator(mode="before")
    @classmethod
    def _read_device(cls, values: Any) -> Any:
        if isinstance(values, dict) and "device" in values:
            return {**values, "device": read_device(values["device"])}
        return values

    @model_validator(mode="before")
    @classmethod
    def _read_class_names(cls, values: Any) -> Any:
        classes = values.get("classes") if isinstance(values, dict) else None
        if not isinstance(classes, list):
            return values
        try:  # a number stays one: it is a class_id
            names = [each if type(each) is int else read_name(each) for each in classes]
        except ValueError as error:
            raise ValueError(f"classes: {error}") from None
        return {**values, "classes": names}


class DetectorSection(ModelSection):
    """What finds the boxes."""

    use: Annotated[str, Affects.DETECTIONS] = Field(
        "", description="ultralytics | torchvision | module:Name | mine.py:Mine; default: the card's"
    )
    batch_size: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field("auto", description="frames a batch")
    replicas: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto",
        description="on a CPU, parts of a batch that are computed beside each other, each on its share of the cores: "
        "auto: one a core, up to 4, where the detector can; 1: all cores on one",
    )
    tiles: Annotated[Tiles | None, Affects.DETECTIONS] = Field(
        None, description="look at each frame in overlapping tiles too, for small things"
    )


class ClassifierSection(ModelSection):
    """What tells one class from another."""

    use: Annotated[str, Affects.DETECTIONS] = Field(
        "", description="torchvision | ultralytics | openai | module:Name | mine.py:Mine; default: the card's"
    )
    batch_size: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto", description="pictures a batch, of as many tasks as it takes to fill one"
    )
    conf: Annotated[Fraction, Affects.LABELS] = Field(
        0.5, description="least confidence of an answer; below it the task goes `otherwise`"
    )
    frames_per_video: Annotated[OneOrMore | None, Affects.DETECTIONS] = Field(
        8, description="frames looked at in a video, spread evenly; null: all that the section reader leaves"
    )


class AgentSection(PluginSection):
    """A function of your own that is called for each task."""

    options_affect: ClassVar[Affects] = Affects.LABELS

    use: Annotated[str, Affects.LABELS] = Field(
        description="mine.py:function | module:function; also a class whose objects can be called"
    )


class TrackerSection(PluginSection):
    """How boxes are linked into tracks, where labels.instances asks for them."""

    options_affect: ClassVar[Affects] = Affects.LABELS

    use: Annotated[str, Affects.LABELS] = Field("bytetrack", description="bytetrack | module:Name | mine.py:Mine")
    max_gap_seconds: Annotated[float, Affects.LABELS] = Field(
        0.2, ge=0, description="longest gap in a track that is filled in, on a straight line, and marked"
    )
    min_length: Annotated[int, Affects.LABELS] = Field(
        3, ge=1, description="fewest boxes of a track; shorter ones are dropped"
    )
    smooth_seconds: Annotated[float, Affects.LABELS] = Field(
        0.0, ge=0, description="take the detector's jitter out of boxes, over about so long to either side; 0: leave it"
    )


class SinkSection(PluginSection):
    """Where labels go, if not where the source wants them."""

    options_affect: ClassVar[Affects] = Affects.PLACE

    use: Annotated[str, Affects.PLACE] = Field(description="module:Name | mine.py:Mine")


class LabelsSection(Section):
    """What becomes of boxes, or of a class."""

    classes: Annotated[dict[Name, Name | None], Affects.LABELS] = Field(
        {},
        description="model's class: ontology object, or option of the classification; many to one; null: ignore; "
        "default: the same name",
    )
    classification: Annotated[Name | None, Affects.LABELS] = Field(
        None, description="classification that a classifier answers, by name or feature hash; default: the only one"
    )
    answers: Annotated[Literal["range", "per_frame"], Affects.LABELS] = Field(
        "range", description="range: one answer for the whole task; per_frame: one for each frame that was looked at"
    )
    if_begun: Annotated[Literal["merge", "skip"], Affects.NOTHING] = Field(
        "merge",
        description="a row with labels that prelabel did not write, or that somebody has changed: merge: add to them; "
        "skip: leave row and task as they are",
    )
    unmapped: Annotated[Literal["ignore", "error"], Affects.LABELS] = Field(
        "ignore", description="what to do with classes that meet nothing in the ontology"
    )
    conf: Annotated[Fraction | dict[Name, Fraction], Affects.LABELS] = Field(
        {}, description="least confidence: one, or by ontology object or option"
    )
    size: Annotated[SizeLimits, Affects.LABELS] = Field(SizeLimits(), description="how large a box must be and may be")
    zones: Annotated[Zones, Affects.LABELS] = Field(
        Zones(), description="where in the frame things are labelled, and where not"
    )
    nms_iou: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Affects.LABELS] = Field(
        None, description="of two boxes on a frame that overlap more, whatever their classes, the surer stays"
    )
    flicker: Annotated[Flicker | None, Affects.LABELS] = Field(
        None, description="drop boxes of things seen on too few frames around"
    )
    max_per_frame: Annotated[OneOrMore | None, Affects.LABELS] = Field(
        None, description="most boxes that a frame may have; the surest stay"
    )
    keyframes: Annotated[Keyframes | None, Affects.LABELS] = Field(
        None, description="keep of each track only the boxes between which straight lines reproduce the rest"
    )
    instances: Annotated[Literal["per_frame", "tracks"], Affects.LABELS] = Field(
        "per_frame", description="per_frame: an object instance a box; tracks: one a thing, over all its frames"
    )
    polygon_tolerance_px: Annotated[float, Affects.LABELS] = Field(
        1.0, ge=0, description="of a model with masks: how far a polygon may lie from the mask's edge, in pixels"
    )
    keypoints: Annotated[dict[Name, Name], Affects.LABELS] = Field(
        {}, description="of a model with keypoints: its keypoint: the skeleton's point; default: the same name"
    )
    max_row_mb: Annotated[float, Affects.NOTHING] = Field(
        50.0, gt=0, description="largest label row that may be sent, in 10^6 bytes"
    )

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

    source: AnySource
    reader: ReaderSection = ReaderSection()
    detector: DetectorSection | None = None
    classifier: ClassifierSection | None = None
    agent: AgentSection | None = None
    labels: LabelsSection = LabelsSection()
    tracker: TrackerSection = TrackerSection()
    sink: SinkSection | None = None
    pathway: Annotated[Name | None, Affects.PLACE] = Field(
        None, description="name or uuid of the pathway that finished tasks take"
    )
    routing: Annotated[Rules, Affects.PLACE] = Field(
        (), description="pathway by what was found: the first rule that holds"
    )
    priority: Annotated[NumberExpression | None, Affects.PLACE] = Field(
        None, description="of the task at its next stage, 0 to 1, by what was found, such as 1 - confidence.mean"
    )
    frames: Annotated[Literal["strict", "warn"], Affects.DETECTIONS] = Field(
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

    @property
    def agent_kind(self) -> Literal["detection", "classification", "function"]:
        """What the config does with each task."""
        if self.agent is not None:
            return "function"
        return "detection" if self.classifier is None else "classification"

    @model_validator(mode="after")
    def _functions_see_the_row(self) -> Config:
        if self.agent_kind == "function" and self.labels.skips_begun:
            raise ValueError("labels.if_begun: a function of your own sees the row and decides: leave it out")
        return self

    @model_validator(mode="after")
    def _answers_are_no_boxes(self) -> Config:
        if self.agent_kind != "classification":
            return self
        for key, is_for_boxes in {
            "labels.instances": self.labels.instances == "tracks",
            "sink": self.sink is not None,
            "source.preview": self.source.preview_kind != "none",
            "source.truth": getattr(self.source, "truth", None) is not None,
            "source.use": self.source.truth_file is not None,
        }.items():
            if is_for_boxes:
                raise ValueError(f"{key}: is for boxes, and a classifier gives none: leave it out")
        return self

    @model_validator(mode="after")
    def _pathway_where_tasks_move(self) -> Config:
        if self.routing and self.pathway is not None:
            raise ValueError("pathway and routing: both say where tasks go: leave one out")
        goes = self.pathway is not None or self.routing or self.agent_kind == "function"  # a function may say itself
        if self.source.has_workflow and not goes:
            raise ValueError("pathway: is missing: name the one that finished tasks take")
        return self

    @model_validator(mode="after")
    def _failures_go_where_tasks_move(self) -> Config:
        if self.on_failure.asks_something and not self.source.has_workflow:
            raise ValueError("on_failure: only tasks of a workflow stage have pathways and issues: leave it out")
        return self
