"""The real SDK at the test server: storage items, their kinds, and the links to their files."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import numpy as np
import requests
from PIL import Image

from prelabel.testing.encord_server import AGENT
from tests.encord_fixtures import NUM_FRAMES, Platform


def test_storage_items_come_in_the_order_asked_for(platform: Platform) -> None:
    platform.add_clips(2)
    uuids = [task.data.item.uuid for task in platform.project.tasks_at(AGENT)][::-1]
    items = platform.client.get_storage_items(uuids, sign_url=True)
    assert [str(item.uuid) for item in items] == uuids
    assert items[0].file_size == platform.clip.item.path.stat().st_size


def test_client_metadata_is_updated(platform: Platform) -> None:
    item = platform.item()
    assert item.client_metadata == {"camera": 1}
    item.update(client_metadata={"camera": 1, "model": "yolo11n"})
    assert platform.clip.item.client_metadata == {"camera": 1, "model": "yolo11n"}
    assert listed_metadata(platform) == {"camera": 1, "model": "yolo11n"}
    with platform.sdk.create_bundle() as bundle:
        item.update(client_metadata={"camera": 2}, bundle=bundle)
    assert listed_metadata(platform) == {"camera": 2}


def listed_metadata(platform: Platform) -> dict[str, object]:
    (row,) = platform.sdk.list_label_rows_v2(include_client_metadata=True)
    return row.client_metadata


def test_image_group_has_a_link_for_each_picture(platform: Platform, tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.png" for number in range(3)]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((8, 10 + number, 3), number, np.uint8)).save(path)
    group = platform.server.world.add_image_group(paths, title="three pictures")
    platform.server.world.add_task(platform.project.stage(AGENT), group)
    (row,) = platform.sdk.list_label_rows_v2(data_hashes=[group.data_hash])
    row.initialise_labels(include_signed_url=True)
    row.add_object_instance(platform.box([2]))
    row.save()

    assert row.data_link is None
    links = [row.get_frame_view(number).data_link for number in range(3)]
    assert [requests.get(link, timeout=50).content for link in links] == [path.read_bytes() for path in paths]
    assert [frame for frame, _ in platform.project.row(group).objects()] == [2]
    children = row.get_storage_item().get_child_items(get_signed_urls=True)
    assert [(child.width, child.get_signed_url() is not None) for child in children] == [
        (10, True),
        (11, True),
        (12, True),
    ]


def test_image_and_sequence_and_other_kinds_are_listed(platform: Platform, encord_clip: Path, tmp_path: Path) -> None:
    picture, other = tmp_path / "a.png", tmp_path / "a.bin"
    Image.new("RGB", (9, 7)).save(picture)
    other.write_bytes(b"of another kind")
    world = platform.server.world
    units = [world.add_image(picture), world.add_image_sequence(encord_clip)]
    units += [world.add_other(other, data_type) for data_type in ("pdf", "audio", "plain_text")]
    for unit in units:
        world.add_task(platform.project.stage(AGENT), unit)
    rows = platform.sdk.list_label_rows_v2(data_hashes=[unit.data_hash for unit in units])
    for row in rows:
        row.initialise_labels()
        row.save()
    assert [(row.data_type.value, row.number_of_frames) for row in rows] == [
        ("image", 1),
        ("img_group", NUM_FRAMES),
        ("pdf", 1),
        ("audio", 1),
        ("plain_text", 1),
    ]
    sequence = rows[1].get_storage_item()
    assert requests.get(sequence.get_signed_url(), timeout=50).content == encord_clip.read_bytes()


def test_link_answers_ranges_and_refuses_head(platform: Platform) -> None:
    link, content = platform.item().get_signed_url(), platform.clip.item.path.read_bytes()
    part = requests.get(link, headers={"Range": "bytes=100-"}, timeout=50)
    assert (part.status_code, part.content) == (206, content[100:])
    assert part.headers["Content-Range"] == f"bytes 100-{len(content) - 1}/{len(content)}"
    assert requests.get(link, headers={"Range": f"bytes={len(content)}-"}, timeout=50).status_code == 416
    stale = requests.get(link, headers={"Range": "bytes=100-", "If-Range": '"old"'}, timeout=50)
    assert (stale.status_code, stale.content) == (200, content)
    assert requests.head(link, timeout=50).status_code == 403
    downloads = platform.server.world.downloads
    assert [download.status for download in downloads] == [206, 416, 200, 403]
    assert (downloads[0].range_header, downloads[0].num_bytes) == ("bytes=100-", len(content) - 100)


def test_expired_and_altered_links_are_refused(platform: Platform) -> None:
    platform.server.settings.item_link_lifetime_seconds = 60
    link = platform.item().get_signed_url()
    (signed,) = platform.server.world.links
    assert signed.expires_at - signed.at == timedelta(seconds=60)
    assert requests.get(link.replace("expires=1", "expires=2"), timeout=50).status_code == 403
    platform.server.world.clock.advance(61)
    expired = requests.get(link, timeout=50)
    assert (expired.status_code, b"Request has expired" in expired.content) == (403, True)
    fresh = platform.item().get_signed_url()
    assert requests.get(fresh, timeout=50).status_code == 200
    platform.server.links.expire_all()
    assert requests.get(fresh, timeout=50).status_code == 403
