"""Every committed chapter keeps every rule; `nbs check` says the same in words.

nbval runs the notebooks themselves; these tests read the files.
"""

import functools

import pytest

from nbs_utils.authoring.book import Book
from nbs_utils.authoring.check import ADVICE, all_rules, book_findings, findings
from nbs_utils.authoring.export import RESERVED
from nbs_utils.authoring.notebook import chapter_paths, repository_root

ROOT = repository_root(__file__)
RULES = [name for name in all_rules() if name not in ADVICE]
PATHS = chapter_paths(ROOT)


@functools.cache
def book() -> Book:
    return Book.load(ROOT)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("number", range(len(PATHS)), ids=[p.stem for p in PATHS])
def test_chapter(number, rule):
    found = findings(book().chapters[number], book(), rule)
    assert not found, "\n".join(map(str, found))


def test_the_files_around_the_chapters_agree_with_them():
    found = book_findings(book())
    assert not found, "\n".join(map(str, found))


def test_there_are_chapters():
    """An empty list of chapters would let every other test here pass."""
    assert {path.stem for path in PATHS} >= {"alexnet", "resnet", "vit"}


def test_every_module_of_the_zoo_comes_from_a_chapter():
    exported = {chapter.nbs.get("zoo") for chapter in book().chapters}
    for module in (ROOT / "nbs_utils" / "zoo").glob("*.py"):
        if module.stem not in RESERVED | {"__init__"}:
            assert module.stem in exported, f"{module.name} has no chapter any more"
