"""Record a chapter: run it from top to bottom in a fresh kernel and keep what it shows.

The committed outputs of a chapter are never typed and never the leftovers of a
session. They come from one run, and the notebook's metadata says which: a hash of the
code, the device, the date, the time it took and the versions.
"""

import copy
import datetime
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from .export import require_fresh, zoo_sha256
from .hashing import code_sha256, outputs_sha256
from .lock import one_recording
from .notebook import (
    AuthoringError,
    Chapter,
    as_json,
    find_chapter,
    load_chapter,
    source,
    write_atomically,
)
from .prose_numbers import no_longer_held
from .ruff import would_format
from .rules_numbers import is_exempt, shortened
from .running import execute

# Where a run that can no longer be put into its chapter is kept; not in git.
RESCUE_FOLDER = Path("runs") / "recorded"


@dataclass
class Recording:
    """What one run of a chapter left.

    Attributes:
        chapter: with the outputs of the run.
        seconds: wall time of the run.
        files: what was written into the repository; empty for a quick run.
    """

    chapter: Chapter
    seconds: float
    files: list[Path] = field(default_factory=list)


def record(
    name: str,
    root: Path,
    *,
    quick: bool = False,
    timeout: int | None = None,
    say: Callable[[str], None] = print,
) -> Recording:
    """Execute a chapter and, unless quick, write its outputs into the notebook.

    A full recording waits until no other one runs on this machine.

    Args:
        name: the chapter, for example "residual/resnet".
        root: the repository.
        quick: run in quick mode and write nothing; to find errors before a long run.
        timeout: seconds that one cell may take; None for no limit.
        say: called with each line of progress.

    Raises:
        AuthoringError: the code is not formatted, the zoo does not hold the chapter's
            network, a cell fails, or the chapter's code was edited while it ran. The
            notebook and the run cards are untouched.
    """
    chapter = find_chapter(name, root)
    require_fresh(chapter, root)
    if quick:
        with tempfile.TemporaryDirectory(prefix="nbs-cards-") as cards:
            executed, seconds = _timed(chapter, cards, True, timeout, say)
        return Recording(Chapter(chapter.path, chapter.name, executed), seconds)
    if would_format(chapter.path, root):
        raise AuthoringError(
            f"{chapter.name} is not formatted: run `nbs tidy {chapter.name}` first."
        )
    with one_recording(chapter.name, say), _cards_folder() as cards:
        chapter = find_chapter(name, root)  # it may have changed while this waited
        before = chapter.path.read_text(encoding="utf-8")
        zoo = zoo_sha256(chapter, root)
        executed, seconds = _timed(chapter, cards, False, timeout, say)
        if chapter.path.read_text(encoding="utf-8") != before:
            chapter = _after_edit(chapter, executed, root)
        old = copy.deepcopy(chapter)
        _store(chapter, executed, seconds, zoo)
        made = sorted(
            p.relative_to(cards).as_posix() for p in Path(cards).rglob("*.json")
        )
        if made:
            chapter.nbs["recorded"]["cards"] = made
        _compare_with_text(old, chapter, say)
        write_atomically(chapter.path, as_json(chapter.raw))
        written = _keep_cards(Path(cards), root / "results")
    return Recording(chapter, seconds, [chapter.path, *written])


def _cards_folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(prefix="nbs-cards-")


def _timed(
    chapter: Chapter,
    cards: str,
    quick: bool,
    timeout: int | None,
    say: Callable[[str], None],
) -> tuple[dict, float]:
    started = time.perf_counter()
    executed = execute(chapter, cards, quick, timeout, say)
    seconds = time.perf_counter() - started
    say(f"{chapter.name}: {seconds:.1f} s")
    return executed, seconds


def _compare_with_text(
    before: Chapter, after: Chapter, say: Callable[[str], None]
) -> None:
    """Say which sentences the new outputs contradict, and note it in the metadata.

    The note names the recording that the text was written for, until somebody has
    gone through the text (`nbs tidy --prose-read`).
    """
    nbs = after.raw["metadata"]["nbs"]
    earlier = before.nbs.get("text_of") or {
        key: before.nbs.get("recorded", {}).get(key)
        for key in ("date", "device", "tier")
    }
    waiting = [s for s in no_longer_held(before, after) if not is_exempt(after, s)]
    if not waiting:
        return  # an older note stays: only a person takes it away
    say(f"{len(waiting)} sentences do not agree with the new outputs:")
    for sentence in waiting:
        say(f"  cell {sentence.cell + 1}: {sentence.text}")
    say(f"Go through them, then run `nbs tidy {after.name} --prose-read`.")
    if before.nbs.get("recorded"):
        nbs["text_of"] = {
            **{key: earlier.get(key) for key in ("date", "device", "tier")},
            "sentences": [shortened(sentence) for sentence in waiting],
        }


def _after_edit(chapter: Chapter, executed: dict, root: Path) -> Chapter:
    """Return the chapter as it was edited during the run, if its code is the same."""
    edited = load_chapter(chapter.path, root)
    if code_sha256(edited.cells) == code_sha256(chapter.cells):
        return edited
    rescue = root / RESCUE_FOLDER / (chapter.name.replace("/", "-") + ".ipynb")
    _copy_outputs(chapter, executed)
    write_atomically(rescue, as_json(chapter.raw))
    raise AuthoringError(
        f"The code of {chapter.name} was edited while it ran, so the chapter was left "
        f"alone; this run is kept in {rescue.relative_to(root).as_posix()}."
    )


def _store(
    chapter: Chapter, executed: dict, seconds: float, zoo: dict[str, str]
) -> None:
    """Put outputs and the account of the run into the chapter's JSON."""
    from nbs_utils import runtime

    _copy_outputs(chapter, executed)
    metadata = chapter.raw.setdefault("metadata", {})
    metadata["kernelspec"] = {
        "display_name": "Python 3",
        "language": "python",
        "name": "python3",
    }
    metadata["language_info"] = {"name": "python"}
    metadata.pop("widgets", None)
    nbs = metadata.setdefault("nbs", {})
    nbs["code_sha256"] = code_sha256(chapter.cells)
    nbs["outputs_sha256"] = outputs_sha256(chapter.cells)
    nbs.pop("zoo_sha256", None)
    if zoo:
        nbs["zoo_sha256"] = zoo
    nbs["recorded"] = {
        "tier": runtime.tier(),
        "device": runtime.device_name(),
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "seconds": round(seconds, 1),
        "versions": runtime.versions(),
    }


def _copy_outputs(chapter: Chapter, executed: dict) -> None:
    """Copy counts and outputs of the executed code cells, in order, without noise."""
    code = [cell for cell in executed["cells"] if cell["cell_type"] == "code"]
    for (_, cell), done in zip(chapter.code_cells(), code, strict=True):
        cell["execution_count"] = done["execution_count"]
        cell["outputs"] = [
            _clean(output)
            for output in done["outputs"]
            # Bars and warnings: the page drops them, and they differ in every run.
            if output.get("name") != "stderr"
        ]
        for transient in ("execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.get("metadata", {}).pop(transient, None)
    for cell in chapter.cells:
        if not isinstance(cell["source"], list):
            cell["source"] = source(cell).splitlines(keepends=True)


def _clean(output: dict) -> dict:
    """Return an output as the format stores it: long texts as lists of lines.

    The address of an object in memory (`<Styler object at 0x7f...>`) says nothing and
    differs in every run, so it is left out.
    """
    cleaned = {key: value for key, value in output.items() if key != "transient"}
    if "text" in cleaned:
        cleaned["text"] = cleaned["text"].splitlines(keepends=True)
    if "data" in cleaned:
        cleaned["data"] = {
            mime: value.splitlines(keepends=True)
            if isinstance(value, str) and not mime.startswith("image/png")
            else value
            for mime, value in cleaned["data"].items()
        }
        plain = cleaned["data"].get("text/plain", [])
        if isinstance(plain, list):
            lines = [re.sub(r" at 0x[0-9a-fA-F]{6,}", "", line) for line in plain]
            cleaned["data"] |= {"text/plain": lines} if plain else {}
    return cleaned


def _keep_cards(cards: Path, results: Path) -> list[Path]:
    """Copy the run cards of a successful recording into the repository."""
    written = []
    for card in sorted(cards.rglob("*.json")):
        target = results / card.relative_to(cards)
        write_atomically(target, card.read_text("utf-8"))
        written.append(target)
    return written
