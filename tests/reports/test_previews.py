from __future__ import annotations

import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from prelabel.assembly.assemble import assemble
from prelabel.config.load import check_config
from prelabel.data.frames import FrameBatch
from prelabel.errors import ConfigError, LabelError, ReadError
from prelabel.export.export import export_run
from prelabel.reports.previews import preview_run, sheet_frames, write_clip, write_sheet
from prelabel.reports.run_page import write_run_report
from prelabel.testing.encord_server import AGENT
from tests.encord_fixtures import Platform
from tests.kept import assembly_of, make_media, run, write_grey_clip
from tests.reports.building import BLUE, GREY, RED, decode, grey_batches, grey_extent, is_near, labelled


def test_a_clip_has_every_frame_in_its_size_and_time(tmp_path):
    video = labelled([(0, (50, 60, 150, 160), 0.9, 0)])
    write_clip(video, grey_batches(video), tmp_path / "clip.mp4")
    with av.open(tmp_path / "clip.mp4") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
        assert (stream.width, stream.height) == (320, 240)
        assert float(stream.average_rate) == pytest.approx(25)
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx(np.arange(6) / 25)


def test_a_box_has_its_objects_colour_around_it_and_the_frame_inside(tmp_path):
    video = labelled([(2, (50, 60, 150, 160), 0.9, 0), (3, (50, 60, 150, 160), 0.9, 1)])
    write_clip(video, grey_batches(video), tmp_path / "clip.mp4")
    frames = decode(tmp_path / "clip.mp4")
    for frame, colour in ((frames[2], RED), (frames[3], BLUE)):
        for x, y in ((50, 110), (148, 110), (100, 158)):
            assert is_near(frame[y : y + 2, x : x + 2].mean(axis=(0, 1)), colour)
        assert is_near(frame[110, 100], GREY, 12)
    assert is_near(frames[4][110, 50], GREY, 12)


def test_times_of_a_variable_rate_are_kept(tmp_path):
    video = labelled()
    seconds = [3.0, 3.04, 3.2, 3.5, 3.52, 4.0]
    write_clip(video, grey_batches(video, seconds=seconds), tmp_path / "clip.mp4")
    with av.open(tmp_path / "clip.mp4") as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx(np.array(seconds) - 3.0, abs=1e-4)


def test_frames_that_a_stride_left_out_have_no_boxes_and_a_caption_that_says_so(tmp_path):
    video = labelled([(0, (50, 60, 150, 160), 0.9, 0), (2, (50, 60, 150, 160), 0.9, 0)], inferred=[0, 2, 4])
    write_clip(video, grey_batches(video), tmp_path / "clip.mp4")
    frames = decode(tmp_path / "clip.mp4")
    assert [is_near(frame[110, 51], RED) for frame in frames] == [True, False, True, False, False, False]
    dark = [(frame[-10:].mean(axis=2) < 90).sum() for frame in frames]
    assert min(dark[1], dark[3], dark[5]) > max(dark[0], dark[2], dark[4])


@pytest.mark.parametrize(
    ("size", "expected"),
    [((97, 65), (96, 64)), ((1, 9), (2, 8)), ((1921, 1081), (1280, 720)), ((1000, 3000), (426, 1280))],
)
def test_a_clip_has_even_sides_and_is_not_large(tmp_path, size, expected):
    video = labelled([(0, (0, 0, *size), 0.9, 0)], width=size[0], height=size[1], num_frames=2)
    write_clip(video, grey_batches(video), tmp_path / "clip.mp4")
    frames = decode(tmp_path / "clip.mp4")
    assert len(frames) == 2
    assert frames[0].shape == (expected[1], expected[0], 3)


def test_boxes_of_a_large_video_are_scaled_with_it(tmp_path):
    video = labelled([(0, (600, 400, 1200, 1000), 0.9, 0)], width=2560, height=1440, num_frames=1)
    write_clip(video, grey_batches(video), tmp_path / "clip.mp4")
    (frame,) = decode(tmp_path / "clip.mp4")
    assert is_near(frame[350, 301], RED)
    assert is_near(frame[350, 598], RED)
    assert is_near(frame[350, 290], GREY, 12)


def test_a_clip_without_detections_is_the_video(tmp_path):
    video = labelled()
    write_clip(video, grey_batches(video), tmp_path / "clip.mp4")
    frames = decode(tmp_path / "clip.mp4")
    assert len(frames) == 6
    assert all(is_near(frame[:200].mean(axis=(0, 1)), GREY, 3) for frame in frames)


def test_no_more_than_two_batches_are_held_at_a_time(tmp_path):
    video = labelled(num_frames=12)
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    def watched() -> Iterator[FrameBatch]:
        nonlocal most
        for batch in grey_batches(video):
            alive.add(batch.data)
            most = max(most, len(alive))
            yield batch
            del batch

    write_clip(video, watched(), tmp_path / "clip.mp4")
    assert most <= 2


def test_batches_are_not_written_to(tmp_path):
    video = labelled([(0, (50, 60, 150, 160), 0.9, 0)], num_frames=1)
    batches = list(grey_batches(video))
    write_clip(video, batches, tmp_path / "clip.mp4")
    assert (batches[0].data == GREY[0]).all()


def test_no_frame_at_all_is_an_error_and_leaves_no_file(tmp_path):
    with pytest.raises(ReadError, match=r"clip\.mp4: there is no frame to show"):
        write_clip(labelled(), [], tmp_path / "clip.mp4")
    for num_frames in (0, 6):
        with pytest.raises(ReadError, match=r"clip\.mp4: there is no frame to show"):
            write_sheet(labelled(num_frames=num_frames), [], tmp_path / "clip.jpg")
    assert list(tmp_path.iterdir()) == []


def test_a_sheet_spreads_its_frames_evenly_over_the_inferred_frames():
    assert sheet_frames(labelled(num_frames=90), 9).tolist() == [5, 15, 25, 35, 45, 55, 65, 75, 85]
    assert sheet_frames(labelled(num_frames=90, inferred=range(0, 90, 30)), 9).tolist() == [0, 30, 60]
    assert sheet_frames(labelled(num_frames=1)).tolist() == [0]


def test_a_box_is_where_it_should_be_on_a_sheet(tmp_path):
    video = labelled([(0, (80, 60, 240, 180), 0.9, 0)], num_frames=1)
    write_sheet(video, grey_batches(video), tmp_path / "sheet.jpg")
    sheet = np.asarray(Image.open(tmp_path / "sheet.jpg"))
    x1, y1, x2, y2 = grey_extent(sheet)
    assert (x2 - x1) / (y2 - y1) == pytest.approx(320 / 240, rel=0.02)
    scale = (x2 - x1) / 320
    for x, y in ((80.4, 120), (239.6, 120), (160, 179.6)):
        assert is_near(sheet[int(y1 + y * scale), int(x1 + x * scale)], RED)
    assert is_near(sheet[round(y1 + 120 * scale), round(x1 + 160 * scale)], GREY, 6)


def test_a_sheet_picks_its_frames_from_the_given_batches(tmp_path):
    video = labelled(num_frames=30)
    write_sheet(video, grey_batches(video, size=7), tmp_path / "all.jpg", num_frames=4)
    wanted = sheet_frames(video, 4)
    few = (batch for batch in grey_batches(video, size=1) if batch.frame_indices[0] in wanted)
    write_sheet(video, few, tmp_path / "few.jpg", num_frames=4)
    assert (tmp_path / "all.jpg").read_bytes() == (tmp_path / "few.jpg").read_bytes()


def test_images_of_several_sizes_fit_onto_a_sheet_but_make_no_clip(tmp_path):
    sizes = ((320, 240), (100, 300), (64, 64))
    rows = [(index, (0, 0, *size), 0.9, 0) for index, size in enumerate(sizes)]
    video = labelled(rows, num_frames=3, fps=0.0, frame_sizes=sizes)
    write_sheet(video, grey_batches(video, size=1), tmp_path / "sheet.jpg")
    assert Image.open(tmp_path / "sheet.jpg").width > 3 * 240
    with pytest.raises(ValueError, match="got images, expected a video"):
        write_clip(video, grey_batches(video, size=1), tmp_path / "clip.mp4")


@pytest.fixture(scope="module")
def ran(tmp_path_factory) -> tuple[Path, Path]:
    """The folder of the media and the output of a run over them."""
    folder = tmp_path_factory.mktemp("preview")
    make_media(folder / "media")
    run(assembly_of(folder / "media", folder / "out", reader={"stride": 2}))
    return folder / "media", folder / "out"


def test_every_task_gets_a_clip_and_a_sheet_and_an_image_its_sheet(ran):
    assembly = assembly_of(*ran, reader={"stride": 2})
    written = preview_run(assembly, [], "both")
    assert [path.relative_to(assembly.output).as_posix() for path in written] == [
        "day 2/second.preview.mp4",
        "day 2/second.preview.jpg",
        "first.preview.mp4",
        "first.preview.jpg",
        "still.preview.jpg",
    ]
    frames = decode(written[2])
    assert len(frames) == 5  # a stride of 2 infers frames 0, 2 and 4 of 6
    assert frames[0].shape == (64, 96, 3)
    assert not is_near(frames[0][40, 11], GREY, 30)
    assert is_near(frames[1][40, 11], GREY, 12)


def test_titles_and_kind_choose_what_is_drawn(ran):
    assembly = assembly_of(*ran, reader={"stride": 2})
    assert [path.name for path in preview_run(assembly, ["first.mp4"], "sheet")] == ["first.preview.jpg"]
    assert [path.name for path in preview_run(assembly, ["still.png"], "clip")] == ["still.preview.jpg"]


def test_the_next_run_does_not_label_the_previews(ran):
    assembly = assembly_of(ran[0].parent, ran[1])
    preview_run(assembly_of(*ran), ["first.mp4"], "both")
    assert {task.title for task in assembly.source.tasks()} == {
        "media/first.mp4",
        "media/day 2/second.mp4",
        "media/still.png",
    }


def test_an_unknown_title_is_named_with_the_nearest(ran):
    with pytest.raises(ConfigError, match=r"task 'frist\.mp4': .* did you mean 'first\.mp4'\?"):
        preview_run(assembly_of(*ran), ["frist.mp4"], "both")


def test_before_any_run_the_error_names_the_next_step(ran, tmp_path):
    assembly = assembly_of(ran[0], tmp_path / "out")
    for titles in ([], ["first.mp4"]):
        with pytest.raises(ConfigError, match="holds no detections yet: `prelabel run CONFIG` first"):
            preview_run(assembly, titles, "both")


def test_media_that_have_changed_since_are_refused(tmp_path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 4)
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    run(assembly)
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 5)
    with pytest.raises(ReadError, match=r"a\.mp4: has changed since the run read it"):
        preview_run(assembly, [], "clip")
    assert not (tmp_path / "out" / "a.preview.mp4").exists()


def test_detections_that_cannot_be_read_are_named(tmp_path):
    write_grey_clip(tmp_path / "media" / "a.mp4", 96, 64, 4)
    assembly = assembly_of(tmp_path / "media", tmp_path / "out")
    run(assembly)
    (tmp_path / "out" / "a.detections.parquet").write_bytes(b"not parquet")
    with pytest.raises(LabelError, match=r"a\.detections\.parquet"):
        preview_run(assembly, [], "clip")


@pytest.mark.usefixtures("encord_environment")
def test_tasks_that_have_moved_on_are_drawn_from_the_platform(platform: Platform, tmp_path: Path) -> None:
    source = {"use": "encord", "project_hash": platform.project.uuid, "stage": AGENT, "output": str(tmp_path / "out")}
    detector = {"use": "tests.kept:BoxDetector"}
    labels = {"classes": {"thing": "Pedestrian", "other": None}}
    values = {"source": source, "detector": detector, "labels": labels, "pathway": "Annotate 1"}
    config = check_config(values, "test")
    report = run(assemble(config, tmp_path))
    assert platform.project.titles_at(AGENT) == []
    (drawn,) = preview_run(assemble(config, tmp_path), [], "sheet")
    assert drawn == tmp_path / "out" / "clip.preview.jpg"
    write_run_report(assemble(config, tmp_path), report, tmp_path / "report.html")
    assert "data:image/jpeg;base64," in (tmp_path / "report.html").read_text()
    export_run(assemble(config, tmp_path), "coco", tmp_path / "set", frames="1")
    assert (tmp_path / "set" / "images" / "clip.mp4" / "000000.jpg").exists()
