"""What the theme and Sphinx leave inaccessible, mended in the finished page.

Each entry of `MENDED` is a pair: what stands in the page, what replaces it. The
browser tests run axe-core on every page and would notice a rule broken again.
"""

from __future__ import annotations

from sphinx.application import Sphinx

MENDED = {
    # Docutils gives entries of the bibliography a role that ARIA has withdrawn, in
    # a list whose items are then not list items.
    ' role="doc-biblioentry"': ' role="listitem"',
    # The corner of a table is a header of nothing: pandas' and Markdown's.
    "<th></th>": "<td></td>",
    '<th class="head"><p></p></th>': '<td class="head"></td>',
    '<th class="head"></th>': '<td class="head"></td>',
}


def mend(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    """Replace in the body of a page before it goes into its template."""
    body = context.get("body")
    if not body:
        return
    for wrong, right in MENDED.items():
        body = body.replace(wrong, right)
    context["body"] = body


def setup(app: Sphinx) -> dict:
    """Come after the extensions that still write into the page."""
    app.connect("html-page-context", mend, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
