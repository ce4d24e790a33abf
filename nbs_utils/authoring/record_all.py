"""Record several chapters one after another, and carry the results to another machine."""

import io
import json
import tarfile
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .hashing import code_sha256
from .notebook import AuthoringError, Chapter, find_chapter
from .record import Recording, record
from .whole_book import in_order


@dataclass
class Row:
    """One chapter in the table at the end."""

    chapter: str
    seconds: float | None = None
    device: str = ""
    scores: list[str] = field(default_factory=list)
    failed: str = ""


def is_stale(chapter: Chapter) -> bool:
    """Tell whether a chapter's code is not the recorded one."""
    recorded = chapter.nbs.get("code_sha256")
    return "recorded" not in chapter.nbs or recorded != code_sha256(chapter.cells)


def record_all(
    root: Path,
    *,
    everything: bool = False,
    timeout: int | None = None,
    archive: Path | None = None,
    say: Callable[[str], None] = print,
) -> int:
    """Record every chapter whose code changed, in the order of the book.

    Each chapter is written as soon as it is finished, and a failure does not stop the
    others. Ends with a table.

    Args:
        root: the repository.
        everything: also the chapters whose code is the recorded one.
        timeout: seconds that one cell may take; None for no limit.
        archive: gets what was written, see `write_archive`; after every chapter, so
            that an interrupted run leaves what it has.
        say: called with each line of progress.

    Returns:
        0 when all chapters were recorded, 1 when one failed.
    """
    names = [
        name
        for name in in_order(root)
        if everything or is_stale(find_chapter(name, root))
    ]
    if not names:
        say(
            "Every chapter's code is the recorded one; nothing to do (ALL=1 records all)."
        )
        return 0
    rows: list[Row] = []
    files: list[Path] = []
    try:
        for number, name in enumerate(names, start=1):
            say(f"--- {name} ({number} of {len(names)})")
            rows.append(Row(name, failed="stopped"))
            _record_one(rows[-1], files, root, timeout, archive, say)
    finally:  # also when a person stops it
        say("")
        for line in table(rows):
            say(line)
    if archive and files:
        unpack = f"tar xf {archive.name}"
        say(f"What was written is in {archive}; unpack it in the repository: {unpack}")
    return 1 if any(row.failed for row in rows) else 0


def _record_one(
    row: Row,
    files: list[Path],
    root: Path,
    timeout: int | None,
    archive: Path | None,
    say: Callable[[str], None],
) -> None:
    """Record one chapter; its row and the list of written files say what came of it."""
    try:
        made = record(row.chapter, root, timeout=timeout, say=say)
    except AuthoringError as error:
        row.failed = str(error)
    except Exception as error:  # noqa: BLE001
        # One chapter's fault must not cost the others.
        row.failed = "".join(traceback.format_exception_only(error)).strip()
    else:
        row.failed = ""
        _fill(row, made)
        files += made.files
        if archive:
            write_archive(archive, files, root)
    if row.failed:
        say(row.failed)


def _fill(row: Row, made: Recording) -> None:
    row.seconds = made.seconds
    row.device = made.chapter.nbs["recorded"]["device"]
    for path in made.files:
        if path.suffix != ".json":
            continue
        card = json.loads(path.read_text(encoding="utf-8"))
        top1 = (card.get("test") or {}).get("top1")
        if top1 is not None:
            row.scores.append(f"{card['name']} {100 * top1:.1f} %")


def table(rows: list[Row]) -> list[str]:
    """Return the table of a run of several chapters as lines of Markdown."""
    lines = [
        "| chapter | seconds | device | test top-1 | failed |",
        "|:--|--:|:--|:--|:--|",
    ]
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        failed = row.failed.splitlines()[0] if row.failed else ""
        cells = [row.chapter, seconds, row.device, ", ".join(row.scores), failed]
        lines.append(f"| {' | '.join(cells)} |")
    total = sum(row.seconds or 0 for row in rows)
    failures = sum(bool(row.failed) for row in rows)
    done = f"{len(rows) - failures} of {len(rows)} chapters"
    lines.append(f"{done} recorded in {total / 60:.1f} minutes.")
    return lines


def write_archive(archive: Path, files: list[Path], root: Path) -> None:
    """Write files of the repository into one compressed tar, paths from its root.

    Only contents and names: no owner and no time of the machine that made it.
    """
    archive.parent.mkdir(parents=True, exist_ok=True)
    draft = archive.with_name(archive.name + ".part")
    with tarfile.open(draft, "w:gz") as tar:
        for path in sorted(set(files)):
            content = path.read_bytes()
            entry = tarfile.TarInfo(path.relative_to(root).as_posix())
            entry.size, entry.mode = len(content), 0o644
            tar.addfile(entry, io.BytesIO(content))
    draft.replace(archive)
