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

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.ui import WebDriverWait

ARTIFACTS = Path(os.environ.get("EZ_ARTIFACTS") or Path(__file__).resolve().parents[1] / "build" / "artifacts")
SECONDS = 30
WIDE, NARROW = (1000, 800), (360, 740)
# A telephone, a notebook and a large screen.
SCREENS = (390, 844), (1280, 900), (1920, 1080)
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


# Visible controls, numbered for `_REACHED`.
_CONTROLS = """
const all = document.querySelectorAll("a[href], button, input, select, textarea, summary, [tabindex='0']");
const shown = [...all].filter((control) => control.checkVisibility() && !control.disabled);
document.activeElement.blur();
shown.forEach((control, number) => { control.dataset.number = number; });
return shown.map((control) => control.outerHTML.slice(0, 80));
"""
# The number of what has the focus, and whether an outline shows it.
_REACHED = """
const focus = document.activeElement, shown = getComputedStyle(focus).outlineStyle !== "none";
return [focus.dataset.number === undefined ? -1 : Number(focus.dataset.number), shown];
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
        """Returns the first true value of a function of the driver; a part that was replaced is asked again."""
        return WebDriverWait(self.driver, SECONDS, ignored_exceptions=[StaleElementReferenceException]).until(condition)

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

    def check_access(self, name: str) -> None:
        """Checks what is shown on `SCREENS`, light and dark, and keeps pictures of it.

        axe-core finds nothing serious (its rules are WCAG 2.1 A and AA and good practice), the page is not wider than
        the screen, and Tab reaches every control, which then has an outline.

        Args:
            name: Of the pictures.
        """
        axe = pytest.importorskip("axe_core_python.selenium", reason="axe-core-python is not installed").Axe()
        for scheme in ("light", "dark"):
            media = [{"name": "prefers-color-scheme", "value": scheme}]
            self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": media})
            for size in SCREENS if scheme == "light" else SCREENS[:1]:
                self.resize(size)
                result = axe.run(self.driver)
                assert result["passes"], "axe-core has looked at nothing"
                serious = [
                    (each["id"], [node["html"] for node in each["nodes"]])
                    for each in result["violations"]
                    if each["impact"] in ("serious", "critical")
                ]
                assert serious == [], (size, scheme)
                assert not self.overflows() and self.faint() == [], (size, scheme)
                self.keep(f"{name}-{size[0]}-{scheme}")
        controls = self.run(_CONTROLS)
        reached = dict(self._next() for _ in range(len(controls) + 1))
        assert [text for number, text in enumerate(controls) if number not in reached] == []
        assert [text for number, text in enumerate(controls) if not reached[number]] == []

    def _next(self) -> tuple[int, bool]:
        ActionChains(self.driver).send_keys(Keys.TAB).perform()
        number, shown = self.run(_REACHED)
        return number, shown

    def keep(self, name: str) -> Path:
        """Keeps a picture of the whole page, also of what is below the window."""
        ARTIFACTS.mkdir(parents=True, exist_ok=True)
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": True})
        path = ARTIFACTS / f"{name}.png"
        path.write_bytes(base64.b64decode(shot["data"]))
        return path
