"""What a closed box says about its inside, in short words."""

from __future__ import annotations

from .parts import Arcs, Box, Parallel, Series
from .words import Words


def summary(series: Series) -> tuple[list[list[str]], str | None, str]:
    """Return (short words of each branch, skip, where they meet) of a block.

    A block that is one parallel part keeps its branches apart; where they meet then
    also names what stands before and after: "split → concat → shuffle".
    """
    parallels = [item for item in series.items if isinstance(item, Parallel)]
    if len(parallels) == 1:
        (part,) = parallels
        place = series.items.index(part)
        before, after = series.items[:place], series.items[place + 1 :]
        around = [word for item in before + after for word in _shorts(item)]
        meet = _sign(part)
        main = sorted(part.branches, key=lambda b: len(_words(b)))
        if meet and part.direct and len(main) == 1 and not around:
            return [_words(main[0])], "", meet
        if meet == "+" and len(main) == 2 and len(_words(main[0])) < 2 and not around:
            return [_words(main[1])], _on_skip(main[0]), meet
        columns = [_words(branch) for branch in part.branches]
        columns += [[]] if part.direct else []
        few = max(map(len, columns)) < 2 and around  # one line has room for both
        if len(columns) > 1 and part.branches and meet in ("+", "concat") and not few:
            steps = [w for item in before for w in _shorts(item) or _split(item)] + [
                meet
            ]
            steps += [w for item in after for w in _shorts(item)]
            return columns, None, " → ".join(steps)
    return [_words(series)], None, ""


def _split(item) -> list[str]:
    kind = item.node.words.kind if isinstance(item, Box) else ""
    return ["split"] if kind == "split" else []


def chain_words(box: Box) -> str:
    """Return what is inside a closed box as one line: "x + (3×3 → 3×3)"."""
    lines = [_chain(line) or "x" for line in box.lines]
    if box.skip is not None and len(lines) == 1:
        inside = f"({lines[0]})" if _compound(lines[0]) else lines[0]
        return {"×": f"× {inside}", "concat": f"concat (x | {inside})"}.get(
            box.meet, f"x + {inside}"
        )
    if len(lines) > 1:
        joined = f" {box.meet} " if box.meet in ("+", "×") else " | "
        name = "" if box.meet in ("+", "×") else f"{box.meet} "
        return f"{name}({joined.join(lines)})"
    return lines[0] if box.lines else ""


def _sign(part: Parallel) -> str:
    """Return where branches meet: "+", "×", "concat", or "" for anything else."""
    words = part.join.node.words if part.join else Words("", "")
    return words.label if words.kind in ("add", "mul", "cat") else ""


def _on_skip(series: Series) -> str:
    """Return the word for what stands on a skip: "1×1", or "pad"."""
    nodes = [item.node for item in series.items if isinstance(item, Box)]
    nodes = [n for node in nodes for n in (node.inner.nodes if node.inner else [node])]
    return (_words(series) or [node.words.label for node in nodes][-1:] or [""])[0]


def _words(series: Series) -> list[str]:
    return [word for item in series.items for word in _shorts(item)]


def _shorts(item: Box | Parallel | Arcs) -> list[str]:
    if isinstance(item, Parallel):
        return _joined(item)
    if isinstance(item, Arcs):
        return [word for box in item.boxes for word in _shorts(box)]
    node = item.node
    if node.words.short:
        return [node.words.short] * node.count
    if node.words.kind in ("block", "attention") and item.lines:
        inside = [word for line in item.lines for word in line]
        if len(inside) > 1 or item.meet == "×":
            return [_class_word(item, inside)] * node.count
        return inside * node.count
    return []


def _class_word(box: Box, inside: list[str]) -> str:
    """Return the name of a block's class, with what it does that a reader looks for."""
    name = box.node.words.label.lstrip("_")
    if box.meet == "×":
        return f"× {name}"
    moves = [word for word in ("shift", "shuffle") if word in " ".join(inside)]
    return f"{name} ({', '.join(moves)})" if moves else name


def _joined(part: Parallel) -> list[str]:
    """Return the words for branches: "x + MLP", "× (pool → linear)", "concat (a | b)"."""
    branches = [_chain(_words(branch)) for branch in part.branches]
    branches = [branch for branch in branches if branch]
    after = _shorts(part.join) if part.join else []
    sign = _sign(part)
    if part.direct and sign and len(branches) == 1:
        (only,) = branches
        only = f"({only})" if _compound(only) else only
        return [
            {"+": f"x + {only}", "×": f"× {only}"}.get(sign, f"concat (x | {only})")
        ]
    if len(branches) < 2:
        return branches + after
    if len(set(branches)) == 1:  # the same in each: shifts of parts of the channels
        text = branches[0] if sign == "concat" else f"{len(branches)} × {branches[0]}"
        return [text, *after]
    if sign in ("+", "×"):
        return [f"({f' {sign} '.join(branches)})", *after]
    return [f"{sign} ({' | '.join(branches)})".strip(), *after]


def _compound(text: str) -> bool:
    """Tell whether a text needs parentheses before it is added to something."""
    return any(f"{sign} " in text for sign in "→+×|")


def _chain(words: list[str]) -> str:
    return " → ".join(words)
