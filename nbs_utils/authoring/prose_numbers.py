"""Where each number of the prose comes from.

A number is explained by an output before it (rounded, as a percentage, or as the
difference or ratio of two numbers that stand side by side), by code, by a citation in
its sentence or a neighboring one, by arithmetic that the text shows, or by an earlier
sentence that was itself cited or computed. The others are listed.

Small whole numbers that stand in the code ("a stride of 2") cannot be told from
results, and a table of many numbers explains much: the rule finds what nothing
explains, not every mistake.
"""

import html
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from . import arithmetic
from .book import headings
from .notebook import Chapter, source
from .numbers import Number, differences_and_ratios, numbers_in, values_in
from .rules_outputs import texts
from .sentences import Sentence, displayed_math, inline_code, sentences

_COMPARED = re.compile(
    r"\b(?:points?|differ\w*|more|less|fewer|gap|apart|ahead|behind|between|gains?|los\w+"
    r"|costs?|larger|smaller|higher|lower|better|worse|drop\w*|ris\w+|rose|fall\w*|fell"
    r"|further|extra|sav\w+|adds?|left|remain\w*|times|ratio|factor|share|fold|faster"
    r"|slower|shorter|longer|grow\w*|grew|shrink\w*|of the|per|as many|as much|increas\w+"
    r"|decreas\w+|reduc\w+|halv\w+|doubl\w+|from)\b|×|%"
)
# What a unit can be made of: percent are a share or a change, points a difference.
_KINDS = {
    "%": ("ratio", "change"),
    "percent": ("ratio", "change"),
    "point": ("difference",),
}
# More pairs than this explain everything, so nothing.
_LARGEST_TABLE = 400


@dataclass(frozen=True)
class Value:
    """A number of an output: where it stands and what it is."""

    cell: str  # id of the cell
    form: str  # MIME type
    line: int
    place: int  # in the line, counted from its end
    value: float

    @property
    def key(self) -> tuple[str, str, int, int]:
        return self.cell, self.form, self.line, self.place


@dataclass(frozen=True)
class Source:
    """What explains a number.

    Attributes:
        kind: "output", "difference", "ratio", "change", "code", "citation",
            "arithmetic", "text" or "exercise".
        values: the numbers of outputs that it is made from, none for other kinds.
    """

    kind: str
    values: tuple[Value, ...] = ()


@dataclass
class Explained:
    """A number of a sentence with everything that explains it; nothing, if nothing does.

    Attributes:
        wrong: arithmetic around it that does not hold, or "".
    """

    sentence: Sentence
    number: Number
    sources: list[Source] = field(default_factory=list)
    wrong: str = ""


def explain(chapter: Chapter) -> list[Explained]:
    """Return every number of a chapter's prose with its sources, in order."""
    reader = _Reader(chapter)
    return [
        one for here in range(len(reader.sentences)) for one in reader.explain(here)
    ]


def no_longer_held(before: Chapter, after: Chapter) -> list[Sentence]:
    """Return the sentences whose numbers do not agree with new outputs.

    A number that came from certain places of the old outputs must agree with one of
    the same places of the new ones; any other number must be explained anew.

    Args:
        before: the chapter with the outputs that its text was written for.
        after: the same chapter with new outputs.
    """
    old = {
        (one.sentence.cell, one.sentence.text, one.number.start): one.sources
        for one in explain(before)
    }
    now = _values_by_key(after)
    found: dict[tuple[int, str], Sentence] = {}
    for one in explain(after):
        sources = old.get((one.sentence.cell, one.sentence.text, one.number.start), [])
        lasting = [s for s in sources if not s.values]
        measured = [s for s in sources if s.values]
        same_places = [
            source
            for source in measured
            if all(value.key in now for value in source.values)
        ]
        if lasting:
            holds = not one.wrong
        elif same_places:
            holds = any(_still_gives(s, one.number, now) for s in same_places)
        else:
            holds = bool(one.sources)
        if not holds:
            found.setdefault((one.sentence.cell, one.sentence.text), one.sentence)
    return list(found.values())


def _still_gives(source: Source, number: Number, now: dict[tuple, list[float]]) -> bool:
    choices = itertools.product(*(now[value.key] for value in source.values))
    if source.kind == "output":
        return any(number.is_made_from(value) for (value,) in choices)
    return any(
        number.is_made_from(value, complement=False)
        for kind, value in differences_and_ratios(choices)
        if kind == source.kind
    )


def _values_by_key(chapter: Chapter) -> dict[tuple, list[float]]:
    found: dict[tuple, list[float]] = {}
    for value in itertools.chain(*(output_values(c) for _, c in chapter.code_cells())):
        found.setdefault(value.key, []).append(value.value)
    return found


def output_values(cell: dict) -> list[Value]:
    """Return the numbers that the outputs of a cell show, each form of them."""
    found = []
    for number, (form, text) in enumerate(texts(cell)):
        name = f"{number} {form}"
        for line, place, value in values_in(_words(form, text)):
            found.append(Value(cell.get("id", ""), name, line, place, value))
    return found


def _words(form: str, text: str) -> str:
    """Return an output as lines of words: a row of a table is a line."""
    if form == "image/svg+xml":
        labels = re.findall(r"<text\b[^>]*>(.*?)</text>", text, re.DOTALL)
        return "\n".join(html.unescape(re.sub(r"<[^>]*>", "", one)) for one in labels)
    if form == "text/html":
        text = re.sub(r"<(style|script)\b.*?</\1>", "", text, flags=re.DOTALL)
        text = re.sub(r"\s*\n\s*", " ", text)
        text = re.sub(r"</(?:tr|p|div|table|li)>", "\n", text)
        return html.unescape(re.sub(r"<[^>]*>", " ", text))
    return text


class _Reader:
    """A chapter, read from top to bottom: what is known at each sentence."""

    def __init__(self, chapter: Chapter):
        self.sentences = list(sentences(chapter))
        self.chapter = chapter
        self.code = self._code()
        self.values = {i: output_values(c) for i, c in chapter.code_cells()}
        self.pairs = {i: list(_side_by_side(v)) for i, v in self.values.items()}
        self.starts = sorted(mark.cell for mark in headings(chapter))
        self.told: list[float] = []  # cited or computed in an earlier sentence

    def _code(self) -> list[float]:
        texts_ = []
        for cell in self.chapter.cells:
            text = source(cell)
            if cell["cell_type"] == "code":
                texts_.append(text)
            else:
                texts_ += [inline_code(text), displayed_math(text)]
        return sorted({value for _, _, value in values_in("\n".join(texts_))})

    def explain(self, here: int) -> list[Explained]:
        """Return the numbers of one sentence; what it cites or computes is told on."""
        sentence = self.sentences[here]
        shown = list(arithmetic.shown_in(sentence.text))
        cited = self._is_cited(here)
        found = []
        computed = [v for _, _, e in shown for v in arithmetic.numbers_of(e)]
        for number in numbers_in(sentence.text):
            around = [e for a, b, e in shown if a <= number.start < b]
            one = Explained(sentence, number)
            one.wrong = next((e for e in around if arithmetic.is_false(e)), "")
            if not one.wrong:
                one.sources = list(self._sources(sentence, number, around, cited))
                if any(number.is_made_from(v, complement=False) for v in computed):
                    one.sources.append(Source("arithmetic"))
            found.append(one)
        for _, _, expression in shown:
            self.told += arithmetic.results(expression)
        for one in found:
            if any(source.kind in ("citation", "exercise") for source in one.sources):
                self.told += [one.number.value]
        return found

    def _is_cited(self, here: int) -> bool:
        """Tell whether the sentence or a neighbor in its paragraph cites something.

        A table is cited as a whole: in one of its rows, or in the sentence before it.
        """
        one = self.sentences[here]
        if not one.is_row:
            near = self.sentences[max(here - 1, 0) : here + 2]
            return any(s.is_cited and s.paragraph == one.paragraph for s in near)
        rows = [s for s in self.sentences if s.paragraph == one.paragraph]
        first = self.sentences.index(rows[0])
        before = self.sentences[max(first - 1, 0) : first]
        return any(s.is_cited and s.cell == one.cell for s in [*before, *rows])

    def _sources(
        self, sentence: Sentence, number: Number, around: list[str], cited: bool
    ) -> Iterator[Source]:
        """Yield what explains a number; the weaker only where nothing stronger does.

        What does not depend on a run stands first, then outputs, then what is made
        from two numbers of an output.
        """
        lasting = list(self._lasting(sentence, number, around, cited))
        shown = [] if lasting else list(self._shown(sentence, number))
        yield from lasting or shown or self._derived(sentence, number)

    def _lasting(
        self, sentence: Sentence, number: Number, around: list[str], cited: bool
    ) -> Iterator[Source]:
        if around:
            yield Source("arithmetic")
        if cited:
            yield Source("citation")
        if sentence.in_exercise:
            yield Source("exercise")
        if any(number.is_made_from(value, complement=False) for value in self.code):
            yield Source("code")
        if any(number.is_made_from(value) for value in self.told):
            yield Source("text")

    def _shown(self, sentence: Sentence, number: Number) -> Iterator[Source]:
        for cell in self._cells_before(sentence):
            for value in self.values[cell]:
                if number.is_made_from(value.value):
                    yield Source("output", (value,))

    def _derived(self, sentence: Sentence, number: Number) -> Iterator[Source]:
        if not _COMPARED.search(sentence.text):
            return
        kinds = _KINDS.get(number.unit, ("difference", "ratio"))
        # The heading may stand in the sentence's own cell, behind it.
        start = max([s for s in self.starts if s < sentence.cell], default=0)
        for cell in self._cells_before(sentence):
            if cell < start:
                continue
            for one, other in self.pairs[cell]:
                for kind, value in differences_and_ratios([(one.value, other.value)]):
                    if kind in kinds and number.is_made_from(value, complement=False):
                        yield Source(kind, (one, other))
        said = [n.value for n in numbers_in(sentence.text) if n.start != number.start]
        for pair in itertools.combinations(said, 2):
            for kind, value in differences_and_ratios([pair]):
                if kind in kinds and number.is_made_from(value, complement=False):
                    yield Source("arithmetic")

    def _cells_before(self, sentence: Sentence) -> list[int]:
        """Return the code cells whose outputs a reader has seen, or sees beside it.

        Prose that introduces cells may also speak of what they show, up to the next
        prose; a caption speaks of its own cell.
        """
        last = sentence.cell
        cells = self.chapter.cells
        while last + 1 < len(cells) and cells[last + 1]["cell_type"] == "code":
            last += 1
        return [cell for cell in self.values if cell <= last]


def _side_by_side(values: list[Value]) -> Iterator[tuple[Value, Value]]:
    """Yield pairs of numbers in one line, or at the same place of two lines."""
    if len(values) > _LARGEST_TABLE:
        return
    for one, other in itertools.combinations(values, 2):
        if one.form != other.form or one.value == other.value:
            continue
        if one.line == other.line or one.place == other.place:
            yield one, other
