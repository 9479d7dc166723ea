"""MOTChallenge files, and the scores that TrackEval and motmetrics give them."""

from __future__ import annotations

import configparser
import shutil
from pathlib import Path

import numpy as np
import pytest

from prelabel.export.mot import export_mot
from tests.export.building import export_of, files_in, video

TWO_TRACKS = video(
    "clip.mp4",
    *((frame, (10 + frame, 10, 30 + frame, 20), 0.75, 0) for frame in range(10)),
    *((frame, (50, 20 + frame, 70, 30 + frame), 0.5, 1) for frame in range(10, 20)),
    track_id=[1] * 10 + [2] * 10,
)


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines()


def test_a_video_has_results_ground_truth_and_a_description(tmp_path):
    assert export_mot(export_of(tmp_path, video("day/clip.mp4"))) == [tmp_path / "day" / "clip.mp4" / "det" / "det.txt"]
    assert files_in(tmp_path / "day" / "clip.mp4") == {"det/det.txt", "gt/gt.txt", "gt/labels.txt", "seqinfo.ini"}


def test_results_count_frames_and_pixels_from_one_and_have_no_class(tmp_path):
    export_mot(export_of(tmp_path, video("a.mp4", (0, (10, 10, 30, 20), 0.75, 1), (9, (0, 0, 100, 50), 0.5, 0))))
    assert lines(tmp_path / "a.mp4" / "det" / "det.txt") == [
        "1,-1,11.0,11.0,20.0,10.0,0.75,-1,-1,-1",
        "10,-1,1.0,1.0,100.0,50.0,0.5,-1,-1,-1",
    ]


def test_ground_truth_has_tracked_labels_with_their_class(tmp_path):
    rows = [(0, (10, 10, 30, 20), 0.75, 1), (9, (0, 0, 100, 50), 0.5, 0), (9, (0, 0, 9, 9), 0.5, 0)]
    export_mot(export_of(tmp_path, video("a.mp4", *rows, track_id=[4, 7, -1])))
    assert lines(tmp_path / "a.mp4" / "gt" / "gt.txt") == [
        "1,4,11.0,11.0,20.0,10.0,1,1,1,-1",
        "10,7,1.0,1.0,100.0,50.0,1,2,1,-1",
    ]
    assert lines(tmp_path / "a.mp4" / "gt" / "labels.txt") == ["Vehicle: any", "person"]
    assert [line.split(",")[1] for line in lines(tmp_path / "a.mp4" / "det" / "det.txt")] == ["4", "7", "-1"]


def test_the_description_names_images_and_a_whole_frame_rate(tmp_path):
    export_mot(export_of(tmp_path, video("day/clip.mp4")))
    parser = configparser.ConfigParser()
    parser.read(tmp_path / "day" / "clip.mp4" / "seqinfo.ini")
    assert dict(parser["Sequence"]) == {
        "name": "day/clip.mp4",
        "imdir": "img1",
        "framerate": "12",
        "seqlength": "20",
        "imwidth": "100",
        "imheight": "50",
        "imext": ".jpg",
    }


def test_trackeval_scores_the_results_against_the_ground_truth(tmp_path):
    import trackeval

    export_mot(export_of(tmp_path / "gt", TWO_TRACKS))
    results = tmp_path / "trackers" / "prelabel" / "data"
    results.mkdir(parents=True)
    shutil.copy(tmp_path / "gt" / "clip.mp4" / "det" / "det.txt", results / "clip.mp4.txt")
    dataset = trackeval.datasets.MotChallenge2DBox(
        {
            "GT_FOLDER": str(tmp_path / "gt"),
            "TRACKERS_FOLDER": str(tmp_path / "trackers"),
            "SEQ_INFO": {"clip.mp4": 20},
            "SKIP_SPLIT_FOL": True,
            "DO_PREPROC": False,
            "PRINT_CONFIG": False,
        }
    )
    quiet = {"PRINT_RESULTS": False, "PRINT_CONFIG": False, "TIME_PROGRESS": False, "PLOT_CURVES": False}
    evaluator = trackeval.Evaluator({**quiet, "BREAK_ON_ERROR": True, "OUTPUT_SUMMARY": False})
    result, _ = evaluator.evaluate(
        [dataset], [trackeval.metrics.HOTA(), trackeval.metrics.CLEAR({"PRINT_CONFIG": False})]
    )
    scores = result["MotChallenge2DBox"]["prelabel"]["clip.mp4"]["pedestrian"]
    assert scores["HOTA"]["HOTA"].mean() == pytest.approx(1)
    assert scores["CLEAR"]["MOTA"] == pytest.approx(1)


def test_motmetrics_scores_the_results_against_the_ground_truth(tmp_path, monkeypatch):
    import motmetrics

    monkeypatch.setattr(np, "asfarray", np.asarray, raising=False)  # motmetrics 1.4 uses it; numpy 2 dropped it

    export_mot(export_of(tmp_path, TWO_TRACKS))
    folder = tmp_path / "clip.mp4"
    truth = motmetrics.io.loadtxt(folder / "gt" / "gt.txt", fmt="mot15-2D", min_confidence=1)
    results = motmetrics.io.loadtxt(folder / "det" / "det.txt", fmt="mot15-2D")
    compared = motmetrics.utils.compare_to_groundtruth(truth, results, "iou", distth=0.5)
    summary = motmetrics.metrics.create().compute(compared, metrics=["mota", "idf1", "num_objects"])
    assert summary.loc[0].tolist() == [1.0, 1.0, 20.0]
