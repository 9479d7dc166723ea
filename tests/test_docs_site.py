"""The docs site: both tools build it without a warning, and its lists are complete."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import prelabel
from docs.make_cli_page import PAGE, make_page

ROOT = Path(__file__).parents[1]


def pages_in_menu() -> list[str]:
    """Returns the pages of the site, in the menu's order."""
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    groups = [entry if isinstance(entry, list) else [{"": entry}] for part in menu for entry in part.values()]
    return [page for group in groups for titled in group for page in titled.values()]


@pytest.mark.slow
@pytest.mark.parametrize("tool", ["zensical", "mkdocs"])
def test_the_site_builds_without_a_warning(tool: str, tmp_path: Path):
    """A missing page or heading behind a link is a warning; Zensical reports both, and so does MkDocs."""
    for name in ("docs", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "mkdocs.yml", tmp_path)
    built = subprocess.run(
        [sys.executable, "-m", tool, "build", "--strict"],
        cwd=tmp_path,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stdout
    site = tmp_path / "site"
    pages = {str(page.relative_to(site)): page.read_text() for page in site.rglob("*.html")}
    assert (site / "notebooks" / "end_to_end" / "end_to_end_8_0.jpg").exists()
    assert pages.keys() >= {page.replace(".md", ".html") for page in pages_in_menu()}
    assert 'id="prelabel.Detections"' in pages["api.html"]
    assert "use: own_detector.py:StandingOut" in re.sub("<.*?>", "", pages["examples.html"])
    fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="?(https?:[^"> ]*)', "".join(pages.values()))
    assert not fetched, "a page must need no network"


def test_the_menu_has_every_page():
    docs = ROOT / "docs"
    assert sorted(pages_in_menu()) == sorted(str(page.relative_to(docs)) for page in docs.rglob("*.md"))


def test_llms_txt_has_every_page_in_the_menu_s_order():
    listed = re.findall(r"^- \[.*?\]\((.*?)\): .", (ROOT / "docs" / "llms.txt").read_text(), re.MULTILINE)
    assert listed == pages_in_menu()


def test_the_python_page_has_every_public_name():
    shown = re.findall(r"^::: prelabel\.([A-Z]\w*)$", (ROOT / "docs" / "api.md").read_text(), re.MULTILINE)
    assert sorted(shown) == sorted(prelabel.__all__)


def test_the_examples_page_has_every_config():
    included = re.findall(r'^--8<-- "configs/(.*)"$', (ROOT / "docs" / "examples.md").read_text(), re.MULTILINE)
    assert sorted(included) == sorted(path.name for path in (ROOT / "configs").iterdir() if path.is_file())


def test_the_page_of_commands_is_made_from_their_help():
    assert PAGE.read_text(encoding="utf-8") == make_page(), "run: python docs/make_cli_page.py"
