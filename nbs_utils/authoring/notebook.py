"""A chapter as a file: find it, read it, write it back.

Chapters are read as raw JSON. `nbformat.read` repairs what a check must see (a
duplicate cell id gets a new one without a word), so it is used only to execute.
"""

import difflib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path


class AuthoringError(Exception):
    """Something an author can repair; the message is one sentence that says how."""


@dataclass
class Chapter:
    """One notebook of the book.

    Attributes:
        path: the .ipynb file.
        name: its name in commands, for example "residual/resnet".
        raw: the file's JSON.
    """

    path: Path
    name: str
    raw: dict

    @property
    def cells(self) -> list[dict]:
        return self.raw["cells"]

    @property
    def nbs(self) -> dict:
        """What the book notes about the chapter: zoo, kind, code_sha256, recorded."""
        return self.raw.get("metadata", {}).get("nbs", {})

    @property
    def kind(self) -> str:
        return self.nbs.get("kind", "")

    @cached_property
    def title(self) -> str:
        """The text of the first level-1 heading, or the chapter's name."""
        for cell in self.cells:
            found = re.search(r"^# +(.+)$", source(cell), re.MULTILINE)
            if cell["cell_type"] == "markdown" and found:
                return found[1].strip()
        return self.name

    def code_cells(self) -> list[tuple[int, dict]]:
        """Return (position in the notebook, cell) of every code cell."""
        return [(i, c) for i, c in enumerate(self.cells) if c["cell_type"] == "code"]


def source(cell: dict) -> str:
    """Return the text of a cell (on disk it is a string or a list of lines)."""
    text = cell.get("source", "")
    return text if isinstance(text, str) else "".join(text)


def tags(cell: dict) -> set[str]:
    """Return the tags of a cell."""
    return set(cell.get("metadata", {}).get("tags", []))


def joined(value: str | list[str]) -> str:
    """Return a multi-line value of the notebook format as one string."""
    return value if isinstance(value, str) else "".join(value)


def first_line(cell: dict) -> str:
    """Return the first line of a cell that says something, shortened to 50 letters."""
    lines = [line.strip() for line in source(cell).splitlines() if line.strip()]
    line = lines[0] if lines else ""
    return line if len(line) <= 50 else line[:49].rstrip() + "…"


def cell_label(cells: list[dict], index: int) -> str:
    """Return how a cell is named to a person: "cell 12 (`x = 1`)".

    The number is its position in the notebook from 1, all cells counted, as ruff and
    editors count.
    """
    line = first_line(cells[index]).replace("`", "'")
    return f"cell {index + 1} (`{line}`)" if line else f"cell {index + 1}"


def repository_root(start: str | Path | None = None) -> Path:
    """Return the folder that holds `chapters/` and `nbs_utils/`.

    Looks in `start` (default: the current folder) and its parents, then beside the
    installed package.

    Raises:
        AuthoringError: there is no clone of the book here.
    """
    here = Path(start or Path.cwd()).resolve()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[2]):
        if (folder / "chapters").is_dir() and (folder / "nbs_utils").is_dir():
            return folder
    raise AuthoringError(
        "There are no chapters here: this command works in a clone of the book's "
        "repository; change to its folder and try again."
    )


def chapter_paths(root: Path) -> list[Path]:
    """Return the files of all chapters that are notebooks, sorted."""
    return sorted(
        path
        for path in (root / "chapters").rglob("*.ipynb")
        if not any(part.startswith((".", "_")) for part in path.parts[-3:])
    )


def chapter_name(path: Path, root: Path) -> str:
    """Return the name of a chapter's file: "residual/resnet"."""
    return path.relative_to(root / "chapters").with_suffix("").as_posix()


def load_chapter(path: Path, root: Path) -> Chapter:
    """Read one notebook.

    Raises:
        AuthoringError: the file is not a notebook of format 4.
    """
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise AuthoringError(f"{path} is not a notebook: {error}.") from None
    if not isinstance(raw, dict) or raw.get("nbformat") != 4:
        raise AuthoringError(f"{path} is not a notebook of format 4; save it as one.")
    return Chapter(path, chapter_name(path, root), raw)


def load_chapters(root: Path, name: str | None = None) -> list[Chapter]:
    """Read the chapters that a name means: all of them when it is None."""
    if name is None:
        return [load_chapter(path, root) for path in chapter_paths(root)]
    return [find_chapter(name, root)]


def find_chapter(name: str, root: Path) -> Chapter:
    """Read the chapter that a person means.

    Args:
        name: "residual/resnet", "resnet" where that is unique, or the file's path.
        root: the repository.

    Raises:
        AuthoringError: no chapter has this name; the message lists the nearest.
    """
    paths = {chapter_name(path, root): path for path in chapter_paths(root)}
    wanted = name.removesuffix(".ipynb").removeprefix("./").removeprefix("chapters/")
    if wanted in paths:
        return load_chapter(paths[wanted], root)
    given = Path(name).resolve()
    if given in paths.values():
        return load_chapter(given, root)
    last = [full for full in paths if full.rsplit("/", 1)[-1] == wanted]
    if len(last) == 1:
        return load_chapter(paths[last[0]], root)
    shorts = {full.rsplit("/", 1)[-1]: full for full in paths}
    near = last or difflib.get_close_matches(wanted, paths, n=3, cutoff=0.4)
    near = near or [
        shorts[one]
        for one in difflib.get_close_matches(wanted, shorts, n=3, cutoff=0.5)
    ]
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    raise AuthoringError(f"No chapter is called '{name}'.{hint}")


def write_atomically(path: Path, text: str) -> None:
    """Replace a file in one step, so that no reader ever sees half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        os.chmod(temporary, mode)  # mkstemp makes files that only the owner reads
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def as_json(raw: dict) -> str:
    """Return a notebook as it stands on disk: one space of indent, real letters."""
    return json.dumps(raw, indent=1, ensure_ascii=False) + "\n"
