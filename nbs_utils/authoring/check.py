"""The rules that every committed chapter keeps, and the command that checks them.

Each rule is a function that yields what it finds. They stand in three files by what
they look at: `rules_structure` (parts, cells, code), `rules_outputs` (what the run
left) and `rules_text` (references and prose).
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from .book import Book
from .notebook import Chapter, find_chapter

Found = tuple[int | None, str]
Rule = Callable[[Chapter, Book], Iterator[Found]]

RULES: dict[str, Rule] = {}
# Found and printed, but no reason to fail: a person decides.
ADVICE: set[str] = set()


@dataclass(frozen=True)
class Finding:
    """One place where a chapter breaks a rule.

    Attributes:
        rule: the rule's name.
        chapter: the chapter's name.
        cell: position of the cell in the notebook, from 0; None for the whole file.
        message: what is wrong and what to do.
    """

    rule: str
    chapter: str
    cell: int | None
    message: str

    @property
    def is_error(self) -> bool:
        """Whether the finding fails the check; advice does not."""
        return self.rule not in ADVICE

    def __str__(self) -> str:
        where = "" if self.cell is None else f", cell {self.cell}"
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


def all_rules() -> dict[str, Rule]:
    """Return every rule by name."""
    from . import rules_outputs, rules_structure, rules_text  # noqa: F401 (they register)

    return RULES


def findings(chapter: Chapter, book: Book, rule_name: str) -> list[Finding]:
    """Apply one rule to one chapter."""
    found = all_rules()[rule_name](chapter, book)
    return [Finding(rule_name, chapter.name, cell, text) for cell, text in found]


def check_chapter(chapter: Chapter, book: Book) -> list[Finding]:
    """Apply every rule to one chapter, in the order of its cells."""
    found = [f for name in all_rules() for f in findings(chapter, book, name)]
    return sorted(found, key=lambda f: -1 if f.cell is None else f.cell)


def check(
    root: Path, name: str | None = None, say: Callable[[str], None] = print
) -> int:
    """Check one chapter or all and say what was found, a line each.

    Returns:
        0 when every rule holds, 1 otherwise.
    """
    book = Book.load(root)
    chapters = book.chapters if name is None else [find_chapter(name, root)]
    found = [f for chapter in chapters for f in check_chapter(chapter, book)]
    for finding in found:
        say(str(finding))
    errors = sum(finding.is_error for finding in found)
    count = f"{len(chapters)} chapter{'s' if len(chapters) != 1 else ''}"
    say(f"{count}, {len(all_rules())} rules: {errors} to repair.")
    return 1 if errors else 0
