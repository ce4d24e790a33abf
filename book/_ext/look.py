"""Write all pages anew when the book's look changes.

Sphinx copies `_static` only in a build that writes a page, and it does not follow
templates: without this, a changed style sheet waits for the next changed chapter.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.config import Config

FOLDERS = ("_ext", "_static", "_templates")


def digest(source: Path) -> str:
    """Return a hash of every file that shapes a page beside its own text."""
    files = sorted(
        path
        for folder in FOLDERS
        for path in (source / folder).rglob("*")
        if path.is_file() and path.suffix != ".pyc"
    )
    state = hashlib.sha256()
    for path in files:
        state.update(path.relative_to(source).as_posix().encode())
        state.update(path.read_bytes())
    return state.hexdigest()


def set_look(app: Sphinx, config: Config) -> None:
    """Store the hash where Sphinx compares it with the last build's."""
    config.look = digest(Path(app.srcdir))


def setup(app: Sphinx) -> dict:
    """Register the value that makes HTML pages out of date when it changes."""
    app.add_config_value("look", "", "html", types=[str])
    app.connect("config-inited", set_look)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
