"""The list of tasks on the page of a run, used in a real browser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from prelabel import Detections, FrameBatch
from prelabel.assembly.assemble import Assembly
from prelabel.plugins.protocols import SkippedTask
from prelabel.reports.run_page import MAX_NOTICES, page_of, write_run_report
from prelabel.runtime.progress import NullProgress, Value
from prelabel.store.report import RunReport, TaskReport
from tests.browser import DESKTOP, PHONE, OpenPage, browser, open_page
from tests.kept import assembly_of
from tests.make_media import Recipe, write_clip
from tests.reports.test_run_page import CONTRASTS
from tests.running import run_whole

NAMES = [f"clip {number}.mp4" for number in range(1, 11)]
SHOWN = "[...document.querySelectorAll('#list > :not([hidden]) strong')].map(title => title.textContent)"
# A task's first picture is also on its line.
LOADED = "[...document.querySelectorAll('figure:not(:first-child) img')].filter(image => image.naturalWidth).length"


class GradedDetector:
    """Finds as many things in a video as its width says, none in the narrowest one, less surely in wide videos."""

    class_names = ("thing", "widest")

    def detect(self, batch: FrameBatch) -> list[Detections]:
        num = (batch.data.shape[2] - 64) // 2
        boxes = [(2 * row, 2, 2 * row + 20, 30) for row in range(num)]
        return [Detections(boxes, [0.9 - num / 20] * num, [int(num == 9)] * num) for _ in batch.frame_indices]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory) -> Assembly:
    """An assembly after a run over ten videos, of which clip 10 has most boxes, and a file that is no video."""
    folder = tmp_path_factory.mktemp("list")
    (folder / "media").mkdir()
    for number, name in enumerate(NAMES):
        write_clip(folder / "media" / name, Recipe(num_frames=4 + number, width=64 + 2 * number, height=64))
    (folder / "media" / "broken.mp4").write_bytes(b"nothing")
    made = assembly_of(
        folder / "media",
        folder / "out",
        detector={"use": "tests.reports.test_task_list:GradedDetector"},
        retries={"attempts": 1},
        reader={"isolate": "never"},
        report={"gpu_hour_price": 3600, "currency": "EUR"},
    )
    run_whole(made, page=True)
    return made


@pytest.fixture
def page(driver: Any, assembly: Assembly) -> OpenPage:
    return open_page(driver, assembly.output / "report.html")


def with_pictures(assembly: Assembly, num: int) -> Assembly:
    config = assembly.config
    return replace(
        assembly, config=config.model_copy(update={"report": config.report.model_copy(update={"pictures": num})})
    )


def choose(page: OpenPage, field: str, text: str) -> list[str]:
    """Chooses an option as a user does, and returns the titles that the list then shows."""
    from selenium.webdriver.support.select import Select

    Select(page.driver.find_element("id", field)).select_by_visible_text(text)
    return page(SHOWN)


def test_tasks_to_look_at_come_first(page: OpenPage):
    assert page(SHOWN) == ["broken.mp4", NAMES[0], *reversed(NAMES[1:])]
    assert page("[...document.querySelectorAll('#list .pill')].map(pill => pill.textContent)") == [
        "failed",
        "without labels",
        *["done"] * 9,
    ]


@pytest.mark.parametrize(
    ("order", "first", "last"),
    [
        ("most labels", NAMES[9], NAMES[0]),
        ("fewest labels", "broken.mp4", NAMES[9]),
        ("least confidence", NAMES[9], NAMES[0]),
        ("longest", NAMES[9], "broken.mp4"),
        ("title", "broken.mp4", NAMES[9]),
        ("first to look at", "broken.mp4", NAMES[1]),
    ],
)
def test_tasks_are_sorted(page: OpenPage, order: str, first: str, last: str):
    titles = choose(page, "order", order)
    assert len(titles) == 11
    assert (titles[0], titles[-1]) == (first, last)


def test_a_search_finds_titles_classes_and_reasons(page: OpenPage):
    search = page.driver.find_element("id", "search")
    for text, expected in (("CLIP 3", [NAMES[2]]), ("widest", [NAMES[9]]), ("expected video", ["broken.mp4"])):
        search.clear()
        search.send_keys(text)
        assert page(SHOWN) == expected
        assert page("document.getElementById('found').textContent") == "1 of 11 tasks"
    search.clear()
    search.send_keys("nowhere")
    assert page(SHOWN) == []


def test_tasks_of_one_state_are_shown(page: OpenPage):
    assert choose(page, "state", "failed (1)") == ["broken.mp4"]
    assert choose(page, "state", "without labels (1)") == [NAMES[0]]
    assert len(choose(page, "state", "all")) == 11


def test_the_keyboard_opens_a_task_and_only_then_its_pictures_are_loaded(page: OpenPage):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    assert page(LOADED) == 0
    search = page.driver.find_element("id", "search")
    search.send_keys("clip 5")
    search.send_keys(Keys.TAB, Keys.NULL)  # to "Show"
    for _ in range(2):  # to "Sort by", then to the only task
        page.driver.switch_to.active_element.send_keys(Keys.TAB)
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert page("document.activeElement.closest('details').open") is True
    WebDriverWait(page.driver, 60).until(lambda _: page(LOADED) == 3)


@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_list_asks_for_its_own_pictures_only_and_can_be_read(
    driver: Any, assembly: Assembly, size: tuple[int, int], scheme: str
):
    page = open_page(driver, assembly.output / "report.html", size, scheme)
    folder = (assembly.output / "report_files").as_uri()
    assert page.complaints == []
    assert all(url.startswith(folder) for url in page.requests)
    page("document.querySelectorAll('#list > details').forEach(task => task.open = true)")
    assert not page.scrolls_sideways
    assert page(CONTRASTS) == []


def test_without_scripts_all_tasks_are_shown(driver: Any, assembly: Assembly):
    driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        open_page(driver, assembly.output / "report.html")
        assert [each.is_displayed() for each in driver.find_elements("css selector", "#list > details")] == [True] * 11
        assert not driver.find_element("id", "search").is_displayed()
    finally:
        driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_pictures_are_of_the_first_tasks_and_those_of_an_earlier_page_are_deleted(assembly: Assembly, tmp_path: Path):
    report = RunReport.read(assembly.output / "report.json")
    write_run_report(assembly, report, tmp_path / "report.html")
    pictures = tmp_path / "report_files"
    assert len(list(pictures.iterdir())) == 40
    few = with_pictures(assembly, 2)
    write_run_report(few, report, tmp_path / "report.html")
    assert len(list(pictures.iterdir())) == 8
    page = page_of(few, report)
    assert [view.task.title for view in page.tasks if view.thumbnails] == [NAMES[0], NAMES[9]]
    assert (page.picture_limit, page_of(assembly, report).picture_limit) == (2, None)


def test_no_more_media_are_asked_for_than_pictures_are_wanted(assembly: Assembly):
    class Asked(NullProgress):
        titles: ClassVar[list[str]] = []

        def event(self, name: str, **values: Value) -> None:
            self.titles.append(f"{name} {values['task']}")

    media = Path(assembly.config.source.path)
    away = media.rename(media.with_name("away"))
    try:
        page = page_of(with_pictures(assembly, 2), RunReport.read(assembly.output / "report.json"), progress=Asked())
    finally:
        away.rename(media)
    assert Asked.titles == [f"drawing {NAMES[0]}", f"drawing {NAMES[9]}"]
    assert (page.has_pictures, len(page.tasks)) == (False, 11)


def test_a_page_of_many_tasks_groups_their_failures(assembly: Assembly):
    report = RunReport.read(assembly.output / "report.json")
    failed = [TaskReport(f"{n}.mp4", str(n), "failed", reason=f"{n}.mp4: reason {n % 10}") for n in range(1000)]
    page = page_of(assembly, replace(report, tasks=tuple(failed), skipped=(SkippedTask("a.wav", "audio"),)))
    assert [(notice.head, notice.text) for notice in page.notices[:2]] == [
        ("100 tasks failed", "reason 0"),
        ("100 tasks failed", "reason 1"),
    ]
    assert page.notices[MAX_NOTICES].text == "3 more reasons are in report.json"
    assert len(page.tasks) == 1000


def test_a_task_read_in_part_says_so_even_without_labels(assembly: Assembly):
    report = RunReport.read(assembly.output / "report.json")
    (empty,) = (task for task in report.tasks if task.is_bare)
    page = page_of(assembly, replace(report, tasks=(replace(empty, partial="3 of 4 frames were read"),)))
    assert page.states == {"in part": 1}
    assert [(figure.value, figure.note) for figure in page.figures if figure.name == "to look at"] == [
        ("1", "1 in part")
    ]


def test_the_cost_is_the_time_of_the_run_times_its_price(assembly: Assembly):
    report = RunReport.read(assembly.output / "report.json")
    assert report.cost == pytest.approx(report.seconds)  # at 3,600 an hour
    (cost,) = (figure for figure in page_of(assembly, report).figures if figure.name == "cost, EUR")
    assert cost.value == f"{report.seconds:,.2f}"
    assert cost.note.startswith(f"{report.seconds / 3600:.3f} machine-hours at 3,600.00; ")
