"""Headless Chromium that opens a page from disk and tells what went wrong in it."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import which
from typing import Any

from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait
from selenium_axe_python import Axe

DRIVER, CHROMIUM = which("chromedriver"), which("chromium")
GRAVE = ("serious", "critical")
BUSY_SECONDS = 120  # for a script: axe took 50 s on two cores with much other work


class Browser:
    """A window of Chromium. `element` and `elements` take CSS selectors; a missing element raises."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def show(self, page: Path, width: int = 1440, theme: str = "light") -> None:
        """Open the file in a window of this width, in pixels, by a reader who prefers this theme."""
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        media = {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def element(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def elements(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def wait(self, is_there: Callable[[], bool]) -> None:
        """Wait for what the page's scripts are about to show; elements may be replaced meanwhile."""
        waiting = WebDriverWait(self.driver, BUSY_SECONDS, ignored_exceptions=[StaleElementReferenceException])
        waiting.until(lambda _: is_there())

    def texts(self, selector: str) -> list[str]:
        """The texts of the shown elements."""
        return [one.text for one in self.elements(selector) if one.is_displayed()]

    def complaints(self) -> list[str]:
        """Lines of the console since the last call: errors, warnings and blocked requests."""
        return [line["message"] for line in self.driver.get_log("browser") if line["level"] in ("WARNING", "SEVERE")]

    def requests(self) -> list[str]:
        """The addresses asked for since the last call, but those of files and of data within the page."""
        events = [json.loads(line["message"])["message"] for line in self.driver.get_log("performance")]
        asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith(("file:", "data:"))]

    def grave_findings(self) -> list[str]:
        """Serious and critical findings of axe, each with the first element."""
        axe = Axe(self.driver)
        axe.inject()
        found = [one for one in axe.run()["violations"] if one["impact"] in GRAVE]
        return [f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:200]}" for one in found]

    @property
    def overflow(self) -> int:
        """Pixels by which the page is wider than its window."""
        root = "document.documentElement"
        return self.run(f"return {root}.scrollWidth - {root}.clientWidth")

    @property
    def seconds_to_open(self) -> float:
        """From the start of reading the file to the end of its scripts and its first layout."""
        return self.run("return performance.getEntriesByType('navigation')[0].loadEventEnd") / 1000


@contextmanager
def opened_browser() -> Iterator[Browser]:
    """A browser of its own, closed at the end."""
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = Chrome(options, Service(DRIVER))
    driver.set_script_timeout(BUSY_SECONDS)
    try:
        yield Browser(driver)
    finally:
        driver.quit()
