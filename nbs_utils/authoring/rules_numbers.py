"""The rule on the numbers of the prose, and what an author says about exceptions.

A sentence whose numbers nothing explains is listed, unless its cell's metadata says
why that is right: `"nbs": {"numbers": {"The sentence's beginning": "the reason"}}`.
"""

from collections.abc import Iterator

from .book import Book
from .check import Found, rule
from .notebook import Chapter
from .prose_numbers import Explained, explain
from .sentences import Sentence


def exemptions(cell: dict) -> dict[str, str]:
    """Return beginning of a sentence -> reason, from a cell's metadata."""
    return cell.get("metadata", {}).get("nbs", {}).get("numbers", {})


def unexplained(chapter: Chapter) -> Iterator[tuple[Sentence, list[Explained]]]:
    """Yield (sentence, its numbers that nothing explains), exempt sentences included."""
    found: dict[Sentence, list[Explained]] = {}
    for one in explain(chapter):
        if not one.sources:
            found.setdefault(one.sentence, []).append(one)
    yield from found.items()


def is_exempt(chapter: Chapter, sentence: Sentence) -> bool:
    """Tell whether the metadata of its cell gives a reason for a sentence."""
    given = exemptions(chapter.cells[sentence.cell])
    return any(sentence.text.startswith(beginning) for beginning in given)


@rule("numbers")
def check_numbers(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every number of the prose stands in an output, in code, or has a source."""
    listed = list(unexplained(chapter))
    later = "text_of" in chapter.nbs  # the text waits for a person: a rule of its own
    for sentence, numbers in listed:
        if is_exempt(chapter, sentence) or later:
            continue
        wrong = [one.wrong for one in numbers if one.wrong]
        if wrong:
            said = f"the arithmetic `{wrong[0]}` does not hold"
        else:
            texts = " and ".join(dict.fromkeys(one.number.text for one in numbers))
            said = f"nothing explains {texts}"
        yield sentence.cell, f"{said}: “{shortened(sentence)}”"
    for index, cell in enumerate(chapter.cells):
        for beginning, why in exemptions(cell).items():
            if not str(why).strip():
                yield index, f"the exemption of “{beginning}” gives no reason."
            needed = any(
                s.cell == index and s.text.startswith(beginning) for s, _ in listed
            )
            if not needed and not later:
                yield (
                    index,
                    (
                        f"the exemption of “{beginning}” is not needed (any more); take it "
                        "out of the cell's metadata nbs.numbers."
                    ),
                )


@rule("text-read", advice=True)
def check_text_read(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The text was written for these outputs."""
    of = chapter.nbs.get("text_of")
    if of:
        waiting = "".join(f"\n  “{beginning}”" for beginning in of.get("sentences", []))
        yield (
            None,
            (
                f"the text was written for the recording of {of.get('date')}; go through "
                f"it, then `nbs tidy {chapter.name} --prose-read`.{waiting}"
            ),
        )


def shortened(sentence: Sentence, letters: int = 110) -> str:
    """Return the beginning of a sentence, long enough to find it."""
    text = sentence.text
    return text if len(text) <= letters else text[: letters - 1].rstrip() + "…"
