"""The sections of a config, and the config that holds them."""

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
    ReportSection,
    RetriesSection,
    Rules,
    Section,
    read_name,
)
from prelabel.config.source import AnySource
from prelabel.labels.filter import FilterRules
from prelabel.labels.flicker import Flicker
from prelabel.labels.keyframes import Keyframes
from prelabel.labels.size_and_zones import SizeLimits, Zones
from prelabel.labels.whole_tracks import TrackLimits
from prelabel.models.devices import read_device
from prelabel.models.tiling import Tiles
from prelabel.plugins.affects import Affects

VIDEO_READERS = ("decord", "nvdec", "pyav", "torchcodec")
"""The built-in video readers. Each can start at any keyframe."""


class ReaderSection(PluginSection):
    """How media are decoded."""

    use: Annotated[str, Affects.DETECTIONS] = Field(
        "auto", description="auto | decord | torchcodec | nvdec | pyav | mine.py:Mine"
    )
    device: Annotated[str, BeforeValidator(read_device), Affects.DETECTIONS] = Field(
        "auto", description="auto | cpu | cuda | cuda:N", pattern=r"^(auto|cpu|cuda(:\d+)?)$"
    )
    stride: Annotated[int, Affects.DETECTIONS] = Field(1, ge=1, description="decode every Nth frame only")
    only_keyframes: Annotated[bool, Affects.DETECTIONS] = Field(
        False, description="decode keyframes only: several times faster, one frame every few seconds", examples=[True]
    )
    frame_ranges: Annotated[tuple[tuple[int, int], ...], Affects.DETECTIONS] = Field(
        (), description="decode these frames only: [[first, last], …], 0-based, both included", examples=[[[0, 299]]]
    )
    isolate: Annotated[Literal["auto", "always", "never"], Affects.NOTHING] = Field(
        "auto",
        description="decode in a separate process, so that a decoder's crash or hang costs one task; auto: when "
        "frames are decoded on the CPU",
    )
    stall_seconds: Annotated[float, Affects.NOTHING] = Field(
        60.0, gt=0, description="end the decoding process when it has read and decoded nothing for this long"
    )
    max_memory_gb: Annotated[float, Affects.NOTHING] = Field(
        8.0, gt=0, description="end the decoding process when it takes more memory than this, in 10^9 bytes"
    )
    decode_workers: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto",
        description="decode this many segments of a long video at the same time; frames that wait for their turn "
        "take at most half of max_memory_gb; auto: one per decoding engine of the GPU, 1 on a CPU",
    )

    @model_validator(mode="after")
    def _check(self) -> ReaderSection:
        if self.decode_workers not in ("auto", 1) and self.use not in ("auto", *VIDEO_READERS):
            raise ValueError(
                f"decode_workers: got {self.decode_workers}, but {self.use!r} reads from front to back: leave it out"
            )
        for first, last in self.frame_ranges:
            if not 0 <= first <= last:
                raise ValueError(f"frame_ranges: got [{first}, {last}], expected 0 <= first <= last")
        return self


class ModelSection(PluginSection):
    """A section that names a model. It accepts `device`, `classes` and `only` as people write them."""

    @model_validator(mode="before")
    @classmethod
    def _read(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        if "device" in values:
            values = {**values, "device": read_device(values["device"])}
        for key in ("classes", "only"):
            if isinstance(values.get(key), list):
                try:  # a number stays a number, since it is a class_id
                    names = [each if type(each) is int else read_name(each) for each in values[key]]
                except ValueError as error:
                    raise ValueError(f"{key}: {error}") from None
                values = {**values, key: names}
        return values


class DetectorSection(ModelSection):
    """The model that detects things."""

    use: Annotated[str, Affects.DETECTIONS] = Field(
        "",
        description="ultralytics | torchvision | transformers | onnx | module:Name | mine.py:Mine; default: the one "
        "that the weights' card names",
    )
    batch_size: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto",
        description="frames per batch; auto: what fits the GPU, found by trial, or what the detector prefers on a CPU",
    )
    replicas: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto",
        description="copies of the model that compute parts of a batch at the same time on a CPU; auto: one per "
        "core, at most 4, if the detector can be copied",
    )
    tiles: Annotated[Tiles | None, Affects.DETECTIONS] = Field(
        None,
        description="also look at overlapping tiles of each frame, to find small things",
        examples=[{"size": 640, "overlap": 0.2}],
    )


class ClassifierSection(ModelSection):
    """The model that classifies a whole task."""

    use: Annotated[str, Affects.DETECTIONS] = Field(
        "",
        description="torchvision | ultralytics | openai | module:Name | mine.py:Mine; default: the one that the "
        "weights' card names",
    )
    batch_size: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto", description="images per batch; small tasks share one"
    )
    conf: Annotated[Fraction, Affects.LABELS] = Field(
        0.5, description="least confidence of an answer; below it nothing is written, and routing takes `otherwise`"
    )
    frames_per_video: Annotated[OneOrMore | None, Affects.DETECTIONS] = Field(
        8, description="frames that are classified per video, spread evenly; null: all that the reader section selects"
    )


class AgentSection(PluginSection):
    """A function of your own that is called for each task."""

    options_affect: ClassVar[Affects] = Affects.LABELS

    use: Annotated[str, Affects.LABELS] = Field(
        description="mine.py:function | module:function, or a class whose objects can be called"
    )


class RefineSection(PluginSection):
    """The model that makes masks from the boxes of labels."""

    options_affect: ClassVar[Affects] = Affects.LABELS

    use: Annotated[str, Affects.LABELS] = Field("sam2", description="sam2 | module:Name | mine.py:Mine")
    objects: Annotated[tuple[Name, ...] | None, Affects.LABELS] = Field(
        None,
        min_length=1,
        description="ontology objects that get masks, by name or feature hash; null: all polygons and bitmasks",
        examples=[["Pedestrian"]],
    )
    batch_size: Annotated[OneOrMore, Affects.NOTHING] = Field(4, description="frames per batch")


class TrackerSection(PluginSection):
    """How boxes are linked into tracks, when labels.instances is tracks."""

    options_affect: ClassVar[Affects] = Affects.LABELS

    use: Annotated[str, Affects.LABELS] = Field(
        "tracklets", description="tracklets | cbiou | bytetrack | ocsort | botsort | module:Name | mine.py:Mine"
    )
    max_gap_seconds: Annotated[float, Affects.LABELS] = Field(
        1.0, ge=0, description="fill gaps in a track up to this long, on a straight line; filled boxes are marked"
    )
    min_length: Annotated[int, Affects.LABELS] = Field(
        3, ge=1, description="drop tracks with fewer detections than this"
    )
    min_seconds: Annotated[float, Affects.LABELS] = Field(
        0.4, ge=0, description="drop tracks that last less than this, or less than half of a shorter video"
    )
    min_mean_conf: Annotated[float, Affects.LABELS] = Field(
        0.25, ge=0, le=1, description="drop tracks whose mean confidence is lower than this"
    )
    min_peak_conf: Annotated[float, Affects.LABELS] = Field(
        0.4, ge=0, le=1, description="drop tracks none of whose boxes has this confidence"
    )
    max_filled: Annotated[float, Affects.LABELS] = Field(
        0.5, ge=0, le=1, description="drop tracks with no detection on more than this share of their frames"
    )
    merge_iou: Annotated[float | None, Field(gt=0, le=1), Affects.LABELS] = Field(
        0.5, description="merge a track that mostly overlaps a more confident one by this; null: off"
    )
    smooth_seconds: Annotated[Annotated[float, Field(ge=0)] | Literal["auto"], Affects.LABELS] = Field(
        "auto",
        description="smooth boxes over about this long before and after each; auto: as much as the detected boxes "
        "allow; 0: off",
    )

    @property
    def limits(self) -> TrackLimits:
        """The limits that a track must meet to become an object instance."""
        return TrackLimits(
            min_length=self.min_length,
            min_seconds=self.min_seconds,
            min_mean_conf=self.min_mean_conf,
            min_peak_conf=self.min_peak_conf,
            max_filled=self.max_filled,
            merge_iou=self.merge_iou,
        )


class SinkSection(PluginSection):
    """Where labels go instead of where the source puts them."""

    options_affect: ClassVar[Affects] = Affects.PLACE

    use: Annotated[str, Affects.PLACE] = Field(description="module:Name | mine.py:Mine")


def _read_words(value: Any) -> Any:
    """Returns one word as a list, and null as an empty one."""
    return [] if value is None else value if isinstance(value, list | tuple) else [value]


Words = Annotated[tuple[Name, ...], BeforeValidator(_read_words, json_schema_input_type=list[str] | str | None)]


class LabelsSection(Section):
    """How raw detections, or classes, become labels."""

    classes: Annotated[dict[Name, Name | None], Affects.LABELS] = Field(
        {},
        description="ontology object, or option of the classification, by the model's class; several classes may "
        "share one; null: ignore; default: the same name",
        examples=[{"car": "Vehicle", "truck": "Vehicle", "bottle": None}],
    )
    prompts: Annotated[dict[Name, Words], Affects.LABELS] = Field(
        {},
        description="words for an open-vocabulary detector, by ontology object; an object may have several; []: do not "
        "look for it; default: the object's name; a change of the words detects again",
        examples=[{"Forklift": ["forklift truck", "lift truck"]}],
    )
    classification: Annotated[Name | None, Affects.LABELS] = Field(
        None,
        description="name or feature hash of the classification that a classifier answers; default: the only one",
        examples=["Animal"],
    )
    answers: Annotated[Literal["range", "per_frame"], Affects.LABELS] = Field(
        "range", description="range: one answer for the whole task; per_frame: one for each frame that was classified"
    )
    if_begun: Annotated[Literal["merge", "skip"], Affects.NOTHING] = Field(
        "merge",
        description="what to do with a row that has labels which prelabel did not write, or which people changed: "
        "merge: add to them; skip: leave the row and its task as they are",
    )
    unmapped: Annotated[Literal["ignore", "error"], Affects.LABELS] = Field(
        "ignore",
        description="what to do with classes that the ontology does not have: ignore: drop and count them; error: "
        "nothing runs",
    )
    conf: Annotated[Fraction | dict[Name, Fraction], Affects.LABELS] = Field(
        {},
        description="least confidence of a label, on top of the model's: one number, or one per ontology object or "
        "option",
        examples=[{"Vehicle": 0.5}],
    )
    size: Annotated[SizeLimits, Affects.LABELS] = Field(
        SizeLimits(), description="how large a box must be and may be", examples=[{"min_side_px": 8}]
    )
    zones: Annotated[Zones, Affects.LABELS] = Field(
        Zones(),
        description="where in the frame things are labelled: polygons in fractions of the frame",
        examples=[{"exclude": [[[0, 0], [1, 0], [1, 0.1], [0, 0.1]]]}],
    )
    nms_iou: Annotated[Annotated[float, Field(gt=0, le=1)] | None, Affects.LABELS] = Field(
        None,
        description="when two boxes of a frame overlap more than this, keep the more confident one, whatever their "
        "classes",
        examples=[0.8],
    )
    flicker: Annotated[Flicker | None, Affects.LABELS] = Field(
        None,
        description="drop boxes of things that are detected on too few frames in a row",
        examples=[{"seen": 2, "of": 3}],
    )
    max_per_frame: Annotated[OneOrMore | None, Affects.LABELS] = Field(
        None, description="keep this many boxes per frame, the most confident ones", examples=[50]
    )
    keyframes: Annotated[Keyframes | None, Affects.LABELS] = Field(
        None,
        description="keep few boxes of each track, so that straight lines between them reproduce the others",
        examples=[{"min_iou": 0.9}],
    )
    instances: Annotated[Literal["per_frame", "tracks"], Affects.LABELS] = Field(
        "per_frame", description="per_frame: one object instance per box; tracks: one per thing, over all its frames"
    )
    polygon_tolerance_px: Annotated[float, Affects.LABELS] = Field(
        1.0, ge=0, description="with masks: how far a polygon may lie from the mask's edge, in pixels of the frame"
    )
    keypoints: Annotated[dict[Name, Name], Affects.LABELS] = Field(
        {},
        description="with keypoints: the skeleton's point by the model's keypoint; default: the same name",
        examples=[{"left_knee": "Left knee"}],
    )
    max_row_mb: Annotated[float, Affects.NOTHING] = Field(
        50.0, gt=0, description="refuse to send a label row larger than this, in 10^6 bytes"
    )

    @model_validator(mode="after")
    def _check(self) -> LabelsSection:
        if self.keyframes is not None and self.instances != "tracks":
            raise ValueError("keyframes: belong to tracks: add instances: tracks")
        objects: dict[str, str] = {}
        for name, words in self.prompts.items():
            for word in words:
                if objects.setdefault(word, name) != name:
                    raise ValueError(f"prompts: {word!r} stands for {objects[word]!r} and {name!r}: name it for one")
        return self

    @property
    def skips_begun(self) -> bool:
        """Whether rows that somebody has begun to edit are left unchanged."""
        return self.if_begun == "skip"

    @property
    def rules(self) -> FilterRules:
        """The rules that a detection must pass to become a label."""
        return FilterRules(
            conf=self.conf,
            size=self.size,
            zones=self.zones,
            nms_iou=self.nms_iou,
            flicker=self.flicker,
            max_per_frame=self.max_per_frame,
        )


class WorkersSection(Section):
    """Processes that run the model, on this machine or on a Ray cluster. Without this section, this process does."""

    use: Annotated[Literal["ray"], Affects.NOTHING] = "ray"
    num: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto", description="number of workers; auto: one per GPU of the cluster, 1 without GPUs"
    )
    gpus: Annotated[float, Affects.NOTHING] = Field(
        1.0, ge=0, description="GPUs per worker; on a cluster without GPUs, workers use the CPU"
    )
    cpus: Annotated[OneOrMore | Literal["auto"], Affects.NOTHING] = Field(
        "auto", description="CPU cores per worker; auto: an equal share of the cluster's cores"
    )
    address: Annotated[str | None, Affects.NOTHING] = Field(
        None, description="null: start Ray on this machine; auto: join the cluster that runs here; or its address"
    )
    stall_seconds: Annotated[float, Affects.NOTHING] = Field(
        120.0, gt=0, description="restart a worker that has not answered for this long"
    )


AGENT_SECTIONS = ("detector", "classifier", "agent")
"""The sections for an agent; a config has exactly one of them."""


class Config(Section):
    """A whole config."""

    source: AnySource
    reader: ReaderSection = ReaderSection()
    detector: DetectorSection | None = None
    classifier: ClassifierSection | None = None
    agent: AgentSection | None = None
    labels: LabelsSection = LabelsSection()
    tracker: TrackerSection = TrackerSection()
    refine: RefineSection | None = None
    sink: SinkSection | None = None
    pathway: Annotated[Name | None, Affects.PLACE] = Field(
        None, description="name or uuid of the pathway that finished tasks take"
    )
    routing: Annotated[Rules, Affects.PLACE] = Field(
        (),
        description="pathways by what was detected or answered; the first rule that holds decides",
        examples=[{"Car": "Annotate cars", "otherwise": "Other"}],
    )
    priority: Annotated[NumberExpression | None, Affects.PLACE] = Field(
        None,
        description="priority of the task at its next stage, 0 to 1: a number, or an expression over the result",
        examples=["1 - confidence.mean"],
    )
    frames: Annotated[Literal["strict", "warn"], Affects.DETECTIONS] = Field(
        "strict",
        description="when frames are missing or damaged, or their number differs from the platform's: strict: the "
        "task fails; warn: what was read is labelled, and the report says so",
    )

    workers: WorkersSection | None = None
    retries: RetriesSection = RetriesSection()
    on_failure: OnFailureSection = OnFailureSection()
    report: ReportSection = ReportSection()

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
        """The kind of agent that the config selects."""
        if self.agent is not None:
            return "function"
        return "detection" if self.classifier is None else "classification"

    @model_validator(mode="after")
    def _keys_fit_the_agent(self) -> Config:
        if self.agent_kind == "function" and self.labels.skips_begun:
            raise ValueError("labels.if_begun: a function of your own sees the row and decides: leave it out")
        if self.refine is not None and self.agent_kind != "detection":
            raise ValueError("refine: makes masks from a detector's boxes: leave it out")
        if self.agent_kind != "classification":
            return self
        for key, is_for_boxes in {
            "labels.instances": self.labels.instances == "tracks",
            "sink": self.sink is not None,
            "source.preview": self.source.preview_kind != "none",
            "source.truth": getattr(self.source, "truth", None) is not None,
            "source.use": self.source.truth_file is not None,
            "labels.prompts": bool(self.labels.prompts),
        }.items():
            if is_for_boxes:
                raise ValueError(f"{key}: is for boxes, and a classifier gives none: leave it out")
        return self

    @model_validator(mode="after")
    def _pathways_where_tasks_move(self) -> Config:
        if self.routing and self.pathway is not None:
            raise ValueError("pathway and routing: both say where tasks go: leave one out")
        goes = self.pathway is not None or self.routing or self.agent_kind == "function"  # it may return a pathway
        if self.source.has_workflow and not goes:
            raise ValueError("pathway: is missing: name the one that finished tasks take")
        moves_failed = self.on_failure.issue or self.on_failure.pathway is not None
        if moves_failed and not self.source.has_workflow:
            raise ValueError("on_failure: only tasks of a workflow stage have pathways and issues: leave it out")
        return self
