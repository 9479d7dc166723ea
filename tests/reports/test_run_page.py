"""Pages of real runs, opened in a real browser: on a phone and a desk, in light and dark."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prelabel import Detections, FrameBatch
from prelabel.errors import ConfigError
from prelabel.evaluate.evaluate import EvaluateOptions, evaluate_run
from prelabel.reports.evaluation_page import write_evaluation_page
from prelabel.reports.run_page import page_of
from prelabel.store.report import RunReport
from tests.browser import DESKTOP, PHONE, browser, open_page
from tests.kept import assembly_of, write_grey_clip
from tests.running import run_whole

HOSTILE = '<img src=x onerror="document.title=1">&amp;'
LONG = "a" * 120
CLASSES = ("thing", "<b>bold</b>")

CONTRASTS = """
(() => {
  const number = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v / 255 <= .04045 ? v / 255 / 12.92 : ((v / 255 + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => .2126 * linear(r) + .7152 * linear(g) + .0722 * linear(b);
  const ground = element => {
    for (let at = element; at; at = at.parentElement) {
      const colour = number(getComputedStyle(at).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const element = walk.currentNode.parentElement;
    if (!walk.currentNode.data.trim() || element.closest("svg, .skip, [hidden]")) continue;
    const pair = [light(number(getComputedStyle(element).color)), light(ground(element))].sort((a, b) => b - a);
    const contrast = (pair[0] + .05) / (pair[1] + .05);
    if (contrast < 4.5) poor.push(`${walk.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return poor;
})()
"""


class HostileDetector:
    """Finds a box of each class on every frame."""

    class_names = CLASSES

    def detect(self, batch: FrameBatch) -> list[Detections]:
        return [Detections([(10, 20, 50, 60), (60, 4, 90, 40)], [0.75, 0.5], [0, 1]) for _ in batch.frame_indices]


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def assembly(tmp_path_factory: pytest.TempPathFactory):
    """An assembly after a run in which a task failed, and after people corrected its labels."""
    folder = tmp_path_factory.mktemp("pages")
    write_grey_clip(folder / "media" / f"{HOSTILE}.mp4", 96, 64, 30)
    write_grey_clip(folder / "media" / f"{LONG}.mp4", 64, 96, 6)
    (folder / "media" / "broken<script>.mp4").write_bytes(b"nothing")
    made = assembly_of(
        folder / "media",
        folder / "out",
        detector={"use": "tests.reports.test_run_page:HostileDetector"},
        retries={"attempts": 1},
    )
    run_whole(made, page=True)
    (row_path,) = made.output.glob(f"{LONG}.labels.json")
    row = json.loads(row_path.read_text())
    (unit,) = row["data_units"].values()
    unit["labels"]["2"]["objects"] = unit["labels"]["2"]["objects"][:1]
    row_path.write_text(json.dumps(row))
    write_evaluation_page(made, evaluate_run(made, EvaluateOptions()), made.output / "evaluation.html")
    return made


@pytest.mark.parametrize("name", ["report.html", "evaluation.html"])
@pytest.mark.parametrize("size", [PHONE, DESKTOP], ids=["phone", "desktop"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_page_has_no_errors_requests_or_poor_contrast(
    driver, assembly, name: str, size: tuple[int, int], scheme: str
):
    page = open_page(driver, assembly.output / name, size, scheme)
    assert page.complaints == []
    assert page.requests == []
    assert not page.scrolls_sideways
    assert page("document.scripts.length") == 0
    assert page(CONTRASTS) == []
    assert page("[...document.querySelectorAll('svg:not([aria-hidden])')].every(e => e.getAttribute('aria-label'))")
    assert page("document.querySelectorAll('.thumbnail img').length") > 0


@pytest.mark.parametrize("name", ["report.html", "evaluation.html"])
def test_titles_and_classes_are_shown_as_text(driver, assembly, name: str):
    page = open_page(driver, assembly.output / name)
    text = page("document.body.textContent")
    for shown in (HOSTILE, *CLASSES):
        assert shown in text
    assert ("broken<script>.mp4" in text) == (name == "report.html")
    assert page("document.querySelectorAll('main img:not(.thumbnail > img), main b').length") == 0
    assert page("document.title").startswith("prelabel")


def test_the_first_tab_stop_leads_to_the_content(driver, assembly):
    from selenium.webdriver.common.keys import Keys

    page = open_page(driver, assembly.output / "report.html")
    driver.switch_to.active_element.send_keys(Keys.TAB)
    assert page("document.activeElement.getAttribute('href')") == "#content"


def test_dark_is_dark(driver, assembly):
    grounds = []
    for scheme in ("light", "dark"):
        page = open_page(driver, assembly.output / "report.html", scheme=scheme)
        grounds.append(page("getComputedStyle(document.body).backgroundColor"))
    assert grounds == ["rgb(246, 247, 249)", "rgb(16, 19, 23)"]


def test_the_page_of_a_run_says_what_its_report_says(assembly):
    report = RunReport.read(assembly.output / "report.json")
    page = page_of(assembly, report)
    assert page.state == "1 failed"
    assert {bar.name: bar.value for bar in page.classes} == {"thing": 36, "<b>bold</b>": 36}
    figures = {tile.name: tile.value for tile in page.figures}
    names = ("tasks done", "to look at", "boxes", "confidence", "frames inferred")
    assert [figures[name] for name in names] == ["2", "1", "72", "0.62", "36"]
    assert max(page.steps, key=lambda step: step.share).name == report.limit
    first = next(view for view in page.tasks if view.task.title.startswith("<img"))
    assert first.facts == "96 x 64 · 1.2 s · 25 frames/s · 30 frames"
    assert first.timeline is not None
    assert first.timeline.most == 2
    assert first.timeline.description == "2.0 to 2.0 boxes a frame, mean confidence 0.62 to 0.62."
    assert [len(shown.outlines) for shown in first.thumbnails] == [2, 2, 2, 2]


def test_a_report_is_read_as_it_was_written(assembly, tmp_path: Path):
    report = RunReport.read(assembly.output / "report.json")
    report.write(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == (assembly.output / "report.json").read_text()


def test_a_report_of_another_version_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="there is no report yet"):
        RunReport.read(tmp_path / "none.json")
    (tmp_path / "other.json").write_text('{"tasks": 3}')
    with pytest.raises(ConfigError, match=r"other\.json: is not a report of this version"):
        RunReport.read(tmp_path / "other.json")


def test_a_task_without_stored_results_is_shown_without_thumbnails(assembly):
    report = RunReport.read(assembly.output / "report.json")
    raws = [path for path in assembly.output.glob("*.parquet")]
    kept = {path: path.read_bytes() for path in raws}
    try:
        for path in raws:
            path.unlink()
        assert all(view.timeline is None and view.thumbnails == () for view in page_of(assembly, report).tasks)
    finally:
        for path, content in kept.items():
            path.write_bytes(content)


def test_a_task_whose_media_are_gone_is_shown_without_thumbnails_but_with_its_chart(assembly):
    report = RunReport.read(assembly.output / "report.json")
    media = assembly.config.source.path
    away = media.rename(media.with_name("away"))
    try:
        views = page_of(assembly, report).tasks
    finally:
        away.rename(media)
    assert [len(view.thumbnails) for view in views] == [0, 0, 0]
    assert [view.timeline is not None for view in views] == [False, True, True]
