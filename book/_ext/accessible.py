"""What the theme, Sphinx and pandas leave inaccessible, mended in the finished page.

The browser tests run axe-core on every page and would notice a rule broken again.
"""

from __future__ import annotations

import re

from sphinx.application import Sphinx

# The corner of a table is a header of nothing: pandas' and Markdown's.
EMPTY_HEADER = re.compile(r"<th\b([^>]*)>(?:\s|&nbsp;|<p>\s*</p>)*</th>")
REPEATED = re.compile(r'\bid="((?:exercise|solution)-content)"')
SCOPE = re.compile(r'\s+scope="\w+"')


def mend_body(body: str) -> str:
    """Return the body of a page with what is wrong replaced."""
    body = EMPTY_HEADER.sub(lambda th: f"<td{SCOPE.sub('', th[1])}></td>", body)
    # A folded cell is named by what it shows: "Show the code".
    body = body.replace('<summary aria-label="Toggle hidden content">', "<summary>")
    # An id is of one element; sphinx-exercise gives the same to all its boxes.
    body = REPEATED.sub(r'class="\1"', body)
    # Entries of the bibliography have a role that ARIA has withdrawn, in a list whose
    # items are then not list items.
    return body.replace(' role="doc-biblioentry"', ' role="listitem"')


def mend(
    app: Sphinx, pagename: str, templatename: str, context: dict, doctree: object
) -> None:
    """Mend a page before it goes into its template."""
    if context.get("body"):
        context["body"] = mend_body(context["body"])


def setup(app: Sphinx) -> dict:
    """Come after the extensions that still write into the page."""
    app.connect("html-page-context", mend, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
