"""A pen for diagrams: boxes, arrows and words as SVG, in the colors of the page.

Lines and words are `currentColor`, fills are faint, so that the same drawing reads on
a light page and on a dark one.
"""

from html import escape

from .palette import COLORS

# family of a box -> its color; the others are drawn in the page's own
_TINTS = {
    "conv": COLORS["blue"],
    "linear": COLORS["green"],
    "pool": COLORS["orange"],
    "attention": COLORS["purple"],
    "act": COLORS["vermillion"],
}
# The site names its fonts so; elsewhere the reader's own are taken.
UI = "var(--font-ui,system-ui,sans-serif)"
_CODE = "var(--font-code,ui-monospace,monospace)"
# Widths of letters in a common sans-serif, in ems: groups, then all others.
_WIDTHS = (
    ("iljI.,:;'|![]()ft", 0.32),
    ("rs-/ ", 0.4),
    ("mwMW%@", 0.86),
    ("ABCDEFGHKNOPQRSTUVXYZ", 0.69),
)


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is, in pixels, on the safe side."""
    total = 0.0
    for letter in text:
        total += next((w for letters, w in _WIDTHS if letter in letters), 0.58)
    return 1.06 * size * total


def shortened(text: str, size: float, room: float) -> str:
    """Return the text, cut with an ellipsis where it is wider than the room."""
    if text_width(text, size) <= room:
        return text
    while text and text_width(text + "…", size) > room:
        text = text[:-1]
    return text.rstrip() + "…"


class Pen:
    """Collects the elements of a drawing and the names of its rows."""

    def __init__(self):
        self.parts: list[str] = []
        self.lines: list[str] = []
        self.names: list[tuple[str, float, float]] = []  # name, top, bottom

    def box(self, x, y, w, h, kind="", *, radius=5, dashed=False) -> None:
        """Draw a rounded box in the color of its kind."""
        tint = _TINTS.get(kind, "currentColor")
        fill = 0.16 if kind in _TINTS else 0.05
        line = 0.9 if kind in _TINTS else 0.45
        dash = ' stroke-dasharray="3 3"' if dashed else ""
        fill = 0.025 if dashed else fill
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{w:.1f}" height="{h:.1f}" '
            f'rx="{radius}" fill="{tint}" fill-opacity="{fill}" stroke="{tint}" '
            f'stroke-opacity="{line}"{dash}/>'
        )

    def sheet(self, x, y, w, h) -> None:
        """Draw the edge of a second sheet below a box."""
        self.parts.append(
            f'<path d="M{x + w:.1f} {y + 5:.1f}h4v{h - 1:.1f}H{x + 5:.1f}v-4" '
            'fill="none" stroke="currentColor" stroke-opacity="0.45"/>'
        )

    def text(self, x, y, words, *, size=14, anchor="start", faint=False, bold=False,
             code=False) -> None:  # fmt: skip
        """Write a text; y is its middle."""
        if not words:
            return
        look = f'font-size="{size:g}"'
        look += ' fill-opacity="0.78"' if faint else ""
        look += ' font-weight="600"' if bold else ""
        look += f' style="font-family:{_CODE}"' if code else ""
        look += f' text-anchor="{anchor}"' if anchor != "start" else ""
        self.parts.append(
            f'<text x="{x:.1f}" y="{y + 0.35 * size:.1f}" {look}>{escape(words)}</text>'
        )

    def line(self, *points, arrow=True, round_corners=True) -> None:
        """Draw a line through points with rounded corners, an arrowhead at its end."""
        radius = 7 if round_corners else 0
        path = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
        for before, here, after in zip(points, points[1:], points[2:], strict=False):
            a, b = _toward(here, before, radius), _toward(here, after, radius)
            path += f"L{a[0]:.1f} {a[1]:.1f}"
            path += f"Q{here[0]:.1f} {here[1]:.1f} {b[0]:.1f} {b[1]:.1f}"
        x, y = points[-1]
        end = _toward(points[-1], points[-2], 5) if arrow else (x, y)
        path += f"L{end[0]:.1f} {end[1]:.1f}"
        self.lines.append(f'<path d="{path}" fill="none" stroke="currentColor"/>')
        if arrow:
            self._head(points[-2], points[-1])

    def _head(self, before, tip) -> None:
        back = _toward(tip, before, 7)
        dx, dy = (tip[1] - back[1]) * 0.5, (back[0] - tip[0]) * 0.5
        self.lines.append(
            f'<path d="M{tip[0]:.1f} {tip[1]:.1f}L{back[0] + dx:.1f} {back[1] + dy:.1f}'
            f'L{back[0] - dx:.1f} {back[1] - dy:.1f}z"/>'
        )

    def dot(self, x, y) -> None:
        """Mark where a line forks."""
        self.lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.4"/>')

    def drawing(self) -> str:
        """Return all elements; lines are faint as a whole, also where they cross."""
        lines = "".join(self.lines)
        return f'<g opacity="0.75" stroke-width="1.3">{lines}</g>' + "".join(self.parts)

    def circle(self, x, y, sign, radius=11) -> None:
        """Draw an operation that joins two tensors."""
        self.parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" fill="currentColor" '
            'fill-opacity="0.05" stroke="currentColor" stroke-opacity="0.8" '
            'stroke-width="1.3"/>'
        )
        self.text(x, y, sign, size=16, anchor="middle")


def _toward(here, there, distance):
    """Return the point that lies some way from here to there."""
    dx, dy = there[0] - here[0], there[1] - here[1]
    length = max((dx * dx + dy * dy) ** 0.5, 1e-9)
    share = min(distance, length / 2) / length
    return here[0] + share * dx, here[1] + share * dy
