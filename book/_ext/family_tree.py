"""The family tree of architectures on the first page: `{family-tree}`.

Drawn from family.yml each time the book is built: a network becomes a link on the
day its chapter enters the table of contents. Colors come from the style sheet
(currentColor and the book's palette), so that the picture follows light and dark;
there are two drawings, for wide pages and for phones, of which one is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

FILE = "family.yml"


@dataclass(frozen=True)
class Network:
    """One box: `chapter` is None for a network outside the book."""

    name: str
    year: int
    column: int
    parents: tuple[str, ...]
    chapter: str | None


@dataclass(frozen=True)
class Size:
    """Measures of a drawing in its own units (one unit is a pixel at full size)."""

    years: int
    gutter: int
    box: int
    height: int
    row: int
    lane: float
    letters: float


WIDE = Size(years=48, gutter=42, box=134, height=28, row=40, lane=6, letters=14)
NARROW = Size(years=28, gutter=13, box=68, height=24, row=33, lane=2.5, letters=10.4)


@dataclass
class Drawing:
    """Where everything stands: boxes by name, then lines as lists of points."""

    size: Size
    columns: list[str]
    boxes: dict[str, tuple[float, float]] = field(default_factory=dict)
    years: dict[int, float] = field(default_factory=dict)
    lines: list[tuple[Network, list[tuple[float, float]]]] = field(default_factory=list)
    height: float = 0

    @property
    def width(self) -> float:
        size = self.size
        return size.years + len(self.columns) * (size.gutter + size.box) + 1

    def left(self, column: int) -> float:
        """Return the left edge of a column's boxes."""
        size = self.size
        return size.years + column * (size.gutter + size.box) + size.gutter


def read_family(path: Path) -> tuple[list[str], dict[str, Network]]:
    """Read the columns and the networks.

    Raises:
        ValueError: a network builds on one that is not in the file.
    """
    raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    columns = raw["columns"]
    networks = {
        name: Network(
            name, year, columns.index(column), tuple(parents), *(rest or [None])
        )
        for name, (year, column, parents, *rest) in raw["networks"].items()
    }
    for network in networks.values():
        for parent in network.parents:
            if parent not in networks:
                raise ValueError(
                    f"{path.name}: {network.name} builds on '{parent}', which is not "
                    "in the file."
                )
    return columns, networks


def lay_out(columns: list[str], networks: dict[str, Network], size: Size) -> Drawing:
    """Place the boxes by year and column and route the lines between them."""
    drawing = Drawing(size, columns)
    y = size.row * 1.1
    previous = None
    for year in sorted({network.year for network in networks.values()}):
        if previous is not None and year > previous + 1:
            y += size.row * 0.3  # years are skipped: a visible gap
        drawing.years[year] = y
        rows = 0
        for column in range(len(columns)):
            here = [
                network
                for network in networks.values()
                if (network.year, network.column) == (year, column)
            ]
            for place, network in enumerate(here):
                drawing.boxes[network.name] = (
                    drawing.left(column),
                    y + place * size.row,
                )
            rows = max(rows, len(here))
        y += rows * size.row
        previous = year
    drawing.height = y - size.row + size.height + 2
    _route(drawing, networks)
    return drawing


def _route(drawing: Drawing, networks: dict[str, Network]) -> None:
    """Lead each line through the gutter beside its child, each parent in a lane."""
    size = drawing.size
    busy: dict[int, list[tuple[str, float, float, int]]] = {}
    for child in networks.values():
        for name in child.parents:
            parent = networks[name]
            if _stacked(drawing, parent, child):
                x, y = drawing.boxes[name]
                x += size.box / 2
                below = drawing.boxes[child.name][1]
                drawing.lines.append((parent, [(x, y + size.height), (x, below)]))
                continue
            backwards = parent.column > child.column
            gutter = child.column + (1 if backwards else 0)
            x0, y0 = drawing.boxes[name]
            x1, y1 = drawing.boxes[child.name]
            y0, y1 = y0 + size.height / 2, y1 + size.height / 2
            lane = _lane(busy.setdefault(gutter, []), name, y0, y1)
            x = drawing.left(gutter) - size.gutter / 4 - lane * size.lane
            start = x0 if backwards or parent.column == child.column else x0 + size.box
            end = x1 + size.box if backwards else x1
            drawing.lines.append((parent, [(start, y0), (x, y0), (x, y1), (end, y1)]))


def _stacked(drawing: Drawing, parent: Network, child: Network) -> bool:
    """Return whether the child stands right under its parent, nothing between."""
    if parent.column != child.column:
        return False
    (x, top), (_, bottom) = drawing.boxes[parent.name], drawing.boxes[child.name]
    return not any(left == x and top < y < bottom for left, y in drawing.boxes.values())


def _lane(
    busy: list[tuple[str, float, float, int]], name: str, top: float, bottom: float
) -> int:
    """Return the first lane of a gutter that no other parent uses on this stretch."""
    top, bottom = min(top, bottom), max(top, bottom)
    taken = {
        lane
        for other, low, high, lane in busy
        if other != name and low - 1 <= bottom and top <= high + 1
    }
    own = [lane for other, _, _, lane in busy if other == name]
    lane = next(lane for lane in [*own, *range(len(taken) + 1)] if lane not in taken)
    busy.append((name, top, bottom, lane))
    return lane


def _path(points: list[tuple[float, float]], radius: float) -> str:
    """Return an SVG path through the points with rounded corners."""
    if len(points) == 2:
        (x, top), (_, bottom) = points
        return f"M{x:.1f} {top:.1f}V{bottom:.1f}"
    (xa, ya), (xb, _), (_, yd), (xe, _) = points
    if abs(yd - ya) < 1:
        return f"M{xa:.1f} {ya:.1f}H{xe:.1f}"
    r = min(radius, abs(yd - ya) / 2, abs(xb - xa), abs(xe - xb))
    down = 1 if yd > ya else -1
    first, last = (1 if xb > xa else -1), (1 if xe > xb else -1)
    return (
        f"M{xa:.1f} {ya:.1f}H{xb - first * r:.1f}"
        f"Q{xb:.1f} {ya:.1f} {xb:.1f} {ya + down * r:.1f}"
        f"V{yd - down * r:.1f}"
        f"Q{xb:.1f} {yd:.1f} {xb + last * r:.1f} {yd:.1f}H{xe:.1f}"
    )


def draw(
    drawing: Drawing, networks: dict[str, Network], links: dict[str, str], name: str
) -> str:
    """Return the drawing as SVG.

    Args:
        drawing: from `lay_out`.
        networks: from `read_family`.
        links: address of the chapter of each network that has one.
        name: a class that tells the drawings apart.
    """
    size, columns = drawing.size, drawing.columns
    middle = size.height / 2
    head = (
        f'<svg class="family-tree-{name}" role="group" '
        'aria-label="Family tree of image classification networks" '
        f'viewBox="0 0 {drawing.width:.0f} {drawing.height:.0f}" '
        f'width="{drawing.width:.0f}" font-size="{size.letters}">'
    )
    parts = [head]
    for number, column in enumerate(columns):
        x = drawing.left(number) + size.box / 2
        parts.append(
            f'<text class="column {column.lower()}" x="{x:.1f}" '
            f'y="{size.row * 0.5:.1f}">{escape(column)}</text>'
        )
    for year, y in drawing.years.items():
        parts.append(f'<text class="year" x="0" y="{y + middle:.1f}">{year}</text>')
    for parent, points in drawing.lines:
        family = columns[parent.column].lower()
        parts.append(f'<path class="{family}" d="{_path(points, size.lane * 2)}"/>')
    for network in networks.values():
        x, y = drawing.boxes[network.name]
        family = columns[network.column].lower()
        link = links.get(network.name)
        state = "here" if link else "planned" if network.chapter else "outside"
        box = (
            f'<g class="{family} {state}"><rect x="{x:.1f}" y="{y:.1f}" '
            f'width="{size.box}" height="{size.height}" rx="3"/>'
            f'<text x="{x + size.box / 2:.1f}" y="{y + middle:.1f}">'
            f"{escape(network.name)}</text></g>"
        )
        parts.append(f'<a href="{escape(link)}">{box}</a>' if link else box)
    return "".join([*parts, "</svg>"])


class family_tree(nodes.General, nodes.Element):
    """Stands for the picture until the builder knows its addresses."""


class FamilyTree(SphinxDirective):
    """`{family-tree}`: takes no argument and no content."""

    def run(self) -> list[nodes.Node]:
        path = Path(self.env.srcdir) / FILE
        self.env.note_dependency(str(path))
        columns, networks = read_family(path)
        node = family_tree()
        node["columns"], node["networks"] = columns, networks
        return [node]


def visit_html(translator: nodes.NodeVisitor, node: family_tree) -> None:
    """Write both drawings and the legend; links lead to the chapters that exist."""
    builder = translator.builder
    columns, networks = node["columns"], node["networks"]
    links = {
        network.name: builder.get_relative_uri(
            builder.current_docname, f"chapters/{network.chapter}"
        )
        for network in networks.values()
        if f"chapters/{network.chapter}" in builder.env.found_docs
    }
    drawings = "".join(
        draw(lay_out(columns, networks, size), networks, links, name)
        for name, size in (("wide", WIDE), ("narrow", NARROW))
    )
    translator.body.append(
        f'<figure class="family-tree">{drawings}<figcaption>Each line leads from a '
        "network to one that builds on it. Filled boxes are chapters to read now, "
        "dashed ones are planned; the transformer comes from outside this book."
        "</figcaption></figure>"
    )
    raise nodes.SkipNode


def skip(translator: nodes.NodeVisitor, node: family_tree) -> None:
    """Leave the picture out where there is no HTML."""
    raise nodes.SkipNode


def pages_with_tree(
    app: Sphinx, env: BuildEnvironment, added: set, changed: set, removed: set
) -> list[str]:
    """Draw anew when a chapter comes or goes."""
    root = env.config.root_doc
    return [root] if (added or removed) and root in env.found_docs else []


def setup(app: Sphinx) -> dict:
    """Register the directive and its picture."""
    app.add_node(
        family_tree,
        html=(visit_html, None),
        latex=(skip, None),
        text=(skip, None),
        man=(skip, None),
        texinfo=(skip, None),
    )
    app.add_directive("family-tree", FamilyTree)
    app.connect("env-get-outdated", pages_with_tree)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
