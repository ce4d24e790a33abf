"""The built site as files: warnings, links, tags and what its extensions write.

Needs no browser; test_site.py looks at the same pages in one.
"""

from __future__ import annotations

import ast
import json
import re
import sys
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml
from bs4 import BeautifulSoup
from docutils import nodes
from pybtex.database import parse_file
from site_helpers import EXTRA, ROOT, documents, notebooks, read_address

sys.path.insert(0, str(ROOT / "book" / "_ext"))

import accessible
import family_tree
import recorded
import vocabulary

ADDRESS = read_address()
PACKAGE = ROOT / "nbs_utils"


@pytest.fixture(scope="module")
def soup(site):
    """Return a function that parses a page, each once."""
    return cache(lambda name: BeautifulSoup(site.page(name), "html.parser"))


def test_the_book_builds_without_a_warning(site):
    warnings = re.findall(r".*(?:WARNING|ERROR).*", site.log)
    assert warnings == []
    assert site.status == 0


def test_every_chapter_is_in_the_table_of_contents():
    files = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in (ROOT / "chapters").rglob("*")
        if path.suffix in {".ipynb", ".md"}
        and not any(part.startswith(".") for part in path.parts)
    }
    assert files == set(documents())


@pytest.mark.parametrize("name", [*documents(), *EXTRA])
def test_a_page_loads_nothing_from_elsewhere(soup, name):
    page = soup(name)
    loaded = [
        tag.get("src") or tag.get("href")
        for tag in page.find_all(["script", "img", "iframe", "source", "link"])
        if not set(tag.get("rel", [])) & {"canonical", "search", "index"}
    ]
    assert [a for a in loaded if a and re.match(r"(https?:)?//", a)] == []


@pytest.mark.parametrize("name", documents())
def test_a_page_can_be_shared(site, soup, name):
    page = soup(name)
    tags = {
        tag.get("property") or tag.get("name"): tag.get("content")
        for tag in page.find_all("meta")
    }
    assert tags["og:url"] == f"{ADDRESS.pages}{name}.html"
    assert tags["og:site_name"] == "Image Classification Networks from Scratch"
    assert len(tags["og:description"]) > 40
    assert tags["og:image:alt"]
    picture = tags["og:image"].removeprefix(ADDRESS.pages)
    assert (site.html / picture).is_file()
    assert page.find("link", rel="canonical")["href"] == f"{ADDRESS.pages}{name}.html"
    assert page.find("link", rel="icon")


@pytest.mark.parametrize("name", notebooks())
def test_a_chapter_opens_in_colab_and_on_github(soup, name):
    page = soup(name)
    colab = page.find("a", class_="open-in-colab")["href"]
    file = f"{ADDRESS.slug}/blob/main/{name}.ipynb"
    assert colab == f"https://colab.research.google.com/github/{file}"
    edit = page.find("a", class_="btn-source-edit-button")["href"]
    assert edit == f"{ADDRESS.repository}/edit/main/{name}.ipynb"
    assert (ROOT / f"{name}.ipynb").is_file()


@pytest.mark.parametrize("name", notebooks())
def test_every_figure_says_what_it_shows(soup, name):
    cells = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    # What has not been recorded yet has no picture.
    figures = [c["metadata"].get("mystnb", {}) for c in cells if c.get("outputs")]
    alts = [figure["image"]["alt"] for figure in figures if "image" in figure]
    page = soup(name)
    shown = [
        picture.get("alt") or picture.get("aria-label") or ""
        for picture in page.select("div.cell_output :is(img, svg.drawing)")
    ]
    # Diagrams come as HTML, with a description that the library has written.
    diagrams = page.select("div.cell_output svg.nbs-diagram[aria-label]")
    assert len(shown) + len(diagrams) == len(alts)
    for alt in shown:
        assert " ".join(alt.split()) in [" ".join(other.split()) for other in alts]
        assert len(alt) > 20
        assert not re.search(r"[0-9a-f]{16}", alt), "a hash, not a description"


@pytest.mark.parametrize("name", notebooks())
def test_drawings_stand_in_the_page_with_their_captions(soup, name):
    page = soup(name)
    drawings = page.select("figure > svg.drawing")
    assert drawings
    for drawing in drawings:
        assert drawing["role"] == "img"
        assert drawing.parent["id"]
        assert drawing.parent.select("figcaption .caption-number")
    # No picture is left that could have been a drawing.
    pictures = page.select("div.cell_output img")
    assert [i["src"] for i in pictures if "photographs" not in i["class"]] == []


@pytest.mark.parametrize("name", [*documents(), *EXTRA])
def test_a_page_is_light(site, soup, name):
    """At most 1.5 MB with all that is shown on it (what pages share is not counted)."""
    page = soup(name)
    shown = [i["src"] for i in page.select("article img, article source")]
    shown += [i["href"] for i in page.select("svg.drawing image")]
    home = (site.html / f"{name}.html").parent
    files = {(home / address).resolve() for address in shown}
    total = len(site.page(name).encode()) + sum(file.stat().st_size for file in files)
    assert total < 1.5e6


@pytest.mark.parametrize("name", notebooks())
def test_code_that_only_draws_is_folded(name):
    """A cell that begins with an empty figure and shows it at its end."""
    cells = json.loads((ROOT / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    for number, cell in enumerate(cells):
        code = "".join(cell["source"])
        tags = cell["metadata"].get("tags", [])
        if cell["cell_type"] == "code" and only_draws(code):
            folded = {"hide-input", "hide-cell", "solution"} & set(tags)
            assert folded, f"cell {number} needs the tag hide-input:\n{code[:80]}"


def only_draws(code: str) -> bool:
    """Tell whether nothing is called before the canvas, and the last line shows it."""
    if "figures.canvas(" not in code:
        return False
    statements = ast.parse(code).body
    for statement in statements:
        if "figures.canvas(" in ast.unparse(statement):
            break
        calls = any(isinstance(node, ast.Call) for node in ast.walk(statement))
        if calls or not isinstance(statement, ast.Assign):
            return False
    return ast.unparse(statements[-1]).startswith("nbs.figures.show(")


def test_the_sitemap_lists_every_page(site):
    tree = ElementTree.parse(site.html / "sitemap.xml")
    listed = {element.text for element in tree.iter() if element.tag.endswith("loc")}
    assert listed >= {f"{ADDRESS.pages}{name}.html" for name in documents()}


def test_the_root_leads_to_the_book(site):
    assert "chapters/index.html" in site.page("index")


def test_the_page_for_wrong_addresses_works_from_any_depth(soup):
    page = soup("404")
    styles = [link["href"] for link in page.find_all("link", rel="stylesheet")]
    assert styles
    assert [a for a in styles if not a.startswith(ADDRESS.prefix)] == []


def test_the_pages_say_where_their_outputs_come_from(soup):
    for name in notebooks():
        lines = soup(name).select("article .recorded")
        assert len(lines) == 1, name
        notes = yaml.safe_load((ROOT / f"{name}.ipynb").read_text())
        run = notes["metadata"]["nbs"].get("recorded")
        if run:
            assert run["device"] in lines[0].text
            assert recorded.LABELS[run["tier"]] in lines[0].text


def test_a_run_on_a_processor_is_labelled_as_one():
    run = {"tier": "cpu", "device": "CPU, 2 cores", "date": "2026-03-05"}
    line = recorded.recorded_line({**run, "seconds": 301.0}).astext()
    assert line.startswith("Short CPU run")
    assert "5 March 2026 in 5 min: CPU, 2 cores" in line
    card = {"tier": "gpu", "device": "NVIDIA T4", "versions": {"torch": "2.11.0+cu128"}}
    line = recorded.recorded_line({**run, **card, "seconds": 48.4}).astext()
    assert line.startswith("Full run")
    assert "in 48 s: NVIDIA T4; PyTorch 2.11.0." in line
    assert "accuracies" in recorded.recorded_line({**run, "seconds": 1.0}).astext()
    line = recorded.recorded_line({**run, "seconds": 1.0}, "foundation").astext()
    assert "accuracies" not in line
    assert recorded.recorded_line(None).astext().startswith("Draft")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (3600, "60 min"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_are_written_as_people_say_them(seconds, words):
    assert recorded.duration(seconds) == words


def test_no_two_works_are_cited_alike():
    """Two works of one author and year carry a letter: (He et al., 2016a)."""
    works = parse_file(ROOT / "book" / "references.bib").entries
    keys = {}
    for key, work in works.items():
        authors = [" ".join(a.last_names) for a in work.persons.get("author", [])]
        authors = authors if len(authors) < 3 else [authors[0], "et al."]
        year = work.fields.get("year")
        keys.setdefault((*(authors or [key]), year), []).append(key)
    assert [alike for alike in keys.values() if len(alike) > 1] == []


class TestFamilyTree:
    """The picture on the first page."""

    columns, networks = family_tree.read_family(ROOT / "book" / "family.yml")

    def test_descendants_are_not_older_than_their_parents(self):
        for network in self.networks.values():
            for parent in network.parents:
                assert self.networks[parent].year <= network.year, network.name

    def test_every_chapter_on_a_network_is_in_it(self):
        drawn = {f"chapters/{network.chapter}" for network in self.networks.values()}
        parts = ("classics", "residual", "efficient", "attention")
        written = {name for name in notebooks() if name.split("/")[1] in parts}
        assert written <= drawn

    @pytest.mark.parametrize("size", [family_tree.WIDE, family_tree.NARROW])
    def test_no_two_boxes_touch(self, size):
        drawing = family_tree.lay_out(self.columns, self.networks, size)
        boxes = list(drawing.boxes.values())
        for n, (x0, y0) in enumerate(boxes):
            assert 0 <= x0 <= drawing.width - size.box
            assert y0 + size.height <= drawing.height
            for x1, y1 in boxes[n + 1 :]:
                assert abs(x0 - x1) > size.box or abs(y0 - y1) > size.height

    @pytest.mark.parametrize("size", [family_tree.WIDE, family_tree.NARROW])
    def test_lines_stay_between_the_columns(self, size):
        drawing = family_tree.lay_out(self.columns, self.networks, size)
        for parent, points in drawing.lines:
            if len(points) == 2:
                continue
            x = points[1][0]
            inside = [
                left for left, _ in drawing.boxes.values() if left < x < left + size.box
            ]
            assert not inside, f"a line from {parent.name} runs behind a column"

    def test_written_chapters_are_links_and_planned_ones_are_not(self, soup):
        tree = soup(documents()[0]).find("svg", class_="family-tree-wide")
        links = {a.text: a["href"] for a in tree.find_all("a")}
        for network in self.networks.values():
            written = f"chapters/{network.chapter}" in documents()
            assert (network.name in links) == written
            if written:
                assert links[network.name] == f"{network.chapter}.html"

    def test_an_unknown_parent_is_named(self, tmp_path):
        file = tmp_path / "family.yml"
        file.write_text(
            "columns: [A]\nnetworks:\n  X: [2000, A, [Nobody], a/x]\n", encoding="utf-8"
        )
        with pytest.raises(ValueError, match="X builds on 'Nobody'"):
            family_tree.read_family(file)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("<th></th>", "<td></td>"),
        ('<th class="head"><p></p></th>', '<td class="head"></td>'),
        ('<th scope="col" class="a">\n &nbsp;</th>', '<td class="a"></td>'),
        ('<section id="solution-content">', '<section class="solution-content">'),
        ("<th>0</th><thead><p></p></thead>", "<th>0</th><thead><p></p></thead>"),
    ],
)
def test_what_is_inaccessible_is_mended(before, after):
    assert accessible.mend_body(before) == after


class TestVocabulary:
    """The page on the package, read from the source files."""

    def test_every_name_is_found_and_described(self, soup):
        page = soup("chapters/package")
        shown = [title.get_text().rstrip("#") for title in page.select("article h3")]
        expected = [f"nbs.{name}" for name in vocabulary.homes(PACKAGE / "__init__.py")]
        assert [name for name in expected if name not in shown] == []
        for section in page.select("article section section"):
            assert section.find("p"), section.find("h3").get_text()

    def test_a_call_is_written_as_in_the_source(self):
        (definition,) = ast.parse(
            "def f(a, b: 'X | None' = None, *, c=(1, 2), **d: int) -> str: ..."
        ).body
        entry = vocabulary.Entry("f", "m", definition, Path("m.py"))
        call = vocabulary.signature(entry, "nbs.")
        assert call == "nbs.f(a, b: X | None = None, *, c=(1, 2), **d: int) -> str"

    def test_a_long_call_has_one_argument_a_line(self):
        arguments = ", ".join(f"argument_{n}: int" for n in range(6))
        (definition,) = ast.parse(f"def f({arguments}): ...").body
        call = vocabulary.signature(
            vocabulary.Entry("f", "m", definition, Path("m.py")), ""
        )
        assert call.splitlines()[1] == "    argument_0: int,"
        assert call.splitlines()[-1] == ")"

    def test_a_docstring_becomes_paragraphs_and_lists(self):
        paragraphs = vocabulary.described(
            "Sum up.\n\nMore `code`.\n\nArgs:\n    x: of (B, C),\n        twice: so.\n"
            "    y: z.\n\nReturns:\n    A number."
        )
        assert [node.tagname for node in paragraphs] == [
            *("paragraph", "paragraph"),  # summary and more
            *("paragraph", "definition_list"),  # Args
            *("paragraph", "paragraph"),  # Returns
        ]
        terms = [term.astext() for term in paragraphs[3].findall(nodes.term)]
        assert terms == ["x", "y"]
        assert "twice: so." in paragraphs[3].astext()
