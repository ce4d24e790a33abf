"""Ruff, asked about notebooks and exported code; everything passes where it is missing."""

import json
import shutil
import subprocess
import sys
from pathlib import Path


def ruff_command() -> list[str] | None:
    """Return the command that starts ruff, or None where it is not installed."""
    beside = Path(sys.executable).with_name("ruff")
    if beside.exists():
        return [str(beside)]
    found = shutil.which("ruff")
    return [found] if found else None


def lint(path: Path, root: Path) -> list[tuple[int | None, str]]:
    """Return what `ruff check` finds in a notebook: (position of the cell, sentence).

    Args:
        path: the notebook.
        root: the repository, whose settings hold.
    """
    done = _run(["check", "--output-format", "json", str(path)], cwd=root)
    if done is None or done.returncode == 0:
        return []
    try:
        found = json.loads(done.stdout)
    except json.JSONDecodeError:
        return [(None, (done.stderr or done.stdout).strip())]
    return [
        (
            one["cell"] - 1 if one.get("cell") else None,
            f"line {one['location']['row']}: {one['message']} ({one['code']}).",
        )
        for one in found
    ]


def would_format(path: Path, root: Path) -> bool:
    """Tell whether `ruff format` would change a notebook."""
    done = _run(["format", "--check", str(path)], cwd=root)
    return done is not None and done.returncode != 0


def format_file(path: Path, root: Path) -> str:
    """Format a notebook in place.

    Returns:
        What ruff complained about; empty when all went well.
    """
    done = _run(["format", str(path)], cwd=root)
    return "" if done is None or done.returncode == 0 else done.stderr.strip()


def tidy_code(code: str, *arguments: str) -> subprocess.CompletedProcess | None:
    """Give code to `ruff ARGUMENTS` and return what came back; None without ruff.

    Isolated: the result must not depend on the folder in which it is made.
    """
    common = ["--isolated", "--stdin-filename", "zoo.py", "-"]
    return _run([*arguments, *common], code=code)


def _run(
    arguments: list[str], *, cwd: Path | None = None, code: str | None = None
) -> subprocess.CompletedProcess | None:
    ruff = ruff_command()
    if ruff is None:
        return None
    return subprocess.run(
        [*ruff, arguments[0], "--quiet", *arguments[1:]],
        input=code,
        capture_output=True,
        text=True,
        cwd=cwd,
        check=False,
    )
