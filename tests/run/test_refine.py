"""`refine` makes masks from the boxes of labels: in a run, in `relabel`, on tracks, and on a platform."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from faster_coco_eval import COCO
from faster_coco_eval.core import mask as coco_mask

from prelabel import Detections, FrameBatch, Mask, ModelTraits, OutputSpec
from prelabel.assembly.assemble import Assembly, assemble, assemble_stored, assemble_without_detector
from prelabel.assembly.stored import stored_videos
from prelabel.config.load import check_config
from prelabel.data.frames import MediaLocation
from prelabel.errors import ConfigError, LabelError, OntologyError, PluginError
from prelabel.labels.row.ready import unlabelled_video
from prelabel.media.pyav import PyAVReader
from prelabel.run.checks import run_checks
from prelabel.run.work import Work
from prelabel.store.report import RunReport
from prelabel.testing import check_refiner
from prelabel.testing.encord_server import AGENT
from tests.encord_fixtures import Platform
from tests.kept import write_grey_clip
from tests.labelling import object_json
from tests.run.conftest import MakeActor
from tests.running import run_whole

NUM_FRAMES = 8


class Moving:
    """Finds a thing that moves right, but not on frame 3, and a sign that stays."""

    class_names = ("thing", "sign")

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [self._found(index) for index in batch.frame_indices.tolist()]

    def _found(self, index: int) -> Detections:
        boxes = [(60, 4, 80, 24), *([] if index == 3 else [(10 + 2 * index, 10, 30 + 2 * index, 50)])]
        return Detections(boxes, [0.9] * len(boxes), [1, 0][: len(boxes)])


class WithMasks(Moving):
    """Gives masks of its own: whole boxes."""

    traits = ModelTraits(output=OutputSpec("mask"))

    def _found(self, index: int) -> Detections:
        found = super()._found(index)
        masks = [Mask.of(np.ones((4, 4), bool), int(box[0]), int(box[1])) for box in found.xyxy]
        return Detections(found.xyxy, found.confidence, found.class_id, masks)


class LeftHalf:
    """The mask of a box is its left half. It remembers the frames that it was given."""

    frames: ClassVar[list[int]] = []

    def __init__(self, none_on: int = -1, *, wide: bool = False):
        self.none_on, self.wide = none_on, wide

    def refine(self, batch: FrameBatch, boxes: list[np.ndarray]) -> list[list[Mask | None]]:
        frames = batch.frame_indices.tolist()
        self.frames.extend(frames)
        return [
            [None if frame == self.none_on else self._half(*map(int, box)) for box in of_frame]
            for frame, of_frame in zip(frames, boxes, strict=True)
        ]

    def _half(self, x1: int, y1: int, x2: int, y2: int) -> Mask | None:
        return Mask.of(np.ones((y2 - y1, (x2 - x1) // (1 if self.wide else 2)), bool), x1, y1)


class EndsEarlyTheSecondTime(PyAVReader):
    """All frames for the detector; two for the refiner."""

    openings: ClassVar[int] = 0

    def batches(self, frame_indices: np.ndarray, batch_size: int) -> Iterator[FrameBatch]:
        EndsEarlyTheSecondTime.openings += 1
        wanted = frame_indices if self.openings == 1 else frame_indices[:2]
        yield from super().batches(wanted, batch_size)


class Failing(LeftHalf):
    def refine(self, batch, boxes):
        raise RuntimeError("out of ideas")


class TooFew(LeftHalf):
    def refine(self, batch, boxes):
        return [of_frame[1:] for of_frame in super().refine(batch, boxes)]


@pytest.fixture(autouse=True)
def no_frames_yet() -> None:
    LeftHalf.frames.clear()


def assembly_of(folder: Path, shapes: Mapping[str, str], *, make: Any = assemble, **sections: Any) -> Assembly:
    """A run over one clip; `refine` is on unless it is None."""
    if not (folder / "clips").exists():  # a file that is written again is another one to a run
        write_grey_clip(folder / "clips" / "a.mp4", 96, 64, NUM_FRAMES)
    objects = [object_json(name, number, shape) for number, (name, shape) in enumerate(shapes.items(), start=1)]
    (folder / "ontology.json").write_text(json.dumps({"objects": objects}))
    values = {
        "source": {
            "path": str(folder / "clips"),
            "output": str(folder / "out"),
            "ontology": str(folder / "ontology.json"),
        },
        "detector": {"use": "tests.run.test_refine:Moving"},
        "refine": {"use": "tests.run.test_refine:LeftHalf"},
        **sections,
    }
    given = {name: value for name, value in values.items() if value is not None}
    return make(check_config(given, "test"), folder)


def run(assembly: Assembly) -> RunReport:
    report = run_whole(assembly)
    assert not report.failed, report.failed
    return report


def segments(folder: Path) -> dict[tuple[int, int], list[list[float]]]:
    """The polygons of coco.json by frame and category id."""
    found = json.loads((folder / "out" / "coco.json").read_text())
    frame_of = {image["id"]: image["frame_index"] for image in found["images"]}
    return {
        (frame_of[each["image_id"]], each["category_id"]): each["segmentation"]
        for each in found["annotations"]
        if each.get("segmentation")
    }


BOTH = {"thing": "polygon", "sign": "bounding_box"}


def test_boxes_of_polygon_objects_become_masks_and_others_stay(tmp_path: Path) -> None:
    report = run(assembly_of(tmp_path, BOTH))

    found = segments(tmp_path)
    assert sorted(frame for frame, _ in found) == [0, 1, 2, 4, 5, 6, 7]
    (ring,) = found[min(found)]
    xs, ys = ring[0::2], ring[1::2]
    assert (min(xs), max(xs), min(ys), max(ys)) == (10, 20, 10, 50)
    assert report.tasks[0].seconds["refine"] > 0
    assert sorted(set(LeftHalf.frames)) == [0, 1, 2, 4, 5, 6, 7]  # and frame 0 of the trial before


def test_only_the_objects_that_the_config_names_get_masks(tmp_path: Path) -> None:
    refine = {"use": "tests.run.test_refine:LeftHalf", "objects": ["sign"]}
    run(assembly_of(tmp_path, {"thing": "polygon", "sign": "bitmask"}, refine=refine))

    (row,) = json.loads((tmp_path / "out" / "a.labels.json").read_text())["data_units"].values()
    kinds = {each["name"]: each for each in row["labels"]["0"]["objects"]}
    assert len(kinds["thing"]["polygon"]) == 4  # the corners of its box
    assert "rleString" in kinds["sign"]["bitmask"]


def test_masks_of_the_refiner_replace_those_of_the_detector(tmp_path: Path) -> None:
    run(assembly_of(tmp_path, BOTH, detector={"use": "tests.run.test_refine:WithMasks"}))

    (ring,) = segments(tmp_path)[0, 1]
    assert max(ring[0::2]) - min(ring[0::2]) == 10


def test_a_box_without_a_mask_stays_a_box(tmp_path: Path) -> None:
    refine = {"use": "tests.run.test_refine:LeftHalf", "none_on": 2}
    run(assembly_of(tmp_path, BOTH, refine=refine))

    assert sorted(frame for frame, _ in segments(tmp_path)) == [0, 1, 4, 5, 6, 7]
    (row,) = json.loads((tmp_path / "out" / "a.labels.json").read_text())["data_units"].values()
    assert [len(each["polygon"]) for each in row["labels"]["2"]["objects"] if "polygon" in each] == [4]


def test_boxes_on_frames_that_cannot_be_read_again_are_counted(tmp_path: Path) -> None:
    EndsEarlyTheSecondTime.openings = 0
    reader = {"use": "tests.run.test_refine:EndsEarlyTheSecondTime", "isolate": "never"}
    (task,) = run(assembly_of(tmp_path, BOTH, reader=reader, frames="warn")).tasks

    lacking = "refine: the reader ended before frame 2, after 2 of 7 frames: 5 boxes have no mask"
    assert task.partial == lacking
    assert sorted(frame for frame, _ in segments(tmp_path)) == [0, 1]
    again = run(assembly_of(tmp_path, BOTH, reader=reader, frames="warn", make=assemble_stored))
    assert [task.partial for task in again.tasks] == [lacking]  # without reading the frames once more
    assert EndsEarlyTheSecondTime.openings == 2


@pytest.mark.parametrize("shape", ["polygon", "bitmask"])
def test_coco_has_the_box_around_the_mask(tmp_path: Path, shape: str) -> None:
    run(assembly_of(tmp_path, {"thing": shape, "sign": "bounding_box"}))

    truth = COCO(tmp_path / "out" / "coco.json")
    masked = [each for each in truth.anns.values() if "segmentation" in each]
    assert [each["bbox"][2] for each in masked] == [10] * 7  # the detector's box is 20 pixels wide
    for each in masked:
        assert coco_mask.toBbox(truth.annToRLE(each)).tolist() == pytest.approx(each["bbox"], abs=1)
    assert {tuple(each["bbox"]) for each in truth.anns.values() if "segmentation" not in each} == {(60, 4, 20, 20)}


def test_gaps_of_tracks_get_masks_too(tmp_path: Path) -> None:
    labels = {"instances": "tracks", "keyframes": {"min_iou": 0.9}}
    report = run(assembly_of(tmp_path, BOTH, labels=labels, tracker={"min_seconds": 0}))

    assert report.tasks[0].num_interpolated > 0
    found = segments(tmp_path)
    assert sorted(frame for frame, _ in found) == list(range(NUM_FRAMES))
    (ring,) = found[3, 1]
    assert max(ring[0::2]) - min(ring[0::2]) == 10


def test_relabel_makes_masks_later_and_a_run_after_it_has_nothing_to_do(tmp_path: Path) -> None:
    run(assembly_of(tmp_path, BOTH, refine=None))
    assert not segments(tmp_path)

    report = run(assembly_of(tmp_path, BOTH, make=assemble_stored))

    (ring,) = segments(tmp_path)[0, 1]
    assert max(ring[0::2]) - min(ring[0::2]) == 10
    assert report.tasks[0].seconds["refine"] > 0
    LeftHalf.frames.clear()
    again = run(assembly_of(tmp_path, BOTH))
    assert again.tasks[0].status == "already done"
    assert LeftHalf.frames == [0]  # the trial


def test_other_options_make_other_masks_without_the_detector(tmp_path: Path) -> None:
    run(assembly_of(tmp_path, BOTH))

    report = run(assembly_of(tmp_path, BOTH, refine={"use": "tests.run.test_refine:LeftHalf", "none_on": 0}))

    assert "detect" not in report.tasks[0].seconds
    assert (0, 1) not in segments(tmp_path)


def test_what_reads_labels_needs_neither_frames_nor_model_after_the_run(tmp_path: Path) -> None:
    run(assembly_of(tmp_path, BOTH))
    LeftHalf.frames.clear()
    (tmp_path / "clips" / "a.mp4").unlink()

    (video,) = list(stored_videos(assembly_of(tmp_path, BOTH, make=assemble_without_detector)))

    assert video.detections.has_geometry.sum() == 7
    assert LeftHalf.frames == []


def test_labels_without_their_masks_say_what_makes_them(tmp_path: Path) -> None:
    run(assembly_of(tmp_path, BOTH, refine=None))
    with pytest.raises(LabelError, match=r"a\.mp4: has no masks yet.*prelabel relabel"):
        list(stored_videos(assembly_of(tmp_path, BOTH, make=assemble_without_detector)))


@pytest.mark.parametrize(
    ("use", "complaint"),
    [
        ("Failing", "refine: Failing raised RuntimeError: out of ideas"),
        ("TooFew", "refine: TooFew did not return one mask for each box"),
        ("Moving", "refine.use: 'tests.run.test_refine:Moving' lacks `refine"),
    ],
)
def test_a_refiner_that_does_not_work_is_found_before_the_first_frame(tmp_path: Path, use: str, complaint: str) -> None:
    assembly = assembly_of(tmp_path, BOTH, refine={"use": f"tests.run.test_refine:{use}"})
    with pytest.raises((PluginError, ConfigError)) as raised:
        run_whole(assembly)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("shapes", "refine", "complaint"),
    [
        ({"thing": "bounding_box"}, {}, "no class is mapped to a polygon or bitmask of ontology"),
        (BOTH, {"objects": ["thign"]}, "refine.objects: .*'thign'.*thing"),
    ],
)
def test_objects_that_hold_no_mask_are_named(
    tmp_path: Path, shapes: dict[str, str], refine: dict[str, Any], complaint: str
) -> None:
    assembly = assembly_of(tmp_path, shapes, refine={"use": "tests.run.test_refine:LeftHalf", **refine})
    with pytest.raises(OntologyError, match=complaint):
        run_whole(assembly)


def test_a_worker_makes_masks_while_it_has_the_media(tmp_path: Path, make_actor: MakeActor) -> None:
    assembly = assembly_of(tmp_path, BOTH, reader={"isolate": "never"})
    actor = make_actor(assembly.config, tmp_path, assembly.ontology)
    media = MediaLocation("video", (tmp_path / "clips" / "a.mp4",))

    ((result,), _) = actor.infer([Work("a.mp4", "a.mp4", "", None, media, unlabelled_video("data"))])

    assert result.seconds["refine"] > 0
    assert result.found.read_detections().has_geometry.sum() == 7


@pytest.mark.usefixtures("encord_environment")
@pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning")
def test_a_run_on_the_platform_fetches_a_video_once_and_relabel_fetches_it_again(
    platform: Platform, tmp_path: Path
) -> None:
    values = {
        "source": {
            "use": "encord",
            "project_hash": platform.project.uuid,
            "stage": AGENT,
            "output": str(tmp_path / "out"),
        },
        "detector": {"use": "tests.run.test_refine:Moving"},
        "labels": {"classes": {"thing": "Road sign", "sign": None}},
        "refine": {"use": "tests.run.test_refine:LeftHalf"},
        "pathway": "Annotate 1",
    }

    def widths() -> set[float]:
        found = platform.initialised_row().get_object_instances()
        points = [instance.get_annotations()[0].coordinates.values for instance in found]
        return {round(max(p.x for p in each) - min(p.x for p in each), 4) for each in points}

    def downloads() -> int:
        return len([call for call in platform.server.calls if call.operation == "download"])

    run(assemble(check_config(values, "test.yaml"), tmp_path))
    assert downloads() == 1
    narrow = widths()

    refine = {"refine": {"use": "tests.run.test_refine:LeftHalf", "wide": True}}
    run(assemble_stored(check_config({**values, **refine}, "test.yaml"), tmp_path))

    assert downloads() == 2
    assert min(widths()) > max(narrow)


def test_a_config_without_a_detector_has_nothing_to_refine() -> None:
    values = {"source": {"path": "clips"}, "classifier": {"weights": "mobilenet_v2"}, "refine": {"weights": "sam2"}}
    with pytest.raises(ConfigError, match="refine: makes masks from a detector's boxes"):
        check_config(values, "test")


def test_the_contract_test_tells_a_refiner_that_keeps_it_from_one_that_does_not() -> None:
    check_refiner(LeftHalf())
    with pytest.raises(AssertionError, match="1 boxes, got 0 masks"):
        check_refiner(TooFew())


def test_check_says_what_gets_masks(tmp_path: Path) -> None:
    checks = {check.name: check for check in run_checks(assembly_of(tmp_path, BOTH))}

    assert checks["masks"].detail.endswith("makes masks from the boxes of thing")
    assert "polygon from boxes, refined to masks: thing" in checks["classes"].detail
