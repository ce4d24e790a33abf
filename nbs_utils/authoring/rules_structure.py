"""Rules on the frame of a chapter: its parts, its cells and its code."""

import re
import subprocess
from collections import Counter
from collections.abc import Iterator

from .book import PARTS, Book, headings, part_cells
from .check import Found, rule
from .export import difference, exported_cells, module_text, ruff_command
from .notebook import AuthoringError, Chapter, source, tags

KINDS = ("model", "foundation", "comparison")
LONGEST_CELL = 40
LONG_CELL = 25
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
    if chapter.kind == "model":
        for mark in marks:
            if mark.part is None:
                repair = "put `<!-- part: NAME -->` below it, or make it level 3"
                yield mark.cell, f"'{mark.text}' opens no part; {repair}."
        wanted = PARTS[1:]
    else:
        wanted = ("exercises", "references") if chapter.kind == "foundation" else ()
    found = [mark.part for mark in marks if mark.part is not None]
    for mark in marks:
        if mark.part is not None and mark.part not in PARTS[1:]:
            yield mark.cell, f"no part is called '{mark.part}'."
    for part in wanted:
        if found.count(part) != 1:
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
        yield None, f"cells tagged `setup`: {marked}; exactly the second one must be."
        return
    cell = chapter.cells[1]
    if source(cell).strip() != SETUP.format(repository=book.repository).strip():
        yield 1, "the set-up cell differs from the text that all chapters share."
    if "hide-input" not in tags(cell):
        yield 1, "the set-up cell must be tagged `hide-input`, too."


@rule("exercises")
def check_exercises(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Four to six exercises, each with a folded solution whose code was executed."""
    if chapter.kind not in ("model", "foundation"):
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
            inside = step[2]
            solutions.append(inside)
            if ":class: dropdown" not in step[3]:
                yield index, f"the solution of {inside} needs `:class: dropdown`."
    if len(exercises) not in EXERCISES:
        yield None, f"{len(exercises)} exercises; a chapter has four to six."
    if inside is not None:
        yield None, f"the solution of {inside} has no `solution-end`."
    for label in exercises:
        if solutions.count(label) != 1:
            yield (
                None,
                f"exercise {label} has {solutions.count(label)} solutions, not one.",
            )
        elif not solved[label]:
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
            yield index, f"the id '{name}' is that of cell {ids.index(name)}, too."


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


@rule("empty-cell")
def check_empty(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No cell is empty: it would never be executed and shows a gap."""
    for index, cell in enumerate(chapter.cells):
        if not source(cell).strip():
            yield index, "the cell is empty; remove it."


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


@rule("zoo")
def check_zoo(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The module of the zoo is what the exported cells say, and stands on its own."""
    if not exported_cells(chapter):
        return
    try:
        differs = difference(chapter, book.root)
        if differs:
            yield None, f"the zoo differs; run `nbs export {chapter.name}`.\n{differs}"
        yield from _undefined_names(module_text(chapter))
    except AuthoringError as error:
        yield None, str(error)


def _undefined_names(code: str) -> Iterator[Found]:
    ruff = ruff_command()
    if ruff is None:
        return
    select = ["--isolated", "--select", "F811,F821", "--output-format", "concise"]
    done = subprocess.run(
        [*ruff, "check", "--quiet", *select, "--stdin-filename", "zoo.py", "-"],
        input=code,
        capture_output=True,
        text=True,
        check=False,
    )
    for line in done.stdout.splitlines():
        yield None, f"the exported cells do not stand on their own: {line}"


@rule("ruff")
def check_ruff(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Lint and format hold for the notebook's code as for every other file."""
    ruff = ruff_command()
    if ruff is None:
        return
    for what in (["check", "--output-format", "concise"], ["format", "--check"]):
        done = subprocess.run(
            [*ruff, *what, "--quiet", str(chapter.path)],
            capture_output=True,
            text=True,
            cwd=book.root,
            check=False,
        )
        if done.returncode:
            lines = (done.stdout + done.stderr).strip().splitlines()
            for line in lines or ["would be reformatted"]:
                yield None, f"ruff {what[0]}: {line.removeprefix(str(chapter.path))}"
