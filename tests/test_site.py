"""The site as a reader meets it: every page in a real browser, narrow, wide and dark.

Each page is opened once; what was seen is kept, and one test asks one question of it.
What needs no browser is tested in test_site_files.py.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
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
    unfold,
    watch,
)

PAGES = [*documents(), *EXTRA]
# Accessibility rules that a page may break, and why; the rest is ours to keep at zero.
# What the theme leaves wrong is mended in book/_ext/accessible.py and book/_templates,
# so that at present nothing has to be forgiven.
THEME_OWN: dict[str, str] = {}

SIDEWAYS = "() => document.scrollingElement.scrollWidth - window.innerWidth"
BROKEN_IMAGES = """() => [...document.images]
    .filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)"""
UNRENDERED = """() => [...document.querySelectorAll("article .math")]
    .filter(m => !m.querySelector("mjx-container") || m.querySelector("mjx-merror"))
    .map(m => m.textContent.slice(0, 80))"""
BARE_CELLS = """() => [...document.querySelectorAll("div.cell_input div.highlight")]
    .filter(cell => !cell.querySelector(".copybtn"))
    .map(cell => cell.textContent.slice(0, 60))"""
OPEN_SOLUTIONS = """() => [...document.querySelectorAll("article .solution")]
    .filter(s => [...s.children].slice(1).some(c => c.checkVisibility(
        {visibilityProperty: true}) && c.tagName != "BUTTON")).length"""
# The colors of code, each once, with the contrast that they have where they stand.
FAINT_CODE = """() => {
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const numbers = color => color.match(/[0-9.]+/g).map(Number);
    const ground = element => {
        const color = numbers(getComputedStyle(element).backgroundColor);
        return color.length == 4 && color[3] == 0 ? ground(element.parentElement) : color;
    };
    const faint = {};
    document.querySelectorAll("article div.highlight span").forEach(span => {
        const [a, b] = [numbers(getComputedStyle(span).color), ground(span)].map(light);
        const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
        if (contrast < 4.5) faint[span.className] = contrast;
    });
    return faint;
}"""
# Thousands of colored words would keep axe-core busy for minutes.
PLAIN_CODE = """() => document.querySelectorAll("article div.highlight pre")
    .forEach(code => { code.textContent = code.textContent; })"""
CARDS = """() => [...new Set([...document.querySelectorAll("div.cell_output img")]
    .map(i => getComputedStyle(i).backgroundColor))]"""


@dataclass(frozen=True)
class Seen:
    """What one page showed, folded and unfolded, on a phone and in the dark."""

    outside: list[str]
    missing: list[str]
    complaints: list[str]
    broken_images: list[str]
    unrendered: list[str]
    bare_cells: list[str]
    sideways: int
    sideways_unfolded: int
    solutions: int
    open_at_first: int
    open_unfolded: int
    violations: list[str]
    violations_dark: list[str]
    faint_code: dict[str, float]
    faint_code_dark: dict[str, float]
    cards: list[str]


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


def look_at(phone: Reader, axe: str, name: str) -> Seen:
    visit = phone.open(name)
    page = visit.page
    facts = {
        "broken_images": page.evaluate(BROKEN_IMAGES),
        "unrendered": page.evaluate(UNRENDERED),
        "bare_cells": page.evaluate(BARE_CELLS),
        "sideways": page.evaluate(SIDEWAYS),
        "solutions": page.locator("article .solution").count(),
        "open_at_first": page.evaluate(OPEN_SOLUTIONS),
    }
    unfold(page)
    facts |= {
        "sideways_unfolded": page.evaluate(SIDEWAYS),
        "open_unfolded": page.evaluate(OPEN_SOLUTIONS),
        "faint_code": page.evaluate(FAINT_CODE),
    }
    set_theme(page, "dark")
    facts |= {
        "cards": page.evaluate(CARDS),
        "faint_code_dark": page.evaluate(FAINT_CODE),
    }
    page.evaluate(PLAIN_CODE)
    page.evaluate(axe)
    set_theme(page, "light")
    facts["violations"] = violations(page)
    # Only colors differ in the dark; the wide page shows more of them.
    page.set_viewport_size({"width": 1280, "height": 900})
    set_theme(page, "dark")
    facts["violations_dark"] = violations(page, ["color-contrast"])
    page.close()
    return Seen(visit.outside, visit.missing, visit.complaints, **facts)


def set_theme(page, theme: str) -> None:
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)
    page.wait_for_timeout(300)  # colors fade


def violations(page, rules: list[str] | None = None) -> list[str]:
    """Return one line for each element that breaks a rule of axe-core."""
    # Without preloading: axe would ask for style sheets at addresses that it guesses.
    options = {"resultTypes": ["violations"], "preload": False}
    if rules:
        options["runOnly"] = rules
    found = page.evaluate("options => axe.run(document, options)", options)
    return [
        f"{rule['id']}: {rule['help']}: {node['target']} {node['html'][:160]}"
        for rule in found["violations"]
        if rule["id"] not in THEME_OWN
        for node in rule["nodes"]
    ]


@pytest.mark.parametrize("name", PAGES)
class TestPage:
    """One visit to each page, and what must be true of it."""

    def test_nothing_is_asked_of_anybody_else(self, seen, name):
        assert seen(name).outside == []

    def test_nothing_is_missing(self, seen, name):
        assert seen(name).missing == []
        assert seen(name).broken_images == []

    def test_the_console_is_silent(self, seen, name):
        assert seen(name).complaints == []

    def test_mathematics_is_rendered(self, seen, name):
        assert seen(name).unrendered == []

    def test_it_does_not_scroll_sideways_on_a_phone(self, seen, name):
        assert seen(name).sideways <= 0
        assert seen(name).sideways_unfolded <= 0, "only when all is unfolded"

    def test_it_is_accessible(self, seen, name):
        assert seen(name).violations == []

    def test_it_has_contrast_in_the_dark(self, seen, name):
        assert seen(name).violations_dark == []

    def test_code_has_contrast_in_both_themes(self, seen, name):
        assert seen(name).faint_code == {}
        assert seen(name).faint_code_dark == {}


@pytest.mark.parametrize("name", notebooks())
class TestNotebookPage:
    """What only chapters have."""

    def test_every_cell_of_code_can_be_copied(self, seen, name):
        assert seen(name).bare_cells == []

    def test_solutions_are_folded_and_open_with_a_click(self, seen, name):
        cells = json.loads((ROOT / f"{name}.ipynb").read_text())["cells"]
        text = "".join("".join(cell["source"]) for cell in cells)
        assert seen(name).solutions >= text.count("{solution-start}")
        assert seen(name).open_at_first == 0
        assert seen(name).open_unfolded == seen(name).solutions

    def test_figures_lie_on_a_card_in_the_dark(self, seen, name):
        assert set(seen(name).cards) <= {"rgb(255, 255, 255)"}


def test_the_mathematics_that_was_looked_for_is_there(phone):
    page = phone.open("chapters/notation").page
    assert page.locator("article .math mjx-container").count() > 20
    page.close()


def test_a_wide_page_is_accessible_in_all_its_parts(desk, axe):
    """The columns beside the text, which a phone hides."""
    for name in (documents()[0], notebooks()[0]):
        page = desk.open(name).page
        assert page.evaluate("document.documentElement.dataset.theme") == "dark"
        page.evaluate(PLAIN_CODE)
        page.evaluate(axe)
        assert violations(page) == []
        page.close()


def test_search_finds_a_page_by_its_words(desk):
    visit = desk.open("search.html?q=multiply-adds")
    page = visit.page
    page.wait_for_selector("ul.search li a")
    found = page.eval_on_selector_all(
        "ul.search li a", "links => links.map(link => link.href)"
    )
    assert any("chapters/notation.html" in address for address in found)
    assert visit.complaints == []
    assert visit.outside == []
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
