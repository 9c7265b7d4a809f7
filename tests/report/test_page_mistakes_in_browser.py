"""Mistakes in Chromium: another run is chosen, a doubtful label leads to its row, its parts are usable."""

import pytest

from benchmarks.page_runs import write_sample_run
from nexttoken.report.page.page_file import write_page
from support.browser import CHROMIUM, DRIVER, opened_browser

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="needs Debian's packages chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def browser():
    with opened_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lmsys"
    for seed, (name, skill) in enumerate({"better": 1.6, "poor": 0.8}.items()):
        write_sample_run(folder / name, "task=lmsys", skill=skill, seed=seed, num_folds=2)
    return write_page(folder, folder / "page.html", folder / "ledger.csv").path


def test_the_chosen_run_alone_is_shown(browser, page):
    browser.show(page)
    shown = "#c1-mistakes [data-panel] > h4:first-child"
    assert browser.texts(shown) == ["Classes: better"]
    browser.element("#c1-mistakes select").send_keys("poor")
    assert browser.texts(shown) == ["Classes: poor"]
    assert browser.complaints() == []


def test_a_doubtful_label_leads_to_its_row(browser, page):
    browser.show(page)
    browser.run("document.querySelectorAll('#c1-mistakes details').forEach((one) => { one.open = true; })")
    link = browser.element("#c1-mistakes a[href*='-row-']")
    name = link.text
    link.click()
    browser.wait(lambda: browser.element("#c1-rows h4").text == f"Row {name}")


@pytest.mark.parametrize("width", [360, 1440])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_grave_in_its_open_parts(browser, page, width, theme):
    browser.show(page, width, theme)
    browser.run("document.querySelectorAll('#c1-mistakes details').forEach((one) => { one.open = true; })")
    assert browser.grave_findings() == []
    assert browser.overflow <= 0
