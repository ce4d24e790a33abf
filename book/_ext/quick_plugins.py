"""Ask once, not for every output, which plugins are installed.

MyST-NB looks for plugins that show outputs by reading the metadata of every installed
package, once for each cell and each page: a quarter of the time of a build.
"""

from __future__ import annotations

import functools

from myst_nb.core import render
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict:
    """Let MyST-NB remember what it found."""
    if not hasattr(render.entry_points, "cache_info"):
        render.entry_points = functools.cache(render.entry_points)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
