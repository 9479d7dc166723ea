from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from prelabel.encord.project import WaitingTask
from prelabel.encord.source import EncordSource
from prelabel.errors import AccountError, FetchError, SaveError
from prelabel.plugins.protocols import SkippedTask
from prelabel.testing.encord_server import (
    AGENT,
    ANNOTATE,
    COMPLETE,
    REVIEW,
    LostAnswer,
    MalformedJson,
    Status,
    Truncated,
    download_of,
)
from prelabel.testing.encord_server.records import DataUnit
from tests.encord_fixtures import NUM_FRAMES, Platform
from tests.reach import encord_source

pytestmark = pytest.mark.usefixtures("encord_environment")


@pytest.fixture
def source(platform: Platform, tmp_path: Path) -> EncordSource:
    return encord_source(platform, tmp_path)


def only_task(source: EncordSource) -> WaitingTask:
    (task,) = source.tasks()
    assert isinstance(task, WaitingTask)
    return task


def replace_clip(platform: Platform, data: DataUnit) -> None:
    """Puts this data at the agent stage in place of the clip."""
    (task,) = platform.project.tasks_at(AGENT)
    platform.server.world.move_task(task, platform.project.stage(COMPLETE), user="owner@example.com")
    platform.server.world.add_task(platform.project.stage(AGENT), data)


def pictures(folder: Path, names: Sequence[str]) -> list[Path]:
    paths = []
    for number, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (32, 24), (number * 40, 0, 0)).save(path)
        paths.append(path)
    return paths


def reds(paths: Sequence[Path]) -> list[int]:
    return [Image.open(path).getpixel((0, 0))[0] for path in paths]


def test_task_says_what_it_is(platform: Platform, source: EncordSource) -> None:
    task = only_task(source)
    assert task.key == f"{platform.project.uuid}/{platform.clip.data_hash}/main"
    assert (task.title, task.num_frames, task.kind, task.branch) == ("clip.mp4", NUM_FRAMES, "video", "main")
    assert task == only_task(source)
    assert task.identity == platform.clip.item.uuid


def test_tasks_that_move_while_the_stage_is_read_are_all_met_once(platform: Platform, source: EncordSource) -> None:
    platform.add_clips(129)
    platform.server.settings.page_size = 20
    titles = []
    for task in source.tasks():
        titles.append(task.title)
        source.proceed(task, "Annotate 1")
    assert len(titles) == len(set(titles)) == len(platform.project.tasks_at(ANNOTATE)) == 130
    assert len(platform.server.calls_of("list_label_rows")) == 2


def test_tasks_that_stay_are_not_met_again_and_new_ones_are(platform: Platform, source: EncordSource) -> None:
    titles = []
    for task in source.tasks():
        titles.append(task.title)
        source.fail(task, "out of luck")
        if len(titles) == 1:
            platform.add_clips(2)
    assert titles == ["clip.mp4", "0.mp4", "1.mp4"]
    assert len(platform.project.tasks_at(AGENT)) == 3


def test_branches_of_one_video_are_tasks_of_their_own(platform: Platform, source: EncordSource) -> None:
    platform.server.world.add_task(platform.project.stage(AGENT), platform.clip, branch="second look")
    assert [task.key.rpartition("/")[2] for task in source.tasks()] == ["main", "second look"]
    assert len(platform.server.calls_of("list_label_rows")) == 2


def test_a_task_is_found_by_its_key_wherever_it_has_moved(platform: Platform, source: EncordSource) -> None:
    task = only_task(source)
    source.proceed(task, "Annotate 1")
    found = source.find_tasks({task.key, f"{platform.project.uuid}/gone/main", "clip.mp4"})
    assert list(found) == [task.key]
    with found[task.key].open() as media:
        assert media.paths[0].read_bytes() == platform.clip.item.path.read_bytes()


def test_other_kinds_are_left_alone_and_named(platform: Platform, source: EncordSource, tmp_path: Path) -> None:
    (tmp_path / "talk.mp3").touch()
    (tmp_path / "notes.pdf").touch()
    world, stage = platform.server.world, platform.project.stage(AGENT)
    world.add_task(stage, world.add_other(tmp_path / "talk.mp3", "audio"))
    world.add_task(stage, world.add_other(tmp_path / "notes.pdf", "pdf"))
    assert [task.title for task in source.tasks()] == ["clip.mp4"]
    assert [task.title for task in source.tasks()] == ["clip.mp4"]
    assert source.skipped == [SkippedTask("talk.mp3", "audio"), SkippedTask("notes.pdf", "pdf")]
    assert len(platform.project.tasks_at(AGENT)) == 3


def test_list_that_breaks_off_is_worked_on_before_it_is_read_again(platform: Platform, source: EncordSource) -> None:
    platform.add_clips(5)
    platform.server.settings.page_size = 2
    platform.server.faults.add(
        lambda call: call.operation == "list_tasks" and "pageToken" in call.query, MalformedJson(), times=5
    )
    titles = [task.title for task in source.tasks()]
    assert sorted(titles) == ["0.mp4", "1.mp4", "2.mp4", "3.mp4", "4.mp4", "clip.mp4"]


def test_stage_that_cannot_be_listed_is_an_account_error(platform: Platform, source: EncordSource) -> None:
    platform.server.faults.add("list_tasks", MalformedJson(), times=None)
    with pytest.raises(AccountError, match=r"stage 'Pre-Labeling Agent': listing its tasks: .*cut off or not JSON"):
        list(source.tasks())


def test_video_is_here_while_it_is_open(platform: Platform, source: EncordSource, tmp_path: Path) -> None:
    task = only_task(source)
    assert platform.server.world.links == []  # a link is asked for right before it is used
    with task.open() as media:
        (path,) = media.paths
        assert (media.kind, path.suffix) == ("video", ".mp4")
        assert path.read_bytes() == platform.clip.item.path.read_bytes()
    source.close()
    assert [left.name for left in (tmp_path / ".prelabel" / "cache").iterdir()] == [".lock"]


def test_title_never_leaves_the_cache_folder(platform: Platform, source: EncordSource, tmp_path: Path) -> None:
    platform.clip.item.name = platform.clip.title = "../../../outside \u202e" + "x" * 300
    with only_task(source).open() as media:
        assert (tmp_path / ".prelabel" / "cache") in media.paths[0].parents


def test_expired_link_is_renewed(platform: Platform, source: EncordSource) -> None:
    platform.server.settings.item_link_lifetime_seconds = -1
    platform.server.faults.add(download_of(platform.clip.item), Status(503))

    class Repair:
        def __call__(self, carry_out, stopping):
            platform.server.settings.item_link_lifetime_seconds = 3600
            return carry_out()

    platform.server.faults.add(download_of(platform.clip.item), Repair())
    with only_task(source).open() as media:
        assert media.paths[0].read_bytes() == platform.clip.item.path.read_bytes()
    assert [found.status for found in platform.server.world.downloads] == [403, 200]


def test_download_that_fails_names_the_task_and_leaves_nothing(
    platform: Platform, source: EncordSource, tmp_path: Path
) -> None:
    platform.server.faults.add(download_of(platform.clip.item), Truncated(0), times=None)
    with pytest.raises(FetchError, match=r"clip\.mp4: download given up at 0 of"), only_task(source).open():
        pass
    assert not list((tmp_path / ".prelabel" / "cache").rglob("*.mp4*"))


def test_task_larger_than_the_cache_says_so(platform: Platform, tmp_path: Path) -> None:
    source = encord_source(platform, tmp_path, cache_gb=1e-8)
    with pytest.raises(FetchError, match=r"clip\.mp4: takes .* raise source\.cache_gb"), only_task(source).open():
        pass
    assert platform.server.world.downloads == []


def test_image_is_one_picture(platform: Platform, source: EncordSource, tmp_path: Path) -> None:
    (path,) = pictures(tmp_path, ["still.png"])
    replace_clip(platform, platform.server.world.add_image(path))
    task = only_task(source)
    assert (task.kind, task.num_frames) == ("image", 1)
    with task.open() as media:
        assert (media.kind, [found.suffix for found in media.paths]) == ("images", [".png"])
        assert media.paths[0].read_bytes() == path.read_bytes()


def test_image_group_comes_as_pictures_in_frame_order(platform: Platform, source: EncordSource, tmp_path: Path) -> None:
    names = ["c.png", "a.png", "b.png", "d.png"]
    group = platform.server.world.add_image_group(pictures(tmp_path, names))
    group.item.children = group.item.children[::-1]  # the frames' order is not the folder's
    replace_clip(platform, group)
    task = only_task(source)
    assert (task.kind, task.num_frames) == ("img_group", 4)
    with task.open() as media:
        assert media.kind == "images"
        assert reds(media.paths) == [0, 40, 80, 120]


def test_image_group_of_one_picture_is_pictures_too(platform: Platform, source: EncordSource, tmp_path: Path) -> None:
    replace_clip(platform, platform.server.world.add_image_group(pictures(tmp_path, ["a.png"])))
    with only_task(source).open() as media:
        assert media.kind == "images"


def test_image_group_with_pictures_of_one_name_keeps_their_order(
    platform: Platform, source: EncordSource, tmp_path: Path
) -> None:
    paths = pictures(tmp_path / "x", ["a.png", "b.png", "c.png"])
    group = platform.server.world.add_image_group(paths)
    for child in group.item.children:
        child.name = "frame.png"
    replace_clip(platform, group)
    with only_task(source).open() as media:
        assert reds(media.paths) == [0, 40, 80]


def test_image_group_that_lacks_a_picture_is_not_shifted(
    platform: Platform, source: EncordSource, tmp_path: Path
) -> None:
    group = platform.server.world.add_image_group(pictures(tmp_path, ["a.png", "b.png", "c.png"]))
    del group.item.children[1]
    replace_clip(platform, group)
    with pytest.raises(FetchError, match="the platform gives 2 images of 3"), only_task(source).open():
        pass


def test_image_sequence_comes_as_the_video_behind_it(
    platform: Platform, source: EncordSource, encord_clip: Path
) -> None:
    replace_clip(platform, platform.server.world.add_image_sequence(encord_clip))
    task = only_task(source)
    assert (task.kind, task.num_frames) == ("img_group", NUM_FRAMES)
    with task.open() as media:
        assert (media.kind, media.paths[0].suffix) == ("video", ".mp4")
        assert media.paths[0].read_bytes() == encord_clip.read_bytes()


@pytest.mark.parametrize("by", ["title", "uuid"])
def test_proceed_takes_the_pathway_by_name_or_uuid(platform: Platform, source: EncordSource, by: str) -> None:
    pathway = platform.project.stage(AGENT).pathways[1]
    source.proceed(only_task(source), getattr(pathway, by))
    (move,) = platform.server.world.moves
    assert (move.pathway, move.destination.title) == (pathway.uuid, REVIEW)


def test_unknown_pathway_moves_nothing(platform: Platform, source: EncordSource) -> None:
    with pytest.raises(AccountError, match="no pathway 'Annotate': it has these"):
        source.check_pathway("Annotate")
    with pytest.raises(AccountError, match="no pathway 'Annotate'"):
        source.proceed(only_task(source), "Annotate")
    assert platform.server.world.moves == []


def test_lost_answer_to_a_move_is_no_failure(platform: Platform, source: EncordSource) -> None:
    platform.server.faults.add("act_on_tasks", LostAnswer(carried_out=True))
    source.proceed(only_task(source), "Annotate 1")
    assert [call.status for call in platform.server.calls_of("act_on_tasks")] == [None, 400]
    assert len(platform.server.world.moves) == 1
    assert source.warnings == []


def test_malformed_answer_to_a_move_is_no_failure(platform: Platform, source: EncordSource) -> None:
    platform.server.faults.add("act_on_tasks", MalformedJson())
    source.proceed(only_task(source), "Annotate 1")
    assert len(platform.server.world.moves) == 1


def test_task_that_somebody_else_moved_is_told_apart(platform: Platform, source: EncordSource) -> None:
    task = only_task(source)
    (waiting,) = platform.project.tasks_at(AGENT)
    platform.server.world.move_task(waiting, platform.project.stage(COMPLETE), user="anna@example.com")
    source.proceed(task, "Annotate 1")
    assert [warning.partition(":")[0] for warning in source.warnings] == ["clip.mp4"]
    assert f"it is at '{COMPLETE}'" in source.warnings[0]
    assert len(platform.server.world.moves) == 1


def test_refused_move_of_a_task_that_still_waits_fails(platform: Platform, source: EncordSource) -> None:
    platform.server.faults.add("act_on_tasks", Status(400, message="the task is locked"))
    with pytest.raises(SaveError, match=r"clip\.mp4: moving it on .* still waits: the task is locked"):
        source.proceed(only_task(source), "Annotate 1")


def test_failed_task_stays_and_its_reason_is_logged(
    platform: Platform, source: EncordSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source.fail(only_task(source), "the video is damaged")
    assert "clip.mp4: failed at stage 'Pre-Labeling Agent': the video is damaged" in caplog.text
    assert len(platform.project.tasks_at(AGENT)) == 1


def test_description_counts_the_tasks(platform: Platform, source: EncordSource) -> None:
    platform.add_clips(2)
    assert source.describe() == "project 'Road users', stage 'Pre-Labeling Agent': 3 tasks wait"


def test_unknown_stage_is_named_before_a_run(platform: Platform, tmp_path: Path) -> None:
    source = encord_source(platform, tmp_path, stage="Detector")
    with pytest.raises(AccountError, match="no stage 'Detector'"):
        source.prepare()
    assert list(tmp_path.iterdir()) == []
