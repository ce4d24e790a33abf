"""Where the parts of a diagram stand.

Every piece knows how far it reaches to the left and right of its axis and how high it
is, and draws itself around an axis from a top. Series put their pieces below each
other, parallel parts side by side, with a skip as an arc on the right.
"""

from __future__ import annotations

from .boxes import BoxPiece, JoinPiece, Piece, class_text
from .pen import shortened, text_width
from .structure import Arcs, Box, Parallel, Series

GAP = 15  # between two boxes, for the arrow
_FORK = 9  # from a fork to the arrow's beginning


def piece(item: Box | Parallel | Arcs | Series, narrow=False, framed=False) -> Piece:
    """Return the piece for a part of the structure.

    Args:
        item: the part.
        narrow: True beside other branches.
        framed: True inside a frame, where no further frame is drawn.
    """
    if isinstance(item, Series):
        return SeriesPiece(item, narrow, framed)
    if isinstance(item, Parallel):
        return parallel(item, narrow, framed)
    if isinstance(item, Arcs):
        return ArcsPiece(item, framed)
    if item.node.words.kind in ("add", "mul") and item.node.module is None:
        return JoinPiece(item.node.words.label)
    if item.body is not None:
        return FramePiece(item, narrow, framed)
    if item.skip is not None and not narrow:
        return SkipPiece(item)
    return BoxPiece(item, narrow)


class SeriesPiece(Piece):
    """Pieces below each other with arrows between them."""

    def __init__(self, series: Series, narrow: bool, framed: bool):
        self.pieces = [piece(item, narrow, framed) for item in series.items]
        self.left = max((p.left for p in self.pieces), default=0)
        self.right = max((p.right for p in self.pieces), default=0)
        self.height = sum(p.height for p in self.pieces)
        self.height += GAP * max(len(self.pieces) - 1, 0)
        self.fork = bool(self.pieces) and self.pieces[0].fork

    def draw(self, pen, axis, top, owner) -> None:
        for i, part in enumerate(self.pieces):
            if i:
                pen.line((axis, top - GAP), (axis, top), arrow=not part.fork)
            part.draw(pen, axis, top, owner)
            top += part.height + GAP


class FramePiece(Piece):
    """A module drawn opened, in a dashed frame with its class and how often it comes.

    Frames stand around what is repeated, and around single modules where no other
    frame is near; other opened modules are only their parts.
    """

    def __init__(self, box: Box, narrow: bool, framed: bool):
        self.box = box
        repeated = box.node.count > 1
        self.frame = not narrow and (repeated or not (framed or _repeats(box.body)))
        self.body = SeriesPiece(box.body, narrow, framed or self.frame)
        pad = 12 if self.frame else 0
        self.left, self.right = self.body.left + pad, self.body.right + pad
        self.height = self.body.height + (54 if self.frame else 0)
        self.fork = self.body.fork and not self.frame

    def draw(self, pen, axis, top, owner) -> None:
        if not self.frame:
            return self.body.draw(pen, axis, top, owner)
        x, w = axis - self.left, self.left + self.right
        if self.box.node.count > 1:
            pen.sheet(x, top, w, self.height)
        pen.box(x, top, w, self.height, radius=8, dashed=True)
        title, room = class_text(self.box), self.left - 22  # left of the arrow
        size = min(13, 13 * room / (1.12 * text_width(title, 13)))  # bold is wider
        pen.text(x + 12, top + 16, title, size=round(size, 1), bold=True)
        start = top + 38
        pen.line((axis, top), (axis, start), arrow=not self.body.fork)
        inner = None if owner is None else self.box.node.name or owner
        self.body.draw(pen, axis, start, inner)
        end = top + self.height
        pen.line((axis, end - 16), (axis, end), arrow=False)
        return None


def _repeats(series: Series) -> bool:
    """Tell whether a repeated module is drawn opened somewhere in a series."""
    for item in series.items:
        if isinstance(item, Box) and item.body is not None:
            repeated = item.node.count > 1 or _repeats(item.body)
            if repeated:
                return True
        if isinstance(item, Parallel) and any(_repeats(b) for b in item.branches):
            return True
    return False


class SkipPiece(Piece):
    """A closed residual block: the box, its skip as an arc, and where they meet."""

    fork = True

    def __init__(self, box: Box):
        self.main = BoxPiece(box, narrow=False)
        self.word = box.skip
        self.left = self.main.left
        self.right = self.main.right + (62 if self.word else 26)
        self.join = JoinPiece(box.meet)
        self.height = _FORK + 10 + self.main.height + 10 + self.join.height

    def draw(self, pen, axis, top, owner) -> None:
        y = top + _FORK + 10
        bottom = y + self.main.height
        meet = bottom + 10 + self.join.height / 2
        pen.line((axis, top), (axis, y))
        pen.dot(axis, top + 2)
        self.main.draw(pen, axis, y, owner)
        x = axis + self.main.right + (36 if self.word else 18)
        target = (axis + self.join.right, meet)
        if self.word:  # the projection stands on the skip
            w, h = 44, 24
            word = shortened(self.word, 12.5, w - 4)
            middle = y + self.main.height / 2
            pen.line((axis, top + 2), (x, top + 2), (x, middle - h / 2))
            pen.box(x - w / 2, middle - h / 2, w, h, "conv" if "×" in self.word else "")
            pen.text(x, middle, word, size=12.5, anchor="middle")
            pen.line((x, middle + h / 2), (x, meet), target)
        else:
            pen.line((axis, top + 2), (x, top + 2), (x, meet), target)
        pen.line((axis, bottom), (axis, bottom + 10))
        self.join.draw(pen, axis, bottom + 10, owner)


def parallel(part: Parallel, narrow: bool, framed: bool) -> Piece:
    """Return the piece for branches: an arc for a skip, else side by side."""
    if len(part.branches) == 1:
        return ArcPiece(part, part.branches[0], None, narrow, framed)
    if len(part.branches) == 2 and not part.direct and part.join:
        short, main = sorted(part.branches, key=lambda b: len(b.items))
        one = len(short.items) == 1 and isinstance(short.items[0], Box)
        closed = one and short.items[0].body is None
        if closed and len(main.items) > 1 and part.join.node.words.kind != "cat":
            return ArcPiece(part, main, short, narrow, framed)
    return BranchesPiece(part, narrow, framed)


class ArcPiece(Piece):
    """A main branch with a skip on its right, bare or with one box on it."""

    fork = True

    def __init__(self, part: Parallel, main: Series, short, narrow, framed):
        self.main = SeriesPiece(main, narrow, framed)
        self.side = BoxPiece(short.items[0], narrow=True) if short else None
        self.join = piece(part.join, narrow, framed) if part.join else None
        join = self.join
        self.left = max(self.main.left, join.left if join else 0)
        reach = max(self.main.right, join.right if join else 0)
        width = self.side.left + self.side.right + 14 if self.side else 0
        self.shift = reach + (14 + self.side.left if self.side else 18)
        self.right = reach + max(width, 26)
        self.height = _FORK + 12 + self.main.height + GAP + (join.height if join else 8)

    def draw(self, pen, axis, top, owner) -> None:
        y = top + _FORK + 12
        bottom = y + self.main.height
        pen.dot(axis, top + 2)
        pen.line((axis, top), (axis, y), arrow=not self.main.fork)
        self.main.draw(pen, axis, y, owner)
        x = axis + self.shift
        meet = bottom + GAP
        join = self.join
        middle = meet + (join.height / 2 if join else 8)
        target = (axis + (join.right if join else 0), middle)
        if self.side:
            half = self.side.height / 2
            center = (y + bottom) / 2
            pen.line((axis, top + 2), (x, top + 2), (x, center - half))
            self.side.draw(pen, x, center - half, None)
            pen.line((x, center + half), (x, middle), target, arrow=bool(join))
        else:
            pen.line(
                (axis, top + 2), (x, top + 2), (x, middle), target, arrow=bool(join)
            )
        pen.line((axis, bottom), (axis, meet if join else middle), arrow=bool(join))
        if join:
            join.draw(pen, axis, meet, owner)


class BranchesPiece(Piece):
    """Branches side by side, between a line that forks and one that gathers."""

    fork = True

    def __init__(self, part: Parallel, narrow: bool, framed: bool):
        self.parts = [SeriesPiece(b, True, True) for b in part.branches]
        self.direct = part.direct
        self.join = piece(part.join, narrow, framed) if part.join else None
        gap = 12
        width = sum(p.left + p.right for p in self.parts) + gap * (len(self.parts) - 1)
        self.places, x = [], -width / 2
        for p in self.parts:
            self.places.append(x + p.left)
            x += p.left + p.right + gap
        reach = self.join.right if self.join else 0
        self.left = max(width / 2, reach)
        self.right = max(width / 2, reach) + (26 if self.direct else 0)
        self.inner = max(p.height for p in self.parts)
        self.height = 24 + self.inner + 24 + (self.join.height if self.join else 0)

    def draw(self, pen, axis, top, owner) -> None:
        fork, start = top + 6, top + 24
        gather = start + self.inner + 9
        end = start + self.inner + 24
        for part, place in zip(self.parts, self.places, strict=True):
            x = axis + place
            points = [(axis, top), (axis, fork), (x, fork), (x, start)]
            pen.line(*_straight(points), arrow=not part.fork)
            part.draw(pen, x, start, None)
            points = [
                (x, start + part.height),
                (x, gather),
                (axis, gather),
                (axis, end),
            ]
            pen.line(*_straight(points), arrow=False)
        if self.direct:
            x = axis + self.right - 8
            pen.line((axis, fork), (x, fork), (x, gather), (axis, gather), arrow=False)
        if self.join:
            pen.line((axis, gather), (axis, end))
            self.join.draw(pen, axis, end, owner)


def _straight(points):
    """Return the points without repeated ones, so that corners can be rounded."""
    return [p for i, p in enumerate(points) if i == 0 or p != points[i - 1]]


class ArcsPiece(Piece):
    """Boxes below each other; a rail beside them carries each to all its readers."""

    fork = True

    def __init__(self, part: Arcs, framed: bool):
        self.pieces = [piece(box, framed=True) for box in part.boxes]
        self.inputs = part.inputs
        far = [
            [s for s in inputs if s != i - 1] for i, inputs in enumerate(self.inputs)
        ]
        self.rails = sorted({s for sources in far for s in sources})
        self.left = max(p.left for p in self.pieces)
        self.reach = max(p.right for p in self.pieces)
        self.right = self.reach + 22 + 9 * len(self.rails)
        self.height = 12 + sum(p.height for p in self.pieces)
        self.height += GAP * (len(self.pieces) - 1)

    def draw(self, pen, axis, top, owner) -> None:
        tops, y = [], top + 12
        for part in self.pieces:
            tops.append(y)
            y += part.height + GAP
        for i, part in enumerate(self.pieces):
            if i - 1 in self.inputs[i]:
                begin = top if i == 0 else tops[i] - GAP
                pen.line((axis, begin), (axis, tops[i]))
            part.draw(pen, axis, tops[i], owner)
        for rank, source in enumerate(self.rails):
            x = axis + self.reach + 16 + 9 * (len(self.rails) - 1 - rank)
            begin = top + 2 if source < 0 else tops[source + 1] - GAP / 2 - 3
            users = [
                i for i, s in enumerate(self.inputs) if source in s and i - 1 != source
            ]
            ends = [tops[i] + self.pieces[i].height / 2 for i in users]
            pen.dot(axis, begin)
            pen.line((axis, begin), (x, begin), (x, ends[-1]), arrow=False)
            for i, end in zip(users, ends, strict=True):
                pen.dot(x, end)
                pen.line((x, end), (axis + self.pieces[i].right, end))
