"""From a traced graph to what is drawn: series, parallel branches and blocks.

A forward pass between two tensors that everything flows through is a series; what
happens between two such points is a parallel part, whose branches are series again.
Residual blocks, Inception and attention all are of this kind. What is not (each layer
of a DenseNet reads all earlier ones) is kept as a list of nodes with arcs.
"""

from __future__ import annotations

from .parts import Arcs, Box, Parallel, Series
from .simplify import END, simplified
from .summary import summary
from .tracing import INPUT, Graph, Node

__all__ = ["Arcs", "Box", "Parallel", "Series", "build"]


def build(
    graph: Graph, depth: float, *, leaf: bool = False, root=True, spliced=True
) -> Series:
    """Return the drawable structure of a graph.

    Args:
        graph: what `tracing.graph_of` returned.
        depth: how many levels of modules are opened; the outermost counts 1 and
            `nn.Sequential` does not count.
        leaf: True keeps normalization, activations and reshapes as boxes of their own.
        root: True for the network itself, whose reshapes are worth showing.
        spliced: False keeps each `nn.Sequential` of the network as a closed box, under
            its name.
    """
    graph = simplified(graph, leaf, root, spliced)
    # Modules that read several tensors stay closed, and so do all of their class.
    shut = {type(n.module) for n in graph.nodes if n.inner and n.inner.sources > 1}
    boxes = [
        _box(node, 0 if type(node.module) in shut else depth - 1, leaf)
        for node in graph.nodes
    ]
    end = [graph.output] if graph.output != INPUT else []
    return _series(graph, boxes, list(range(len(boxes))), INPUT, end)


def _box(node: Node, depth: float, leaf: bool) -> Box:
    if node.inner is None or not node.inner.nodes:
        return Box(node)
    if depth > 0:
        return Box(node, build(node.inner, depth, leaf=leaf, root=False))
    inside = build(node.inner, 0, root=False)
    return Box(node, None, *summary(inside))


# --- series and parallel -----------------------------------------------------------


def _series(graph, boxes, members: list[int], start: int, end: list[int]) -> Series:
    """Return the structure of some nodes between a start and an end.

    Args:
        graph, boxes: all nodes, and what is drawn for each.
        members: positions of the nodes, in order.
        start: the position before them.
        end: those of the members (or the start) that are read behind the end.
    """
    place = {start: -1} | {p: i for i, p in enumerate(members)}
    reads = [[s for s in graph.nodes[p].inputs if s in place] for p in members]
    reads.append([p for p in end if p in place])
    furthest = [-1] * (len(members) + 1)  # of the start, then of each member
    for i, sources in enumerate(reads):
        for s in sources:
            furthest[place[s] + 1] = max(furthest[place[s] + 1], i)
    items: list[Box | Parallel | Arcs] = []
    reach, before, inner = furthest[0], start, []
    for i, position in enumerate([*members, END]):
        if reach <= i:  # nothing leads past this node
            join = boxes[position] if position != END else None
            items += _segment(graph, boxes, before, inner, reads[i], join)
            before, inner = position, []
        else:
            inner.append(position)
        reach = max(reach, furthest[i + 1] if i < len(members) else i)
    return Series(_folded(items))


def _segment(graph, boxes, before, inner, reads, join) -> list:
    """Return what lies between two points that everything flows through."""
    if not inner:
        return [join] if join else []
    parts = _components(graph, inner)
    direct = before in reads
    branches = []
    if len(parts) + direct > 1:
        branches = [
            _series(graph, boxes, part, before, [p for p in reads if p in part])
            for part in parts
        ]
    tangled = len(branches) == 1 and isinstance(branches[0].items[-1], Arcs)
    if branches and not (tangled and join):
        return [Parallel(branches, direct, join)]
    # Neither series nor parallel: all of it, with the node where it ends.
    place = {before: -1} | {p: i for i, p in enumerate(inner)}
    inputs = [[place[s] for s in graph.nodes[p].inputs if s in place] for p in inner]
    if join is None:
        return [Arcs([boxes[p] for p in inner], inputs)]
    inputs.append([place[s] for s in reads if s in place])
    return [Arcs([*(boxes[p] for p in inner), join], inputs)]


def _components(graph: Graph, members: list[int]) -> list[list[int]]:
    """Return the members in groups that are connected with each other."""
    group = {p: p for p in members}

    def root(p: int) -> int:
        while group[p] != p:
            p = group[p]
        return p

    for p in members:
        for s in graph.nodes[p].inputs:
            if s in group:
                group[root(p)] = root(s)
    found: dict[int, list[int]] = {}
    for p in members:
        found.setdefault(root(p), []).append(p)
    return list(found.values())


def _folded(items: list) -> list:
    """Return the items with equal boxes in a row as one with a count."""
    out: list = []
    for item in items:
        last = out[-1] if out else None
        if isinstance(item, Box) and isinstance(last, Box):
            mark = _signature(item.node)
            if mark[0] and mark == _signature(last.node):
                last.node.count += item.node.count
                continue
        out.append(item)
    return out


def _signature(node: Node) -> tuple:
    """Return what two nodes must share to be drawn as one; () for operations."""
    if node.module is None:
        return ((),)
    sizes = tuple(tuple(p.shape) for p in node.module.parameters())
    inner = (
        tuple(
            (n.words, n.shape, tuple(n.inputs), _signature(n)) for n in node.inner.nodes
        )
        if node.inner
        else ()
    )
    return (type(node.module), node.words, node.shape, tuple(node.after), sizes, inner)
