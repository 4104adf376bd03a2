"""The site in a real browser: no message, no request, sorting, search, permalinks, colours, axe.

Skipped without Chromium or without the package playwright, which is too large to be required: `pip
install playwright` drives the system's browser. axe is that of `npm install axe-core` in the
current folder, or the file that DEBIASBENCH_TEST_AXE names.
"""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from debiasbench.leaderboard.site import write_page
from tests.leaderboard.sites import gathered, hostile, site, usual

pytest.importorskip("playwright", reason="playwright is not installed")
BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
AXE = Path(os.environ.get("DEBIASBENCH_TEST_AXE", "node_modules/axe-core/axe.min.js"))
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="Chromium is not installed"),
    # playwright's event loop leaves these when the interpreter collects it
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as drive:
        one = drive.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        yield one
        one.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pages")
    built = site(root, usual(), baseline="erm")
    write_page(gathered(root / "again", usual()), built / "one.html", baseline="erm")
    site(root / "hostile", hostile(), whole=False).rename(built / "hostile")
    return built


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[tuple[str, list[str]]]:
    """The address of the site on a server of this machine, and the paths that were requested."""
    asked: list[str] = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            asked.append(self.path)

    handler = functools.partial(Handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()
        thread.join()


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1200, "height": 900}, color_scheme="light")
    context.set_default_timeout(60_000)
    page = context.new_page()
    page.messages = []
    page.on("console", lambda message: page.messages.append(message.text))
    page.on("pageerror", lambda error: page.messages.append(str(error)))
    yield page
    context.close()


def first(folder: Path, pattern: str) -> str:
    paths = sorted(folder.glob(pattern), key=lambda path: (path.name.count("."), path.name))
    return str(paths[0].relative_to(folder))


BOARD = "d/toy-ratio-0-05-*.html"  # the one with three methods
PLACES = ["index.html", BOARD, "m/rest.html", "r/*.html", "one.html", "hostile/index.html",
          "hostile/d/*.html", "hostile/r/*.html"]  # fmt: skip


def names(tab: Any) -> list[str]:
    shown = "#board tbody tr:not(.section):not([hidden]) th[scope=row] a"
    return [a.text_content() for a in tab.query_selector_all(shown) if a.is_visible()]


@pytest.mark.parametrize("place", PLACES)
def test_a_page_says_nothing_on_the_console_and_requests_nothing(
    tab: Any, folder: Path, served: tuple[str, list[str]], place: str
) -> None:
    address, asked = served
    asked.clear()
    tab.goto(f"{address}/{first(folder, place)}")
    assert tab.messages == []
    assert len(asked) == 1  # the page itself
    assert tab.evaluate("getComputedStyle(document.querySelector('main')).maxWidth") == "1440px"


def test_rows_are_sorted_in_their_sections(tab: Any, folder: Path) -> None:
    tab.goto((folder / first(folder, BOARD)).as_uri())
    assert names(tab) == ["lff", "erm", "rest"]
    head = tab.locator("#board th[data-key=aligned]")
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert names(tab) == ["erm", "lff", "rest"]  # rest stays in its section
    head.get_by_role("button").press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert names(tab) == ["lff", "erm", "rest"]
    assert "sort=board~aligned~1" in tab.url
    head.get_by_role("button").click()
    assert head.get_attribute("aria-sort") is None
    assert "sort" not in tab.url


def test_search_hides_rows_and_what_is_shown_is_saved(tab: Any, folder: Path) -> None:
    tab.goto((folder / first(folder, BOARD)).as_uri())
    tab.get_by_label("Search").fill("Conflict bit")
    assert names(tab) == ["rest"]
    assert tab.locator("output.count").text_content() == "1 of 3 rows"
    with tab.expect_download() as download:
        tab.get_by_role("button", name="CSV").click()
    lines = Path(download.value.path()).read_text().splitlines()
    assert lines[0].startswith("section,method,unbiased %,95 % interval,rank")
    assert len(lines) == 2
    assert ",rest unverified seeds only,83.5 ± 1.4,81.8 – 85.2," in lines[1]
    assert tab.messages == []


def test_a_permalink_restores_everything_in_a_new_tab(tab: Any, folder: Path) -> None:
    start = (folder / first(folder, BOARD)).as_uri()
    state = "#rule=last&metric=conflict&sort=board~accuracy~1&q=r&theme=dark"
    tab.goto(start + state)
    tab.wait_for_url("**/*.last.conflict.html*")
    assert tab.locator("h1 + p + p").text_content().startswith("Conflict accuracy on the test")
    assert tab.locator("#board th[data-key=accuracy]").get_attribute("aria-sort") == "ascending"
    assert tab.get_by_label("Search").input_value() == "r"
    assert names(tab) == ["erm", "lff", "rest"]
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    tab.evaluate("location.hash = '#main'")  # as the link that skips to the content does
    assert tab.evaluate("document.documentElement.dataset.theme") == "dark"
    assert tab.get_by_label("Search").input_value() == "r"
    tab.goto(start + state)
    tab.wait_for_url("**/*.last.conflict.html*")
    other = tab.context.new_page()
    other.goto(tab.url)
    assert names(other) == names(tab)
    other.get_by_role("navigation", name="Metric").get_by_role("link", name="aligned").click()
    other.wait_for_url("**/*.last.aligned.html*")
    assert "theme=dark" in other.url
    assert "q=r" in other.url
    assert tab.messages == []


def test_colours_follow_the_system_and_the_switch(tab: Any, folder: Path) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    tab.goto((folder / "index.html").as_uri())
    light = tab.evaluate(ground)
    tab.get_by_label("Colours").select_option("dark")
    dark = tab.evaluate(ground)
    assert light == "rgb(255, 255, 255)"
    assert dark == "rgb(21, 23, 26)"
    tab.get_by_role("link", name="rest").first.click()
    tab.wait_for_url("**/m/rest.html*")
    assert tab.evaluate(ground) == dark  # the link took the colours along
    tab.get_by_label("Colours").select_option("")
    tab.emulate_media(color_scheme="dark")
    assert tab.evaluate(ground) == dark


@pytest.mark.parametrize("place", ["index.html", BOARD, "m/rest.html", "r/*.html", "one.html"])
def test_no_page_is_wider_than_a_phone(tab: Any, folder: Path, place: str) -> None:
    tab.set_viewport_size({"width": 390, "height": 800})
    tab.goto((folder / first(folder, place)).as_uri())
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    scrolled, width = tab.evaluate(widths)
    assert scrolled == width == 390


def test_everything_can_be_read_without_javascript(browser: Any, folder: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto((folder / first(folder, BOARD)).as_uri())
    assert names(page) == ["lff", "erm", "rest"]
    assert not page.get_by_label("Search").is_visible()  # it would do nothing
    page.get_by_role("link", name="worst group").click()
    assert ".val_unbiased.worst_group.html" in page.url
    context.close()


@pytest.mark.parametrize("colours", ["light", "dark"])
def test_axe_finds_nothing(browser: Any, folder: Path, colours: Any) -> None:
    if not AXE.is_file():
        pytest.skip("axe-core is not installed")
    context = browser.new_context(bypass_csp=True, color_scheme=colours)  # to add axe to the page
    page = context.new_page()
    page.set_default_timeout(120_000)
    for place in (
        "index.html",
        BOARD,
        "d/*.rules.html",
        "m/rest.html",
        "r/*.html",
        "one.html",
        "hostile/d/*.html",
    ):
        page.goto((folder / first(folder, place)).as_uri())
        page.evaluate(AXE.read_text())
        found = page.evaluate("(tags) => axe.run(document, {runOnly: tags})", RULES)
        violations = [(v["id"], v["nodes"][0]["html"]) for v in found["violations"]]
        assert violations == [], place
    context.close()
