"""What a diagram consists of: boxes in series, in parallel, or tangled."""

from __future__ import annotations

from dataclasses import dataclass, field

from .tracing import Node


@dataclass
class Box:
    """One node; with `body` it is drawn opened.

    `lines` says what is inside a closed box: one list of short words for each of its
    branches, which meet in `meet` ("+", "concat" or ""). `skip` is None, "" for an
    identity around the box, or the short word of the projection on it.
    """

    node: Node
    body: Series | None = None
    lines: list[list[str]] = field(default_factory=list)
    skip: str | None = None
    meet: str = ""


@dataclass
class Parallel:
    """Branches between two points; `direct` is a connection with nothing on it.

    `join` is the box where they meet, None where they end apart.
    """

    branches: list[Series]
    direct: bool
    join: Box | None


@dataclass
class Arcs:
    """Nodes in order of execution, drawn with an arc for each further connection.

    `inputs` holds, for each box, the positions of its sources in this list; -1 is the
    point before the list.
    """

    boxes: list[Box]
    inputs: list[list[int]]


@dataclass
class Series:
    """Things one after the other."""

    items: list[Box | Parallel | Arcs]
