"""The report in a real browser, opened from a file."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import Select, WebDriverWait

from unlearn.reporting.pages.results_page import write_report
from unlearn.reporting.tables.frames import prepare_rows
from unlearn.reporting.tables.summary import summarize_methods, summarize_metrics
from unlearn.storage.results_store import ResultsStore

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    BROWSER is None or DRIVER is None, reason="no chromium or no chromedriver"
)
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking")
PHONE = {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True}
CELL = '[data-map="{}"] [data-corruption="{}"][data-rate="{}"]'


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    profile = tmp_path_factory.mktemp("profile")
    for flag in (*FLAGS, "--no-first-run", "--window-size=1400,1000", f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def path(store: ResultsStore) -> Path:
    return write_report(store, store.load(), store.root.parent / "reports" / "report.html")


@pytest.fixture
def page(browser: webdriver.Chrome, path: Path) -> Iterator[webdriver.Chrome]:
    browser.get("about:blank")
    browser.get(path.as_uri())
    yield browser
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert browser.get_log("browser") == []


def cell(page: webdriver.Chrome, which: str, corruption: int, rate: int) -> WebElement:
    return page.find_element(By.CSS_SELECTOR, CELL.format(which, corruption, rate))


def choose(page: webdriver.Chrome, control: str, text: str) -> None:
    Select(page.find_element(By.ID, control)).select_by_visible_text(text)


def text(page: webdriver.Chrome, css: str) -> str:
    return page.find_element(By.CSS_SELECTOR, css).text


def soon(page: webdriver.Chrome, holds: Callable[[], bool]) -> None:
    """Wait for what the page does on an event, which the browser delivers after the call."""
    late = [StaleElementReferenceException]
    WebDriverWait(page, 10, 0.02, ignored_exceptions=late).until(lambda _: holds())


def look(page: webdriver.Chrome, scheme: str) -> str:
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    return page.find_element(By.TAG_NAME, "body").value_of_css_property("background-color")


def test_the_maps_show_the_means_of_the_frame(page: webdriver.Chrome, store: ResultsStore):
    frame = prepare_rows(store.load())
    choose(page, "metric", "healed")
    choose(page, "a", "etd")
    choose(page, "b", "rem")
    means = frame.groupby(["method", "corruption", "discovery"])["healed"].mean()
    for which, method in (("a", "etd"), ("b", "rem")):
        for c, corruption in enumerate(("poison", "random_label")):
            for r, rate in enumerate((0.1, 0.5)):
                assert cell(page, which, c, r).text == f"{means[method, corruption, rate]:.2f}"
    difference = means["etd", "poison", 0.5] - means["rem", "poison", 0.5]
    assert cell(page, "difference", 0, 1).text == f"{difference:+.2f}".replace("-", "−")
    page.find_element(By.ID, "swap").click()
    assert cell(page, "difference", 0, 1).text == f"{-difference:+.2f}".replace("-", "−")
    choose(page, "metric", "seconds")
    assert cell(page, "a", 0, 0).text == "2.00" and "lower is better" in text(page, "#legend")


def test_collapsed_failed_missing_and_unknown_cells_are_marked(page: webdriver.Chrome):
    collapsed, failed, missing = (cell(page, "b", *at) for at in ((1, 1), (1, 0), (0, 1)))
    healed = (0.75 - 0.2 + 0.5 / 9) * 0.91
    assert collapsed.text.split() == [f"{healed / 2:.2f}", "▼1"]  # the other seed counts as 0
    assert "1 collapsed" in str(collapsed.get_attribute("aria-label"))
    assert failed.text.split()[1] == "✕1"
    assert "3 runs, 1 failed" in str(failed.get_attribute("aria-label"))
    assert missing.text == "–" and missing.get_attribute("class") == "missing"
    assert str(missing.get_attribute("aria-label")).endswith("no runs")
    for words in ("no runs", "▼ collapsed, counted as 0", "✕ failed, excluded"):
        assert words in text(page, "#legend")
    choose(page, "metric", "hidden / accuracy")
    assert cell(page, "a", 0, 1).get_attribute("class") == "blank"
    assert cell(page, "b", 1, 1).text.split() == ["–", "▼1"]
    assert "Failed runs" in text(page, "#broken") and "KeyError: 'x'" in text(page, "#broken")


def test_the_table_is_that_of_the_summary_and_sorts(page: webdriver.Chrome, store: ResultsStore):
    def shown() -> list[list[str]]:
        rows = page.find_elements(By.CSS_SELECTOR, "#summary tbody tr")
        return [[c.text for c in row.find_elements(By.CSS_SELECTOR, "th span, td")] for row in rows]

    frame = prepare_rows(store.load())
    table, worst = (
        summarize_metrics(frame).set_index("method"),
        summarize_methods(frame).set_index("method")["worst"],
    )
    rows = shown()
    assert [row[0] for row in rows] == ["rem", "npo", "etd"]
    for name, product, healed, _, _, lowest, *_ in rows:
        for value, key in ((product, "healed_utility"), (healed, "healed")):
            at = table.loc[name]
            assert value == f"{at[key]:.3f} ± {at[f'{key}_sem']:.3f}"
        assert lowest == f"{worst[name]:.3f}"
    assert [row[-3:] for row in rows] == [["8", "0", "0"], ["7", "1", "1"], ["8", "0", "0"]]
    page.find_element(By.CSS_SELECTOR, '[data-column="method"]').click()
    assert [row[0] for row in shown()] == ["etd", "npo", "rem"]
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert [row[0] for row in shown()] == ["rem", "npo", "etd"]
    assert text(page, "[aria-sort=descending]") == "method"
    page.find_element(By.CSS_SELECTOR, '[data-choose="a2"]').click()
    assert text(page, ".card h2").split() == ["A", "etd"]


def test_a_click_opens_the_runs_of_a_cell(page: webdriver.Chrome, path: Path):
    cell(page, "a", 0, 1).click()
    assert text(page, "#runs h2") == "Runs: poison, discovery rate 0.5"
    table = text(page, "#runs .list")
    healed = 0.95 - 0.1 + 0.5 / 9
    assert "seed 0 seed 1 mean ± SE" in table and "status ok ok" in table
    assert f"healed {healed:.3f} {healed + 0.01:.3f} {healed + 0.005:.3f} ± 0.005" in table
    assert "seconds 1.50 2.50 2.00 ± 0.50" in table and "peak bytes 2.00M 2.00M" in table
    assert len(page.find_elements(By.CSS_SELECTOR, "#runs figure")) == 2
    lines = page.find_elements(By.CSS_SELECTOR, "#runs figure path")
    labels = {line.get_attribute("aria-label") for line in lines}
    views = ("train", "base", "full")
    assert labels == {f"{view}, seed {seed}" for view in views for seed in (0, 1)}
    assert text(page, "#runs code") == (
        "python unlearn.py method=rem corruption=poison discovery=0.5"
    )
    links = {str(a.get_attribute("href")) for a in page.find_elements(By.CSS_SELECTOR, "#runs a")}
    folder = path.parent.parent / "results here" / "run-rem-poison-0-5-0"
    for name in ("model.pt", ".hydra/config.yaml", "curves/metrics.csv"):
        assert (folder / name).exists() and (folder / name).as_uri() in links


def test_a_difference_opens_both_methods_and_their_configs(page: webdriver.Chrome):
    cell(page, "difference", 0, 0).click()
    titles = [h.text for h in page.find_elements(By.CSS_SELECTOR, "#runs .card > h3:first-child")]
    assert titles == ["rem", "Learning curves", "npo", "Learning curves"]
    assert "method.lr 0.75 0.95" in text(page, "#runs details")
    choose(page, "b", "etd")
    cell(page, "b", 0, 1).click()
    assert "Run at discovery rate 0.1" in text(page, "#runs")


def test_a_run_without_a_model_has_no_link_to_it(
    browser: webdriver.Chrome, tmp_path: Path, write_run: Callable[..., Path]
):
    store = ResultsStore(tmp_path / "results")
    (write_run(store, "rem", "poison", 0.5, 0) / "model.pt").unlink()
    browser.get(write_report(store, store.load(), tmp_path / "report.html").as_uri())
    cell(browser, "a", 0, 0).click()
    links = browser.find_elements(By.CSS_SELECTOR, "#runs a")
    assert [a.text for a in links] == ["folder", "config", "curves"]
    assert cell(browser, "difference", 0, 0).text == "0.00"  # of one method with itself


def test_the_keyboard_reaches_every_cell(page: webdriver.Chrome):
    def stops() -> list[WebElement]:
        return page.find_elements(By.CSS_SELECTOR, '[data-map="a"] td[tabindex="0"]')

    def here() -> tuple[str | None, str | None]:
        at = page.switch_to.active_element
        return at.get_attribute("data-corruption"), at.get_attribute("data-rate")

    page.execute_script("document.getElementById('b').focus()")
    page.switch_to.active_element.send_keys(Keys.TAB)
    assert here() == ("0", "0")
    for key, at in (
        (Keys.ARROW_RIGHT, ("0", "1")), (Keys.ARROW_RIGHT, ("0", "1")), (Keys.ARROW_DOWN, ("1", "1")),
        (Keys.HOME, ("1", "0")), (Keys.ARROW_UP, ("0", "0")), (Keys.END, ("0", "1")),
        (Keys.ARROW_LEFT, ("0", "0")), (Keys.ARROW_DOWN, ("1", "0")),
    ):  # fmt: skip
        page.switch_to.active_element.send_keys(key)
        assert here() == at and len(stops()) == 1
    page.switch_to.active_element.send_keys(Keys.ENTER)
    assert page.switch_to.active_element.text == "Runs: random label, discovery rate 0.1"
    page.switch_to.active_element.send_keys(Keys.ESCAPE)
    assert here() == ("1", "0") and not page.find_element(By.ID, "runs").is_displayed()
    page.switch_to.active_element.send_keys(Keys.SPACE)
    assert page.find_element(By.ID, "runs").is_displayed()
    grid = page.find_element(By.CSS_SELECTOR, '[data-map="a"]')
    assert grid.get_attribute("role") == "grid"
    assert grid.get_attribute("aria-label") == "rem: healed x utility"


def test_the_address_remembers_what_is_shown(page: webdriver.Chrome, path: Path):
    choose(page, "metric", "utility")
    choose(page, "a", "npo")
    cell(page, "difference", 1, 0).click()
    link = page.current_url
    assert "metric=utility&a=npo&b=npo&cell=difference&corruption=random_label&rate=0.1" in link
    page.get("about:blank")
    page.get(link)
    assert Select(page.find_element(By.ID, "a")).first_selected_option.text == "npo"
    assert text(page, "#runs h2") == "Runs: random label, discovery rate 0.1"
    assert cell(page, "difference", 1, 0).get_attribute("aria-selected") == "true"
    page.execute_script("location.hash = 'metric=healed&a=rem&b=gone&cell=a&corruption=x&rate=9'")
    metric = Select(page.find_element(By.ID, "metric"))
    soon(page, lambda: metric.first_selected_option.text == "healed")
    assert text(page, ".card h2").split() == ["A", "rem"]
    assert not page.find_element(By.ID, "runs").is_displayed()


def test_dark_and_light(page: webdriver.Chrome):
    light, dark = look(page, "light"), look(page, "dark")
    assert light == "rgba(246, 246, 244, 1)" and dark == "rgba(19, 20, 22, 1)"
    toggle = page.find_element(By.ID, "theme")
    soon(page, lambda: toggle.get_attribute("aria-pressed") == "true")
    toggle.click()
    assert look(page, "dark") == light and toggle.get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("many", [False, True])
def test_a_phone_never_scrolls_sideways(
    page: webdriver.Chrome, tmp_path: Path, many: bool, write_run: Callable[..., Path]
):
    if many:
        store = ResultsStore(tmp_path / "results")
        for rate in range(1, 11):
            write_run(store, "rem", "interclass_confusion", rate / 10, 0)
        page.get(write_report(store, store.load(), tmp_path / "report.html").as_uri())
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", PHONE)
    page.execute_script(
        "openCell('difference', 0, 0); document.querySelector('#common').open = true"
    )
    wide = "return [document.documentElement.scrollWidth, innerWidth]"
    assert page.execute_script(wide) == [390, 390]
    inner = (
        "const b = document.querySelector('.card .scroll'); return b.scrollWidth > b.clientWidth"
    )
    assert page.execute_script(inner) is many  # ten columns scroll inside their own box


def test_names_and_reasons_are_never_run(
    browser: webdriver.Chrome, tmp_path: Path, evil: str, write_run: Callable[..., Path]
):
    store = ResultsStore(tmp_path / "results")
    names = dict.fromkeys(("dataset", "corruption", "model", "method"), evil)
    metrics = {"healed": 0.5, "utility": 0.5, "healed_utility": 0.25, f"failed/{evil}": evil}
    own = {"status": "failed", "reason": evil, "metrics": metrics, "revision": evil}
    folder = write_run(store, "rem", "poison", 0.5, 0, names=names, **own)
    (folder / ".hydra" / "overrides.yaml").write_text(f"- method={evil!r}\n")
    browser.get(write_report(store, store.load(), tmp_path / "report.html").as_uri())
    cell(browser, "difference", 0, 0).click()
    assert browser.execute_script("return window.hacked") is None
    assert browser.find_elements(By.CSS_SELECTOR, "img, body script:not([type])")[1:] == []
    assert text(browser, ".card h2").endswith(evil) and evil in text(browser, "#runs .list")
    assert browser.get_log("browser") == []
