"""Debian's Chromium without a screen, as tests and pictures of the console use it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from millrace.errors import MillraceError
from tests.processes import PATIENCE_S

ROOT = Path(__file__).resolve().parents[1]
# ``make browser`` puts it there.
AXE = Path(os.environ.get("MILLRACE_AXE") or ROOT / ".venv" / "axe" / "package" / "axe.min.js")
DESKTOP, PHONE = (1280, 860), (390, 844)
SERIOUS = frozenset({"serious", "critical"})
# No sandbox: tests run as root in containers, on pages of ours only.
_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")


class Browser:
    """One window."""

    def __init__(self, driver: webdriver.Chrome, address: str) -> None:
        self.driver = driver
        self._address = address

    def shape(self, size: tuple[int, int], dark: bool = False) -> None:
        """How large the window is, and which colours its owner likes."""
        metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size == PHONE}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        liked = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [liked]})

    def open(self, path: str) -> None:
        """Go to a page of the gateway."""
        self.driver.get(f"http://{self._address}{path}")

    def all(self, selector: str) -> list[WebElement]:
        """What a CSS selector finds."""
        found: list[WebElement] = self.driver.find_elements(By.CSS_SELECTOR, selector)
        return found

    def one(self, selector: str) -> WebElement:
        """The first that a CSS selector finds, waited for."""
        found: WebElement = self.until(lambda: next(iter(self.all(selector)), None))
        return found

    def text(self, selector: str) -> str:
        """What a person reads there."""
        return str(self.run("return document.querySelector(arguments[0])?.innerText ?? ''", selector))

    def until(self, condition: Callable[[], Any]) -> Any:
        """The first true answer of a condition."""
        return WebDriverWait(self.driver, PATIENCE_S, 0.05).until(lambda _: condition())

    def press(self, *keys: str) -> None:
        """Keys, wherever the focus is."""
        for key in keys:
            self.driver.switch_to.active_element.send_keys(key)

    def tab_to(self, label: str) -> None:
        """Go by keyboard past the navigation, to what is called so by its text; fails where no tab leads."""
        self.run("document.activeElement.blur()")
        self.press(Keys.TAB)
        assert self.run("return document.activeElement.className") == "skip", "the first tab leads past the navigation"
        self.press(Keys.ENTER)
        for _ in range(60):
            self.press(Keys.TAB)
            if self.focused() == label:
                return
        raise AssertionError(f"no tab leads to {label!r}")

    def focused(self) -> str:
        """The text of what has the focus."""
        return " ".join(str(self.run("return document.activeElement.textContent")).split())

    def count(self, selector: str) -> int:
        """How many elements a CSS selector finds."""
        return int(self.run("return document.querySelectorAll(arguments[0]).length", selector))

    def run(self, script: str, *given: Any) -> Any:
        """What a script answers."""
        return self.driver.execute_script(script, *given)

    def problems(self) -> list[str]:
        """What the browser has logged as an error since the last time."""
        entries = self.driver.get_log("browser")  # type: ignore[no-untyped-call]
        return [entry["message"] for entry in entries if entry["level"] == "SEVERE"]

    def inaccessible(self) -> list[str]:
        """What axe finds on the page that is serious, with its place."""
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1];"
            "axe.run({resultTypes: ['violations']}).then((found) => done(JSON.stringify(found.violations)))"
        )
        return [
            f"{rule['id']}: {rule['help']}: {node['html'][:160]} {node['failureSummary'][:200]}"
            for rule in json.loads(found)
            if rule["impact"] in SERIOUS
            for node in rule["nodes"]
        ]

    def too_wide(self) -> bool:
        """Whether the page has to be moved sideways."""
        return bool(self.run("return document.documentElement.scrollWidth > document.documentElement.clientWidth"))

    def picture(self, path: Path) -> None:
        """What the window shows, as PNG."""
        self.driver.save_screenshot(str(path))


@contextmanager
def browser(address: str) -> Iterator[Browser]:
    """A window for the pages at an address (host:port)."""
    options = webdriver.ChromeOptions()
    options.binary_location = _tool("chromium")
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(_tool("chromedriver")))
    try:
        driver.set_script_timeout(PATIENCE_S)
        yield Browser(driver, address)
    finally:
        driver.quit()


def _tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise MillraceError(f"no {name} on this machine: `make browser` installs it")
    return found
