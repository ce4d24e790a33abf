"""One look for every figure: colors, type, the card, and the SVG that is stored.

Figures are 5.6 inches wide, 538 pixels in a browser. A text column of 700 pixels
shows them at full size and a phone at two thirds of it, where 10.5 pt are still 9
pixels. Text stays text, set in the reader's own sans-serif font.
"""

import base64
import functools
import io
import re
import sys
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from .palette import COLORS

INK, RULE, CARD = "#222222", "#E4E2DD", "#FFFFFF"
WIDTH = 5.6  # inches; one inch is 96 pixels

STYLE = {
    "figure.facecolor": CARD,
    "figure.dpi": 96,
    "savefig.facecolor": CARD,
    "axes.facecolor": CARD,
    "axes.edgecolor": "#9A9A9A",
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 9,
    "axes.labelsize": 10.5,
    "axes.labelpad": 5,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.prop_cycle": mpl.cycler(color=list(COLORS.values())),
    "grid.color": RULE,
    "grid.linewidth": 0.8,
    "lines.linewidth": 2.0,
    "lines.markersize": 5,
    "lines.solid_capstyle": "round",
    "text.color": INK,
    "font.size": 10.5,
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "sans-serif"],
    "legend.frameon": False,
    "legend.fontsize": 10,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 10,
    "ytick.labelsize": 10,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 5,
    "ytick.major.pad": 5,
    "image.cmap": "viridis",
    "image.interpolation": "none",
    # Text as text, and the same file for the same figure.
    "svg.fonttype": "none",
    "svg.hashsalt": "nbs",
}
# What the stored file asks the browser for. DejaVu Sans, which matplotlib measured
# with, is wide: any other of these fonts needs less room, so nothing is cut off.
_FONTS = "system-ui, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def styled(function):
    """Make a function draw in the book's style and leave the session's alone."""

    @functools.wraps(function)
    def inner(*args, **kwargs):
        with mpl.rc_context(STYLE):
            return function(*args, **kwargs)

    return inner


def canvas(
    rows: int = 1, columns: int = 1, *, height: float = 3.2, width: float = WIDTH, **kw
) -> tuple[Figure, np.ndarray]:
    """Return `(figure, axes)` in the book's style for a plot of your own.

    Args:
        rows, columns: the grid of axes; one axes is returned bare, more as an array.
        height, width: of the whole figure, in inches (96 pixels each).
        **kw: passed on to `plt.subplots`, for example `sharex=True`.

    The style stays set for the session. End the cell with `figures.show(figure)`.
    """
    mpl.rcParams.update(STYLE)
    return new_figure(rows, columns, height=height, width=width, **kw)


def new_figure(rows=1, columns=1, *, height=3.2, width=WIDTH, **kw):
    """Return `(figure, axes)` laid out with the card's padding."""
    kw.setdefault("layout", "constrained")
    figure, axes = plt.subplots(rows, columns, figsize=(width, height), **kw)
    if kw["layout"] == "constrained":
        figure.get_layout_engine().set(w_pad=0.12, h_pad=0.12)
    return figure, axes


def show(figure: Figure) -> Figure | None:
    """End a figure: leave it as the output of the cell, as one SVG, and close it.

    Outside a notebook the figure goes to matplotlib's own window, if there is one, and
    is returned, so that a script can keep it: `save_svg(plot_history(run), "a.svg")`.
    """
    if in_notebook():
        emit(svg_bundle(figure))
        plt.close(figure)
        return None
    if getattr(type(figure.canvas), "required_interactive_framework", None):
        plt.show()
    plt.close(figure)
    return figure


def save_svg(figure: Figure, path: str | Path) -> str:
    """Write a figure as an SVG file that any program shows, close it, return its text.

    Args:
        figure: drawn, as by `figures.canvas` or `draw_history`.
        path: of the file, mostly ending in .svg.
    """
    svg = to_svg(figure)
    plt.close(figure)
    Path(path).write_text(svg, encoding="utf-8")
    return svg


def in_notebook() -> bool:
    """Tell whether this code runs in a notebook's kernel."""
    module = sys.modules.get("IPython")  # do not import it to find out
    shell = module.get_ipython() if module else None
    return getattr(shell, "kernel", None) is not None


def emit(bundle: dict, display_id: str | None = None, update: bool = False) -> None:
    """Hand a bundle of MIME types to the notebook."""
    from IPython.display import display

    display(bundle, raw=True, display_id=display_id, update=update)


def svg_bundle(figure: Figure) -> dict:
    """Return the figure as the MIME bundle that a notebook stores."""
    return {"image/svg+xml": to_svg(figure), "text/plain": "<Figure>"}


def to_svg(figure: Figure) -> str:
    """Return a figure as a small SVG document.

    matplotlib writes long numbers, a font list at every word and photographs as PNG;
    the file is a third to a tenth of that after rounding and recoding.
    """
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r"(font: [^;\"]*?(?:px|pt)) [^;\"]*", r"\1 " + _FONTS, svg)
    svg = svg.replace("<svg ", f'<svg font-family="{_FONTS}" ', 1)
    svg = re.sub(r'<image xlink:href="data:image/png;base64,[^>]*>', _recode, svg)
    # Hundredths of a point are enough in drawing attributes (never in words). A matrix
    # scales photographs by its numbers: there they would be a pixel in every hundred.
    svg = re.sub(
        r'(?<=[\s"])(?:d|x|y|points|transform)="(?!matrix)[^"]*"',
        lambda found: re.sub(r"(\d+\.\d\d)\d+", r"\1", found.group()),
        svg,
    )
    svg = re.sub(
        r'transform="matrix[^"]*"',
        lambda found: re.sub(r"(\d+\.\d{4})\d+", r"\1", found.group()),
        svg,
    )
    return re.sub(r"\n\s+", "\n", svg)


def _recode(found: re.Match) -> str:
    """Give an embedded image the smallest coding that does not show."""
    tag = found.group()
    raw = re.search(r'base64,([^"]*)"', tag)
    image = Image.open(io.BytesIO(base64.b64decode(raw.group(1))))
    kind, data = encode(image)
    url = f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
    tag = tag.replace(f"data:image/png;base64,{raw.group(1)}", url)
    if kind == "jpeg":  # photographs are scaled smoothly, pixels are shown as pixels
        tag = re.sub(r"image-rendering:[^\"]*", "", tag)
    return tag


def encode(image: Image.Image) -> tuple[str, bytes]:
    """Return ("png" or "jpeg", bytes), whichever is right for this picture.

    Up to 256 colors, small pictures and transparent ones stay exact (PNG); larger
    photographs become JPEG, which takes a fifth of the room.
    """
    if image.mode == "RGBA" and image.getextrema()[3] == (255, 255):
        image = image.convert("RGB")
    out = io.BytesIO()
    colors = image.getcolors(256)
    if image.mode == "RGB" and colors is None and max(image.size) > 64:
        image.save(out, "jpeg", quality=88, optimize=True)
        return "jpeg", out.getvalue()
    if image.mode == "RGB" and colors is not None:
        # Exact: a palette of as many entries as there are colors.
        image = image.quantize(len(colors), dither=Image.Dither.NONE)
    image.save(out, "png", optimize=True)
    return "png", out.getvalue()
