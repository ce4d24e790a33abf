"""Run a chapter from top to bottom in a fresh kernel, and say what fails in it."""

import os
import re
import sys
import time
from collections.abc import Callable

from .notebook import AuthoringError, Chapter, as_json, cell_label
from .rules_outputs import texts

_LINES_OF_OUTPUT = 4  # of each cell, in a quick run
_LETTERS = 100


def execute(
    chapter: Chapter,
    cards: str,
    quick: bool,
    timeout: int | None,
    say: Callable[[str], None],
) -> dict:
    """Run all cells in a fresh kernel of this Python.

    Args:
        chapter: what to run.
        cards: folder for the run cards (`NBS_CARDS`).
        quick: in quick mode; the outputs are then said briefly.
        timeout: seconds for one cell, None for no limit.
        say: called with each line of progress.

    Returns:
        The executed notebook.

    Raises:
        AuthoringError: a cell failed, took too long, or the kernel died.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import (
        CellExecutionError,
        CellTimeoutError,
        DeadKernelError,
    )

    notebook = nbformat.reads(as_json(chapter.raw), as_version=4)
    clock = {}
    place = [0]  # of the cell that runs

    def begin(cell, cell_index):
        place[0] = cell_index
        clock[cell_index] = time.perf_counter()

    def end(cell, cell_index, execute_reply):
        seconds = time.perf_counter() - clock[cell_index]
        label = cell_label(chapter.cells, cell_index)
        brief = list(_brief(cell)) if quick else []
        if not quick or brief or seconds > 1:
            say(f"  {seconds:7.1f} s  {label}")
        for line in brief:
            say(f"             {line}")
        noise = [o.text for o in cell.outputs if o.get("name") == "stderr"]
        if noise:
            # Progress bars rewrite their line; the last state says enough.
            lines = _plain("".join(noise)).replace("\r", "\n").splitlines()
            last = [line.strip() for line in lines if line.strip()][-3:]
            say("             stderr, not stored: " + " | ".join(last)[:300])

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

    def where() -> str:
        return f"{chapter.name}, {cell_label(chapter.cells, place[0])}"

    try:
        client.execute(env=_environment(cards, quick))
    except CellTimeoutError:
        raise AuthoringError(
            f"{where()}: timed out after {timeout} seconds, so nothing was written."
        ) from None
    except DeadKernelError:
        raise AuthoringError(
            f"{where()}: the kernel died, most often for want of memory, so nothing "
            "was written."
        ) from None
    except CellExecutionError as error:
        raise AuthoringError(f"{where()}: {_failure(error)}") from None
    return notebook


def _failure(error: Exception) -> str:
    """Return what a reader of a traceback looks for: the error, then the way to it."""
    said = f"{error.ename}: {error.evalue}".strip(": ")
    lines = _plain(error.traceback).splitlines()
    # The frames: lines with an arrow, and where each of them stands.
    frames = []
    for line in lines:
        if re.match(r"\s*(?:File |Cell In|Input In)", line):
            frames.append(line.strip().removesuffix("in <module>").strip())
        elif re.match(r"\s*-{2,}>\s*\d+", line):
            frames.append("  " + re.sub(r"^\s*-+>", "", line).strip())
    way = "\n".join(f"    {line}" for line in frames[-8:])
    return f"the cell failed, so nothing was written.\n  {said}" + (
        f"\n{way}" if way else ""
    )


def _brief(cell: dict) -> list[str]:
    """Return the first lines of what a cell shows."""
    found = []
    for output in cell["outputs"]:
        if output.get("name") == "stderr":
            continue
        kinds = dict(texts({"outputs": [output]}))
        image = any(mime.startswith("image/") for mime in output.get("data", {}))
        text = "(a figure)" if image else kinds.get("text/plain") or kinds.get("stream")
        lines = (text or "").rstrip().splitlines()
        found += lines[:_LINES_OF_OUTPUT]
        if len(lines) > _LINES_OF_OUTPUT:
            found.append(f"… {len(lines) - _LINES_OF_OUTPUT} more lines")
    return [line[:_LETTERS] for line in found]


def _environment(cards: str, quick: bool) -> dict[str, str]:
    environment = dict(os.environ, NBS_CARDS=cards)
    environment.pop("NBS_QUICK", None)
    if quick:
        environment["NBS_QUICK"] = "1"
    return environment


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
    """Return a text without what steers a terminal: colors, deleted lines."""
    return re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", text).strip()
