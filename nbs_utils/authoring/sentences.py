"""The sentences of a chapter: what prose, captions and alt texts say, in plain words."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from .book import alt_of, figure_of
from .notebook import Chapter, source

CITED = "⟦cited⟧"
_FENCE = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1\s*$", re.MULTILINE | re.DOTALL)
_DISPLAYED = re.compile(r"\$\$.*?\$\$(?: *\([^)]*\))?", re.DOTALL)
_ENVIRONMENT = re.compile(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
# A sentence ends before a capital letter, a number, math, a link or emphasis.
_END = re.compile(
    r"(?<=[.!?])(?<!et al\.)(?<!e\.g\.)(?<!i\.e\.)(?<!vs\.)[*_\")]*\s+(?=[^a-z])"
)


@dataclass(frozen=True)
class Sentence:
    """One sentence.

    Attributes:
        cell: position of its cell in the notebook, from 0.
        text: without markup; `CITED` stands for a citation.
        paragraph: number of the paragraph in the chapter; captions have their own.
        is_caption: it belongs to the figure of a code cell.
        in_exercise: it stands in the box of an exercise, which gives numbers.
    """

    cell: int
    text: str
    paragraph: int
    is_caption: bool = False
    in_exercise: bool = False

    @property
    def is_row(self) -> bool:
        """Whether it is a row of a table."""
        return self.text.startswith("|")

    @property
    def is_cited(self) -> bool:
        return CITED in self.text


def sentences(chapter: Chapter) -> Iterator[Sentence]:
    """Yield all sentences of a chapter in order."""
    number = 0
    for index, cell in enumerate(chapter.cells):
        if cell["cell_type"] == "markdown":
            for paragraph, in_exercise in _paragraphs(source(cell)):
                number += 1
                for text in _split(paragraph):
                    yield Sentence(index, text, number, False, in_exercise)
        else:
            for words in (figure_of(cell).get("caption", ""), alt_of(cell)):
                number += 1
                for text in _split(_plain(words)):
                    yield Sentence(index, text, number, is_caption=True)


def inline_code(markdown: str) -> str:
    """Return all code of a markdown cell: fenced blocks and spans, a line each."""
    blocks = [found[0] for found in _FENCE.finditer(markdown)]
    rest = _FENCE.sub("", markdown)
    return "\n".join([*blocks, *re.findall(r"(?<!\})`([^`\n]+)`", rest)])


def displayed_math(markdown: str) -> str:
    """Return the displayed equations of a markdown cell."""
    return "\n".join(found[0] for found in _DISPLAYED.finditer(markdown))


def _paragraphs(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield (plain paragraph, whether an exercise holds it); list items stay with it."""
    text = _FENCE.sub("", markdown)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = _ENVIRONMENT.sub(" ", _DISPLAYED.sub(" ", text))
    open_until = ""  # what closes the exercise that the walk is in
    for block in re.split(r"\n\s*\n", text):
        kept = []
        in_exercise = bool(open_until)
        for line in block.splitlines():
            if re.match(r"\s*:{3,}", line):
                if "{exercise-start}" in line:
                    open_until = "{exercise-end}"
                elif "{exercise}" in line:
                    open_until = ":::"
                elif open_until and open_until in line:
                    open_until = ""
                in_exercise = in_exercise or bool(open_until)
                continue
            if re.match(r"\s*(#{1,6} |:\w+:|\([^)]*\)=|\|[\s:|-]+\|\s*$)", line):
                continue
            kept.append(re.sub(r"^\s*(?:[-*+]|\d+\.)\s+", "• ", line))
        if kept:
            yield _plain("\n".join(kept)), in_exercise


def _plain(text: str) -> str:
    """Return MyST as words: citations as a mark, links and roles as their text."""
    text = re.sub(r"\{cite(?::\w+)?\}`[^`]*`", CITED, text)
    text = re.sub(r"\{[a-z:]+\}`([^`<]*)(?:<[^>]*>)?`", _role, text)
    text = re.sub(r"`[^`\n]*`", "⟦code⟧", text)
    text = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text)
    return re.sub(r"<[a-z/][^>]*>", "", text)


def _role(found: re.Match) -> str:
    inner = found[1].strip()
    return inner if " " in inner else "⟦link⟧"


def _split(paragraph: str) -> list[str]:
    """Return the sentences of a paragraph; items of a list and rows of a table apart."""
    found = []
    for block in re.split(r"\n(?=•|\|)|^(?=•)", paragraph):
        words = " ".join(block.split()).removeprefix("• ")
        found += [part.strip() for part in _END.split(words) if part.strip()]
    return found
