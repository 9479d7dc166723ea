"""The whole way of masks, turned boxes and poses: found, kept, on the row, exported, labelled anew."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from encord.objects.bitmask import BitmaskCoordinates
from faster_coco_eval.core import mask as coco_mask
from PIL import Image

from prelabel.assembly.assemble import assemble, assemble_stored
from prelabel.cli.show import show_report
from prelabel.config.load import check_config
from prelabel.errors import ConfigError
from prelabel.export.export import export_run
from prelabel.reports.run_page import page_of
from prelabel.run.checks import prepare, run_checks
from prelabel.store.raw_detections import read_raw
from prelabel.store.report import RunReport
from prelabel.testing.encord_server import AGENT, ANNOTATE
from tests.encord_fixtures import Platform
from tests.geometries import KEYPOINT_NAMES, disc, skeleton_ontology
from tests.kept import write_grey_clip
from tests.labelling import object_json
from tests.models.detectors.checkpoints import blocky_frames, make_checkpoint
from tests.running import run_whole

NUM_FRAMES = 6
WIDTH, HEIGHT = 96, 64

DETECTORS = '''
import numpy as np
from prelabel import Detections, Keypoints, Mask, ModelTraits, OutputSpec, RotatedBox
from tests.geometries import KEYPOINT_NAMES, disc

class Discs:
    """A disc with a hole that moves right by two pixels a frame; frame 3 shows nothing."""

    class_names = ("Road sign", "person")
    traits = ModelTraits(output=OutputSpec("mask"))

    def detect(self, batch):
        return [self.found(index) for index in batch.frame_indices.tolist()]

    def found(self, index):
        if index == 3:
            return Detections.empty()
        left = 10 + 2 * index
        box = [left + 4, 8, left + 36, 40]
        return Detections([box], [0.75], [0], [self.known(left)])

    def known(self, left):
        return Mask.of(disc(40, 40, 16, 5), left, 4)

class Asked(Discs):
    """Gives masks where it is asked for them."""

    def __init__(self):
        self.asked = frozenset()

    def with_geometry(self, class_ids):
        asked = Asked()
        asked.asked = class_ids
        return asked

    def known(self, left):
        return super().known(left) if 0 in self.asked else None

class Turned(Discs):
    traits = ModelTraits(output=OutputSpec("rotated_box"))

    def known(self, left):
        return RotatedBox(left + 20, 24, 30, 20, 15)

class Poses(Discs):
    class_names = ("person",)
    traits = ModelTraits(output=OutputSpec("keypoints", KEYPOINT_NAMES))

    def known(self, left):
        return Keypoints([[left, 10], [left + 9, 10], [left + 4, 20], [left, 30]], [0.9, 0.3, 0.8, 0.1])
'''


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "mine.py").write_text(DETECTORS)
    write_grey_clip(tmp_path / "clips" / "clip.mp4", WIDTH, HEIGHT, NUM_FRAMES)
    return tmp_path


def values_of(folder: Path, detector: str, shape: str | None, **sections: dict) -> dict:
    source = {"path": str(folder / "clips"), "output": str(folder / "out")}
    if shape is not None:
        ontology = (
            skeleton_ontology().structure if shape == "skeleton" else {"objects": [object_json("Road sign", 1, shape)]}
        )
        (folder / "ontology.json").write_text(json.dumps(ontology))
        source["ontology"] = str(folder / "ontology.json")
    return {"source": source, "detector": {"use": f"mine.py:{detector}"}, **sections}


def run_folder(folder: Path, detector: str, shape: str | None, **sections: dict) -> RunReport:
    return run_whole(assemble(check_config(values_of(folder, detector, shape, **sections), "test.yaml"), folder))


def objects_by_frame(folder: Path) -> dict[int, list[dict]]:
    (unit,) = json.loads((folder / "out" / "clip.labels.json").read_text())["data_units"].values()
    return {int(frame): labels["objects"] for frame, labels in unit["labels"].items() if labels["objects"]}


def true_mask(frame: int) -> np.ndarray:
    whole = np.zeros((HEIGHT, WIDTH), bool)
    whole[4:44, 10 + 2 * frame : 50 + 2 * frame] = disc(40, 40, 16, 5)
    return whole


def coco_of(folder: Path) -> dict:
    return json.loads((folder / "out" / "coco.json").read_text())


@pytest.mark.parametrize("detector", ["Discs", "Asked"])
def test_masks_become_bitmasks_of_their_very_pixels(folder, detector):
    report = run_folder(folder, detector, "bitmask")

    assert not report.failed
    found = objects_by_frame(folder)
    assert sorted(found) == [0, 1, 2, 4, 5]
    for frame, (label,) in found.items():
        assert np.array_equal(BitmaskCoordinates(label["bitmask"]).to_numpy_array(), true_mask(frame))
    for annotation in coco_of(folder)["annotations"]:
        decoded = coco_mask.decode(annotation["segmentation"]).astype(bool)
        assert np.array_equal(decoded, true_mask(annotation["image_id"] - 1))
        assert annotation["area"] == decoded.sum()


def test_masks_become_polygons_with_their_holes(folder):
    run_folder(folder, "Asked", "polygon")

    for frame, (label,) in objects_by_frame(folder).items():
        ((outer, hole),) = label["polygons"]
        xs, ys = np.array(outer[::2]) * WIDTH, np.array(outer[1::2]) * HEIGHT
        assert 8 <= len(xs) <= 30
        assert (xs.min(), xs.max()) == pytest.approx((14 + 2 * frame, 46 + 2 * frame), abs=1.5)
        assert (ys.min(), ys.max()) == pytest.approx((8, 40), abs=1.5)
        assert 4 <= len(hole) / 2 <= 20
    for annotation in coco_of(folder)["annotations"]:
        decoded, truth = coco_mask.decode(annotation["segmentation"]) > 0, true_mask(annotation["image_id"] - 1)
        assert (decoded & truth).sum() / (decoded | truth).sum() > 0.9


def test_detector_that_waits_to_be_asked_is_not_where_labels_are_boxes(folder):
    run_folder(folder, "Asked", "bounding_box")

    raw = read_raw(folder / "out" / "clip.detections.parquet")
    assert not raw.detections.has_geometry.any()
    assert raw.origin.offer.kind is None
    assert "segmentation" not in coco_of(folder)["annotations"][0]


def test_other_shapes_ask_the_detector_anew(folder):
    run_folder(folder, "Asked", "bounding_box")

    report = run_folder(folder, "Asked", "polygon")

    assert [task.status for task in report.tasks] == ["done"]
    assert read_raw(folder / "out" / "clip.detections.parquet").detections.has_geometry.all()
    assert all("polygons" in label for labels in objects_by_frame(folder).values() for label in labels)


def test_without_an_ontology_objects_have_the_shape_that_holds_most(folder):
    run_folder(folder, "Discs", None)

    assert {label["shape"] for labels in objects_by_frame(folder).values() for label in labels} == {"polygon"}


def test_turned_boxes_become_rotatable_ones(folder):
    run_folder(folder, "Turned", "rotatable_bounding_box")

    for frame, (label,) in objects_by_frame(folder).items():
        box = label["rotatableBoundingBox"]
        assert box == {
            "h": round(20 / HEIGHT, 5),
            "w": round(30 / WIDTH, 5),
            "x": round((15 + 2 * frame) / WIDTH, 5),
            "y": round(14 / HEIGHT, 5),
            "theta": 15,
        }
    assert len(coco_of(folder)["annotations"][0]["segmentation"][0]) == 8


def test_poses_become_skeletons(folder):
    run_folder(folder, "Poses", "skeleton")

    (label,) = objects_by_frame(folder)[2]
    assert [
        (point["name"], round(point["x"] * WIDTH), point.get("visibility")) for point in label["skeleton"].values()
    ] == [
        ("Nose", 18, None),
        ("Left Eye", 14, None),
        ("Right Eye", 23, "invisible"),
    ]
    coco = coco_of(folder)
    assert coco["categories"][0]["keypoints"] == ["Nose", "Left Eye", "Right Eye"]
    assert coco["categories"][0]["skeleton"] == [[1, 2], [1, 3], [2, 3]]
    assert coco["annotations"][0]["keypoints"] == [14, 20, 2, 10, 10, 2, 19, 10, 1]


def test_the_page_of_a_run_has_the_edges_between_points_that_are_seen(folder):
    assembly = assemble(check_config(values_of(folder, "Poses", "skeleton"), "test.yaml"), folder)
    page = page_of(assembly, run_whole(assembly))
    drawn = [(outline.style, outline.path) for outline in page.tasks[0].thumbnails[0].outlines]
    box = "M14.0 8.0H46.0V40.0H14.0Z"
    assert drawn == [("found", box), ("found", "M14.0 20.0L10.0 10.0"), ("points", "M14.0 20.0h0M10.0 10.0h0")]


def test_without_an_ontology_poses_become_skeletons_of_all_points(folder):
    report = run_folder(folder, "Poses", None)

    assert not report.failed
    (label,) = objects_by_frame(folder)[0]
    assert [point["name"] for point in label["skeleton"].values()] == list(KEYPOINT_NAMES)
    assert coco_of(folder)["annotations"][0]["num_keypoints"] == 4


@pytest.mark.slow
def test_segmentation_weights_give_polygons_from_a_config_alone(folder):
    weights = make_checkpoint("yolo11n-seg", folder)
    values = values_of(folder, "Discs", None)
    options = {
        "use": "ultralytics",
        "weights": str(weights),
        "conf": 0.02,
        "raw_conf": 0.02,
        "imgsz": 64,
        "max_det": 8,
    }
    values |= {"detector": {**options, "device": "cpu"}, "reader": {"stride": 3}}
    Image.fromarray(blocky_frames(1, HEIGHT, WIDTH)[0]).save(folder / "clips" / "blocks.png")

    report = run_whole(assemble(check_config(values, "test.yaml"), folder))

    assert not report.failed
    (unit,) = json.loads((folder / "out" / "blocks.labels.json").read_text())["data_units"].values()
    labels = unit["labels"]["objects"]
    assert len(labels) > 0
    assert all(label["shape"] == "polygon" for label in labels)
    kept = read_raw(folder / "out" / "blocks.detections.parquet")
    assert kept.origin.offer.kind == "mask"
    assert kept.detections.has_geometry.all()


def test_labels_anew_are_the_runs_own_and_take_another_tolerance(folder):
    run_folder(folder, "Asked", "polygon")
    fine = objects_by_frame(folder)
    values = values_of(folder, "Asked", "polygon", labels={"polygon_tolerance_px": 4.0})

    run_whole(assemble_stored(check_config(values, "test.yaml"), folder))

    coarse = objects_by_frame(folder)
    assert sorted(coarse) == sorted(fine)
    assert all(len(coarse[frame]) == 1 for frame in coarse)
    assert len(coarse[0][0]["polygon"]) < len(fine[0][0]["polygon"])
    assert (
        run_folder(folder, "Asked", "polygon", labels={"polygon_tolerance_px": 4.0}).tasks[0].status == "already done"
    )


def test_people_read_of_labels_by_their_shape(folder, capsys):
    tracks = {"labels": {"instances": "tracks"}, "tracker": {"max_gap_seconds": 1.0}}
    assembly = assemble(check_config(values_of(folder, "Discs", "bitmask", **tracks), "test.yaml"), folder)
    report = run_whole(assembly)

    show_report(report)
    assert "1 track of 5 masks" in "".join(capsys.readouterr())
    page = page_of(assembly, report)
    assert ("tracks", "1", "5 masks") in [(tile.name, tile.value, tile.note) for tile in page.figures]
    timeline = page.tasks[0].timeline
    assert timeline is not None
    assert (timeline.many, timeline.description.split(",")[0]) == ("masks", "0.0 to 1.0 masks a frame")
    assert RunReport.read(folder / "out" / "report.json").noun == ("mask", "masks")


def test_a_gap_between_two_masks_stays_empty_and_the_track_goes_on(folder):
    tracks = {"labels": {"instances": "tracks"}, "tracker": {"max_gap_seconds": 1.0, "smooth_seconds": 0.2}}

    run_folder(folder, "Discs", "bitmask", **tracks)

    found = objects_by_frame(folder)
    assert sorted(found) == [0, 1, 2, 4, 5]
    assert len({label["objectHash"] for labels in found.values() for label in labels}) == 1
    assert np.array_equal(BitmaskCoordinates(found[4][0]["bitmask"]).to_numpy_array(), true_mask(4))


def test_keyframes_of_masks_are_refused_before_the_first_frame(folder):
    values = values_of(folder, "Asked", "polygon", labels={"instances": "tracks", "keyframes": {}})
    assembly = assemble(check_config(values, "test.yaml"), folder)

    with pytest.raises(ConfigError, match=r"labels.keyframes: .* labels.classes makes 'Road sign' the polygon"):
        prepare(assembly)
    assert not all(check.passed for check in run_checks(assembly))


def test_export_as_label_rows_is_the_runs_own(folder):
    values = values_of(folder, "Discs", "polygon")
    run_folder(folder, "Discs", "polygon")

    (path,) = export_run(assemble_stored(check_config(values, "test.yaml"), folder), "encord", folder / "exported")

    (unit,) = json.loads(path.read_text())["data_units"].values()
    exported = {int(frame): labels["objects"][0]["polygons"] for frame, labels in unit["labels"].items()}
    assert exported == {frame: label["polygons"] for frame, (label,) in objects_by_frame(folder).items()}


def test_check_says_what_each_object_is_made_of(folder):
    said = {
        (detector, shape): next(
            check.detail
            for check in run_checks(assemble(check_config(values_of(folder, detector, shape), "test.yaml"), folder))
            if check.name == "classes"
        )
        for detector, shape in (
            ("Asked", "polygon"),
            ("Turned", "bitmask"),
            ("Poses", "skeleton"),
            ("Discs", None),
        )
    }

    assert "polygon from masks: Road sign" in said["Asked", "polygon"]
    assert "bitmask from boxes, filled: Road sign" in said["Turned", "bitmask"]
    assert "skeleton from keypoints: Person" in said["Poses", "skeleton"]
    assert "polygon from masks: Road sign, person" in said["Discs", None]


def test_page_of_the_run_has_outlines_and_the_preview_too(folder):
    values = values_of(folder, "Discs", "bitmask")
    values["source"]["preview"] = "sheet"
    run_whole(assemble(check_config(values, "test.yaml"), folder), page=True)

    assert '<path class="found" d="M' in (folder / "out" / "report.html").read_text()
    assert (folder / "out" / "clip.preview.jpg").exists()


@pytest.mark.usefixtures("encord_environment")
@pytest.mark.filterwarnings("ignore:save_label_row is deprecated:DeprecationWarning")
def test_masks_become_polygons_on_the_platform_and_a_second_run_replaces_its_own(platform: Platform, tmp_path):
    (tmp_path / "mine.py").write_text(DETECTORS)
    source = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT, "output": str(tmp_path / "out")}
    values = {"source": source, "detector": {"use": "mine.py:Asked"}, "pathway": "Annotate 1"}

    for tolerance_px in (1.0, 3.0):
        labels = {"polygon_tolerance_px": tolerance_px, "classes": {"person": None}}
        report = run_whole(assemble(check_config({**values, "labels": labels}, "test.yaml"), tmp_path))
        assert [task.status for task in report.tasks] == ["done"]
        row = platform.initialised_row()
        polygons = [instance.get_annotations()[0].coordinates.polygons for instance in row.get_object_instances()]
        assert {instance.object_name for instance in row.get_object_instances()} == {"Road sign"}
        assert all(len(rings) == 2 for (rings,) in polygons)
        assert len(polygons) == len(row.get_frame_views()) - 1
        for task in platform.project.tasks_at(ANNOTATE):
            platform.server.world.move_task(task, platform.project.stage(AGENT), user="somebody@example.com")
