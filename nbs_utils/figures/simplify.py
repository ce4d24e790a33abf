"""From what was executed to what a reader of a diagram asks for."""

from __future__ import annotations

from dataclasses import replace

from torch import nn

from .moves import describe_move
from .tracing import INPUT, Graph, Node, renumbered
from .words import Words

END = -2  # stands for "out of here" among the positions of nodes


def simplified(graph: Graph, leaf: bool, root: bool, spliced: bool = True) -> Graph:
    """Return a graph without what a reader of the diagram does not ask for.

    Args:
        graph: what was executed; it is not changed.
        leaf, root, spliced: as in `structure.build`.
    """
    graph = _spliced(graph) if spliced else _named(graph)
    graph = _reduced(graph, leaf)
    graph = _without_identities(graph)
    graph = _without_identities(_moves_merged(graph))
    graph = _joins_merged(graph)
    if not leaf:
        graph = _without(graph, lambda i, node: _is_noise(graph, i, root))
        graph = _fused(graph)
    return graph


def _without_identities(graph: Graph) -> Graph:
    return _without(graph, lambda i, node: node.words.kind == "identity")


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


def _named(graph: Graph) -> Graph:
    """Return a copy of the graph with each `nn.Sequential` called by its name."""
    nodes = [
        replace(
            node,
            inputs=list(node.inputs),
            after=list(node.after),
            words=Words(node.name.rpartition(".")[2], "block")
            if type(node.module) is nn.Sequential
            else node.words,
        )
        for node in graph.nodes
    ]
    return Graph(nodes, graph.output, graph.sources)


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


def _moves_merged(graph: Graph) -> Graph:
    """Return the graph with rearrangements in a row as one, called by what they do."""
    users = _users(graph)
    gone = set()
    for i, node in enumerate(graph.nodes):
        after = [graph.nodes[u] for u in users[i] if u != END]
        if len(users[i]) != 1 or not after or after[0].words.kind != "shape":
            continue
        words = _together(node, after[0])
        if words is None:
            continue
        if node.moves and after[0].moves:
            after[0].moves, after[0].source = node.moves + after[0].moves, node.source
        else:
            after[0].moves = ()
        after[0].words = words
        gone.add(i)
    return _without(graph, lambda i, node: i in gone)


def _together(first: Node, then: Node) -> Words | None:
    """Return the words for two rearrangements as one, None where they stay two."""
    known = None
    if first.moves and then.moves:
        known = describe_move(first.moves + then.moves, first.source)
    if first.words.kind != "shape":  # padding and cutting are a shift, or they are two
        return known if known and known.kind == "move" else None
    picks = [n.words for n in (first, then) if n.words.label.startswith("pick")]
    return known or (picks[0] if picks else Words("reshape", "shape"))


def _joins_merged(graph: Graph) -> Graph:
    """Return the graph with a sum of three branches, and slices written, as one join."""
    users = _users(graph)
    gone = set()
    for i, node in enumerate(graph.nodes):
        if node.module is not None or len(users[i]) != 1 or users[i] == [END]:
            continue
        then = graph.nodes[users[i][0]]
        if then.module is not None or node.words != then.words:
            continue
        others = [p for p in then.inputs if p != i]
        if node.words.kind == "add":
            # around a skip two sums stay two: their branches begin apart
            starts = {_fork(graph, users, p) for p in (*node.inputs, *others)}
            if len(starts) > 1 or None in starts:
                continue
        elif not (node.words.kind == "cat" and node.shape == then.shape):
            continue
        then.inputs = list(dict.fromkeys((*node.inputs, *others)))
        gone.add(i)
    return renumbered(graph, [i for i in range(len(graph.nodes)) if i not in gone])


def _fork(graph: Graph, users: list[list[int]], position: int) -> int | None:
    """Return where the branch that ends at a node begins; None where it has joins."""
    while position != INPUT and len(graph.nodes[position].inputs) == 1:
        (before,) = graph.nodes[position].inputs
        if before == INPUT or len(users[before]) > 1:
            return before
        position = before
    return None


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
    if node.words.label == "transpose" and _mixes(graph, i):
        return False
    if not root or source is None:
        return True
    # Dropping the 1 × 1 of a pooled map changes nothing worth a box.
    return [n for n in source.shape if n > 1] == [n for n in node.shape if n > 1]


def _mixes(graph: Graph, i: int) -> bool:
    """Tell whether a layer sees a transposed matrix: it mixes what was the other axis.

    The products of attention transpose one of their factors; that is no such thing.
    """
    node = graph.nodes[i]
    if len([n for n in node.shape if n > 1]) != 2:
        return False
    around = [graph.nodes[p] for p in node.inputs if p != INPUT]
    around += [other for other in graph.nodes if i in other.inputs]
    layers = ("linear", "conv", "block")
    return any(other.words.kind in layers for other in around)


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
