"""Teach sphinx-design's cards to the builder behind `make pdf`.

sphinx-exercise registers its visitors for the builder "singlehtml" by name, and
Sphinx then no longer falls back to the HTML visitors there: nodes registered for
"html" alone crash the build. Registering each of them for "singlehtml", too,
mends it.
"""

from __future__ import annotations

from sphinx.application import Sphinx


def share_html_visitors(app: Sphinx) -> None:
    """Give "singlehtml" every HTML visitor that it lacks."""
    handlers = app.registry.translation_handlers
    single = handlers.setdefault("singlehtml", {})
    for node, visitors in handlers.get("html", {}).items():
        single.setdefault(node, visitors)


def setup(app: Sphinx) -> dict:
    """Connect once all extensions have registered their nodes."""
    app.connect("builder-inited", share_html_visitors)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
