"""What a chapter may refer to: labels, documents and bibliography of the whole book."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from .notebook import Chapter, load_chapters, source

# The parts of a model chapter. The first is the level-1 heading itself; each of the
# others is a level-2 heading, free in its words, with `<!-- part: NAME -->` below it.
PARTS = (
    "glance",
    "why",
    "idea",
    "build",
    "network",
    "right",
    "practice",
    "train",
    "inside",
    "worth",
    "exercises",
    "references",
)
MARKER = re.compile(r"^<!-- part: (\S+) -->\s*$")
# `{numref}`fig-x`` and `{numref}`Figure %s <fig-x>``
ROLE = re.compile(r"\{([a-z]+(?::[a-z]+)?)\}`([^`]+)`")
# Code spans are dropped; roles look like one after their brace, so they match first.
_ROLE_OR_SPAN = re.compile(
    r"(?P<role>\{[a-z]+(?::[a-z]+)?\}`[^`\n]+`)|(?<!`)(`+)(?!`)[^\n]*?[^`\n]\2(?!`)"
)
_LABELS = (
    re.compile(r"^\(([^()\s]+)\)=\s*$", re.MULTILINE),  # (label)=
    re.compile(r"^\s*:(?:label|name): *(\S+)\s*$", re.MULTILINE),
    re.compile(r"\$\$ *\(([^()\s]+)\)\s*$", re.MULTILINE),  # $$ ... $$ (label)
)
_FENCE = re.compile(r"^\s*(`{3,}|~{3,})(.*)$")


@dataclass
class Heading:
    """A level-2 heading of a notebook, and the part that it opens."""

    cell: int
    text: str
    part: str | None


@dataclass
class Book:
    """All chapters, and what a chapter's text can point at."""

    root: Path
    chapters: list[Chapter]

    @classmethod
    def load(cls, root: Path) -> "Book":
        """Read every notebook of the book."""
        return cls(root, load_chapters(root))

    @cached_property
    def repository(self) -> str:
        """The public address of the repository, from its one place."""
        project = self.root / "pyproject.toml"
        text = project.read_text(encoding="utf-8") if project.exists() else ""
        found = re.search(r'^Repository = "([^"]+)"', text, re.MULTILINE)
        return found[1] if found else "https://github.com/__owner__/__repo__"

    @cached_property
    def citations(self) -> set[str]:
        """The keys of the bibliography."""
        path = self.root / "book" / "references.bib"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        return set(re.findall(r"^\s*@\w+\s*\{\s*([^,\s]+)\s*,", text, re.MULTILINE))

    @cached_property
    def labels(self) -> set[str]:
        """Every name that `ref`, `numref` or `eq` can find, lower case."""
        return set(self.places)

    @cached_property
    def places(self) -> dict[str, list[tuple[str, int | None]]]:
        """Where each label is given: label, lower case -> (chapter or page, cell)."""
        found: dict[str, list[tuple[str, int | None]]] = {}
        for chapter in self.chapters:
            for label, cell in self.labels_in(chapter):
                found.setdefault(label, []).append((chapter.name, cell))
        for page in sorted((self.root / "chapters").rglob("*.md")):
            name = page.relative_to(self.root).as_posix()
            for label in labels_of(page.read_text(encoding="utf-8")):
                found.setdefault(label.lower(), []).append((name, None))
        return found

    def labels_in(self, chapter: Chapter) -> Iterator[tuple[str, int]]:
        """Yield (label in lower case, position of its cell) for a chapter."""
        for index, cell in enumerate(chapter.cells):
            if cell["cell_type"] == "markdown":
                yield from ((name.lower(), index) for name in labels_of(source(cell)))
            elif figure_of(cell).get("name"):
                yield figure_of(cell)["name"].lower(), index


def figure_of(cell: dict) -> dict:
    """Return the name and caption that a cell's metadata gives its figure."""
    return cell.get("metadata", {}).get("mystnb", {}).get("figure", {})


def alt_of(cell: dict) -> str:
    """Return the alt text that a cell's metadata gives its images."""
    image = cell.get("metadata", {}).get("mystnb", {}).get("image", {})
    return image.get("alt", "").strip()


def labels_of(markdown: str) -> list[str]:
    """Return the labels that a piece of MyST defines, one twice if it is given twice."""
    return [name for pattern in _LABELS for name in pattern.findall(markdown)]


def prose(markdown: str) -> str:
    """Return markdown without code: neither fenced blocks nor inline code.

    Directives in fences of backticks (```{note}) and roles stay; lines keep their
    numbers.
    """
    lines, closing = [], None
    for line in markdown.splitlines():
        fence = _FENCE.match(line)
        if closing:
            lines.append("")
            if fence and fence[1].startswith(closing) and not fence[2].strip():
                closing = None
        elif (
            fence
            and not fence[2].strip().startswith("{")
            and fence[2].strip()
            or fence
            and not fence[2].strip()
            and not _closes_directive(lines, fence[1])
        ):
            lines.append("")
            closing = fence[1]
        else:
            lines.append(line)
    return _ROLE_OR_SPAN.sub(lambda found: found["role"] or "", "\n".join(lines))


def _closes_directive(before: list[str], ticks: str) -> bool:
    """Tell whether a bare fence ends a directive that is still open."""
    opened = 0
    for line in before:
        fence = _FENCE.match(line)
        if fence and fence[1] == ticks:
            opened += 1 if fence[2].strip() else -1
    return opened > 0


def anchors_of(chapter: Chapter) -> set[str]:
    """Return the anchors that the site makes of a chapter's headings, as GitHub does.

    Levels 1 to 3, like `myst_heading_anchors` in _config.yml.
    """
    found = set()
    for cell in chapter.cells:
        if cell["cell_type"] == "markdown":
            for text in re.findall(
                r"^#{1,3} +(.+?)\s*$", prose(source(cell)), re.MULTILINE
            ):
                kept = re.sub(r"[^\w\- ]", "", text.strip().lower())
                found.add(kept.replace(" ", "-"))
    return found


def headings(chapter: Chapter) -> Iterator[Heading]:
    """Yield the level-2 headings of a chapter in order, with their parts."""
    for index, cell in enumerate(chapter.cells):
        if cell["cell_type"] != "markdown":
            continue
        lines = prose(source(cell)).splitlines()
        for number, line in enumerate(lines):
            found = re.match(r"^## +(.+?)\s*$", line)
            if found:
                rest = [text for text in lines[number + 1 :] if text.strip()]
                marker = MARKER.match(rest[0]) if rest else None
                yield Heading(index, found[1], marker[1] if marker else None)


def part_cells(chapter: Chapter, part: str) -> list[tuple[int, dict]]:
    """Return (position, cell) of the cells from a part's heading to the next one's."""
    marks = list(headings(chapter))
    if part == "glance":
        end = marks[0].cell if marks else len(chapter.cells)
        return list(enumerate(chapter.cells))[:end]
    for this, following in zip(marks, [*marks[1:], None], strict=True):
        if this.part == part:
            end = following.cell if following else len(chapter.cells)
            return list(enumerate(chapter.cells))[this.cell : max(end, this.cell + 1)]
    return []
