"""The diagram of a network, drawn from what it executes."""

from collections.abc import Iterator
from html import escape

from torch import nn

from .boxes import shape_text, words_text
from .compact import flat, folded
from .layout import GAP, SeriesPiece
from .pen import UI, Pen, text_width
from .structure import Arcs, Box, Parallel, Series, build
from .tracing import graph_of

_HIGHEST = 800  # pixels; "auto" stays below
_EDGE = 80  # of these: title, input and margins
_WIDEST = 560


def draw_network(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    depth: int | str = "auto",
    *,
    title: str | None = None,
) -> None:
    """Draw a network, or a block of one, as it is executed.

    Boxes say what is computed and the shape of the result (without the batch), the
    margin says where to find it in the code. Skips are arcs, branches stand side by
    side, equal blocks in a row are drawn once and counted.

    Args:
        network: any module; it runs once on shapes alone, its weights are not touched.
        input_size: shape of the input without the batch, for example (64, 56, 56).
        depth: how many levels of modules are opened (the outermost counts 1,
            `nn.Sequential` none); "auto" opens as many as fit a page, and of a long
            network draws neighbors of one kind once, with their number; "leaf" opens
            all and shows each normalization, activation and reshape by itself.
        title: set above.

    Raises:
        ValueError: the network cannot take such an input, or depth is neither.
    """
    from .style import emit, in_notebook

    svg, outline = _drawn(network, input_size, depth, title)
    if in_notebook():
        emit({"text/html": svg, "text/plain": outline})
    else:
        print(outline)


def network_svg(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    depth: int | str = "auto",
    *,
    title: str | None = None,
) -> str:
    """Return the diagram of `draw_network` as SVG for an HTML page."""
    return _drawn(network, input_size, depth, title)[0]


def _drawn(network, input_size, depth, title) -> tuple[str, str]:
    if depth not in ("auto", "leaf") and not (isinstance(depth, int) and depth > 0):
        raise ValueError(
            f"depth is {depth!r}; it must be a positive number of levels, 'auto' or "
            "'leaf'."
        )
    graph = graph_of(network, tuple(input_size))
    if depth == "leaf":
        series = build(graph, float("inf"), leaf=True)
    elif depth == "auto":
        series = _deepest(graph)
    else:
        series = build(graph, depth)
    name = title or type(network).__name__
    words = f"Diagram of {name}: input {shape_text(input_size)}; {outline(series)}."
    return render(series, tuple(input_size), title, words), words


def _deepest(graph) -> Series:
    """Return the structure opened as far as a page has room for it.

    One that is too high even closed gets coarser, step by step.
    """
    best, before = build(graph, 1), None
    if not _fits(best):
        tried = []
        for series in _coarser(graph):
            if _fits(series):
                return series
            tried.append(series)
        return min(tried, key=lambda s: SeriesPiece(s, False, False).height)
    for depth in range(2, 8):
        series = build(graph, depth)
        size = SeriesPiece(series, False, False)
        now = (size.height, size.left + size.right)
        if not _fits(series) or now == before:
            break
        best, before = series, now
    return best


def _fits(series: Series) -> bool:
    size = SeriesPiece(series, False, False)
    return size.height + _EDGE <= _HIGHEST and size.left + size.right <= _WIDEST


def _coarser(graph) -> Iterator[Series]:
    """Give the structure with fewer and fewer boxes."""
    for spliced in (True, False):
        series = build(graph, 1, spliced=spliced)
        yield folded(series)
        series = folded(build(graph, 1, spliced=spliced), any_shape=True)
        yield series
        yield flat(series)
        yield flat(series, words=False)


def render(series: Series, input_size, title: str | None, words: str) -> str:
    """Return the SVG of a structure."""
    body = SeriesPiece(series, False, False)
    pen = Pen()
    top = 30.0 if title else 6.0
    start = top + 18 + GAP
    body.draw(pen, 0.0, start, "")
    margin = _margin(pen, -body.left)
    if title:
        pen.text(-body.left, 14, title, size=15, bold=True)
    pen.text(-6, top + 8, "input", size=13, anchor="end", faint=True)
    pen.text(6, top + 8, shape_text(input_size), size=13, faint=True)
    pen.line((0, top + 18), (0, start), arrow=not body.fork)
    left, right = -body.left - margin - 4, body.right + 8
    if title:
        right = max(right, -body.left + text_width(title, 16) + 8)
    width, height = right - left, start + body.height + 8
    return (
        f'<svg class="nbs-diagram" role="img" aria-label="{escape(words)}" '
        f'viewBox="{left:.0f} 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        'style="display:block;max-width:100%;height:auto;margin:0 auto;'
        f'font-family:{UI}" fill="currentColor" xmlns="http://www.w3.org/2000/svg">'
        + pen.drawing()
        + "</svg>"
    )


def _margin(pen: Pen, edge: float) -> float:
    """Write the names of the rows left of the boxes; return the room they take."""
    groups: list[list] = []
    for name, whole, top, bottom in pen.names:
        if groups and groups[-1][0] == name:
            groups[-1] = [name, name, groups[-1][2], bottom, groups[-1][4] + 1]
        else:
            groups.append([name, whole, top, bottom, 1])
    widest = 0.0
    for name, whole, top, bottom, rows in groups:
        text = whole if len(whole) <= 14 else name
        text = text if len(text) <= 14 else text[:13] + "…"
        widest = max(widest, 0.63 * 12.5 * len(text) + 18)
        middle = (top + bottom) / 2
        pen.text(
            edge - 14, middle, text, size=12.5, anchor="end", faint=True, code=True
        )
        if rows > 1:
            pen.parts.append(
                f'<path d="M{edge - 5:.1f} {top + 1:.1f}h-4V{bottom - 1:.1f}h4" '
                'fill="none" stroke="currentColor" stroke-opacity="0.5"/>'
            )
    return widest


def outline(series: Series) -> str:
    """Return the diagram in words, for those who do not see it."""
    return "; ".join(_item(item) for item in series.items)


def _item(item) -> str:
    if isinstance(item, Parallel):
        branches = [outline(branch) for branch in item.branches]
        branches += ["skip"] if item.direct else []
        join = f", joined by {_item(item.join)}" if item.join else ""
        return f"branches ({' | '.join(branches)}){join}"
    if isinstance(item, Arcs):
        return "densely connected (" + "; ".join(_item(b) for b in item.boxes) + ")"
    return _box(item)


def _box(box: Box) -> str:
    node = box.node
    text = node.words.label.lstrip("_")
    text = {"+": "sum", "×": "product"}.get(text, text)
    text = f"{node.count} times {text}" if node.count > 1 else text
    if box.body is not None:
        return f"{text} of ({outline(box.body)})"
    inside = " | ".join(words_text(words) for words in box.lines if words)
    text += f" ({inside})" if inside else ""
    if box.skip is not None:
        text += " with a skip" + (f" through {box.skip}" if box.skip else "")
    return f"{text} to {shape_text(node.shape)}"
