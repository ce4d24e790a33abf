"""Count what a network holds and what it computes, without running its weights.

The counting rule of the book: multiply-adds (MACs) of convolutions, linear layers and
products of two activations (both products of attention), for one image in evaluation
mode. Biases, normalization, activations, pooling, residual additions and softmax
count 0, and a multiply-add counts 1. It is `torch.utils.flop_counter.FlopCounterMode`
divided by two, with attention computed through the plain matrix products.
"""

from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..tables import Table
from .shapes import on_meta, run_on_shapes, show_shape, tensors_in

__all__ = [
    "Call",
    "count_macs",
    "count_parameters",
    "on_meta",
    "show_shape",
    "stage_table",
    "trace",
]

# operations of PyTorch's dispatcher that multiply matrices, and where those stand
_MATRICES = {"mm": (0, 1), "bmm": (0, 1), "addmm": (1, 2), "baddbmm": (1, 2)}


@dataclass(frozen=True)
class Call:
    """One call of a module during a forward pass on shapes alone.

    `name` is the module's path in the network, `inputs` and `outputs` the shapes of
    all tensors that went in and came out (batch included), `macs` the multiply-adds
    between entering and leaving, by kind.
    """

    name: str
    module: nn.Module
    inputs: tuple[tuple[int, ...], ...]
    outputs: tuple[tuple[int, ...], ...]
    macs: dict[str, int]


def _shapes(value) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all tensors in nested tuples, lists and dictionaries."""
    return tuple(tuple(tensor.shape) for tensor in tensors_in(value))


class _Counter(TorchDispatchMode):
    """Counts multiply-adds by kind, with the formulas of PyTorch's own counter.

    It follows which tensors are the same for every image: parameters, buffers and
    what is computed from those alone. A matrix product with one of them is a linear
    layer, however it is written; a product of two others is one of activations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.macs: dict[str, int] = {}
        self.read: set[int] = set()  # storages that some operation took as an argument
        self._fixed: set[int] = set()
        self._alive: list[torch.Tensor] = []  # a key is unique as long as its tensor

    def fix(self, tensor: torch.Tensor) -> None:
        """Take a tensor for one that is the same for every image."""
        self._alive.append(tensor)
        self._fixed.add(_storage(tensor))

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func._overloadpacket
        name = packet.__name__
        counted = packet in flop_registry or name == "deform_conv2d"
        if not counted:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        given, made = tensors_in((args, kwargs)), tensors_in(result)
        fixed = all(_storage(t) in self._fixed for t in given)
        self.read.update(map(_storage, given))
        for tensor in made:
            if fixed:
                self.fix(tensor)
            else:  # also where an activation was written into a fixed tensor
                self._fixed.discard(_storage(tensor))
        if counted:
            kind = self._kind(name, args)
            self.macs[kind] = self.macs.get(kind, 0) + _count(
                packet, args, kwargs, result
            )
        return result

    def _kind(self, name: str, args) -> str:
        """Return what a counted operation is to a reader."""
        if name in _MATRICES:
            factors = [args[i] for i in _MATRICES[name]]
            fixed = any(_storage(t) in self._fixed for t in factors)
            return "linear" if fixed else "products"
        return "convolution" if "conv" in name else name


def _storage(tensor: torch.Tensor) -> int:
    """Identify the memory of a tensor, which its views share."""
    return tensor.untyped_storage()._cdata


def _count(packet, args, kwargs, result) -> int:
    """Return the multiply-adds of one operation."""
    if packet.__name__ == "deform_conv2d":  # like the convolution that it replaces
        return prod(result.shape) // result.shape[1] * prod(args[1].shape)
    return flop_registry[packet](*args, **kwargs, out_val=result) // 2


def trace(network: nn.Module, input_size: tuple[int, ...]) -> list[Call]:
    """Run one image through a copy of `network` on shapes alone and note every call.

    Args:
        network: any module; nothing of it is changed.
        input_size: shape of one input without the batch, for example (3, 224, 224).

    Returns:
        One `Call` per module call, in the order in which the calls began.

    Raises:
        ValueError: the network cannot take an input of this size.
    """
    return _follow(network, input_size)[0]


def _follow(
    network: nn.Module, input_size: tuple[int, ...]
) -> tuple[list[Call], set[str]]:
    """Return the calls of `trace`, and the names of the parameters that take part.

    Those that an operation read, and those of the modules that were called.
    """
    calls: list[Call | None] = []
    # the modules being called: each with its position in calls and the count so far
    begun: list[tuple[int, dict[str, int]]] = []
    counter = _Counter()
    parameters: dict[str, int] = {}

    def prepare(clone: nn.Module, x: torch.Tensor) -> None:
        for tensor in (*clone.parameters(), *clone.buffers()):
            counter.fix(tensor)
        named = clone.named_parameters(remove_duplicate=False)
        parameters.update({name: _storage(p) for name, p in named})
        for name, module in clone.named_modules():
            module.register_forward_pre_hook(enter, with_kwargs=True)
            module.register_forward_hook(partial(leave, name), with_kwargs=True)

    def enter(module, args, kwargs):
        begun.append((len(calls), dict(counter.macs)))
        calls.append(None)

    def leave(name, module, args, kwargs, output):
        position, before = begun.pop()
        macs = {k: n - before.get(k, 0) for k, n in counter.macs.items()}
        calls[position] = Call(
            name,
            module,
            _shapes((args, kwargs)),
            _shapes(output),
            {k: n for k, n in macs.items() if n},
        )

    run_on_shapes(network, input_size, prepare, [counter])
    called = {call.name for call in calls}
    used = {
        name
        for name, key in parameters.items()
        if key in counter.read or name.rpartition(".")[0] in called
    }
    return calls, used


def count_parameters(network: nn.Module, trainable: bool = True) -> int:
    """Count the numbers that a network holds; a shared tensor counts once.

    Args:
        network: any module, also on the meta device.
        trainable: count only parameters with `requires_grad`; with False, also the
            frozen ones. Buffers (running statistics) are never parameters.
    """
    return sum(
        p.numel() for p in network.parameters() if p.requires_grad or not trainable
    )


def count_macs(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    *,
    by_kind: bool = False,
) -> int | dict[str, int]:
    """Count the multiply-adds of one image's forward pass by the book's rule.

    Args:
        network: any module, on any device, the meta device included; it is left
            exactly as it was.
        input_size: shape of one input without the batch, for example (3, 224, 224).
        by_kind: return a dictionary with the keys "convolution", "linear" and
            "products" (products of two activations, as in attention) instead.

    Raises:
        ValueError: the network cannot take an input of this size.
    """
    macs = trace(network, input_size)[0].macs
    if by_kind:
        kinds = ("convolution", "linear", "products")
        return {kind: macs.get(kind, 0) for kind in kinds} | macs
    return sum(macs.values())


def stage_table(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    *,
    stages: dict[str, str | list[str]] | None = None,
    depth: int = 1,
) -> Table:
    """Tabulate a network stage by stage: output shape, parameters, multiply-adds.

    Args:
        network: any module; it is left exactly as it was.
        input_size: shape of one input without the batch, for example (3, 224, 224).
        stages: name of a row -> path (or list of paths) of the modules that it sums,
            for example {"conv1": ["conv1", "bn1", "relu"], "conv2_x": "layer1"}.
            Without it, each direct child of the network is a row.
        depth: with 2, the children of the children are the rows, and so on.

    Returns:
        A table with the columns stage, output shape (of one image), parameters and
        MACs and a last row of totals. The columns hold plain numbers; the display
        groups their digits. Only trainable parameters that take part in evaluation are
        counted: an auxiliary head is "not used" and adds nothing.

    Raises:
        ValueError: a path in `stages` is not a module of the network.
    """
    calls, used = _follow(network, input_size)
    modules = dict(network.named_modules())
    named = list(network.named_parameters(remove_duplicate=False))
    counted = {id(p): p for name, p in named if name in used and p.requires_grad}
    if stages is None:
        stages = {name: [name] for name in _rows(network, depth)}
    by_name: dict[str, list[Call]] = {}
    for call in calls:
        by_name.setdefault(call.name, []).append(call)

    rows, seen = [], set()
    for stage, paths in stages.items():
        paths = [paths] if isinstance(paths, str) else list(paths)
        parameters, macs, shape = 0, 0, None
        for path in paths:
            if path not in modules:
                raise ValueError(
                    f"stages[{stage!r}] names {path!r}, which is not a module of "
                    f"{type(network).__name__}. Its direct children are "
                    f"{', '.join(name for name, _ in network.named_children())}."
                )
            own = {id(p) for p in modules[path].parameters()} & counted.keys()
            parameters += sum(counted[key].numel() for key in own - seen)
            seen |= own
            for call in _calls_under(path, by_name):
                macs += sum(call.macs.values())
                shape = call.outputs
        outputs = _show_outputs(shape) if shape or parameters else "not used"
        rows.append((stage, outputs, parameters, macs))

    total = sum(p.numel() for p in counted.values()), sum(calls[0].macs.values())
    rest = (
        total[0] - sum(row[2] for row in rows),
        total[1] - sum(row[3] for row in rows),
    )
    if any(rest):
        loose = [n for n, p in named if id(p) in counted.keys() - seen]
        rows.append((", ".join(loose[:3]) or "outside modules", "", *rest))
    rows.append(("total", _show_outputs(calls[0].outputs), *total))
    return Table(rows, columns=["stage", "output shape", "parameters", "MACs"])


def _rows(module: nn.Module, depth: int, prefix: str = "") -> list[str]:
    """Name the modules `depth` levels down; containers do not count as a level."""
    names = []
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        container = isinstance(child, nn.ModuleList | nn.ModuleDict)
        if any(True for _ in child.children()) and (container or depth > 1):
            names += _rows(child, depth if container else depth - 1, f"{path}.")
        else:
            names.append(path)
    return names


def _calls_under(path: str, by_name: dict[str, list[Call]]) -> list[Call]:
    """Return the calls of a module, or of its parts when only those are called."""
    if path in by_name:
        return by_name[path]
    return [
        call
        for name, calls in by_name.items()
        if name.startswith(f"{path}.")
        and not any(parent in by_name for parent in _parents(name, path))
        for call in calls
    ]


def _parents(name: str, top: str) -> list[str]:
    """List the modules that lie between `top` and `name`."""
    parts = name.split(".")
    return [".".join(parts[:i]) for i in range(top.count(".") + 2, len(parts))]


def _show_outputs(shapes: tuple[tuple[int, ...], ...] | None) -> str:
    """Write the outputs of a module without their batch; "" where it was not called."""
    return ", ".join(show_shape(shape[1:]) for shape in shapes or ())
