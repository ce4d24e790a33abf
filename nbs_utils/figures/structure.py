"""From a traced graph to what is drawn: series, parallel branches and blocks.

A forward pass between two tensors that everything flows through is a series; what
happens between two such points is a parallel part, whose branches are series again.
Residual blocks, Inception and attention all are of this kind. What is not (each layer
of a DenseNet reads all earlier ones) is kept as a list of nodes with arcs.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import nn

from .tracing import INPUT, Graph, Node, renumbered
from .words import Words

END = -2  # stands for "out of here" among the positions of nodes


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


def build(graph: Graph, depth: float, *, leaf: bool = False, root=True) -> Series:
    """Return the drawable structure of a graph.

    Args:
        graph: what `tracing.graph_of` returned.
        depth: how many levels of modules are opened; the outermost counts 1 and
            `nn.Sequential` does not count.
        leaf: True keeps normalization, activations and reshapes as boxes of their own.
        root: True for the network itself, whose reshapes are worth showing.
    """
    graph = simplified(graph, leaf, root)
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
    return Box(node, None, *_summary(inside))


# --- what a closed box says about its inside -------------------------------------


def _summary(series: Series) -> tuple[list[list[str]], str | None, str]:
    """Return (short words of each branch, skip, where they meet) of a block."""
    parallels = [item for item in series.items if isinstance(item, Parallel)]
    others = [item for item in series.items if not isinstance(item, Parallel)]
    if len(parallels) == 1 and not any(_shorts(item) for item in others):
        (part,) = parallels
        words = part.join.node.words if part.join else Words("", "")
        meet = words.label if words.kind in ("add", "cat") else ""
        main = sorted(part.branches, key=lambda b: len(_words(b)))
        if meet and part.direct and len(main) == 1:
            return [_words(main[0])], "", meet
        if meet == "+" and len(main) == 2 and len(_words(main[0])) < 2:
            return [_words(main[1])], _on_skip(main[0]), meet
        if len(main) > 1 and not part.direct:
            return [_words(branch) for branch in part.branches], None, meet
    return [_words(series)], None, ""


def _on_skip(series: Series) -> str:
    """Return the word for what stands on a skip: "1×1", or "pad"."""
    nodes = [item.node for item in series.items if isinstance(item, Box)]
    nodes = [n for node in nodes for n in (node.inner.nodes if node.inner else [node])]
    return (_words(series) or [node.words.label for node in nodes][-1:] or [""])[0]


def _words(series: Series) -> list[str]:
    return [word for item in series.items for word in _shorts(item)]


def _shorts(item: Box | Parallel | Arcs) -> list[str]:
    if isinstance(item, Parallel):
        branches = [_words(branch) for branch in item.branches]
        inside = [" ".join(words) for words in branches if words]
        if len(inside) > 1:
            inside = [f"({' | '.join(inside)})"]
        return inside + (_shorts(item.join) if item.join else [])
    if isinstance(item, Arcs):
        return [word for box in item.boxes for word in _shorts(box)]
    node = item.node
    if node.words.short:
        return [node.words.short] * node.count
    if node.words.kind in ("block", "attention") and item.lines:
        inside = [word for line in item.lines for word in line]
        few = [node.words.label] if len(inside) > 1 else inside
        return few * node.count
    return []


# --- simplification ----------------------------------------------------------------


def simplified(graph: Graph, leaf: bool, root: bool) -> Graph:
    """Return a graph without what a reader of the diagram does not ask for."""
    graph = _spliced(graph)
    graph = _reduced(graph, leaf)
    graph = _without(graph, lambda i, node: node.words.kind == "identity")
    graph = _reshapes_merged(graph)
    if not leaf:
        graph = _without(graph, lambda i, node: _is_noise(graph, i, root))
        graph = _fused(graph)
    return graph


def _spliced(graph: Graph) -> Graph:
    """Return the graph with the insides of `nn.Sequential` in its place."""
    nodes: list[Node] = []
    moved = {INPUT: INPUT}  # old position -> position of what makes its output
    for old, node in enumerate(graph.nodes):
        inputs = list(dict.fromkeys(moved[i] for i in node.inputs))
        if type(node.module) is nn.Sequential and node.inner and node.inner.nodes:
            inner = _spliced(node.inner)
            start = len(nodes)
            for child in inner.nodes:
                sources = [
                    position
                    for i in child.inputs
                    for position in (inputs if i == INPUT else [i + start])
                ]
                nodes.append(replace(child, inputs=sources))
            moved[old] = start + inner.output
        else:
            nodes.append(replace(node, inputs=inputs, after=list(node.after)))
            moved[old] = len(nodes) - 1
    return Graph(nodes, moved[graph.output], graph.sources)


def _reduced(graph: Graph, leaf: bool) -> Graph:
    """Return the graph with blocks that hold a single box replaced by that box."""
    for i, node in enumerate(graph.nodes):
        if node.inner is None or not node.inner.nodes:
            continue
        inner = simplified(node.inner, leaf, root=False)
        if not inner.nodes:  # a module that only rearranges, or does nothing at rest
            words = Words(node.words.label, "identity")
            graph.nodes[i] = replace(node, words=words, inner=None)
        elif len(inner.nodes) == 1 and inner.nodes[0].words.kind != "other":
            only = inner.nodes[0]
            keep = node.words.kind in ("norm", "attention")  # the class says it better
            graph.nodes[i] = replace(
                only,
                name=node.name,
                inputs=node.inputs,
                shape=node.shape,
                module=node.module,
                words=node.words if keep else only.words,
            )
    return graph


def _without(graph: Graph, unwanted) -> Graph:
    """Return the graph without some nodes, their inputs passed on."""
    gone: dict[int, list[int]] = {}
    for i, node in enumerate(graph.nodes):
        passed = [s for p in node.inputs for s in gone.get(p, [p])]
        node.inputs = list(dict.fromkeys(passed))
        if unwanted(i, node) and len(node.inputs) == 1:
            gone[i] = node.inputs
    output = gone.get(graph.output, [graph.output])[0]
    graph = Graph(graph.nodes, output, graph.sources)
    return renumbered(graph, [i for i in range(len(graph.nodes)) if i not in gone])


def _users(graph: Graph) -> list[list[int]]:
    """Return, for each node, the positions of those that read it; END for outside."""
    users: list[list[int]] = [[] for _ in graph.nodes]
    for i, node in enumerate(graph.nodes):
        for source in node.inputs:
            if source != INPUT:
                users[source].append(i)
    if graph.output != INPUT:
        users[graph.output].append(END)
    return users


def _reshapes_merged(graph: Graph) -> Graph:
    """Return the graph with reshapes in a row as one."""
    users = _users(graph)
    gone = set()
    for i, node in enumerate(graph.nodes):
        after = [graph.nodes[u] for u in users[i] if u != END]
        if node.words.kind != "shape" or len(users[i]) != 1 or not after:
            continue
        if after[0].words.kind == "shape":
            picks = [n for n in (node, after[0]) if n.words.label.startswith("pick")]
            after[0].words = picks[0].words if picks else Words("reshape", "shape")
            gone.add(i)
    return _without(graph, lambda i, node: i in gone)


def _is_noise(graph: Graph, i: int, root: bool) -> bool:
    """Tell whether a node is left out of all but the most detailed diagrams."""
    node = graph.nodes[i]
    kind = node.words.kind
    if kind == "drop":
        return True
    if kind == "scale":
        return node.words.label in ("scale", "+ constant")
    if kind != "shape":
        return False
    source = graph.nodes[node.inputs[0]] if node.inputs[0] != INPUT else None
    if not root or source is None:
        return True
    # Dropping the 1 × 1 of a pooled map changes nothing worth a box.
    return [n for n in source.shape if n > 1] == [n for n in node.shape if n > 1]


def _fused(graph: Graph) -> Graph:
    """Return the graph with normalization and activation merged into what they follow."""
    users = _users(graph)
    head: dict[int, int] = {}
    for i, node in enumerate(graph.nodes):
        if node.words.kind not in ("norm", "act") or len(node.inputs) != 1:
            continue
        source = node.inputs[0]
        if source == INPUT or users[source] != [i]:
            continue
        first = head.get(source, source)
        if graph.nodes[first].words.kind in ("conv", "linear"):
            head[i] = first
            graph.nodes[first].after.append(node.words.label)
            graph.nodes[first].shape = node.shape
    return _without(graph, lambda i, node: i in head)


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
