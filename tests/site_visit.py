"""What a page of the site shows: opened once, on a phone, at a desk, in the dark.

A visit asks a real browser many questions in one go, since opening a page is what
takes time; test_site.py says what the answers have to be.
"""

from __future__ import annotations

from dataclasses import dataclass

from site_helpers import Reader, unfold

# With the contents of a page beside the text (1280) a formula has less room than
# without (1100).
DESKS = (1100, 1280)

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
# Colors change at once, so that nobody waits until they have faded.
AT_ONCE = "*, ::before, ::after { transition: none !important; }"
# Thousands of colored words and lines would keep axe-core busy for minutes; their
# contrast is measured here, and what a drawing is called stays.
PLAIN = """() => {
    document.querySelectorAll("article div.highlight pre")
        .forEach(code => { code.textContent = code.textContent; });
    document.querySelectorAll("article svg.drawing").forEach(d => d.replaceChildren());
}"""
# Pictures that are not part of the page lie on a card in the dark.
CARDS = """() => [...new Set([...document.querySelectorAll(
    "div.cell_output img:not(.photographs)")]
    .map(i => getComputedStyle(i).backgroundColor))]"""
DOUBLE_IDS = """() => {
    const ids = [...document.querySelectorAll("[id]")].map(e => e.id);
    return ids.filter((id, n) => ids.indexOf(id) != n);
}"""
# Words in drawings that follow the page: all but those on top of a photograph, which
# keep their color (see book/_ext/drawing.py). One entry for each that is wrong.
DRAWINGS = """() => {
    const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const canvas = document.createElement("canvas").getContext("2d", {
        willReadFrequently: true});
    const numbers = color => {
        canvas.fillStyle = color;
        canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data];
    };
    const paper = light(numbers(getComputedStyle(document.body).backgroundColor));
    const fonts = new Set(), faint = {}, cut = [], colors = {};
    document.querySelectorAll("article svg.drawing").forEach((drawing, n) => {
        const sheet = drawing.getBoundingClientRect();
        drawing.querySelectorAll("text").forEach(text => {
            const place = text.getBoundingClientRect();
            const style = getComputedStyle(text);
            const name = `${n + 1}: ${text.textContent.trim()}`;
            fonts.add(style.fontFamily.split(",")[0].replaceAll('"', ""));
            if (place.width && (place.left < sheet.left - 3 || place.right > sheet.right + 3
                || place.top < sheet.top - 3 || place.bottom > sheet.bottom + 3))
                cut.push(name);
            if (/fill: ?#/.test(text.getAttribute("style"))) return;
            const own = light(numbers(style.fill));
            const contrast = (Math.max(own, paper) + 0.05) / (Math.min(own, paper) + 0.05);
            if (contrast < 4.5) faint[name] = contrast;
            colors[name] = style.fill;
        });
    });
    return {fonts: [...fonts], faint, cut, colors};
}"""
# A shade at the edges says that there is more (see book/_static/notebook.css).
SHADED = """(style => style.backgroundImage.split("linear-gradient").length == 5
    && style.backgroundAttachment.startsWith("local, local, scroll"))"""
# Formulas that need more room than they have, and whether a reader can see the rest.
WIDE_FORMULAS = """() => [...document.querySelectorAll("article div.math mjx-container")]
    .filter(box => box.checkVisibility() && box.scrollWidth > box.clientWidth + 1)
    .map(box => {
        const style = getComputedStyle(box);
        box.scrollLeft = 1e6;
        const last = [...box.querySelectorAll("mjx-math *")]
            .map(e => e.getBoundingClientRect().right);
        const reached = Math.max(...last) <= box.getBoundingClientRect().right + 2;
        box.scrollLeft = 0;
        return {formula: box.textContent.slice(0, 40), reached,
            scrolls: style.overflowX == "auto", shaded: SHADED(style)};
    })""".replace("SHADED", SHADED)
WIDE_TABLES = """() => [...document.querySelectorAll("article table")]
    .map(table => [table, table.closest(
        ".pst-scrollable-table-container, .cell_output .text_html")])
    .filter(([table, box]) => box && box.checkVisibility()
        && box.scrollWidth > box.clientWidth + 1)
    .map(([table, box]) => {
        box.scrollLeft = 1e6;
        const edge = box.getBoundingClientRect().left;
        const firsts = [...table.rows].map(row => row.cells[0]);
        const kept = firsts.every(cell => Math.abs(
            cell.getBoundingClientRect().left - edge) < 2);
        const wide = Math.max(...firsts.map(c => c.getBoundingClientRect().width));
        box.scrollLeft = 0;
        return {table: table.textContent.trim().slice(0, 40), kept,
            narrow: wide < 0.6 * box.clientWidth, shaded: SHADED(getComputedStyle(box))};
    })""".replace("SHADED", SHADED)


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
    double_ids: list[str]
    drawings: dict
    drawings_dark: dict
    wide_formulas: list[dict]
    wide_formulas_at_a_desk: dict[int, list[dict]]
    wide_tables: list[dict]


def look_at(phone: Reader, axe: str, name: str) -> Seen:
    """Open a page on a phone, then unfold, darken and widen it.

    Args:
        phone: a window of 390 px.
        axe: the source of axe-core.
        name: the page.
    """
    visit = phone.open(name)
    page = visit.page
    page.add_style_tag(content=AT_ONCE)
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
        "double_ids": page.evaluate(DOUBLE_IDS),
        "drawings": page.evaluate(DRAWINGS),
        "wide_formulas": page.evaluate(WIDE_FORMULAS),
        "wide_tables": page.evaluate(WIDE_TABLES),
    }
    set_theme(page, "dark")
    facts |= {
        "cards": page.evaluate(CARDS),
        "faint_code_dark": page.evaluate(FAINT_CODE),
        "drawings_dark": page.evaluate(DRAWINGS),
    }
    page.evaluate(PLAIN)
    page.evaluate(axe)
    set_theme(page, "light")
    facts["violations"] = violations(page)
    # Only colors differ in the dark; the wide page shows more of them.
    facts["wide_formulas_at_a_desk"] = {}
    for width in DESKS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(100)
        facts["wide_formulas_at_a_desk"][width] = page.evaluate(WIDE_FORMULAS)
    set_theme(page, "dark")
    facts["violations_dark"] = violations(page, ["color-contrast"])
    page.close()
    return Seen(visit.outside, visit.missing, visit.complaints, **facts)


def set_theme(page, theme: str) -> None:
    page.evaluate("theme => { document.documentElement.dataset.theme = theme; }", theme)


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
