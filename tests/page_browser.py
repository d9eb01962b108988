"""Chromium without a window for the tests of pages: keeps what a page asked for and complained about.

Pictures go to the folder that `EZ_ARTIFACTS` names, `build/artifacts` by default.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.support.ui import WebDriverWait

ARTIFACTS = Path(os.environ.get("EZ_ARTIFACTS") or Path(__file__).resolve().parents[1] / "build" / "artifacts")
SECONDS = 30
WIDE, NARROW = (1000, 800), (360, 740)
# The least ratio of luminances for text that is not large (WCAG 2.2, 1.4.3).
LEAST_CONTRAST = 4.5
_ARGUMENTS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking"),
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
)
# Every visible text with its contrast, by the formulas of WCAG 2.2: relative luminance and contrast ratio.
_CONTRASTS = """
const rgba = (text) => text.match(/[\\d.]+/g).map(Number);
const luminance = ([r, g, b]) => [r, g, b].map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92
  : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const over = (top, below) => { const a = top[3] ?? 1; return [0, 1, 2].map((i) => a * top[i] + (1 - a) * below[i]); };
const canvas = matchMedia("(prefers-color-scheme: dark)").matches ? [18, 18, 18] : [255, 255, 255];
const ground = (element) => element ? over(rgba(getComputedStyle(element).backgroundColor),
  ground(element.parentElement)) : canvas;
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || element.value;
  if (!own || !element.checkVisibility() || element.disabled || element.tagName === "PROGRESS") continue;
  const below = ground(element), ink = over(rgba(getComputedStyle(element).color), below);
  const [low, high] = [luminance(below), luminance(ink)].sort((a, b) => a - b);
  found.push([element.textContent.trim().slice(0, 40) || element.id, (high + 0.05) / (low + 0.05)]);
}
return found;
"""


class Browser:
    """One window; see `webdriver.Chrome` for `driver`.

    Raises:
        LookupError: Chromium or its driver is missing.
    """

    def __init__(self) -> None:
        program, driver = shutil.which("chromium"), shutil.which("chromedriver")
        if not program or not driver:
            raise LookupError("chromium and chromedriver are not installed: sh scripts/debian.sh")
        options = webdriver.ChromeOptions()
        options.binary_location = program
        for argument in _ARGUMENTS:
            options.add_argument(argument)
        options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
        self.driver = webdriver.Chrome(options, webdriver.ChromeService(driver))

    def open(self, address: str, size: tuple[int, int] = WIDE, scheme: str = "light") -> None:
        """Opens a page in a window of a size, for a reader who wants it light or dark; earlier records are dropped."""
        self.resize(size)
        media = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
        self.addresses(), self.complaints()
        self.driver.get(address)

    def resize(self, size: tuple[int, int]) -> None:
        """Makes the window as large as a screen of this size."""
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)

    def wait(self, condition: Any) -> Any:
        """Returns the first true value of a function of the driver."""
        return WebDriverWait(self.driver, SECONDS).until(condition)

    def run(self, script: str) -> Any:
        """Returns what a script returns."""
        return self.driver.execute_script(script)

    def addresses(self) -> list[str]:
        """Addresses that were asked for since the last call; pictures a page made itself are none."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [
            event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"
        ]
        return [address for address in asked if not address.startswith(("blob:", "data:"))]

    def complaints(self) -> list[str]:
        """Warnings and errors in the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("WARNING", "SEVERE")]

    def faint(self) -> list[str]:
        """Visible texts whose contrast is less than `LEAST_CONTRAST`."""
        found = self.run(_CONTRASTS)
        assert found, "the page shows no text"
        return [f"{text}: {ratio:.2f}" for text, ratio in found if ratio < LEAST_CONTRAST]

    def overflows(self) -> bool:
        """Whether the page is wider than the window."""
        return self.run("return document.documentElement.scrollWidth > window.innerWidth")

    def keep(self, name: str) -> Path:
        """Keeps a picture of the whole page, also of what is below the window."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path = ARTIFACTS / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
