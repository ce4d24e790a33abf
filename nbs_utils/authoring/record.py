"""Record a chapter: run it from top to bottom in a fresh kernel and keep what it shows.

The committed outputs of a chapter are never typed and never the leftovers of a
session. They come from one run, and the notebook's metadata says which: a hash of the
code, the device, the date, the time it took and the versions.
"""

import datetime
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .export import ruff_command
from .hashing import code_sha256, outputs_sha256
from .notebook import (
    AuthoringError,
    Chapter,
    as_json,
    find_chapter,
    load_chapter,
    source,
    write_atomically,
)

# Where a run that can no longer be put into its chapter is kept; not in git.
RESCUE_FOLDER = Path("runs") / "recorded"


def record(
    name: str,
    root: Path,
    *,
    quick: bool = False,
    timeout: int | None = None,
    say: Callable[[str], None] = print,
) -> Chapter:
    """Execute a chapter and, unless quick, write its outputs into the notebook.

    Args:
        name: the chapter, for example "residual/resnet".
        root: the repository.
        quick: run in quick mode and write nothing; to find errors before a long run.
        timeout: seconds that one cell may take; None for no limit.
        say: called with each line of progress.

    Returns:
        The chapter with the outputs of this run.

    Raises:
        AuthoringError: the code is not formatted, a cell fails, or the chapter's code
            was edited while it ran. The notebook and the run cards are untouched.
    """
    chapter = find_chapter(name, root)
    if not quick:
        _require_formatted(chapter)
    before = chapter.path.read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory(prefix="nbs-cards-") as cards:
        started = time.perf_counter()
        executed = _execute(chapter, cards, quick, timeout, say)
        seconds = time.perf_counter() - started
        say(f"{chapter.name}: {seconds:.1f} s")
        if quick:
            return Chapter(chapter.path, chapter.name, executed)
        after = chapter.path.read_text(encoding="utf-8")
        if after != before:
            chapter = _after_edit(chapter, executed, root)
        _store(chapter, executed, seconds)
        write_atomically(chapter.path, as_json(chapter.raw))
        _keep_cards(Path(cards), root / "results")
    return chapter


def _require_formatted(chapter: Chapter) -> None:
    """Stop before a long run whose code would be changed by the formatter after it."""
    ruff = ruff_command()
    if ruff is None:
        return
    command = [*ruff, "format", "--check", str(chapter.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise AuthoringError(
            f"{chapter.name} is not formatted, and formatting it later would make this "
            f"recording stale: run `ruff format {chapter.path.name}` in its folder and "
            f"record then. {done.stderr.strip()}".strip()
        )


def _environment(cards: str, quick: bool) -> dict[str, str]:
    environment = dict(os.environ, NBS_CARDS=cards)
    environment.pop("NBS_QUICK", None)
    if quick:
        environment["NBS_QUICK"] = "1"
    return environment


def _execute(
    chapter: Chapter,
    cards: str,
    quick: bool,
    timeout: int | None,
    say: Callable[[str], None],
) -> dict:
    """Run all cells in a fresh kernel of this Python; return the executed notebook."""
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )

    notebook = nbformat.reads(as_json(chapter.raw), as_version=4)
    total = sum(1 for _ in chapter.code_cells())
    clock = {}

    def begin(cell, cell_index):
        clock[cell_index] = time.perf_counter()

    def end(cell, cell_index, execute_reply):
        seconds = time.perf_counter() - clock[cell_index]
        first = (cell.source.strip().splitlines() or [""])[0]
        if not quick or seconds > 1:
            say(f"  [{cell.execution_count}/{total}] {seconds:7.1f} s  {first[:60]}")
        for output in cell.outputs:
            if output.output_type == "stream" and output.name == "stderr":
                # Progress bars rewrite their line; the last state says enough.
                last = output.text.strip().replace("\r", "\n").splitlines()[-3:]
                say("      stderr, not stored: " + " | ".join(last)[:300])

    client = NotebookClient(
        notebook,
        timeout=timeout,
        kernel_name="python3",
        kernel_manager_class=_kernel_of_this_python(),
        coalesce_streams=True,
        store_widget_state=False,
        on_cell_execute=begin,
        on_cell_executed=end,
        resources={"metadata": {"path": str(chapter.path.parent)}},
    )
    try:
        client.execute(env=_environment(cards, quick))
    except CellTimeoutError as error:
        raise AuthoringError(f"{chapter.name}: {_plain(str(error))}") from None
    except DeadKernelError:
        raise AuthoringError(
            f"{chapter.name}: the kernel died, most often for want of memory, so "
            "nothing was written."
        ) from None
    except CellExecutionError as error:
        raise AuthoringError(
            f"{chapter.name}: a cell failed, so nothing was written.\n"
            f"{_plain(str(error))}"
        ) from None
    return notebook


def _kernel_of_this_python() -> type:
    """Return a kernel manager for the interpreter that runs `nbs`.

    A kernel that a user has installed under the name "python3" may belong to another
    environment; a recording must use the versions that it writes down.
    """
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    class Manager(AsyncKernelManager):
        @property
        def kernel_spec(self) -> KernelSpec:
            launch = [sys.executable, "-m", "ipykernel_launcher"]
            quiet = "--log-level=ERROR"  # no warnings about the local connection
            argv = [*launch, quiet, "-f", "{connection_file}"]
            return KernelSpec(argv=argv, name="python3")

    return Manager


def _plain(text: str) -> str:
    """Return a traceback without the colors of a terminal."""
    return re.sub(r"\x1b\[[0-9;]*m", "", text).strip()


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


def _store(chapter: Chapter, executed: dict, seconds: float) -> None:
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


def _keep_cards(cards: Path, results: Path) -> None:
    """Copy the run cards of a successful recording into the repository."""
    for card in sorted(cards.rglob("*.json")):
        write_atomically(results / card.relative_to(cards), card.read_text("utf-8"))
