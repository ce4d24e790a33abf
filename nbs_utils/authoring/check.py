"""The rules that every committed chapter keeps, and the command that checks them.

Each rule is a function that yields what it finds. They stand in files by what they
look at: `rules_structure` (parts, cells), `rules_code` (code and the zoo),
`rules_outputs` (what the run left), `rules_text` (references and prose),
`rules_numbers` (the numbers of the prose) and `rules_book` (what the chapters share).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .book import Book
from .notebook import Chapter, cell_label, find_chapter

Found = tuple[int | None, str]
Rule = Callable[[Chapter, Book], Iterator[Found]]
Problem = tuple[str, str]  # a file of the book, what is wrong with it
BookRule = Callable[[Book], Iterator[Problem]]

RULES: dict[str, Rule] = {}
BOOK_RULES: dict[str, BookRule] = {}
# Found and printed, but no reason to fail: a person decides.
ADVICE: set[str] = set()


@dataclass(frozen=True)
class Finding:
    """One place where a chapter breaks a rule.

    Attributes:
        rule: the rule's name.
        chapter: the chapter's name, or that of another file of the book.
        cell: position of the cell in the notebook, from 0; None for the whole file.
        message: what is wrong and what to do.
        label: what a person is told of the cell: its number, from 1 as in ruff and in
            editors, and its first line.
    """

    rule: str
    chapter: str
    cell: int | None
    message: str
    label: str = ""

    @property
    def is_error(self) -> bool:
        """Whether the finding fails the check; advice does not."""
        return self.rule not in ADVICE

    def __str__(self) -> str:
        where = f", {self.label}" if self.label else ""
        mark = "" if self.is_error else " (advice)"
        return f"{self.chapter}{where}: {self.rule}{mark}: {self.message}"


def rule(name: str, *, advice: bool = False) -> Callable[[Rule], Rule]:
    """Register a rule under a name, which reports and tests use."""

    def keep(function: Rule) -> Rule:
        RULES[name] = function
        if advice:
            ADVICE.add(name)
        return function

    return keep


def book_rule(name: str) -> Callable[[BookRule], BookRule]:
    """Register a rule on the book as a whole, which is asked once."""

    def keep(function: BookRule) -> BookRule:
        BOOK_RULES[name] = function
        return function

    return keep


def all_rules() -> dict[str, Rule]:
    """Return every rule on a chapter by name."""
    from . import (  # noqa: F401 (they register)
        rules_book,
        rules_code,
        rules_numbers,
        rules_outputs,
        rules_structure,
        rules_text,
    )

    return RULES


def findings(chapter: Chapter, book: Book, rule_name: str) -> list[Finding]:
    """Apply one rule to one chapter."""
    return [
        Finding(
            rule_name,
            chapter.name,
            cell,
            text,
            "" if cell is None else cell_label(chapter.cells, cell),
        )
        for cell, text in all_rules()[rule_name](chapter, book)
    ]


def book_findings(book: Book) -> list[Finding]:
    """Apply the rules on the book as a whole."""
    all_rules()
    return [
        Finding(name, file, None, text)
        for name, asked in BOOK_RULES.items()
        for file, text in asked(book)
    ]


def check_chapter(chapter: Chapter, book: Book) -> list[Finding]:
    """Apply every rule to one chapter, in the order of its cells."""
    found = [f for name in all_rules() for f in findings(chapter, book, name)]
    return sorted(found, key=lambda f: -1 if f.cell is None else f.cell)


def check(
    root: Path, name: str | None = None, say: Callable[[str], None] = print
) -> int:
    """Check one chapter or all, and the book around them; say what was found.

    Every rule is asked, whatever another one found. Errors stand before advice.

    Returns:
        0 when every rule holds, 1 otherwise.
    """
    book = Book.load(root)
    chapters = book.chapters if name is None else [find_chapter(name, root)]
    found = [f for chapter in chapters for f in check_chapter(chapter, book)]
    found += book_findings(book)
    for finding in sorted(found, key=lambda f: not f.is_error):
        say(str(finding))
    errors = sum(finding.is_error for finding in found)
    count = f"{len(chapters)} chapter{'s' if len(chapters) != 1 else ''}"
    say(f"{count}, {len(all_rules()) + len(BOOK_RULES)} rules: {errors} to repair.")
    return 1 if errors else 0
