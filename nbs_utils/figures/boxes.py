"""The single pieces of a diagram: boxes with their words, and circles that join."""

from __future__ import annotations

from .pen import Pen, shortened, text_width
from .structure import Box

HALF = 174  # half the width of a box on the main axis
_NARROW = 110  # pixels of what is inside a closed box beside others
_SLIM = ("norm", "act", "drop", "shape", "scale", "split", "other", "product")
_SHORT = {"batch norm": "BN", "layer norm": "LN", "local response norm": "LRN"}


def shape_text(shape: tuple[int, ...]) -> str:
    """Write a shape: (64, 56, 56) is "64 × 56 × 56"."""
    return " × ".join(f"{n}" for n in shape)


def class_text(box: Box) -> str:
    """Return a box's label with its count."""
    label = box.node.words.label.lstrip("_")
    return f"{label} × {box.node.count}" if box.node.count > 1 else label


def words_text(words: list[str]) -> str:
    """Write what is inside a closed box: "1×1 → 3×3 → 1×1", "24 × DenseLayer"."""
    runs: list[list] = []
    for word in words:
        if runs and runs[-1][0] == word:
            runs[-1][1] += 1
        else:
            runs.append([word, 1])
    parts = []
    for word, times in runs:
        word = word.lstrip("_")
        parts += [f"{times} × {word}"] if times > 3 else [word] * times
    return " → ".join(parts)


class Piece:
    """A part of a diagram: its reach to both sides of the axis, and its height.

    `fork` is True where a plain line, not an arrow, leads into it.
    """

    left = right = height = 0.0
    fork = False

    def draw(self, pen: Pen, axis: float, top: float, owner: str | None) -> None:
        """Draw the piece.

        Args:
            pen: what to draw with.
            axis, top: the middle of the upper edge, in pixels.
            owner: the name of the module that the rows belong to, for the margin;
                None away from the main axis, where the margin names nothing.
        """
        raise NotImplementedError


class BoxPiece(Piece):
    """A box: label on the left, shape on the right; narrow ones have two lines."""

    def __init__(self, box: Box, narrow: bool):
        self.box, self.narrow = box, narrow
        node = box.node
        self.label = class_text(box)
        self.shape = shape_text(node.shape)
        self.lines = [words_text(words) for words in box.lines if words]
        self.columns = [words for words in box.lines] if len(box.lines) > 1 else []
        slim = node.words.kind in _SLIM
        if narrow:
            self.label = _brief(node.words.label) if node.words.short else self.label
            inside = self.lines[0] if len(self.lines) == 1 else ""
            inside = inside if text_width(inside, 11.5) < _NARROW else ""
            self.below = [] if slim else [text for text in (inside, self.shape) if text]
            texts = [(self.label, 13), *((text, 11.5) for text in self.below)]
            half = max(text_width(t, size) for t, size in texts) / 2 + 8
            self.left = self.right = half
            self.height = 24 if slim else 26 + 16 * len(self.below)
            return
        self.left = self.right = HALF
        self.height = 24 if slim else 32
        self.drop = 0 if self._beside() else 17  # columns begin lower below two lines
        if self.columns:
            rows = max(len(words) for words in self.columns)
            self.height = 30 + self.drop + 17 * rows + 8
        self.below: list[str] = []  # lines of smaller text, below the label
        if not (slim or self.columns or self._beside()):
            self.below = wrapped(self._second(), 12.5, 2 * HALF - 22)
            self.height = 33 + 17 * len(self.below)

    def _second(self) -> str:
        """Return what stands smaller beside the label, or in a second line."""
        if self.columns:
            return self.box.meet
        after = ", ".join(_SHORT.get(word, word) for word in self.box.node.after)
        return self.lines[0] if self.lines else after

    def _beside(self) -> bool:
        """Tell whether all texts fit one line."""
        texts = ((self.label, 14), (self._second(), 12.5), (self.shape, 13))
        return sum(text_width(t, size) for t, size in texts) + 38 < 2 * HALF

    def draw(self, pen, axis, top, owner) -> None:
        kind = self.box.node.words.kind
        x, w = axis - self.left, self.left + self.right
        if self.box.node.count > 1:
            pen.sheet(x, top, w, self.height)
        pen.box(x, top, w, self.height, kind)
        _name(pen, self.box, owner, top, self.height)
        if self.narrow:
            middle = top + (self.height / 2 if self.height < 30 else 14)
            pen.text(axis, middle, self.label, size=13, anchor="middle")
            for i, text in enumerate(self.below):
                y = top + 30 + 15 * i
                pen.text(axis, y, text, size=11.5, anchor="middle", faint=True)
            return
        self._wide(pen, axis, top)

    def _wide(self, pen, axis, top) -> None:
        x, w = axis - HALF, 2 * HALF
        slim = self.height < 30
        middle = top + (self.height / 2 if self.height < 40 else 17)
        size = 13 if slim else 14
        pen.text(x + 11, middle, self.label, size=size, faint=slim)
        used = 11 + text_width(self.label, size)
        shape_room = text_width(self.shape, 13) + 11
        if self.columns and self.drop:
            pen.text(x + 11, top + 36, self._second(), size=12.5, faint=True)
        elif not self.below:
            pen.text(x + used + 8, middle + 0.5, self._second(), size=12.5, faint=True)
        if used + shape_room + 8 < w:
            pen.text(x + w - 11, middle, self.shape, size=13, anchor="end", faint=True)
        if self.columns:
            step = w / len(self.columns)
            for i, words in enumerate(self.columns):
                for j, word in enumerate(words or ["identity"]):
                    word = shortened(word.lstrip("_"), 12.5, step - 6)
                    y = top + 41 + self.drop + 17 * j
                    pen.text(x + (i + 0.5) * step, y, word, size=12.5, anchor="middle")
                if i:
                    pen.parts.append(
                        f'<path d="M{x + i * step:.1f} {top + 33 + self.drop:.1f}'
                        f'V{top + self.height - 7:.1f}" stroke="currentColor" '
                        'stroke-opacity="0.3"/>'
                    )
        for i, line in enumerate(self.below):
            pen.text(x + 11, top + 36 + 17 * i, line, size=12.5, faint=True)


def wrapped(text: str, size: float, room: float, most: int = 2) -> list[str]:
    """Return a text in lines that end before an arrow; the last one may be cut."""
    lines, rest = [], text
    while text_width(rest, size) > room and len(lines) < most - 1:
        words = rest.split(" ")
        fits: list[int] = []
        for signs in (("→",), ("+", "|")):
            ends = [i for i, word in enumerate(words) if i and word in signs]
            fits = [i for i in ends if text_width(" ".join(words[:i]), size) <= room]
            if fits:
                break
        if not fits:
            break
        lines.append(" ".join(words[: fits[-1]]))
        rest = " ".join(words[fits[-1] :])
    return [*lines, shortened(rest, size, room)]


def _brief(label: str) -> str:
    """Return the label of a layer without its channels: the shape has them."""
    first, *rest = label.removeprefix("cyclic ").split(", ")
    rest = [word for word in rest if not word.isdigit()]
    return ", ".join([first, *rest])


def _name(pen, box, owner, top, height) -> None:
    """Note in the margin which attribute of the network a row belongs to."""
    name = box.node.name
    if owner is None or not name:
        return
    inner = name.removeprefix(owner + ".") if owner else name
    if inner[0].isdigit() and owner:  # an index says nothing without its list
        inner = f"{owner.rpartition('.')[2]}.{inner}"
    whole = inner if box.node.count == 1 else inner.split(".")[0]
    pen.names.append((inner.split(".")[0], whole, top, top + height))


class JoinPiece(Piece):
    """A circle where tensors are added or multiplied, a pill for a concatenation."""

    height = 22

    def __init__(self, sign: str):
        self.sign = sign
        self.left = self.right = 11 if len(sign) == 1 else 32

    def draw(self, pen, axis, top, owner) -> None:
        if len(self.sign) == 1:
            pen.circle(axis, top + 11, self.sign)
        else:
            pen.box(axis - 32, top, 64, 22, radius=11)
            pen.text(axis, top + 11, self.sign, size=12.5, anchor="middle")
