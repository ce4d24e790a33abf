"""From the SVG that matplotlib writes to one that stands in a page.

A notebook stores a figure as a document of its own, which knows nothing of the page:
white ground, fixed colors, the reader's system font. Here it becomes part of the page:
its letters are the book's, its colors are variables of `palette.css`, its ids are
unique, and its photographs lie in a file beside the page. What is drawn on top of a
photograph keeps its colors, since the photograph keeps its own.
"""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

SVG, XLINK = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}"
FIGURES = Path(__file__).resolve().parents[2] / "nbs_utils" / "figures"
NAMES = {
    value.lower(): name
    for name, value in runpy.run_path(str(FIGURES / "palette.py"))["COLORS"].items()
}
COLOR = re.compile(r"#[0-9a-fA-F]{6}\b")
NUMBER = r"(-?\d+(?:\.\d+)?)"
# Channels that differ by no more than this make a gray.
GRAY = 24
# The darkest gray of a figure is the page's ink; a faint word has this share of it.
INK, FAINT = 0x22, 68
# The size of letters, in the figure's units, that the page shows as its own for figures.
SIZE = 10.0
# A letter's mean width as a share of its size; words shorter than so many are ticks.
LETTER, TICK = 0.5, 12

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass(frozen=True)
class Drawing:
    """A figure for a page.

    Attributes:
        inside: what stands within the page's `<svg>`; empty for a figure that is
            nothing but photographs.
        photographs: an SVG document with the photographs alone; empty without any.
        width, height: of the coordinates.
        pixels: the width at full size.
        words: what is written in it, for the search.
    """

    inside: str
    photographs: str
    width: float
    height: float
    pixels: float
    words: tuple[str, ...]


def themed(color: str, *, words: bool = False) -> str:
    """Return the CSS value that a color of a figure has on the page.

    Grays lie between the page's ink and its paper, so that they change places in the
    dark; the colors of `nbs.figures.COLORS` have variables of their own; any other
    color stays as it is.

    Args:
        color: "#rrggbb".
        words: for letters, which need more contrast than lines do.
    """
    color = color.lower()
    if color in NAMES:
        return f"var(--figure-{NAMES[color]}{'-words' if words else ''})"
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    if max(channels) - min(channels) > GRAY:
        return color
    share = round(100 * min(1, (255 - sum(channels) / 3) / (255 - INK)))
    if words and share > 30:  # paler letters stand on something dark
        share = max(share, FAINT)
    if share in (0, 100):
        return "var(--ink)" if share else "var(--paper)"
    return f"color-mix(in srgb,var(--ink) {share}%,var(--paper))"


def themed_markup(markup: str) -> str:
    """Return HTML that holds an SVG, with the colors of its attributes themed.

    For drawings that the notebook stores as a part of a page (`draw_network`): they
    use the page's letters and ink already, and only their tints are fixed.
    """
    return re.sub(
        r'\b(fill|stroke)="(#[0-9a-fA-F]{6})"',
        lambda found: f'{found[1]}="{themed(found[2])}"',
        markup,
    )


def read_drawing(text: str, prefix: str, address: str) -> Drawing:
    """Return a figure for a page.

    Args:
        text: the SVG document that a notebook stores.
        prefix: put before every id; different for each figure of a page.
        address: where the page will find the photographs.

    Raises:
        xml.etree.ElementTree.ParseError: the text is not XML.
        ValueError: it is not an SVG with a size.
    """
    builder = ElementTree.TreeBuilder(insert_comments=True)
    root = ElementTree.fromstring(text, ElementTree.XMLParser(target=builder))
    size = [float(n) for n in root.get("viewBox", "").replace(",", " ").split()]
    if root.tag != f"{SVG}svg" or len(size) != 4:
        raise ValueError("This is not an SVG document with a viewBox.")
    width, height = size[2:]
    words = tuple(_words(root))
    root = _plain(root)
    _drop_ground(root)
    photographs = _document(root, width, height)
    boxes = _take_photographs(root, address, width, height)
    _restyle(root, boxes)
    for element in root.iter("text"):
        _let_flow(element)
    _keep_inside(root, width)
    _rename(root, prefix)
    inside = "".join(map(_markup, root))
    if photographs and not re.search(r"<(path|rect|text|use)\b", inside):
        inside = ""
    scale = 4 / 3 if root.get("width", "").endswith("pt") else 1
    return Drawing(inside, photographs, width, height, width * scale, words)


def _words(root: Element) -> Iterator[str]:
    """Yield what is written, in order; numbers alone are left out.

    Where letters are outlines, matplotlib leaves the words in comments.
    """
    written = [e for e in root.iter() if e.tag == f"{SVG}text"]
    for element in written or [e for e in root.iter() if not isinstance(e.tag, str)]:
        text = " ".join("".join(element.itertext()).split())
        text = text or " ".join((element.text or "").split())
        if re.search(r"[^\W\d_]{2}", text) and "$" not in text:
            yield text


def _plain(element: Element) -> Element:
    """Return a copy without namespaces, comments, style sheets and layout."""
    name = element.tag.removeprefix(SVG)
    copy = Element(name)
    for key, value in element.attrib.items():
        if not key.startswith("{") or key == f"{XLINK}href":
            copy.set(key.removeprefix(XLINK), " ".join(value.split()))
    if name in ("text", "tspan"):
        copy.text, copy.tail = element.text, element.tail
    for child in element:
        # A style sheet would hold for the whole page; ours says the same.
        if isinstance(child.tag, str) and child.tag not in (
            f"{SVG}style",
            f"{SVG}metadata",
        ):
            copy.append(_plain(child))
    return copy


def _style(element: Element) -> dict[str, str]:
    parts = (part.partition(":") for part in element.get("style", "").split(";"))
    return {key.strip(): value.strip() for key, _, value in parts if value}


def _drop_ground(root: Element) -> None:
    """Take away the figure's white sheet, and that of axes that show photographs."""
    for group in root.iter("g"):
        kind = group.get("id", "").partition("_")[0]
        sheet = next(iter(group), None)
        if (
            kind in ("figure", "axes")
            and sheet is not None
            and sheet.get("id", "").startswith("patch_")
            and [_style(path) for path in sheet] == [{"fill": "#ffffff"}]
            and (kind == "figure" or group.find(".//image") is not None)
        ):
            group.remove(sheet)


def _document(root: Element, width: float, height: float) -> str:
    """Return the photographs as a document of their own, clipped as they were."""
    clips = {clip.get("id"): clip for clip in root.iter("clipPath")}
    out = Element("svg", {"xmlns": SVG[1:-1], "viewBox": f"0 0 {width:g} {height:g}"})
    out.attrib |= {"width": f"{width:g}", "height": f"{height:g}"}
    defs = ElementTree.SubElement(out, "defs")
    for parent in root.iter():
        for image in parent.findall("image"):
            used = image.get("clip-path") or parent.get("clip-path") or ""
            clip = clips.pop(used[5:-1], None)
            if clip is not None:
                defs.append(clip)
            group = ElementTree.SubElement(out, "g")
            if used:
                group.set("clip-path", used)
            group.append(deepcopy(image))
    return _markup(out) if len(out) > 1 else ""


def _take_photographs(
    root: Element, address: str, width: float, height: float
) -> list[Box]:
    """Put one picture, all photographs, where the first was; return their places."""
    boxes: list[Box] = []
    for parent in list(root.iter()):
        for image in parent.findall("image"):
            place = list(parent).index(image)
            parent.remove(image)
            if not boxes:
                size = {"width": f"{width:g}", "height": f"{height:g}"}
                parent.insert(place, Element("image", {"href": address, **size}))
                parent.attrib.pop("clip-path", None)
            boxes.append(_box(image))
    return boxes


def _box(image: Element) -> Box:
    """Return the place of a photograph under its `transform`."""
    x, y = float(image.get("x", 0)), float(image.get("y", 0))
    right, bottom = x + float(image.get("width")), y + float(image.get("height"))
    # The last one named is the first one applied.
    for name, arguments in reversed(
        re.findall(r"(\w+)\(([^)]*)\)", image.get("transform", ""))
    ):
        n = [float(a) for a in arguments.replace(",", " ").split()]
        a, d, e, f = 1.0, 1.0, 0.0, 0.0
        if name == "matrix":
            a, d, e, f = n[0], n[3], n[4], n[5]
        elif name == "translate":
            e, f = (*n, 0.0)[:2]
        elif name == "scale":
            a, d = n[0], n[-1]
        x, right = sorted((a * x + e, a * right + e))
        y, bottom = sorted((d * y + f, d * bottom + f))
    return x, y, right, bottom


def _middle(element: Element, offset: tuple[float, float]) -> tuple[float, float]:
    """Return about where an element is drawn."""
    numbers = [float(n) for n in re.findall(NUMBER, element.get("d", ""))]
    if numbers:
        x, y = numbers[::2], numbers[1::2]
        return (min(x) + max(x)) / 2, (min(y) + max(y)) / 2
    x, y = float(element.get("x", 0)), float(element.get("y", 0))
    return x + offset[0], y + offset[1]


def _restyle(
    element: Element,
    boxes: list[Box],
    offset: tuple[float, float] = (0.0, 0.0),
    fill: str = "#000000",
) -> None:
    """Give an element and all within it the colors and letters of the page.

    Args:
        element: any; changed in place.
        boxes: where photographs are; what is drawn in one keeps its colors.
        offset: how far the groups around it have moved it.
        fill: its fill if it has none of its own.
    """
    transform = element.get("transform", "")
    moved = re.match(rf"translate\({NUMBER}[ ,]+{NUMBER}\)", transform)
    if moved:
        offset = offset[0] + float(moved[1]), offset[1] + float(moved[2])
    if re.fullmatch(r"rotate\(-?0(?: [-\d. ]+)?\)", transform):
        del element.attrib["transform"]
    style = _style(element)
    drawn = element.tag in ("path", "text", "tspan", "use")
    words = element.find(".//text") is not None or element.tag in ("text", "tspan")
    x, y = _middle(element, offset) if drawn else (-1.0, -1.0)
    fill = style.get("fill", element.get("fill", fill))
    if any(a <= x <= c and b <= y <= d for a, b, c, d in boxes):
        style["fill"] = fill  # else it would get the page's
    else:

        def color(value: str) -> str:
            return COLOR.sub(lambda found: themed(found.group(), words=words), value)

        style = {key: color(value) for key, value in style.items()}
        for key in {"fill", "stroke"} & set(element.attrib):
            element.set(key, color(element.get(key)))
    style.pop("font-family", None)  # it is the page's
    if style.get("text-anchor") == "start":
        del style["text-anchor"]
    size = re.fullmatch(rf"{NUMBER}(?:px|pt)?", style.get("font-size", ""))
    if size:
        style["font-size"] = f"{float(size[1]) / SIZE:.3g}em"
        if style["font-size"] == "1em":
            del style["font-size"]
    if style:
        element.set("style", ";".join(f"{key}:{style[key]}" for key in style))
    else:
        element.attrib.pop("style", None)
    for child in element:
        _restyle(child, boxes, offset, fill)


def _let_flow(text: Element) -> None:
    """Let the digits of a power follow one another in whatever font there is.

    matplotlib gives each its place in its own font, in which digits are wider. Other
    formulas keep their places: there a gap or a line may have been drawn.
    """
    parts = list(text)
    written = "".join("".join(text.itertext()).split())
    if not re.fullmatch(r"[−\d.]+", written) or len(parts) < 2:
        return
    text.text, before = "", 0.0
    for n, part in enumerate(parts):
        part.tail = ""
        if n:
            y = float(part.get("y", 0))
            del part.attrib["x"]
            part.attrib.pop("y", None)
            if y != before:
                part.set("dy", f"{y - before:g}")
            before = y
        else:
            before = float(part.get("y", 0))


def _keep_inside(root: Element, width: float) -> None:
    """Move long words that would leave the drawing, and shrink a line that is too long.

    matplotlib centers the label of a narrow axis under it, wherever that leads; two such
    labels side by side can run into each other.

    Args:
        root: the drawing; changed in place.
        width: of its coordinates.
    """
    lines: dict[int, list[Element]] = {}
    for text in root.iter("text"):
        centered = "text-anchor:middle" in text.get("style", "").replace(" ", "")
        if centered and not text.get("transform") and len(text.text or "") > TICK:
            lines.setdefault(round(float(text.get("y", 0))), []).append(text)
    for line in lines.values():
        line.sort(key=lambda text: float(text.get("x", 0)))
        needed = sum(map(_length, line)) + SIZE * len(line)
        if needed > width:
            for text in line:
                style = _style(text)
                size = float(style.get("font-size", "1em").removesuffix("em"))
                style["font-size"] = f"{size * width / needed:.3g}em"
                text.set("style", ";".join(f"{k}:{v}" for k, v in style.items()))
        end = width
        for text in reversed(line):
            half = _length(text) / 2
            x = max(min(float(text.get("x", 0)), end - half - 2), half + 2)
            text.set("x", f"{x:g}")
            end = x - half - SIZE / 2


def _length(text: Element) -> float:
    """Return about how long a text is, in the drawing's coordinates."""
    size = float(_style(text).get("font-size", "1em").removesuffix("em"))
    return LETTER * SIZE * size * len(text.text or "")


def _rename(root: Element, prefix: str) -> None:
    """Keep the ids that something refers to, under names of their own."""
    link = re.compile(r"url\(#([^)]+)\)|^#(.+)$")
    used: dict[str, str] = {}
    for element in root.iter():
        for value in element.attrib.values():
            for found in link.finditer(value):
                used.setdefault(found[1] or found[2], f"{prefix}-{len(used) + 1}")

    def renamed(found: re.Match) -> str:
        name = used[found[1] or found[2]]
        return f"url(#{name})" if found[1] else f"#{name}"

    for element in root.iter():
        name = element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            element.set(key, link.sub(renamed, value))
        if name in used:
            element.set("id", used[name])


def _markup(element: Element) -> str:
    """Return an element as HTML, without groups that hold or say nothing."""
    text = element.tag in ("text", "tspan")
    inside = "".join(map(_markup, element))
    if element.tag in ("g", "defs") and not inside:
        return ""
    if element.tag == "clipPath" and "id" not in element.attrib:
        return ""  # nothing is cut by it any more
    if element.tag == "g" and not element.attrib:
        return inside
    bare = Element(element.tag, element.attrib)
    bare.text = element.text if text else None
    written = ElementTree.tostring(bare, "unicode")
    if inside:
        if written.endswith(" />"):
            written = f"{written[:-3]}></{element.tag}>"
        end = f"</{element.tag}>"
        written = written.removesuffix(end) + inside + end
    # A line break between the parts of a text would be seen as a space.
    return written + (_escaped(element.tail or "") if element.tag == "tspan" else "\n")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;")
