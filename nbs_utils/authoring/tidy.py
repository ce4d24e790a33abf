"""Undo what an editor leaves in a notebook, and write what is generated.

Outputs are never touched: where they are not those of the recording, only a new
recording (or git) brings them back, and the author is told so.
"""

from collections.abc import Callable
from pathlib import Path

from .book import Book
from .hashing import code_sha256, outputs_sha256
from .notebook import (
    AuthoringError,
    Chapter,
    as_json,
    find_chapter,
    load_chapter,
    load_chapters,
    source,
    write_atomically,
)
from .ruff import format_file
from .whole_book import badge_table, badges_of

KERNEL = {"display_name": "Python 3", "language": "python", "name": "python3"}
# What editors note about a run of their own.
TRANSIENT = ("execution", "ExecuteTime", "collapsed", "scrolled", "jupyter", "vscode")


def tidy(
    root: Path,
    name: str | None = None,
    *,
    prose_read: bool = False,
    say: Callable[[str], None] = print,
) -> list[str]:
    """Tidy one chapter, or all and the table of chapters in README.md.

    Args:
        root: the repository.
        name: a chapter; None for everything.
        prose_read: somebody has gone through the text since the last recording.
        say: told what only a person can repair.

    Returns:
        What was changed: names of chapters, and "README.md".

    Raises:
        AuthoringError: `prose_read` without a chapter, or no chapter has this name.
    """
    if prose_read and name is None:
        raise AuthoringError(
            "--prose-read is said of one chapter at a time: "
            "`nbs tidy classics/lenet --prose-read`."
        )
    chapters = load_chapters(root) if name is None else [find_chapter(name, root)]
    changed = [
        chapter.name for chapter in chapters if _tidy(chapter, root, prose_read, say)
    ]
    if name is None and write_badges(root, say):
        changed.append("README.md")
    return changed


def _tidy(
    chapter: Chapter, root: Path, prose_read: bool, say: Callable[[str], None]
) -> bool:
    before = chapter.path.read_bytes()
    complaint = format_file(chapter.path, root)
    if complaint:
        say(f"{chapter.name} was not formatted: {complaint}")
    chapter = load_chapter(chapter.path, root)
    _settle(chapter, say)
    if prose_read:
        chapter.nbs.pop("text_of", None)
    text = as_json(chapter.raw)
    if text.encode() != chapter.path.read_bytes():
        write_atomically(chapter.path, text)
    return chapter.path.read_bytes() != before


def _settle(chapter: Chapter, say: Callable[[str], None]) -> None:
    """Restore in memory what does not depend on a run."""
    metadata = chapter.raw.setdefault("metadata", {})
    metadata["kernelspec"] = dict(KERNEL)
    metadata["language_info"] = {"name": "python"}
    metadata.pop("widgets", None)
    for cell in chapter.cells:
        for key in TRANSIENT:
            cell.get("metadata", {}).pop(key, None)
        if not isinstance(cell["source"], list):
            cell["source"] = source(cell).splitlines(keepends=True)
    _give_ids(chapter.cells)
    if "recorded" not in chapter.nbs:
        return
    if chapter.nbs.get("code_sha256") != code_sha256(chapter.cells):
        say(
            f"{chapter.name}: the code is not the recorded one, so the counts were left "
            f"alone; run `nbs record {chapter.name}`."
        )
        return
    for number, (_, cell) in enumerate(chapter.code_cells(), start=1):
        cell["execution_count"] = number
        for output in cell.get("outputs", []):
            # The count of a result is part of how Jupyter shows it, not of what it is.
            if output.get("output_type") == "execute_result":
                output["execution_count"] = number
    if chapter.nbs.get("outputs_sha256") != outputs_sha256(chapter.cells):
        say(
            f"{chapter.name}: stored outputs are not those of the recording, most "
            "likely because cells were run again. Take the outputs back with git, or "
            f"run `nbs record {chapter.name}`."
        )


def _give_ids(cells: list[dict]) -> None:
    """Give an id to cells that have none, or that of an earlier cell."""
    seen: set[str] = set()
    for number, cell in enumerate(cells):
        name = cell.get("id")
        if not name or name in seen:
            fresh = (f"cell-{n}" for n in range(number, number + 10_000))
            taken = {other.get("id") for other in cells} | seen
            cell["id"] = next(one for one in fresh if one not in taken)
        seen.add(cell["id"])


def write_badges(root: Path, say: Callable[[str], None]) -> bool:
    """Write the table of chapters in README.md; tell whether it changed."""
    path = root / "README.md"
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    found = badges_of(text)
    if found is None:
        say("README.md has no marks of the table of chapters, so it was left alone.")
        return False
    book = Book.load(root)
    table = badge_table(book.chapters, root, book.repository)
    if table != found:
        write_atomically(path, text.replace(found, table))
    return table != found
