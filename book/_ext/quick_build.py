"""Ask once what would be asked at every output, and write pages on all cores.

Three things took half of the time of a build, and none of them changes within one:

- MyST-NB reads the metadata of every installed package, once for each cell and page,
  to find plugins that show outputs.
- Pybtex does the same for each citation, to find its one formatting backend.
- Sphinx unpickles a whole page for each numbered reference to it, to see whether the
  label is that of a figure, a table or a section.

Pages are read one after the other, since not every extension can join what two
processes have read; they are written side by side.
"""

from __future__ import annotations

import functools
import os

import pybtex.plugin
from myst_nb.core import render
from sphinx.application import Sphinx
from sphinx.domains.std import StandardDomain
from sphinx.environment import BuildEnvironment


def _remember(module) -> None:
    if not hasattr(module.entry_points, "cache_info"):
        module.entry_points = functools.cache(module.entry_points)


def _quick_numref(resolve):
    """Return `resolve`, for which a page is unpickled once; it only reads the page."""

    @functools.wraps(resolve)
    def resolved(self, env: BuildEnvironment, *args):
        pages = env.app.nbs_pages
        load = type(env).get_doctree

        def get_doctree(docname: str):
            if docname not in pages:
                pages[docname] = load(env, docname)
            return pages[docname]

        env.get_doctree = get_doctree
        try:
            return resolve(self, env, *args)
        finally:
            del env.get_doctree

    resolved.quick = True
    return resolved


def _write_on_all_cores(app: Sphinx) -> None:
    # One more than there are cores: Sphinx counts the process that only hands out.
    app.parallel = max(app.parallel, (os.cpu_count() or 1) + 1)
    allowed = app.is_parallel_allowed
    app.is_parallel_allowed = lambda kind: kind == "write" and allowed(kind)


def setup(app: Sphinx) -> dict:
    """Let MyST-NB, Pybtex and Sphinx remember, and Sphinx use all cores."""
    _remember(render)
    _remember(pybtex.plugin)
    app.nbs_pages = {}
    _write_on_all_cores(app)
    if not hasattr(StandardDomain._resolve_numref_xref, "quick"):
        StandardDomain._resolve_numref_xref = _quick_numref(
            StandardDomain._resolve_numref_xref
        )
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
