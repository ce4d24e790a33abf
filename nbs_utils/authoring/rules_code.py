"""Rules on the code of a chapter: length, magics, style, and its module of the zoo."""

import re
from collections.abc import Iterator

from .book import Book
from .check import Found, rule
from .export import difference, exported_cells, faults, zoo_sha256
from .notebook import AuthoringError, Chapter, source, tags
from .ruff import lint, would_format

LONGEST_CELL = 40
LONG_CELL = 25


@rule("cell-length")
def check_length(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No code cell has more than 40 lines."""
    for index, cell in chapter.code_cells():
        lines = len(source(cell).splitlines())
        if lines > LONGEST_CELL:
            yield index, f"{lines} lines; split the cell, {LONGEST_CELL} is the limit."


@rule("long-cell", advice=True)
def check_long(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Cells that teach are about 25 lines at most."""
    for index, cell in chapter.code_cells():
        lines = len(source(cell).splitlines())
        folded = tags(cell) & {"hide-input", "hide-cell", "solution"}
        if LONG_CELL < lines <= LONGEST_CELL and not folded:
            yield index, f"{lines} lines; can it be two steps?"


@rule("magics")
def check_magics(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No magics and no shell but the set-up cell's: they are not Python."""
    for index, cell in chapter.code_cells():
        if "setup" in tags(cell):
            continue
        for line in source(cell).splitlines():
            if re.match(r"\s*(%\w|%%|!)", line):
                yield (
                    index,
                    f"`{line.strip()}` is not Python; the book needs no magics.",
                )


@rule("zoo")
def check_zoo(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The module of the zoo is what the exported cells say, and stands on its own."""
    if not exported_cells(chapter):
        return
    try:
        yield from faults(chapter, book.chapters)
        differs = difference(chapter, book.root)
    except AuthoringError as error:
        yield None, str(error)
        return
    if differs:
        yield None, f"the zoo differs; run `nbs export {chapter.name}`.\n{differs}"


@rule("zoo-recorded")
def check_zoo_recorded(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The outputs were recorded with the networks that the zoo holds now."""
    recorded = chapter.nbs.get("zoo_sha256", {})
    if "recorded" not in chapter.nbs:
        return  # a rule of its own says so
    for module, now in zoo_sha256(chapter, book.root).items():
        if recorded.get(module) != now:
            yield (
                None,
                (
                    f"nbs_utils/zoo/{module}.py is not the one that the outputs were "
                    "recorded with, so that counts and tables may be old; run "
                    f"`nbs record {chapter.name}`."
                ),
            )


@rule("ruff")
def check_ruff(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Lint and format hold for the notebook's code as for every other file."""
    yield from lint(chapter.path, book.root)
    if would_format(chapter.path, book.root):
        yield None, f"the code is not formatted: `nbs tidy {chapter.name}`."
