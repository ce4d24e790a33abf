"""Figures drawn as SVG stand in the page itself; what has to be done is in drawing.py.

The notebook keeps its own form of them, which any editor shows. On the page a drawing
is an `<svg>` that carries the figure's alt text; in front of the search its words are
text like any other.
"""

from __future__ import annotations

import hashlib
import html
import posixpath
from pathlib import Path
from xml.etree.ElementTree import ParseError

from docutils import nodes
from drawing import Drawing, read_drawing, themed_markup
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxTranslator
from sphinx.util.osutil import relative_uri


class drawn_figure(nodes.General, nodes.Element):
    """A figure in the page: its "drawing", the "address" of its photographs, its "alt"
    text; its child is the text that the search finds."""


class InlineFigures(SphinxPostTransform):
    """Replace pictures of SVG outputs by drawings, for HTML only."""

    default_priority = 400  # after MyST-NB has chosen a form of each output
    formats = ("html",)

    def run(self, **_: object) -> None:
        number = 0
        for image in list(self.document.findall(nodes.image)):
            path = Path(self.app.srcdir) / image["uri"]
            if path.suffix == ".svg" and "jupyter_execute" in path.parts:
                number += 1
                drawn = self.drawn(image, path, number)
                if drawn is not None:
                    image.replace_self(drawn)
        for raw in self.document.findall(nodes.raw):
            if 'class="nbs-diagram"' in raw.astext():
                raw.children = [nodes.Text(themed_markup(raw.astext()))]

    def drawn(self, image: nodes.image, path: Path, number: int) -> drawn_figure | None:
        """Return the node, or None where the file is no SVG that can be read."""
        svg = path.read_text(encoding="utf-8")
        file = f"{hashlib.sha256(svg.encode()).hexdigest()[:32]}.svg"
        page = self.env.docname.replace("/", "-")
        home = self.app.builder.get_target_uri(self.env.docname)
        address = relative_uri(home, posixpath.join(self.app.builder.imagedir, file))
        try:
            drawing = read_drawing(svg, f"{page}-{number}", address)
        except (ParseError, ValueError):
            return None
        alt = image.get("alt", "")
        found = dict.fromkeys([alt, *drawing.words])
        words = nodes.Text(". ".join(found))
        return drawn_figure("", words, drawing=drawing, address=address, alt=alt)


def visit(self: SphinxTranslator, node: drawn_figure) -> None:
    """Write the figure, and its photographs into a file beside the page."""
    drawing, address = node["drawing"], node["address"]
    if drawing.photographs:
        folder = Path(self.builder.outdir) / self.builder.imagedir
        folder.mkdir(parents=True, exist_ok=True)
        (folder / Path(address).name).write_text(drawing.photographs, encoding="utf-8")
    self.body.append(markup(drawing, node["alt"], address))
    raise nodes.SkipNode


def markup(drawing: Drawing, alt: str, address: str) -> str:
    """Return a figure as HTML.

    Args:
        drawing: the figure.
        alt: what it shows, in a sentence.
        address: of its photographs.
    """
    alt = html.escape(alt)
    if not drawing.inside:
        height = drawing.pixels * drawing.height / drawing.width
        size = f'width="{drawing.pixels:.0f}" height="{height:.0f}"'
        return f'<img class="photographs" alt="{alt}" {size} src="{address}">\n'
    box = f"0 0 {drawing.width:g} {drawing.height:g}"
    return (
        f'<svg class="drawing" role="img" aria-label="{alt}" viewBox="{box}" '
        f'width="{drawing.pixels:.0f}">\n{drawing.inside}</svg>\n'
    )


def setup(app: Sphinx) -> dict:
    """Register the node and what replaces pictures by it."""
    app.add_node(drawn_figure, html=(visit, None))
    app.add_post_transform(InlineFigures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
