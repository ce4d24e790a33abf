"""One recording at a time on a machine: timings and cores are shared."""

import contextlib
import datetime
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

# One for all users and checkouts of the machine.
LOCK = Path(tempfile.gettempdir()) / "nbs-record.lock"


@contextlib.contextmanager
def one_recording(
    chapter: str, say: Callable[[str], None] = print, lock: Path | None = None
) -> Iterator[None]:
    """Hold the machine's lock; wait for it as long as another recording runs.

    Args:
        chapter: what is recorded, for those who wait.
        say: told once whom this waits for, and again when that changes.
        lock: the file of the lock; the one of this machine by default.

    Raises:
        OSError: the file cannot be opened, for example because it is another user's
            in a folder that allows no sharing.
    """
    from filelock import FileLock, Timeout

    lock = lock or LOCK
    note = lock.with_suffix(".json")
    held = FileLock(lock, mode=0o666)
    told = None
    while True:
        try:
            held.acquire(timeout=0 if told is None else 2)
            break
        except Timeout:
            holder = _holder(note)
            if holder != told:
                say(f"Waiting for {holder}; one recording at a time on a machine.")
            told = holder
    try:
        _write_note(note, chapter)
        yield
    finally:
        with contextlib.suppress(OSError):
            note.unlink()
        held.release()


def _write_note(note: Path, chapter: str) -> None:
    """Say who holds the lock; a lock without a note still holds."""
    text = json.dumps(
        {"chapter": chapter, "process": os.getpid(), "since": time.time()}
    )
    with contextlib.suppress(OSError):
        note.write_text(text, encoding="utf-8")


def _holder(note: Path) -> str:
    try:
        said = json.loads(note.read_text(encoding="utf-8"))
        since = datetime.datetime.fromtimestamp(said["since"]).strftime("%H:%M:%S")
        return f"{said['chapter']} (process {said['process']}, since {since})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another recording"
