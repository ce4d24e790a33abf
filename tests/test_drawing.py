"""From the SVG of a notebook to a drawing in a page (book/_ext/drawing.py)."""

from __future__ import annotations

import io
import re
import sys
from xml.etree import ElementTree

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from site_helpers import ROOT

from nbs_utils import figures
from nbs_utils.figures import style

sys.path.insert(0, str(ROOT / "book" / "_ext"))

import drawing
import inline_figures


def plain_svg(fonttype: str, **kw) -> str:
    """Return a figure as matplotlib writes it by itself."""
    with mpl.rc_context({"svg.fonttype": fonttype, **kw}):
        figure, axes = plt.subplots()
        axes.plot([1, 10, 100], [1, 2, 4], "o-", color="#0072B2")
        axes.set(xscale="log", xlabel="Length of the vector", title="Two words")
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        plt.close(figure)
    return text.getvalue()


def photographs() -> str:
    """Return a figure in the book's style: photographs, words under and on them."""
    figure, axes = figures.canvas(1, 2, height=2)
    noise = np.random.default_rng(0).random((70, 70, 3))
    for ax in axes:
        ax.imshow(noise)
        ax.set(xticks=[], yticks=[], xlabel="under it")
        ax.text(35, 35, "on it", color="black", ha="center")
        ax.plot([5, 60], [5, 60], color="#222222")
    svg = style.to_svg(figure)
    plt.close(figure)
    return svg


def read(svg: str, prefix: str = "p-1") -> drawing.Drawing:
    found = drawing.read_drawing(svg, prefix, "../_images/a.svg")
    ElementTree.fromstring(f"<svg>{found.inside}</svg>")  # well-formed
    return found


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_it_holds_nothing_that_reaches_beyond_it(fonttype):
    svg = plain_svg(fonttype)
    first, second = (read(svg, prefix).inside for prefix in ("a-1", "a-2"))
    for inside in (first, second):
        assert "<style" not in inside
        assert "xmlns" not in inside
        ids = re.findall(r'\bid="([^"]+)"', inside)
        assert len(ids) == len(set(ids))
        # Every reference leads to an element of the same drawing.
        assert set(re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', inside))
        for pair in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', inside):
            assert set(pair) - {""} <= set(ids)
    assert not set(re.findall(r'\bid="([^"]+)"', first)) & set(
        re.findall(r'\bid="([^"]+)"', second)
    )


@pytest.mark.parametrize("fonttype", ["none", "path"])
def test_its_words_are_found_also_where_letters_are_outlines(fonttype):
    assert read(plain_svg(fonttype)).words == ("Length of the vector", "Two words")


def test_its_letters_are_left_to_the_page():
    inside = read(plain_svg("none")).inside
    assert ">Two words</text>" in inside
    assert "font-family" not in inside
    # 12 units are 1.2 of the page's size for figures, and 10 are just that.
    assert "font-size:1.2em" in inside
    assert "font-size:1em" not in inside
    assert not re.search(r"font-size:[^;\"]*(px|pt)", inside)


def test_its_colors_are_the_pages():
    inside = read(plain_svg("none")).inside
    assert "stroke:var(--figure-blue)" in inside
    assert not re.search("#(000000|ffffff|0072b2)", inside)


@pytest.mark.parametrize(
    ("color", "lines", "words"),
    [
        ("#222222", "var(--ink)", "var(--ink)"),
        ("#000000", "var(--ink)", "var(--ink)"),
        ("#FFFFFF", "var(--paper)", "var(--paper)"),
        ("#0072B2", "var(--figure-blue)", "var(--figure-blue-words)"),
        ("#ff0000", "#ff0000", "#ff0000"),
    ],
)
def test_a_color_has_its_place_on_the_page(color, lines, words):
    assert drawing.themed(color) == lines
    assert drawing.themed(color, words=True) == words


def test_gray_lies_between_ink_and_paper_and_gray_words_stay_readable():
    shares = [
        int(re.search(r"(\d+)%", drawing.themed(gray))[1])
        for gray in ("#555555", "#9a9a9a", "#e4e2dd")
    ]
    assert shares == sorted(shares, reverse=True)
    (share,) = re.findall(r"(\d+)%", drawing.themed("#9a9a9a", words=True))
    assert int(share) == drawing.FAINT


def test_every_color_of_the_book_has_its_variables():
    css = (ROOT / "book" / "_static" / "palette.css").read_text(encoding="utf-8")
    for name in figures.COLORS:
        for variable in (f"--figure-{name}:", f"--figure-{name}-words:"):
            assert css.count(variable) == 2, f"{variable} in the light and in the dark"


def test_photographs_lie_beside_the_page_and_what_is_on_them_keeps_its_colors():
    found = read(photographs())
    assert "base64" not in found.inside
    assert found.inside.count("<image") == 1
    assert 'href="../_images/a.svg"' in found.inside
    ElementTree.fromstring(found.photographs)
    assert found.photographs.count("<image") == 2
    assert found.photographs.count("base64,") == 2
    on, under = (
        re.search(rf"<text[^>]*>{words}<", found.inside)[0]
        for words in ("on it", "under it")
    )
    assert "fill:#000000" in on
    assert "fill:var(--ink)" in under
    assert "stroke:#222222" in found.inside
    # Nothing white is left that would hide them.
    assert "fill:var(--paper)" not in found.inside


def test_a_figure_of_photographs_alone_stays_a_picture():
    figure, ax = figures.canvas(height=2)
    ax.imshow(np.random.default_rng(0).random((70, 70, 3)))
    ax.set_axis_off()
    svg = style.to_svg(figure)
    plt.close(figure)
    found = read(svg)
    assert found.inside == ""
    html = inline_figures.markup(found, 'A "photograph" & more', "a.svg")
    assert html.startswith("<img ")
    assert 'alt="A &quot;photograph&quot; &amp; more"' in html


def test_the_digits_of_a_power_follow_one_another():
    inside = read(plain_svg("none")).inside
    power = re.findall(r"<text>(.*?)</text>", inside, flags=re.DOTALL)[0]
    assert re.sub("<[^>]*>", "", power).split() == ["100"]
    tspans = re.findall(r"<tspan([^>]*)>", power)
    assert [" x=" in one for one in tspans] == [True, False, False]
    assert " dy=" in tspans[2]


def test_a_drawing_says_what_it_shows():
    html = inline_figures.markup(read(plain_svg("none")), "Three points, rising.", "a")
    assert 'role="img" aria-label="Three points, rising."' in html
    assert 'width="614"' in html  # 460.8 points


def test_diagrams_get_the_colors_of_the_page():
    markup = '<svg><rect fill="#0072B2" stroke="#009E73"/>#0072B2</svg>'
    assert drawing.themed_markup(markup) == (
        '<svg><rect fill="var(--figure-blue)" stroke="var(--figure-green)"/>'
        "#0072B2</svg>"
    )


@pytest.mark.parametrize(
    "text", ["<html/>", "<svg xmlns='http://www.w3.org/2000/svg'/>"]
)
def test_what_is_no_figure_is_refused(text):
    with pytest.raises(ValueError, match="not an SVG document"):
        drawing.read_drawing(text, "p", "a")


def test_long_labels_stay_inside_and_apart():
    figure, axes = figures.canvas(1, 2, height=2)
    for ax, name in zip(axes, ("one rather long label", "another label, longer still")):
        ax.set_xlabel(f"{name} than its narrow axis has room for")
    svg = style.to_svg(figure)
    plt.close(figure)
    read_back = drawing.read_drawing(svg, "p-1", "photo.svg")
    root = ElementTree.fromstring(f"<svg>{read_back.inside}</svg>")
    labels = [t for t in root.iter("text") if len(t.text or "") > drawing.TICK]
    left, right = sorted(labels, key=lambda t: float(t.get("x")))
    ends = [
        float(t.get("x")) + sign * drawing._length(t) / 2
        for t in (left, right)
        for sign in (-1, 1)
    ]
    assert ends == sorted(ends)
    assert 0 <= ends[0] and ends[-1] <= read_back.width
