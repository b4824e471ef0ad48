"""The page in a real headless Chromium: charts draw, legends toggle, nothing leaves the page."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="no selenium")
CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(
        not (CHROMIUM and DRIVER), reason="no chromium (apt: chromium chromium-driver)"
    ),
    pytest.mark.long,
]

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    "--window-size=1200,900",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def load(browser: Any, report: Path, *, dark: bool = False, width: int = 1200) -> None:
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    browser.get((report / "report.html").as_uri())
    deadline = time.monotonic() + 60
    while browser.execute_script("return document.documentElement.dataset.drawn") is None:
        assert time.monotonic() < deadline, "charts are not drawn"
        time.sleep(0.05)


def style(browser: Any, selector: str, name: str) -> str:
    script = "return getComputedStyle(document.querySelector(arguments[0]))[arguments[1]]"
    return str(browser.execute_script(script, selector, name))


def test_every_chart_draws_without_an_error_or_a_request(browser: Any, report: Path) -> None:
    browser.get("about:blank")
    for kind in ("browser", "performance"):
        browser.get_log(kind)  # what the first tab did
    load(browser, report)
    marks = browser.execute_script(
        "return [...document.querySelectorAll('[data-chart]')].map((e) => [e.dataset.chart,"
        " e.querySelectorAll('svg .mark-line path, svg .mark-rect path, svg .mark-symbol path')"
        ".length])"
    )
    assert len(marks) > 20
    assert all(number > 0 for _, number in marks), marks
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = {
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    }
    assert {url for url in urls if not url.startswith(("file:", "data:"))} == set()
    assert (report / "report.html").as_uri() in urls


def test_a_click_in_a_legend_hides_the_series_in_all_charts(browser: Any, report: Path) -> None:
    load(browser, report)
    count = "return document.querySelectorAll('[data-chart] .mark-line path').length"
    bars = "return document.querySelectorAll('#s1-domains .mark-rect path').length"
    lines, rects = browser.execute_script(count), browser.execute_script(bars)
    button = "#s1-rounds button[data-series='fedhpro']"
    browser.find_element("css selector", button).click()
    time.sleep(0.5)
    hidden = lines - browser.execute_script(count)
    assert hidden == 5 + 2 + 1 + 2 + 1  # rounds, bytes and seconds, diagnostics, losses, scores
    assert rects - browser.execute_script(bars) == 5
    assert float(style(browser, button, "opacity")) < 1
    twins = browser.find_elements("css selector", "button[data-series='fedhpro']")
    assert {twin.get_attribute("aria-pressed") for twin in twins} == {"false"}
    twins[-1].send_keys("\ue007")  # Enter: the keyboard does it too
    time.sleep(0.5)
    assert browser.execute_script(count) == lines
    assert style(browser, button, "opacity") == "1"


def test_light_and_dark_differ_in_page_and_charts(browser: Any, report: Path) -> None:
    found = []
    for dark in (False, True):
        load(browser, report, dark=dark)
        found.append(
            [
                style(browser, "body", "backgroundColor"),
                style(browser, "body", "color"),
                style(browser, "[data-chart] .role-axis-label text", "fill"),
                style(browser, "[data-chart] .mark-line path", "stroke"),
            ]
        )
    light, dark = found
    assert light[0] == "rgb(255, 255, 255)"
    assert all(a != b for a, b in zip(light, dark, strict=True))


def test_a_phone_needs_no_sideways_scrolling(browser: Any, report: Path) -> None:
    load(browser, report, width=360)
    width, inner = browser.execute_script(
        "return [document.documentElement.scrollWidth, innerWidth]"
    )
    assert width <= inner
    wide = browser.execute_script(
        "return [...document.querySelectorAll('[data-chart] svg')]"
        ".filter((e) => e.getBoundingClientRect().right > innerWidth + 1).length"
    )
    assert wide == 0


def test_print_is_light_and_opens_what_is_folded(browser: Any, report: Path) -> None:
    load(browser, report, dark=True)
    pages = browser.execute_cdp_cmd("Page.printToPDF", {"printBackground": False})
    assert len(pages["data"]) > 100_000
    assert (
        browser.execute_script("return document.querySelectorAll('details:not([open])').length")
        == 0
    )
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert style(browser, "body", "backgroundColor") == "rgb(255, 255, 255)"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": ""})
