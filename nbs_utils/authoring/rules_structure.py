"""Rules on the frame of a chapter: kind, title, parts, exercises, cells."""

import difflib
import re
from collections import Counter
from collections.abc import Iterator

from .book import PARTS, Book, headings, part_cells
from .check import Found, rule
from .export import exported_cells
from .notebook import Chapter, source, tags

KINDS = ("model", "foundation", "comparison")
# What the tools of the book, the site and nbval read.
TAGS = {
    *("setup", "export", "solution"),
    *("hide-input", "hide-output", "hide-cell", "remove-input", "remove-output"),
    *("remove-cell", "scroll-output", "full-width"),
    *("nbval-check-output", "nbval-ignore-output", "nbval-skip", "raises-exception"),
}
EXERCISES = range(4, 7)

SETUP = """\
# Install the book's package where it is missing (Colab); nothing is pinned.
import importlib.util

if importlib.util.find_spec("nbs_utils") is None:
    %pip install -q --no-deps "git+{repository}"
"""


@rule("kind")
def check_kind(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The metadata says what the chapter is, and a model chapter names its module."""
    if chapter.kind not in KINDS:
        yield (
            None,
            f"metadata nbs.kind is {chapter.kind!r}; set one of {', '.join(KINDS)}.",
        )
    if chapter.kind == "model" and not exported_cells(chapter):
        yield None, "no cell is tagged `export`; the network must reach the zoo."
    if chapter.kind in ("foundation", "comparison"):
        if exported_cells(chapter):
            yield (
                None,
                (
                    f"nbs.kind is '{chapter.kind}', but cells are tagged `export`: a "
                    "chapter that builds a network is a 'model'."
                ),
            )
        if {mark.part for mark in headings(chapter)} & set(PARTS[1:-2]):
            yield (
                None,
                (
                    f"nbs.kind is '{chapter.kind}', but headings open parts of a model "
                    "chapter (`<!-- part: why -->`); set it to 'model'."
                ),
            )


def apparent_kind(chapter: Chapter) -> str:
    """Return the kind of a chapter, or what it looks like where none is known.

    So that one wrong word in the metadata does not hide what other rules would find.
    """
    if chapter.kind in KINDS:
        return chapter.kind
    return "model" if exported_cells(chapter) else "foundation"


@rule("tags")
def check_tags(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every tag is one that something reads."""
    for index, cell in enumerate(chapter.cells):
        for tag in sorted(tags(cell) - TAGS):
            near = difflib.get_close_matches(tag, TAGS, n=1, cutoff=0.6)
            hint = (
                f"did you mean `{near[0]}`?"
                if near
                else f"known: {', '.join(sorted(TAGS))}."
            )
            yield index, f"nothing reads the tag `{tag}`; {hint}"


@rule("title")
def check_title(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The first cell opens the page with its only level-1 heading."""
    tops = [
        (index, line)
        for index, cell in enumerate(chapter.cells)
        if cell["cell_type"] == "markdown"
        for line in re.findall(r"^# .+$", _without_fences(source(cell)), re.MULTILINE)
    ]
    if not tops or tops[0][0] != 0:
        yield 0, "the first cell must be markdown with the page's `# Title`."
    for index, line in tops[1:]:
        yield index, f"a second level-1 heading ({line!r}); use level 2 or lower."
    if chapter.kind == "model" and tops and not re.search(r"\(\d{4}\)$", tops[0][1]):
        yield 0, f"the title {tops[0][1]!r} must end in the year: `# Name (2015)`."


def _without_fences(markdown: str) -> str:
    return re.sub(
        r"^(```+|~~~+).*?^\1\s*$", "", markdown, flags=re.MULTILINE | re.DOTALL
    )


@rule("parts")
def check_parts(chapter: Chapter, book: Book) -> Iterator[Found]:
    """A model chapter has the twelve parts, once each, in order."""
    marks = list(headings(chapter))
    if apparent_kind(chapter) == "model":
        for mark in marks:
            if mark.part is None:
                repair = "put `<!-- part: NAME -->` below it, or make it level 3"
                yield mark.cell, f"'{mark.text}' opens no part; {repair}."
        wanted = PARTS[1:]
    else:
        known_kind = apparent_kind(chapter) == "foundation"
        wanted = ("exercises", "references") if known_kind else ()
    found = [mark.part for mark in marks if mark.part is not None]
    for mark in marks:
        if mark.part is not None and mark.part not in PARTS[1:]:
            yield (
                mark.cell,
                f"no part is called '{mark.part}'; they are {', '.join(PARTS[1:])}.",
            )
    missing = [part for part in wanted if part not in found]
    if missing:
        markers = ", ".join(f"`<!-- part: {part} -->`" for part in missing)
        parts = "part is" if len(missing) == 1 else "parts are"
        yield None, f"{len(missing)} {parts} missing: {markers}."
    for part in wanted:
        if found.count(part) > 1:
            yield (
                None,
                f"the part '{part}' is there {found.count(part)} times, not once.",
            )
    known = [part for part in found if part in PARTS]
    if known != sorted(known, key=PARTS.index):
        yield None, f"the parts are out of order: {', '.join(known)}."


@rule("glance")
def check_glance(chapter: Chapter, book: Book) -> Iterator[Found]:
    """A model chapter shows its table before the first level-2 heading."""
    if chapter.kind != "model":
        return
    shown = [
        mime
        for _, cell in part_cells(chapter, "glance")
        for output in cell.get("outputs", [])
        for mime in output.get("data", {})
    ]
    if "text/html" not in shown:
        yield None, "no table (text/html) is shown before the first level-2 heading."


@rule("set-up")
def check_setup(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The second cell installs the package where it is missing, in these words."""
    marked = [i for i, cell in enumerate(chapter.cells) if "setup" in tags(cell)]
    if marked != [1]:
        said = ", ".join(f"cell {i + 1}" for i in marked) or "none"
        yield None, f"tagged `setup`: {said}; exactly the second cell must be."
        return
    cell = chapter.cells[1]
    if source(cell).strip() != SETUP.format(repository=book.repository).strip():
        yield 1, "the set-up cell differs from the text that all chapters share."
    if "hide-input" not in tags(cell):
        yield 1, "the set-up cell must be tagged `hide-input`, too."


@rule("exercises")
def check_exercises(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Four to six exercises, each with a folded solution whose code was executed."""
    if apparent_kind(chapter) == "comparison":
        return
    exercises: list[str] = []
    solved: Counter[str] = Counter()
    solutions: list[str] = []
    inside = None  # the label of the solution that the walk is in
    for index, cell in part_cells(chapter, "exercises"):
        text = source(cell)
        if cell["cell_type"] == "code":
            if inside is not None:  # that it was executed is a rule of its own
                solved[inside] += 1
            continue
        opened = re.findall(
            r"\{exercise(?:-start)?\}(?:(?!^:::|^```).)*",
            text,
            re.MULTILINE | re.DOTALL,
        )
        for block in opened:
            label = re.search(r"^:label: *(\S+)", block, re.MULTILINE)
            if label:
                exercises.append(label[1])
            else:
                yield index, "an exercise has no `:label:` for its solution."
        steps = re.finditer(r"\{solution-(start|end)\} *(\S*)([^{]*)", text)
        for step in steps:
            if step[1] == "end":
                inside = None
                continue
            if inside is not None:
                yield index, f"the solution of {inside} has no `solution-end`."
            inside = step[2]
            solutions.append(inside)
            if ":class: dropdown" not in step[3]:
                yield index, f"the solution of {inside} needs `:class: dropdown`."
    if len(exercises) not in EXERCISES:
        yield None, f"{len(exercises)} exercises; a chapter has four to six."
    if inside is not None:
        yield None, f"the solution of {inside} has no `solution-end`."
    for label in dict.fromkeys(exercises):  # twice the same is a rule of its own
        if solutions.count(label) != exercises.count(label):
            yield (
                None,
                f"exercise {label} has {solutions.count(label)} solutions, not one.",
            )
        if label in solutions and not solved[label]:
            yield None, f"the solution of {label} has no code cell."
    for label in sorted(set(solutions) - set(exercises)):
        yield None, f"a solution names {label}, but no exercise has this label."


@rule("ids")
def check_ids(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every cell has an id of its own (read from the raw file)."""
    ids = [cell.get("id") for cell in chapter.cells]
    for index, name in enumerate(ids):
        if not isinstance(name, str) or not re.fullmatch(r"[\w-]{1,64}", name):
            yield index, f"the cell's id is {name!r}; it needs 1 to 64 word characters."
        elif ids.index(name) != index:
            yield index, f"the id '{name}' is that of cell {ids.index(name) + 1}, too."


@rule("empty-cell")
def check_empty(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No cell is empty: it would never be executed and shows a gap."""
    for index, cell in enumerate(chapter.cells):
        if not source(cell).strip():
            yield index, "the cell is empty; remove it."


@rule("checked-output")
def check_checked(chapter: Chapter, book: Book) -> Iterator[Found]:
    """A model chapter has cells whose output the tests compare, and they show text."""
    checked = [
        (i, c) for i, c in chapter.code_cells() if "nbval-check-output" in tags(c)
    ]
    if chapter.kind == "model" and not checked:
        yield None, "no cell is tagged `nbval-check-output`: counts, shapes and parity."
    for index, cell in checked:
        texts = [
            output
            for output in cell.get("outputs", [])
            if output["output_type"] == "stream"
            or "text/plain" in output.get("data", {})
        ]
        if not texts and cell.get("execution_count"):
            yield index, "its output is to be compared, but it has no text to compare."
