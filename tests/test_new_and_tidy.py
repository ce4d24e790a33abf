"""Beginning a chapter, and taking back what an editor left in one."""

import json
import shutil
from pathlib import Path

import pytest
import yaml
from a_chapter import cells, code, make_book, markdown, shown

from nbs_utils.authoring import export, new, notebook, tidy, whole_book
from nbs_utils.authoring.book import PARTS, Book, headings
from nbs_utils.authoring.check import check_chapter
from nbs_utils.authoring.notebook import AuthoringError, find_chapter
from nbs_utils.authoring.ruff import ruff_command

ROOT = Path(__file__).resolve().parents[1]
needs_ruff = pytest.mark.skipif(
    ruff_command() is None, reason="ruff is not installed: pip install ruff"
)
# What only a person, or a recording, can give a new chapter.
LEFT = {"todo", "recorded", "executed", "citations", "glance"}


@pytest.fixture
def root(tmp_path):
    """A book of one chapter with the repository's own contents and family tree."""
    make_book(tmp_path)
    for name in ("_toc.yml", "book/family.yml", "README.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    # Of the classics the contents keep one; the tests begin others around it.
    lines = (tmp_path / "_toc.yml").read_text().splitlines(keepends=True)
    begun = [
        one for one in lines if "chapters/classics/" in one and "alexnet" not in one
    ]
    contents = "".join(line for line in lines if line not in begun)
    (tmp_path / "_toc.yml").write_text(contents)
    tidy.write_badges(tmp_path, pytest.fail)
    return tmp_path


# ---- New


@needs_ruff
def test_a_new_chapter_lacks_only_words_and_a_recording(root):
    written = [
        path.relative_to(root).as_posix() for path in new.new("classics/vgg", root)
    ]
    assert written == [
        "chapters/classics/vgg.ipynb",
        "tests/test_vgg.py",
        "_toc.yml",
        "README.md",
    ]
    export.export(root, "classics/vgg")
    book = Book.load(root)
    chapter = find_chapter("classics/vgg", root)
    found = check_chapter(chapter, book)
    assert {f.rule for f in found if f.is_error} == LEFT, "\n".join(map(str, found))
    assert chapter.title == "VGG (2014)"  # as the family tree has it
    assert [mark.part for mark in headings(chapter)] == list(PARTS[1:])


def test_a_new_chapter_gets_its_place_by_year(root):
    new.new("classics/vgg", root)
    new.new("classics/lenet", root)
    order = [name for name in whole_book.toc_documents(root) if "classics" in name]
    assert order == [f"chapters/classics/{n}" for n in ("lenet", "alexnet", "vgg")]
    assert "# The order of the book." in (root / "_toc.yml").read_text()  # kept


def test_the_first_chapter_of_a_part_makes_the_part(root):
    toc = root / "_toc.yml"
    lines = toc.read_text().splitlines(keepends=True)
    caption = lines.index("  - caption: Efficient networks\n")
    kept = [one for one in lines if "chapters/efficient/" not in one]
    del kept[caption : caption + 2]  # the caption, and the word `chapters:`
    toc.write_text("".join(kept))
    new.new("efficient/squeezenet", root)
    parts = yaml.safe_load((root / "_toc.yml").read_text())["parts"]
    captions = [part["caption"] for part in parts]
    here = captions.index("Efficient networks")
    assert captions[here - 1 : here + 2] == [
        "Residual networks",
        "Efficient networks",
        "Attention",
    ]
    assert parts[here]["chapters"] == [{"file": "chapters/efficient/squeezenet"}]


def test_a_network_outside_the_family_tree_needs_its_year(root):
    with pytest.raises(AuthoringError, match="give the year.*nbs new classics/zfnet"):
        new.new("classics/zfnet", root)
    assert not (root / "chapters" / "classics").exists()
    new.new("classics/zfnet", root, title="ZFNet", year=2013)
    assert whole_book.read_family(root)["ZFNet"] == [
        *(2013, "Classics", [], "classics/zfnet")
    ]


@needs_ruff
def test_a_new_foundation_chapter_needs_no_network(root):
    new.new("foundations/layers", root)
    chapter = find_chapter("foundations/layers", root)
    found = check_chapter(chapter, Book.load(root))
    left = (LEFT - {"glance"}) | {"images"}  # its figure waits for the recording
    assert {f.rule for f in found if f.is_error} <= left, "\n".join(map(str, found))
    assert chapter.kind == "foundation"
    assert not (root / "tests").exists()


@pytest.mark.parametrize(
    "name", ["lenet", "classics/LeNet", "old/tiny", "classics/a/b"]
)
def test_a_name_that_cannot_be_a_chapter_is_refused(root, name):
    with pytest.raises(AuthoringError, match="write a folder and a name in lower case"):
        new.new(name, root)


def test_nothing_is_written_over_a_chapter(root):
    new.new("classics/vgg", root)
    with pytest.raises(AuthoringError, match="exists already"):
        new.new("classics/vgg", root)


# ---- Tidy


def as_an_editor_saves(chapter) -> None:
    """Change a chapter as Jupyter does when a cell was run again and saved."""
    raw = chapter.raw
    raw["metadata"]["language_info"] = {"name": "python", "version": "3.12.1"}
    raw["metadata"]["widgets"] = {"state": {}}
    _number, cell = chapter.code_cells()[3]
    cell["execution_count"] = 27
    cell["metadata"]["ExecuteTime"] = {"end_time": "now"}
    chapter.cells[0]["source"] = "# Tiny (2020)\n\nBetter {cite:t}`author2020tiny`."
    chapter.path.write_text(json.dumps(raw, indent=4))


def test_what_an_editor_leaves_is_taken_back_and_outputs_stay(tmp_path):
    chapter, _ = make_book(tmp_path)
    export.export(tmp_path)
    outputs = [cell.get("outputs") for cell in chapter.cells]
    as_an_editor_saves(chapter)
    assert check_chapter(find_chapter("tiny", tmp_path), Book.load(tmp_path))
    assert tidy.tidy(tmp_path, "tiny", say=pytest.fail) == ["old/tiny"]
    chapter = find_chapter("tiny", tmp_path)
    assert check_chapter(chapter, Book.load(tmp_path)) == []
    assert [cell.get("outputs") for cell in chapter.cells] == outputs
    assert "Better" in notebook.source(chapter.cells[0])
    assert tidy.tidy(tmp_path, "tiny", say=pytest.fail) == []  # nothing is left to do


@needs_ruff
def test_layout_and_comments_may_change_without_a_new_recording(tmp_path):
    made = cells()
    chapter, _ = make_book(tmp_path, made)
    export.export(tmp_path)
    cell = next(c for c in chapter.cells if c["source"] == "2 + 2")
    cell["source"] = "# Two and two.\n(2+\n   2)"
    chapter.path.write_text(json.dumps(chapter.raw))
    tidy.tidy(tmp_path, "tiny", say=pytest.fail)
    chapter = find_chapter("tiny", tmp_path)
    assert any("# Two and two.\n" in notebook.source(c) for c in chapter.cells)
    assert check_chapter(chapter, Book.load(tmp_path)) == []


def test_counts_of_other_code_are_left_alone_and_the_author_is_told(tmp_path):
    chapter, _ = make_book(tmp_path)
    cell = next(c for c in chapter.cells if c["source"] == "2 + 2")
    cell.update(source="2 + 3", execution_count=31)
    chapter.path.write_text(json.dumps(chapter.raw))
    lines: list[str] = []
    tidy.tidy(tmp_path, "tiny", say=lines.append)
    assert "the code is not the recorded one" in lines[0]
    found = find_chapter("tiny", tmp_path).cells
    assert 31 in [c.get("execution_count") for c in found]


def test_outputs_of_another_run_are_named_and_not_touched(tmp_path):
    chapter, _ = make_book(tmp_path)
    cell = next(c for c in chapter.cells if c["source"] == "2 + 2")
    cell["outputs"] = [shown(text_plain="5")]
    chapter.path.write_text(json.dumps(chapter.raw))
    lines: list[str] = []
    tidy.tidy(tmp_path, "tiny", say=lines.append)
    assert "stored outputs are not those of the recording" in lines[0]
    assert "5" in chapter.path.read_text()


def test_cells_without_an_id_and_with_that_of_another_get_their_own(tmp_path):
    chapter, _ = make_book(tmp_path)
    chapter.cells[3].pop("id")
    chapter.cells[5]["id"] = chapter.cells[4]["id"]
    chapter.path.write_text(json.dumps(chapter.raw))
    tidy.tidy(tmp_path, "tiny", say=pytest.fail)
    ids = [cell["id"] for cell in find_chapter("tiny", tmp_path).cells]
    assert len(set(ids)) == len(ids)


def test_prose_read_takes_the_note_away_and_asks_for_one_chapter(tmp_path):
    chapter, _ = make_book(tmp_path)
    chapter.nbs["text_of"] = {"date": "2026-11-20"}
    chapter.path.write_text(json.dumps(chapter.raw))
    tidy.tidy(tmp_path, "tiny", say=pytest.fail)
    assert "text_of" in find_chapter("tiny", tmp_path).nbs
    with pytest.raises(AuthoringError, match="one chapter at a time"):
        tidy.tidy(tmp_path, prose_read=True, say=pytest.fail)
    tidy.tidy(tmp_path, "tiny", prose_read=True, say=pytest.fail)
    assert "text_of" not in find_chapter("tiny", tmp_path).nbs


def test_the_table_of_chapters_is_written_in_the_order_of_the_book(tmp_path):
    make_book(tmp_path, [markdown("# Beta (2021)"), code("1")], "old/b")
    make_book(tmp_path, [markdown("# Alpha: a start"), code("1")], "old/a")
    toc = (tmp_path / "_toc.yml").read_text().splitlines()
    (tmp_path / "_toc.yml").write_text("\n".join([*toc[:-2], toc[-1], toc[-2]]) + "\n")
    (tmp_path / "README.md").write_text(
        f"Before\n{whole_book.BADGES_BEGIN}\nold\n{whole_book.BADGES_END}\nAfter\n"
    )
    assert "README.md" in tidy.tidy(tmp_path, say=pytest.fail)
    readme = (tmp_path / "README.md").read_text()
    assert readme.index("| Beta |") < readme.index("| Alpha: a start |")
    assert readme.startswith("Before\n")
    assert readme.endswith("\nAfter\n")
    assert "/blob/main/chapters/old/b.ipynb" in readme
