"""The page in Chromium: it opens from disk, wide and narrow, is used by keys, and asks the network for nothing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains

from benchmarks.page_pictures import main as take_pictures
from benchmarks.page_runs import write_sample_run
from nexttoken.errors import UserError
from nexttoken.report.page.page_file import write_page
from support.browser import CHROMIUM, DRIVER, Browser, opened_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]
WIDTHS = (360, 1440)
MARKUP = "<script>alert(1)<"
NASTY = (
    "</script><script>window.harmed = 1</script>",
    "<img src=x onerror='window.harmed = 1'><a href='javascript:window.harmed = 1'>",
    "turned\u202eround\u2066 \u0007",
    "x" * 200_000,
    "<!--<script>",
)


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    """Three runs of five folds of the sample's 4,000 judgements, one of them with a name that is markup."""
    folder = tmp_path_factory.mktemp("runs") / "lmsys"
    for seed, (name, skill) in enumerate({"better": 1.6, "good": 1.25, MARKUP: 1.2}.items()):
        rate = f"fit.learning_rate={0.001 * (seed + 1)}"
        write_sample_run(folder / name, "task=lmsys", skill=skill, seed=seed, changes=(rate,))
    return write_page(folder, folder / "page.html", folder / "ledger.csv").path


@pytest.fixture(scope="module")
def open_page(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("open") / "instruct"
    for skill in (0.8, 1.6):
        rate = f"fit.learning_rate={skill / 1000}"
        write_sample_run(folder / f"skill {skill}", "task=instruct", skill=skill, num_folds=1, changes=(rate,))
    return write_page(folder, folder / "page.html", folder / "ledger.csv").path


@pytest.fixture(scope="module")
def nasty_page(tmp_path_factory) -> Path:
    """A page of rows whose texts would be markup, code, turned round, or too long."""
    folder = tmp_path_factory.mktemp("nasty")
    rows = pd.read_csv("input/sample-preferences/train.csv", dtype=str)[:90]
    for place in range(20):
        for turn, column in enumerate(("prompt", "response_a", "response_b")):
            whole = [NASTY[(place + turn) % len(NASTY)], f"row {place}"]
            rows.loc[place, column] = json.dumps(["\n".join(whole)])
    rows["id"] = rows["id"].map(lambda one: f"{one}\"'<b>%")
    rows.to_csv(folder / "train.csv", index=False)
    shutil.copy("input/sample-preferences/test.csv", folder)
    write_sample_run(folder / "runs" / "a", "task=lmsys", f"input_dir={folder}", num_folds=2)
    return write_page(folder / "runs", folder / "page.html", folder / "ledger.csv").path


@pytest.fixture
def shown(browser: Browser, page: Path) -> Browser:
    browser.show(page)
    return browser


@pytest.mark.parametrize("width", WIDTHS)
def test_it_opens_from_disk_without_a_complaint_or_a_request(browser, page, width):
    browser.show(page, width)
    assert browser.element("h1").text == "Runs of lmsys"
    assert browser.overflow <= 0
    assert browser.complaints() == []
    assert browser.requests() == []


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
def test_axe_finds_nothing_grave(browser, page, width, theme):
    browser.show(page, width, theme)
    assert browser.grave_findings() == []


def test_it_opens_within_a_second(browser, page):
    times = []
    for _ in range(3):
        browser.show(page)
        times.append(browser.seconds_to_open)
    assert page.stat().st_size < 3e6
    assert min(times) < 1


def names(browser: Browser) -> list[str]:
    return browser.texts("#c1-runs-table tbody th")


def test_runs_are_sorted_by_a_click_on_a_heading(shown):
    by_score = names(shown)
    heading = shown.element("#c1-runs-table thead th button")
    heading.click()
    ascending = names(shown)
    heading.click()
    assert ascending == sorted(by_score, key=str.lower)
    assert names(shown) == ascending[::-1]
    assert shown.element("#c1-runs-table thead th").get_attribute("aria-sort") == "descending"


def test_runs_are_filtered_by_typed_words(shown):
    assert len(names(shown)) == 3
    field = shown.element("[data-filters=c1-runs-table]")
    field.send_keys("bett")
    assert names(shown) == ["better"]
    field.send_keys("xyz")
    assert names(shown) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_open_answers_are_read_and_filtered(browser, open_page, width):
    browser.show(open_page, width)
    assert browser.overflow <= 0
    assert browser.grave_findings() == []
    assert browser.complaints() == []
    assert len(browser.texts("#o1-runs-table tbody tr")) == 2
    browser.element("[data-filters=o1-rows-table]").send_keys("comes last")
    assert all("comes last" in text for text in browser.texts("#o1-rows-table tbody tr"))
    assert browser.texts("#o1-rows-table tbody tr")


def test_two_chosen_runs_are_compared_in_a_sentence(shown):
    one, other = shown.elements("[data-compare] select")
    verdict = shown.element("#c1-runs-data-verdict")
    best, second, third = (option.text for option in one.find_elements("tag name", "option"))
    assert best == "better"
    other.send_keys(third)
    assert verdict.text.startswith(f"{best} is better than {third} by ")
    one.send_keys(third)
    assert verdict.text == "Choose two different runs."
    other.send_keys(second)
    assert second in verdict.text
    assert third in verdict.text
    assert shown.complaints() == []


def test_a_picture_of_a_part_is_small_and_as_wide_as_the_window(page, tmp_path):
    take_pictures([f"page={page}", "parts=c1-runs", f"out={tmp_path}", "width=700", "height=300"])
    with Image.open(tmp_path / "page_runs.png") as picture:
        assert picture.size == (700, 300)
    with pytest.raises(UserError, match="no such anchor"):
        take_pictures([f"page={page}", "parts=c9-runs", f"out={tmp_path}"])


def row_status(browser: Browser) -> str:
    return browser.element("#c1-rows [data-part=status]").text


def test_rows_are_walked_by_keys_and_each_has_a_link(shown):
    keys = ActionChains(shown.driver)
    first = row_status(shown)
    keys.send_keys("j").perform()
    second = row_status(shown)
    assert first.startswith("row 1 of 100: ")
    assert second.startswith("row 2 of 100: ")
    link = shown.run("return location.hash")
    assert link == f"#c1-row-{second.rpartition(' ')[2]}"
    keys.send_keys("k").perform()
    assert row_status(shown) == first
    shown.element("#c1-rows [data-step='1']").click()
    assert row_status(shown) == second
    keys.send_keys("/").send_keys("cat").perform()
    assert shown.run("return document.activeElement.dataset.choice") == "words"
    assert all("cat" in text for text in shown.texts("#c1-rows .said"))
    assert shown.complaints() == []


def test_a_link_opens_its_row_though_filters_hide_it(shown):
    best = shown.run("return readData('c1-rows-data').losses.slice(0, 2000)")
    place = best.index(min(best))
    name = shown.run("return readData('c1-rows-data').ids[arguments[0]]", place)
    shown.run("location.hash = arguments[0]", f"#c1-row-{name}")
    shown.wait(lambda: row_status(shown).endswith(name))
    assert shown.element("#c1-rows h4").text == f"Row {name}"
    assert shown.run("return document.activeElement.classList.contains('row-view')")
    assert shown.complaints() == []


def test_a_link_opens_its_row_with_the_page(browser, page):
    browser.show(page)
    for _ in range(3):
        browser.element("body").send_keys("j")
    address, fourth = browser.driver.current_url, row_status(browser).rpartition(" ")[2]
    assert "#c1-row-" in address
    browser.driver.get("about:blank")
    browser.driver.get(address)
    assert row_status(browser).endswith(f": {fourth}")
    assert fourth in browser.element("#c1-rows [data-part=view]").text


@pytest.mark.parametrize("width", WIDTHS)
def test_nasty_texts_do_nothing_but_stand_there(browser, nasty_page, width):
    browser.show(nasty_page, width)
    browser.element("#c1-rows [data-choice=view]").send_keys("all")
    for words in ("harmed = 1", "turned", "xxxxx", "img src=x"):
        field = browser.element("#c1-rows [data-choice=words]")
        field.clear()
        field.send_keys(words)
        texts = browser.element("#c1-rows [data-part=view]").text
        assert words in texts
        assert "\u202e" not in texts
        assert len(texts) < 20_000
        assert browser.overflow <= 0
    assert browser.run("return window.harmed") is None
    assert browser.run("return document.querySelectorAll('main img, main script:not([type])').length") == 0
    assert browser.overflow <= 0
    assert browser.complaints() == []
    assert browser.requests() == []
