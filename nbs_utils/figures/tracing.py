"""What a network does with one image: a graph of its modules and operations.

The network runs once, on shapes alone. Every operation on a tensor is seen (a torch
function mode), every module that it happens in (hooks), and who made each tensor; so
the graph is what was executed, whatever Python the forward pass is written in.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..counting.shapes import run_on_shapes, tensors_in
from .moves import describe_move
from .words import MOVES, Words, describe_module, describe_operation

INPUT = -1
# These make a tensor like another one, whose numbers they do not read.
_BLANK = frozenset(
    (
        *("empty_like", "zeros_like", "ones_like", "full_like", "rand_like"),
        *("new_empty", "new_zeros", "new_ones", "new_full", "new_tensor"),
    )
)


@dataclass
class Node:
    """A module's call or an operation.

    `inputs` are positions of other nodes in the same graph, or INPUT; `shape` is that
    of the output without the batch; `inner` is the graph of a module's own forward
    pass, None for operations and for the modules of PyTorch.
    """

    words: Words
    name: str
    shape: tuple[int, ...]
    inputs: list[int]
    inner: "Graph | None" = None
    module: nn.Module | None = None
    moves: tuple[Callable, ...] = ()  # of a rearrangement: the functions, to try out
    source: tuple[int, ...] = ()  # and the shape that they were called with
    after: list[str] = field(default_factory=list)  # what was merged into it
    count: int = 1  # how many equal ones in a row it stands for


@dataclass
class Graph:
    """The nodes of one module's forward pass in order of execution.

    `output` is the position of the node that made the result. `sources` is the number
    of different tensors that came in.
    """

    nodes: list[Node]
    output: int
    sources: int = 1


@dataclass
class _Event:
    words: Words
    inputs: list[int]
    shape: tuple[int, ...]
    stack: tuple[int, ...]
    moves: tuple[Callable, ...] = ()
    source: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class _Again:
    """A function with all its arguments but the first, to be called on other numbers."""

    function: Callable
    args: tuple
    kwargs: dict

    def __call__(self, tensor: torch.Tensor) -> torch.Tensor:
        return self.function(tensor, *self.args, **self.kwargs)


@dataclass
class _Call:
    module: nn.Module
    name: str
    events: list[int] = field(default_factory=list)
    output: int = INPUT
    shape: tuple[int, ...] = ()


class _Recorder(TorchFunctionMode):
    """Notes who makes which tensor from which others."""

    def __init__(self):
        super().__init__()
        self.events: list[_Event] = []
        self.calls: list[_Call] = []
        self.stack: tuple[int, ...] = ()
        self.maker: dict[int, int] = {}  # id of a tensor -> the event that made it
        self.parameter: dict[int, str] = {}  # id of a tensor -> where it comes from
        self._alive: list[torch.Tensor] = []  # an id is unique as long as its tensor

    def begin(self, network: nn.Module, x: torch.Tensor) -> None:
        """Learn the names of a network's own tensors, and its input."""
        self.maker[id(x)] = INPUT
        self._alive.append(x)
        for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
            self.parameter[id(tensor)] = name.rpartition(".")[2]

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = getattr(function, "__name__", "")
        result = function(*args, **kwargs)
        # written into a slice, a tensor is another one afterwards
        made = tensors_in(args[0] if name == "__setitem__" else result)
        given = tensors_in((args, kwargs))
        if not made:
            return result  # a question about a tensor, such as its shape
        computed = sum(id(tensor) in self.maker for tensor in given)
        if not computed or name in _BLANK:
            for tensor in made:  # computed from parameters and constants only
                for source in given[:1]:
                    if id(source) in self.parameter:
                        self.parameter[id(tensor)] = self.parameter[id(source)]
                self._alive.append(tensor)
            return result
        same = isinstance(result, torch.Tensor) and any(result is t for t in given)
        if same and not _in_place(function, args, kwargs):
            result = result.view_as(result)  # dropout at rest returns its input
            made = [result]
        names = [self.parameter[id(t)] for t in given if id(t) in self.parameter]
        words = describe_operation(function, args, kwargs, computed, names)
        moves = source = ()
        if name in MOVES and len(given) == 1 and args and args[0] is given[0]:
            moves, source = (_Again(function, args[1:], kwargs),), tuple(given[0].shape)
        self.note(words, given, made, moves, source)
        return result

    def note(self, words: Words, given, made, moves=(), source=()) -> None:
        """Note an event and the tensors that it made."""
        inputs = [self.maker[id(t)] for t in given if id(t) in self.maker]
        shape = tuple(made[0].shape[1:])
        self.events.append(_Event(words, inputs, shape, self.stack, moves, source))
        for call in self.stack:
            self.calls[call].events.append(len(self.events) - 1)
        for tensor in made:
            self.maker[id(tensor)] = len(self.events) - 1
            self._alive.append(tensor)

    def enter(self, module, name: str) -> None:
        """Begin a module's call."""
        self.calls.append(_Call(module, name))
        self.stack += (len(self.calls) - 1,)

    def leave(self, args, kwargs, output):
        """End a module's call; an untouched input comes out as another tensor."""
        given = tensors_in((args, kwargs))
        if isinstance(output, torch.Tensor) and any(output is t for t in given):
            call = self.calls[self.stack[-1]]
            untouched = not call.events
            if untouched or not _made_inside(self, call, output):
                with torch._C.DisableTorchFunction():
                    output = output.view_as(output)
                self.note(Words("identity", "identity", ""), given[:1], [output])
        call = self.calls[self.stack[-1]]
        for tensor in tensors_in(output)[:1]:
            call.output = self.maker.get(id(tensor), INPUT)
            call.shape = tuple(tensor.shape[1:])
        self.stack = self.stack[:-1]
        return output


def _made_inside(recorder: _Recorder, call: _Call, tensor: torch.Tensor) -> bool:
    return recorder.maker.get(id(tensor), INPUT) in call.events


def _in_place(function, args, kwargs) -> bool:
    name = getattr(function, "__name__", "")
    return (
        (name.endswith("_") and not name.endswith("__"))
        or name.startswith("__i")
        or kwargs.get("inplace") is True
        or (name in ("relu", "relu6", "silu", "hardswish") and True in args[1:])
    )


def graph_of(network: nn.Module, input_size: tuple[int, ...]) -> Graph:
    """Return what a network does with one input.

    Args:
        network: any module; a copy of it runs, on the meta device.
        input_size: shape of the input without the batch: (3, 224, 224).

    Raises:
        ValueError: the network cannot take an input of this size.
    """
    recorder = _Recorder()

    def prepare(clone: nn.Module, x: torch.Tensor) -> None:
        recorder.begin(clone, x)
        for name, module in clone.named_modules():
            module.register_forward_pre_hook(
                lambda m, args, name=name: recorder.enter(m, name)
            )
            module.register_forward_hook(
                lambda m, args, kwargs, output: recorder.leave(args, kwargs, output),
                with_kwargs=True,
            )

    run_on_shapes(network, input_size, prepare, [recorder])
    return _graph(recorder, 0)


def _graph(recorder: _Recorder, position: int) -> Graph:
    """Return the graph of one call, its children as single nodes."""
    call = recorder.calls[position]
    nodes: list[Node] = []
    place: dict[int, int] = {}  # event -> its node's position in this graph
    children: dict[int, int] = {}  # call -> its node's position
    outside: set[int] = set()
    for number in call.events:
        event = recorder.events[number]
        below = event.stack[event.stack.index(position) + 1 :]
        if not below:
            nodes.append(_operation(event))
            place[number] = len(nodes) - 1
        else:
            if below[0] not in children:
                children[below[0]] = len(nodes)
                nodes.append(_child(recorder, below[0]))
            place[number] = children[below[0]]
        node = nodes[place[number]]
        for maker in event.inputs:
            source = place.get(maker, INPUT)
            if source == INPUT:
                outside.add(maker)
            if source != place[number] and source not in node.inputs:
                node.inputs.append(source)
    return _pruned(Graph(nodes, place.get(call.output, INPUT), len(outside)))


def _operation(event: _Event) -> Node:
    """Return the node of an event; what is rearranged is called by what it does."""
    words = event.words
    if event.moves:
        words = describe_move(event.moves, event.source) or words
    return Node(words, "", event.shape, [], moves=event.moves, source=event.source)


def _child(recorder: _Recorder, position: int) -> Node:
    call = recorder.calls[position]
    module = call.module
    words = describe_module(module)
    own = not type(module).__module__.startswith("torch.nn.")
    container = isinstance(module, nn.Sequential)
    inner = _graph(recorder, position) if own or container else None
    return Node(words, call.name, call.shape, [], inner, module)


def _pruned(graph: Graph) -> Graph:
    """Return the graph without nodes that the output does not depend on."""
    needed, waiting = set(), [graph.output]
    while waiting:
        position = waiting.pop()
        if position not in needed and position != INPUT:
            needed.add(position)
            waiting += graph.nodes[position].inputs
    order = sorted(needed)
    return renumbered(graph, order)


def renumbered(graph: Graph, order: list[int]) -> Graph:
    """Return the graph of some of its nodes; inputs from elsewhere are dropped."""
    where = {old: new for new, old in enumerate(order)} | {INPUT: INPUT}
    nodes = [graph.nodes[old] for old in order]
    for node in nodes:
        node.inputs = [where[i] for i in node.inputs if i in where]
    return Graph(nodes, where.get(graph.output, INPUT), graph.sources)
