"""Ask once what Sphinx and its extensions would ask at every output and reference.

Three things took half of the time of a build, and none of them changes within one:

- MyST-NB reads the metadata of every installed package, once for each cell and page,
  to find plugins that show outputs.
- Pybtex does the same for each citation, to find its one formatting backend.
- Sphinx unpickles a whole page for each numbered reference to it, to see whether the
  label is that of a figure, a table or a section.
"""

from __future__ import annotations

import functools

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


def setup(app: Sphinx) -> dict:
    """Let MyST-NB, Pybtex and Sphinx remember what they found."""
    _remember(render)
    _remember(pybtex.plugin)
    app.nbs_pages = {}
    if not hasattr(StandardDomain._resolve_numref_xref, "quick"):
        StandardDomain._resolve_numref_xref = _quick_numref(
            StandardDomain._resolve_numref_xref
        )
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
