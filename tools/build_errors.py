"""Say why the book was not built: its warnings and the last error, without the rest.

python tools/build_errors.py book/_build/build.log
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

COLORS = re.compile(r"\x1b\[[0-9;]*m")
MARKED = re.compile(r"\b(?:WARNING|ERROR|CRITICAL)\b")
# The last line of a traceback: an exception and what it says.
RAISED = re.compile(r"^(?:[\w.]+\.)?[A-Z]\w*(?:Error|Exception|Warning|Interrupt)\b.*")
# Lines of a notebook, as the site's tools count: 10,000 for each cell, from 1.
PLACE = re.compile(r"(\.ipynb):(\d+)(\d{4})\b")
LINE = re.compile(r"\bline: (\d+)(\d{4})\b")
# A summary of jupyter-book that only repeats that something went wrong.
REPEATED = re.compile(r"There was an error in building your book|RuntimeError: *$")


def summary(log: str, root: Path) -> list[str]:
    """Return the warnings of a log, once each, and its last error.

    Args:
        log: what `jupyter-book build` printed.
        root: the repository; its path is left out of the lines.
    """
    lines = [COLORS.sub("", line).rstrip() for line in log.splitlines()]
    near = f"{root}/"
    lines = [PLACE.sub(_cell, line.replace(near, "")) for line in lines]
    found, inside = [], False
    for line in lines:  # an error may go on in indented lines
        inside = bool(MARKED.search(line)) or inside and line.startswith("  ")
        if inside:
            found.append(LINE.sub(lambda f: f"cell {f[1]}, line {int(f[2])}", line))
    found = [line.replace("book/chapters/", "chapters/") for line in found]
    found = list(dict.fromkeys(found))
    errors = [
        line for line in lines if RAISED.match(line) and not REPEATED.search(line)
    ]
    if errors and errors[-1] not in found:
        found.append(errors[-1])
    # Nothing that looks like an error: the end of the log is what there is.
    return found or [line for line in lines if line.strip()][-5:]


def _cell(found: re.Match) -> str:
    """Return a place in a notebook as `nbs check` names cells."""
    return f"{found[1]}, cell {found[2]}, line {int(found[3])}"


def main(path: Path) -> int:
    """Print the summary of a log and where the whole of it is."""
    root = Path(__file__).resolve().parents[1]
    log = path.read_text(encoding="utf-8", errors="replace")
    print("The book was not built.", *summary(log, root), sep="\n")
    print(f"The whole log: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
