"""The mistakes that a new author makes, each answered by the first tool that sees it.

Each test makes one and asks for the sentence: `export` before it writes, `record`
before it runs, and `check` before the site is built.
"""

import json

import pytest
from a_chapter import cells, code, make_book, markdown, shown, stream, write_book

from nbs_utils.authoring import export
from nbs_utils.authoring.book import Book
from nbs_utils.authoring.check import check
from nbs_utils.authoring.notebook import AuthoringError, find_chapter
from nbs_utils.authoring.record import record
from nbs_utils.authoring.ruff import ruff_command


def cell_of(made: list[dict], text: str) -> dict:
    return next(cell for cell in made if text in cell["source"])


def checked(root) -> list[str]:
    lines: list[str] = []
    check(root, say=lines.append)
    return lines


def said(root, text: str) -> str:
    """Return the one line of `nbs check` that holds a text."""
    (line,) = [line for line in checked(root) if text in line]
    return line


def edited(root, edit, name: str = "old/tiny") -> None:
    """Change the cells of a chapter that was recorded and exported."""
    chapter = find_chapter(name, root)
    edit(chapter.cells)
    chapter.path.write_text(json.dumps(chapter.raw))


@pytest.fixture
def root(tmp_path):
    """A book of one good chapter."""
    make_book(tmp_path)
    export.export(tmp_path)
    return tmp_path


def add_second(root, *more: dict, network: str = "small") -> None:
    """Add a good chapter `old/small`, and cells to it."""
    text = json.dumps(cells()).replace("tiny", network).replace("Tiny", "Small")
    made = json.loads(text.replace(f"author2020{network}", "author2020tiny"))
    chapter, _ = make_book(root, [*made[:-1], *more, made[-1]], "old/small")
    chapter.nbs["zoo"] = "small"
    chapter.nbs["zoo_sha256"] = {"small": chapter.nbs["zoo_sha256"]["tiny"]}
    chapter.path.write_text(json.dumps(chapter.raw))
    write_book(root)


def test_two_good_chapters_are_good_together(root):
    add_second(root)
    export.export(root)
    assert checked(root)[-1].endswith(": 0 to repair.")


# ---- Labels


@pytest.mark.parametrize(
    ("cell", "label"),
    [
        (markdown("$$\nx\n$$ (tiny-eq)"), "tiny-eq"),
        (markdown("(tiny-section)=\n### Here"), "tiny-section"),
        (
            code(
                "plt.plot([1])\nplt.show()",
                shown(**{"image_svg+xml": "<svg></svg>"}),
                image={"alt": "A straight line from one to two."},
                figure={"name": "fig-tiny-line", "caption": "A line."},
            ),
            "fig-tiny-line",
        ),
    ],
    ids=["equation", "section", "figure"],
)
def test_the_label_of_another_chapter(root, cell, label):
    if cell["cell_type"] == "markdown":
        edited(root, lambda made: made.insert(-1, {**cell, "id": "first"}))
    add_second(root, {**cell, "id": "again"})
    found = [line for line in checked(root) if f"the label '{label}'" in line]
    assert len(found) == 2  # said where it stands, in both chapters
    assert "is also given in old/small, cell " in found[1]


def test_an_exercise_label_of_another_chapter(root):
    exercise = json.loads(json.dumps(cells()))
    wanted = [c for c in exercise if "tiny-ex1" in c["source"]]
    add_second(root, *wanted)
    assert any(
        "the label 'tiny-ex1' is also given in" in line for line in checked(root)
    )


def test_an_exercise_label_twice_in_a_chapter(root):
    def edit(made):
        cell = cell_of(made, ":label: tiny-ex2")
        cell["source"] = cell["source"].replace("tiny-ex2", "tiny-ex1")

    edited(root, edit)
    line = said(root, "tiny-ex1")
    assert "labels: the label 'tiny-ex1' is that of cell " in line


# ---- Tags, kinds, parts, numbers, figures


def test_a_misspelt_tag(root):
    edited(
        root,
        lambda made: cell_of(made, "1 + 1")["metadata"].update(tags=["solutoin"]),
    )
    assert "did you mean `solution`?" in said(root, "`solutoin`")


def test_the_kind_of_another_chapter(root):
    chapter = find_chapter("tiny", root)
    chapter.nbs["kind"] = "foundation"
    chapter.path.write_text(json.dumps(chapter.raw))
    assert "a chapter that builds a network is a 'model'" in said(
        root, "cells are tagged"
    )


def test_an_unknown_kind_hides_nothing_else(root):
    chapter = find_chapter("tiny", root)
    chapter.nbs["kind"] = "essay"
    chapter.cells.remove(cell_of(chapter.cells, "part: worth"))
    chapter.cells.remove(cell_of(chapter.cells, "2 + 1"))
    chapter.path.write_text(json.dumps(chapter.raw))
    found = "\n".join(checked(root))  # kind, parts and exercises in one round
    assert "nbs.kind is 'essay'" in found
    assert "1 part is missing: `<!-- part: worth -->`" in found
    assert "the solution of tiny-ex2 has no code cell" in found


def test_forgotten_parts_are_listed(root):
    def edit(made):
        for part in ("worth", "inside"):
            cell = cell_of(made, f"part: {part}")
            cell["source"] = cell["source"].replace(f"<!-- part: {part} -->\n", "")

    edited(root, edit)
    line = said(root, "parts are missing")
    assert "`<!-- part: inside -->`, `<!-- part: worth -->`" in line


def test_a_figure_that_nobody_refers_to(root):
    edited(root, lambda made: made.remove(cell_of(made, "{numref}`fig-tiny-line`")))
    assert "fig-tiny-line" in said(root, "figures (advice): no sentence refers to")


def test_a_wrong_count_in_the_prose(root):
    edited(
        root,
        lambda made: cell_of(made, "part: why").update(
            source="## Why\n<!-- part: why -->\n\nIt has 61,706 parameters."
        ),
    )
    assert "“It has 61,706 parameters.”" in said(root, "nothing explains 61,706")


# ---- Export


def test_a_helper_that_is_not_exported(tmp_path):
    made = cells()
    at = made.index(cell_of(made, "class Tiny"))
    made.insert(at, code("def make_head(n):\n    return n"))
    made[at + 1]["source"] = made[at + 1]["source"].replace(
        "nn.Linear(4, num_classes)", "nn.Linear(make_head(4), num_classes)"
    )
    make_book(tmp_path, made)
    with pytest.raises(AuthoringError) as caught:
        export.export(tmp_path)
    message = str(caught.value)
    assert "uses 'make_head', which no exported cell defines" in message
    assert f"cell {at + 1} (`def make_head(n):`) does: tag it `export`" in message
    assert not (tmp_path / "nbs_utils" / "zoo" / "tiny.py").exists()


def test_a_name_of_another_chapter_in_the_register(root):
    add_second(root, network="tiny")  # zoo/small.py, but the network is called tiny
    with pytest.raises(AuthoringError, match="'tiny' is registered by old/tiny, too"):
        export.export(root)
    assert not (root / "nbs_utils" / "zoo" / "small.py").exists()


def test_a_network_that_was_changed_recorded_and_then_exported(root):
    """The glance still shows the old count: the recording used the old zoo."""
    chapter = find_chapter("tiny", root)
    cell = cell_of(chapter.cells, "class Tiny")
    cell["source"] = cell["source"].replace("nn.Linear(4", "nn.Linear(5")
    chapter.path.write_text(json.dumps(chapter.raw))
    with pytest.raises(AuthoringError, match="run `nbs export old/tiny` first"):
        record("tiny", root, say=lambda line: None)
    # Even if it could be done, the hashes would tell.
    old = chapter.nbs["zoo_sha256"]
    chapter, _ = make_book(root, chapter.cells)
    chapter.nbs["zoo_sha256"] = old
    chapter.path.write_text(json.dumps(chapter.raw))
    export.export(root)
    assert "counts and tables may be old" in said(root, "zoo-recorded")


# ---- Outputs, style, and the files around the chapters


def test_a_stored_output_that_was_edited_by_hand(root):
    edited(root, lambda made: cell_of(made, "2 + 2").update(outputs=[stream("5\n")]))
    assert "edited by hand" in said(root, "stored outputs are not")


@pytest.mark.skipif(ruff_command() is None, reason="ruff is not installed")
def test_an_unformatted_cell_is_one_line(root):
    edited(root, lambda made: cell_of(made, "2 + 2").update(source="2+2"))
    assert said(root, "ruff").endswith("not formatted: `nbs tidy old/tiny`.")
    assert checked(root)[-1].endswith(": 1 to repair.")
    with pytest.raises(AuthoringError, match="run `nbs tidy old/tiny` first"):
        record("tiny", root, say=lambda line: None)


@pytest.mark.skipif(ruff_command() is None, reason="ruff is not installed")
def test_ruff_and_the_rules_count_cells_alike(root):
    edited(root, lambda made: cell_of(made, "2 + 2").update(source="import os"))
    made = find_chapter("tiny", root).cells
    number = made.index(cell_of(made, "import os")) + 1
    line = said(root, "F401")
    assert line.startswith(f"old/tiny, cell {number} (`import os`): ruff: line 1: ")


def test_a_chapter_that_is_not_in_the_contents(root):
    (root / "_toc.yml").write_text("root: chapters/old/index\nparts: []\n")
    lines = checked(root)
    assert any("add the line `- file: chapters/old/tiny`" in line for line in lines)
    assert any("'chapters/old/index' is neither a notebook" in line for line in lines)


def test_a_misspelt_parent_in_the_family_tree(root):
    path = root / "book" / "family.yml"
    path.write_text(path.read_text().replace("[Old]", "[Odl]"))
    line = said(root, "book/family.yml")
    assert line == (
        "book/family.yml: family: Tiny 0 builds on 'Odl', which is not in the file."
    )


def test_a_chapter_without_its_row_of_badges(root):
    (root / "README.md").write_text(
        (root / "README.md").read_text().replace("tiny.ipynb", "old.ipynb")
    )
    assert "`nbs tidy --all`" in said(root, "README.md: badges:")


def test_two_works_that_would_be_cited_alike(root):
    path = root / "book" / "references.bib"
    entry = "@article{{{key},\n  author = {{Author, Ada}},\n  year = {{2020}}\n}}\n"
    path.write_text(
        entry.format(key="author2020tiny") + entry.format(key="author2020b")
    )
    line = said(root, "book/references.bib")
    assert (
        "author2020tiny and author2020b would both be cited as (Author, 2020)" in line
    )
    assert "author2020tiny 2020a, author2020b 2020b" in line


def test_the_bibliography_of_the_book_is_read(root):
    book = Book.load(root)
    assert book.citations == {"author2020tiny"}


# ---- After an editor


def test_a_change_of_prose_in_an_editor_asks_for_nothing_but_tidying(root):
    chapter = find_chapter("tiny", root)
    chapter.raw["metadata"]["language_info"]["version"] = "3.12.1"
    chapter.cells[0]["source"] += " More words."
    _number, cell = chapter.code_cells()[1]
    cell["execution_count"] = 9
    chapter.path.write_text(json.dumps(chapter.raw))
    found = checked(root)[:-1]
    assert len(found) == 2
    assert all("`nbs tidy" in line for line in found), found
