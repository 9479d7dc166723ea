"""A real browser without a window, for pages that a test has written."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = (360, 740), (1280, 900)
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@dataclass(frozen=True)
class OpenPage:
    """A page in the browser.

    Attributes:
        driver: selenium's.
        complaints: what the browser wrote to its console.
        requests: addresses that the page asked for, itself and inline data left out.
    """

    driver: Any
    complaints: list[str]
    requests: list[str]

    def __call__(self, script: str) -> Any:
        """Returns what an expression gives in the page."""
        return self.driver.execute_script(f"return {script.strip()}")

    @property
    def scrolls_sideways(self) -> bool:
        return self("document.documentElement.scrollWidth > document.documentElement.clientWidth")

    def picture(self, path: Path) -> None:
        """Takes a picture of the whole page."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        clip = {**size, "scale": 1}
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True, "clip": clip})
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser() -> Iterator[Any]:
    """Yields selenium's driver of a Chromium; skips where there is none."""
    from selenium import webdriver

    binary = next(filter(None, map(shutil.which, BROWSERS)), None)
    driver_path = shutil.which("chromedriver")
    if binary is None or driver_path is None:
        pytest.skip("no Chromium with chromedriver on this machine: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(driver_path))
    try:
        yield driver
    finally:
        driver.quit()


def open_page(driver: Any, path: Path, size: tuple[int, int] = DESKTOP, scheme: str = "light") -> OpenPage:
    """Opens a file in a window of this size, in a light or dark scheme."""
    width, height = size
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    preference = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", preference)
    for log in ("browser", "performance"):
        driver.get_log(log)  # what is of the page before
    address = path.resolve().as_uri()
    driver.get(address)
    complaints = [entry["message"] for entry in driver.get_log("browser")]
    events = [json.loads(entry["message"])["message"] for entry in driver.get_log("performance")]
    asked = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    return OpenPage(driver, complaints, [url for url in asked if url != address and not url.startswith("data:")])
