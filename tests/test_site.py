"""The site as a reader meets it: every page in a real browser, narrow, wide and dark.

Each page is opened once; what was seen is kept, and one test asks one question of it.
What needs no browser is tested in test_site_files.py.
"""

from __future__ import annotations

import json
from functools import cache

import pytest
from site_helpers import (
    EXTRA,
    NO_NETWORK,
    ROOT,
    NoBrowser,
    Reader,
    Visit,
    documents,
    find_chromium,
    launch_arguments,
    notebooks,
    published,
    settle,
    watch,
)
from site_visit import DESKS, PLAIN, UNRENDERED, Seen, look_at, violations

PAGES = [*documents(), *EXTRA]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api")
    try:
        executable = find_chromium()
    except NoBrowser as error:
        pytest.skip(str(error))
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(
            executable_path=executable, args=[*launch_arguments(), NO_NETWORK]
        )
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def address(site) -> str:
    with published(site.html) as root:
        yield root


@pytest.fixture(scope="module")
def phone(browser, address) -> Reader:
    return Reader(browser, address, width=390, scheme="light")


@pytest.fixture(scope="module")
def desk(browser, address) -> Reader:
    return Reader(browser, address, width=1280, scheme="dark")


@pytest.fixture(scope="module")
def axe() -> str:
    return (ROOT / "tests/vendor/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def seen(phone, axe):
    """Return a function that opens a page and remembers what it saw."""
    return cache(lambda name: look_at(phone, axe, name))


class Page:
    """One visit to a page, and what must be true of it; each page has a class.

    Tests of one class run in one process, so that the processes share the pages.
    """

    name: str

    @pytest.fixture
    def saw(self, seen) -> Seen:
        return seen(self.name)

    def test_nothing_is_asked_of_anybody_else(self, saw):
        assert saw.outside == []

    def test_nothing_is_missing(self, saw):
        assert saw.missing == []
        assert saw.broken_images == []

    def test_the_console_is_silent(self, saw):
        assert saw.complaints == []

    def test_mathematics_is_rendered(self, saw):
        assert saw.unrendered == []

    def test_it_does_not_scroll_sideways_on_a_phone(self, saw):
        assert saw.sideways <= 0
        assert saw.sideways_unfolded <= 0, "only when all is unfolded"

    def test_no_formula_is_cut_off(self, saw):
        assert saw.wide_formulas_at_a_desk == {width: [] for width in DESKS}
        lost = [
            f["formula"]
            for f in saw.wide_formulas
            if not (f["scrolls"] and f["shaded"] and f["reached"])
        ]
        assert lost == [], "on a phone"

    def test_a_wide_table_keeps_its_first_column_in_view(self, saw):
        lost = [
            t["table"]
            for t in saw.wide_tables
            if not (t["kept"] and t["narrow"] and t["shaded"])
        ]
        assert lost == []

    def test_it_is_accessible(self, saw):
        assert saw.violations == []
        assert saw.double_ids == []

    def test_it_has_contrast_in_the_dark(self, saw):
        assert saw.violations_dark == []

    def test_code_has_contrast_in_both_themes(self, saw):
        assert saw.faint_code == {}
        assert saw.faint_code_dark == {}


class NotebookPage(Page):
    """What only chapters have."""

    def test_every_cell_of_code_can_be_copied(self, saw):
        assert saw.bare_cells == []

    def test_solutions_are_folded_and_open_with_a_click(self, saw):
        cells = json.loads((ROOT / f"{self.name}.ipynb").read_text())["cells"]
        text = "".join("".join(cell["source"]) for cell in cells)
        assert saw.solutions >= text.count("{solution-start}")
        assert saw.open_at_first == 0
        assert saw.open_unfolded == saw.solutions

    def test_drawings_carry_the_books_letters(self, saw):
        assert saw.drawings["fonts"] == ["Source Sans 3"]
        assert saw.drawings["cut"] == []

    def test_drawings_follow_the_dark(self, saw):
        assert saw.drawings["faint"] == {}
        assert saw.drawings_dark["faint"] == {}
        light, dark = saw.drawings["colors"], saw.drawings_dark["colors"]
        assert light
        assert [word for word in light if light[word] == dark[word]] == []
        assert set(saw.cards) <= {"rgb(255, 255, 255)"}


for _name in PAGES:
    _kind = NotebookPage if _name in notebooks() else Page
    _title = "Test_" + _name.replace("/", "_").replace("-", "_")
    globals()[_title] = type(_title, (_kind,), {"name": _name})


def test_the_mathematics_that_was_looked_for_is_there(phone):
    page = phone.open("chapters/notation").page
    assert page.locator("article .math mjx-container").count() > 20
    page.close()


def test_a_wide_page_is_accessible_in_all_its_parts(desk, axe):
    """The columns beside the text, which a phone hides."""
    for name in (documents()[0], notebooks()[0]):
        page = desk.open(name).page
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.evaluate(PLAIN)
        page.evaluate(axe)
        assert violations(page) == []
        page.close()


def test_search_finds_a_page_by_its_words(desk):
    visit = desk.open("search.html?q=multiply-adds")
    page = visit.page
    # Results come one by one, and most chapters speak of multiply-adds.
    page.wait_for_selector('ul.search li a[href*="chapters/notation.html"]')
    assert visit.complaints == []
    assert visit.outside == []
    page.close()


def test_search_finds_the_words_of_a_drawing(desk):
    words = "activation of five neighboring channels"
    page = desk.open(f"search.html?q={words.replace(' ', '+')}").page
    page.wait_for_selector("ul.search li a")
    found = page.eval_on_selector_all(
        "ul.search li a", "links => links.map(link => link.href)"
    )
    assert any("chapters/classics/alexnet.html" in address for address in found)
    page.close()
    page = desk.open("chapters/classics/alexnet").page
    assert page.evaluate("words => window.find(words)", words)
    page.close()


def test_search_opens_from_the_keyboard(desk):
    page = desk.open("chapters/references").page
    page.keyboard.press("Control+k")
    page.locator("#pst-search-dialog input").fill("notation")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=notation")
    page.close()


def test_mode_can_be_changed_and_is_kept(desk):
    page = desk.open("chapters/references").page
    colors = set()
    for _ in range(3):  # light, dark, as the system has it
        colors.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        page.locator(".theme-switch-button:visible").first.click()
    assert len(colors) == 2
    chosen = page.evaluate("localStorage.getItem('mode')")
    page.reload()
    settle(page)
    assert page.evaluate("document.documentElement.dataset.mode") == chosen
    page.evaluate("localStorage.clear()")
    page.close()


def test_letters_are_the_books_own(desk):
    page = desk.open("chapters/notation").page
    loaded = page.evaluate(
        "[...document.fonts].filter(f => f.status == 'loaded').map(f => f.family)"
    )
    families = {name.strip('"') for name in loaded}
    assert families >= {"Source Serif 4", "Source Sans 3", "Source Code Pro"}
    page.close()


def test_a_wrong_address_leads_back(desk):
    visit = desk.open("chapters/nowhere/at-all")
    page = visit.page
    assert page.locator("h1").first.inner_text() == "Page not found"
    # Nothing is missing but the page itself: letters and styles are found from any
    # depth.
    assert visit.missing == [f"{desk.address}chapters/nowhere/at-all.html"]
    assert visit.outside == []
    page.locator("a.book-name").click()
    page.wait_for_url("**/chapters/index.html")
    page.close()


def test_the_book_reads_from_disk_without_a_server(browser, site):
    visit = Visit(browser.new_page())
    page = visit.page
    watch(visit)
    page.on("request", lambda request: visit.outside.append(request.url))
    page.goto((site.html / "chapters/notation.html").as_uri())
    settle(page)
    assert page.evaluate(UNRENDERED) == []
    page.goto((site.html / "search.html").as_uri() + "?q=stride")
    page.wait_for_selector("ul.search li a")
    page.wait_for_timeout(200)
    assert visit.complaints == []
    assert [a for a in visit.outside if not a.startswith(("file:", "data:"))] == []
    page.close()
