"""Rules on the book around a chapter: contents, family tree, badges, labels, works."""

from collections import defaultdict
from collections.abc import Iterator

from .book import Book
from .check import Found, Problem, book_rule, rule
from .notebook import Chapter
from .whole_book import (
    badge_table,
    badges_of,
    family_columns,
    read_family,
    read_works,
    toc_documents,
)


@rule("contents")
def check_contents(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The chapter has its place in the book."""
    if f"chapters/{chapter.name}" not in toc_documents(book.root):
        yield (
            None,
            (
                "the chapter is not in _toc.yml, so that the book leaves it out; add the "
                f"line `- file: chapters/{chapter.name}` under its part."
            ),
        )


@rule("family")
def check_family(chapter: Chapter, book: Book) -> Iterator[Found]:
    """A chapter on a network is in the family tree, once or more."""
    drawn = {rest[0] for _, _, _, *rest in read_family(book.root).values() if rest}
    if chapter.kind == "model" and chapter.name not in drawn:
        yield (
            None,
            (
                "no network of book/family.yml names this chapter; add a line "
                f"`Name: [year, column, [parents], {chapter.name}]`."
            ),
        )


@rule("labels")
def check_labels(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every label (figure, exercise, equation, section) is given once in the book."""
    own: dict[str, int] = {}
    for label, cell in book.labels_in(chapter):
        if label in own:
            yield cell, f"the label '{label}' is that of cell {own[label] + 1}, too."
            continue
        own[label] = cell
        for name, there in book.places[label]:
            if name != chapter.name:
                where = name if there is None else f"{name}, cell {there + 1}"
                yield (
                    cell,
                    (
                        f"the label '{label}' is also given in {where}; labels are shared "
                        f"by the whole book, so begin it with the chapter's name."
                    ),
                )


@book_rule("contents")
def check_files(book: Book) -> Iterator[Problem]:
    """Everything in the contents is a file."""
    for document in toc_documents(book.root):
        path = book.root / document
        if not any(
            path.with_name(path.name + end).exists() for end in (".ipynb", ".md")
        ):
            yield "_toc.yml", f"'{document}' is neither a notebook nor a page."


@book_rule("family")
def check_tree(book: Book) -> Iterator[Problem]:
    """Parents in the family tree exist, and nobody is older than a parent."""
    networks = read_family(book.root)
    columns = family_columns(book.root)
    for name, (year, column, parents, *_) in networks.items():
        if column not in columns:
            yield (
                "book/family.yml",
                (
                    f"{name} stands in the column '{column}'; the columns are "
                    f"{', '.join(columns)}."
                ),
            )
        for parent in parents:
            if parent not in networks:
                yield (
                    "book/family.yml",
                    f"{name} builds on '{parent}', which is not in the file.",
                )
            elif networks[parent][0] > year:
                yield "book/family.yml", f"{name} is older than its parent {parent}."


@book_rule("badges")
def check_badges(book: Book) -> Iterator[Problem]:
    """README.md lists every chapter, in the order of the book."""
    path = book.root / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = badges_of(text)
    if found is None:
        yield "README.md", "the marks of the table of chapters are missing."
    elif found != badge_table(book.chapters, book.root, book.repository):
        yield "README.md", "the table of chapters is not up to date: `nbs tidy --all`."


@book_rule("works")
def check_works(book: Book) -> Iterator[Problem]:
    """No two works are cited alike: (He et al., 2016a)."""
    alike = defaultdict(list)
    for work in read_works(book.root):
        alike[work.label].append(work.key)
    for label, keys in alike.items():
        if len(keys) > 1:
            letters = ", ".join(
                f"{key} {label[-4:]}{letter}"
                for key, letter in zip(keys, "abcdefgh", strict=False)
            )
            yield (
                "book/references.bib",
                (
                    f"{' and '.join(keys)} would both be cited as ({label}); give their "
                    f"years a letter: {letters}."
                ),
            )
