"""Fewer boxes for a long network: neighbors of one kind are drawn once and counted."""

from __future__ import annotations

from dataclasses import replace

from .parts import Arcs, Box, Parallel, Series
from .summary import chain_words


def folded(series: Series, *, any_shape: bool = False) -> Series:
    """Return a series with closed boxes of one kind in a row as one, with their number.

    Of such boxes the last shape is shown. What is inside is shown where it is the same
    in all; a skip that is bare in one and has a projection in another becomes a word.

    Args:
        series: with closed boxes; opened ones stay as they are.
        any_shape: count boxes of one class whose shapes differ as well.
    """
    out: list[Box | Parallel | Arcs] = []
    runs: list[list[Box]] = []
    for item in series.items:
        closed = isinstance(item, Box) and item.body is None
        if closed and runs and _alike(runs[-1][-1], item, any_shape):
            runs[-1].append(item)
            out[-1] = _together(runs[-1])
            continue
        runs.append([item] if closed else [])
        out.append(item)
        if not closed:
            runs.append([])
    return Series(out)


def _alike(first: Box, then: Box, any_shape: bool) -> bool:
    """Tell whether two boxes are drawn as one."""
    a, b = first.node, then.node
    if a.module is None or type(a.module) is not type(b.module):
        return False
    if a.words.kind in ("block", "attention") and a.inner is not None:
        return any_shape or a.shape == b.shape
    return a.words == b.words and a.after == b.after and a.shape == b.shape


def _together(boxes: list[Box]) -> Box:
    """Return one box for several of one kind."""
    last = boxes[-1].node
    node = replace(
        last, name=boxes[0].node.name, count=sum(b.node.count for b in boxes)
    )
    first = boxes[0]
    if all(
        (b.lines, b.skip, b.meet) == (first.lines, first.skip, first.meet)
        for b in boxes
    ):
        return Box(node, None, first.lines, first.skip, first.meet)
    for bare in (False, True):  # with the skip, or the main path that all have
        inside = {chain_words(replace(b, skip=None) if bare else b) for b in boxes}
        if len(inside) == 1:
            return Box(node, None, [[inside.pop()]])
    inside = {words.replace(" (shift)", "") for words in map(chain_words, boxes)}
    return Box(
        node, None, [[f"{inside.pop()}; shift in some"]] if len(inside) == 1 else []
    )


def flat(series: Series, *, words: bool = True) -> Series:
    """Return a series whose closed boxes have branches and skips as words, or none."""
    items: list[Box | Parallel | Arcs] = []
    for item in series.items:
        if isinstance(item, Box) and item.body is None:
            inside = chain_words(item) if words else ""
            item = Box(item.node, None, [[inside]] if inside else [])
        items.append(item)
    return Series(items)
