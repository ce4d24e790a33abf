"""Begin a chapter: a notebook that runs, its test, its lines in the book's files."""

import re
from pathlib import Path

from . import skeleton
from .book import Book
from .notebook import AuthoringError, as_json, write_atomically
from .ruff import format_file
from .tidy import KERNEL, write_badges
from .whole_book import read_family, toc_documents

# Folder -> the caption of its part in _toc.yml, its column in the family tree.
PLACES = {
    "foundations": ("Foundations", None),
    "classics": ("Classics", "Classics"),
    "residual": ("Residual networks", "Residual"),
    "efficient": ("Efficient networks", "Efficient"),
    "attention": ("Attention", "Attention"),
}


def new(
    name: str, root: Path, *, title: str | None = None, year: int | None = None
) -> list[Path]:
    """Write the skeleton of a chapter and put it into the book.

    Args:
        name: folder and file name, "classics/lenet".
        root: the repository.
        title: of the page, without the year; by default that of the family tree, or
            made from the name.
        year: of the network's first publication; by default that of the family tree.

    Returns:
        The files that were written or changed.

    Raises:
        AuthoringError: the name cannot be used, the chapter exists, or nothing says
            its year. Nothing is written then.
    """
    folder, slug = _split(name)
    path = root / "chapters" / f"{name}.ipynb"
    if path.exists():
        raise AuthoringError(f"The chapter {name} exists already.")
    family = {
        rest[0]: (network, published)
        for network, (published, _, _, *rest) in read_family(root).items()
        if rest
    }
    known_title, known_year = family.get(name, (None, None))
    title = title or known_title or slug.replace("-", " ").capitalize()
    year = year or known_year
    model = folder != "foundations"
    if model and year is None:
        raise AuthoringError(
            f"No network of book/family.yml names {name}; give the year of its paper, "
            f"as in `nbs new {name} --year 2015`."
        )
    written = [path, *_write_notebook(path, root, title, year if model else None, slug)]
    if f"chapters/{name}" not in toc_documents(root):
        written.append(_add_to_toc(root, name, folder, year))
    if model and name not in family:
        written.append(_add_to_family(root, name, folder, title, year))
    if write_badges(root, say=lambda line: None):
        written.append(root / "README.md")
    return written


def _split(name: str) -> tuple[str, str]:
    folder, _, slug = name.partition("/")
    if folder not in PLACES or not re.fullmatch(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*", slug):
        raise AuthoringError(
            f"'{name}' cannot be a chapter: write a folder and a name in lower case, "
            f"as in classics/lenet; the folders are {', '.join(PLACES)}."
        )
    return folder, slug


def _write_notebook(
    path: Path, root: Path, title: str, year: int | None, slug: str
) -> list[Path]:
    """Write the notebook and, for a network, its test; return the test."""
    repository = Book.load(root).repository
    network = slug.replace("-", "_")
    if year is None:
        cells = skeleton.foundation_cells(title, slug, repository)
        nbs = {"kind": "foundation"}
    else:
        class_name = "".join(part.capitalize() for part in slug.split("-"))
        cells = skeleton.model_cells(title, year, slug, network, class_name, repository)
        nbs = {"kind": "model", "zoo": network}
    for number, cell in enumerate(cells):
        cell["id"] = f"{slug}-{number}"[:64]
    raw = {
        "cells": cells,
        "metadata": {
            "kernelspec": dict(KERNEL),
            "language_info": {"name": "python"},
            "nbs": nbs,
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    write_atomically(path, as_json(raw))
    format_file(path, root)
    if year is None:
        return []
    test = root / "tests" / f"test_{network}.py"
    if test.exists():
        return []
    write_atomically(test, skeleton.TEST.format(title=title, network=network))
    return [test]


def _add_to_toc(root: Path, name: str, folder: str, year: int | None) -> Path:
    """Add the chapter to its part: behind the last chapter that is not younger."""
    path = root / "_toc.yml"
    lines = path.read_text(encoding="utf-8").splitlines()
    caption = PLACES[folder][0]
    heads = [i for i, line in enumerate(lines) if line.startswith("  - caption:")]
    entry = f"      - file: chapters/{name}"
    head = next((i for i in heads if lines[i] == f"  - caption: {caption}"), None)
    if (
        head is None
    ):  # the first chapter of its part, which stands before the back matter
        order = [caption for caption, _ in PLACES.values()]
        later = [*order[order.index(caption) + 1 :], "Back matter"]
        before = [i for i in heads if lines[i].partition(": ")[2] in later]
        at = before[0] if before else len(lines)
        lines[at:at] = [f"  - caption: {caption}", "    chapters:", entry]
    else:
        end = next((i for i in heads if i > head), len(lines))
        years = {
            rest[0]: published
            for published, _, _, *rest in read_family(root).values()
            if rest
        }
        at = head + 2
        for i in range(head + 2, end):
            there = lines[i].partition("chapters/")[2].strip()
            if year is None or years.get(there, 0) <= year:
                at = i + 1
        lines.insert(at, entry)
    write_atomically(path, "\n".join(lines) + "\n")
    return path


def _add_to_family(root: Path, name: str, folder: str, title: str, year: int) -> Path:
    path = root / "book" / "family.yml"
    text = path.read_text(encoding="utf-8").rstrip("\n")
    line = f"  {title}: [{year}, {PLACES[folder][1]}, [], {name}]"
    write_atomically(path, f"{text}\n{line}\n")
    return path
