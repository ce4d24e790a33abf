"""The tensors on a network's way, drawn to scale."""

from html import escape
from math import prod

from torch import nn

from .boxes import shape_text
from .palette import COLORS
from .pen import text_width
from .structure import Arcs, Box, Parallel, Series, build
from .tracing import graph_of

_FACE = 150  # pixels of the largest height
_DEEP = 90  # pixels of the largest number of channels
_SLANT = 0.36  # how the width is foreshortened in both directions
_SPACE = 16


def draw_shapes(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    *,
    title: str | None = None,
) -> None:
    """Draw the tensors between a network's parts as blocks, to scale.

    Height and width of a block are those of the feature maps, its length is the number
    of channels, with a scale of its own. A vector is a rod of 1 × 1, and rods have
    their own scale again. Of the tensors of one height and width, the last is drawn;
    of the vectors, each new length.

    Args:
        network: any module; it runs once on shapes alone, its weights are not touched.
        input_size: (C, H, W) of the input, without the batch.
        title: set above.

    Raises:
        ValueError: the network cannot take such an input, or computes with tokens,
            which have no height and width.
    """
    from .style import emit, in_notebook

    svg, words = _drawn(network, tuple(input_size), title)
    if in_notebook():
        emit({"text/html": svg, "text/plain": words})
    else:
        print(words)


def shapes_svg(network, input_size=(3, 224, 224), *, title=None) -> str:
    """Return the picture of `draw_shapes` as SVG for an HTML page."""
    return _drawn(network, tuple(input_size), title)[0]


def stages(network: nn.Module, input_size: tuple[int, ...]) -> list[tuple[str, tuple]]:
    """Return (name, shape) of the input, of the last tensor of each size, of vectors.

    The name is that of the network's attribute that made the tensor; the shape is
    (C, H, W), with 1 × 1 for vectors.
    """
    found = [("input", tuple(input_size))]
    for name, shape in _outputs(build(graph_of(network, input_size), 1)):
        shape = shape if len(shape) == 3 else (*shape, 1, 1)
        if len(shape) != 3:
            raise ValueError(
                f"{type(network).__name__} computes with tensors of shape "
                f"{shape_text(shape[:-2])}, which have no height and width to draw. "
                "Use draw_network for it."
            )
        before = found[-1][1]
        if shape[1:] == before[1:] and prod(shape[1:]) > 1 and len(found) > 1:
            found[-1] = (name, shape)
        elif shape != before:
            found.append((name, shape))
    return found


def _outputs(series: Series) -> list[tuple[str, tuple[int, ...]]]:
    """Return (name, shape) after each item of a series."""
    out = []
    for item in series.items:
        last = item
        if isinstance(item, Parallel):
            last = item.join
        elif isinstance(item, Arcs):
            last = item.boxes[-1]
        if isinstance(last, Box):
            name = last.node.name.split(".")[0] or last.node.words.label
            out.append((name, last.node.shape))
    return out


def _drawn(network, input_size, title) -> tuple[str, str]:
    found = stages(network, input_size)
    name = title or type(network).__name__
    words = f"Tensors of {name}, to scale: " + "; ".join(
        f"{name} {shape_text(shape)}" for name, shape in found
    )
    face = _FACE / max(shape[1] for _, shape in found)
    longest = {
        flat: max((c for _, (c, *hw) in found if (prod(hw) > 1) != flat), default=1)
        for flat in (True, False)
    }
    top = 30.0 if title else 6.0
    reach = _SLANT * face * max(shape[2] for _, shape in found)
    middle = top + (reach + _FACE) / 2 + 4
    floor = middle + (reach + _FACE) / 2
    parts, x = [], 8.0
    names = [name for name, _ in found]
    named = len(set(names)) == len(names)  # else they would not tell blocks apart
    for name, shape in found:
        deep = _DEEP / longest[prod(shape[1:]) == 1]
        drawn, width = _block(x, middle, shape, face, deep)
        label = [f"{shape[1]} × {shape[2]}", f"{shape[0]:,}"]
        label += [name[:12]] if named else []
        room = max(width, max(text_width(t, 12) for t in label)) + _SPACE
        drawn, width = _block(x + (room - width) / 2, middle, shape, face, deep)
        parts += drawn
        for i, text in enumerate(label):
            code = ' style="font-family:var(--font-code,ui-monospace,monospace)"'
            parts.append(
                f'<text x="{x + room / 2:.1f}" y="{floor + 18 + 16 * i:.1f}" '
                f'text-anchor="middle" font-size="12.5"'
                f"{code if i == 2 else ''}>{escape(text)}</text>"
            )
        x += room
    if title:
        parts.append(
            f'<text x="8" y="18" font-size="15" font-weight="600">{escape(title)}</text>'
        )
    height = floor + 18 + 16 * (3 if named else 2)
    return (
        f'<svg class="nbs-diagram" role="img" aria-label="{escape(words)}" '
        f'viewBox="0 0 {x + 8:.0f} {height:.0f}" width="{x + 8:.0f}" '
        'style="display:block;max-width:100%;height:auto;margin:0 auto;'
        'font-family:var(--font-ui,system-ui,sans-serif)" fill="currentColor" '
        'xmlns="http://www.w3.org/2000/svg">' + "".join(parts) + "</svg>"
    ), words


def _block(x, middle, shape, face, deep) -> tuple[list[str], float]:
    """Return the three visible sides of a block, and its width on the page."""
    c, h, w = shape
    length = max(c * deep, 1.2)
    height = max(h * face, 1.2)
    slant = _SLANT * max(w * face, 1.2)
    top = middle - height / 2 + slant / 2
    x2, bottom = x + length, top + height
    sides = (
        (0.42, [(x, top), (x2, top), (x2, bottom), (x, bottom)]),
        (
            0.2,
            [(x, top), (x + slant, top - slant), (x2 + slant, top - slant), (x2, top)],
        ),
        (
            0.6,
            [
                (x2, top),
                (x2 + slant, top - slant),
                (x2 + slant, bottom - slant),
                (x2, bottom),
            ],
        ),
    )
    color = COLORS["blue"] if prod(shape[1:]) > 1 else COLORS["green"]
    drawn = [
        f'<polygon points="{" ".join(f"{a:.1f},{b:.1f}" for a, b in points)}" '
        f'fill="{color}" fill-opacity="{opacity}" stroke="currentColor" '
        'stroke-opacity="0.6" stroke-width="0.8" stroke-linejoin="round"/>'
        for opacity, points in sides
    ]
    return drawn, length + slant
