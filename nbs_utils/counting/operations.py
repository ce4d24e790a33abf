"""Count what a network holds and what it computes, without running its weights.

The counting rule of the book: multiply-adds (MACs) of convolutions, linear layers and
products of two activations (both products of attention), for one image in evaluation
mode. Biases, normalization, activations, pooling, residual additions and softmax
count 0, and a multiply-add counts 1. It is `torch.utils.flop_counter.FlopCounterMode`
divided by two, with attention computed through the plain matrix products.
"""

import copy
from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from ..tables import Table
from .receptive import ReceptiveField, receptive_field, receptive_field_formula
from .speed import Memory, Speed, peak_memory, throughput

__all__ = [
    "Call",
    "Memory",
    "ReceptiveField",
    "Speed",
    "Table",
    "count_macs",
    "count_parameters",
    "on_meta",
    "peak_memory",
    "receptive_field",
    "receptive_field_formula",
    "show_shape",
    "stage_table",
    "throughput",
    "trace",
]

# what an operation of PyTorch's dispatcher is to a reader
_KINDS = {
    "convolution": "convolution",
    "_convolution": "convolution",
    "cudnn_convolution": "convolution",
    "deform_conv2d": "convolution",
    "mm": "linear",
    "addmm": "linear",
    "bmm": "products",
    "baddbmm": "products",
}


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


def on_meta(network: nn.Module) -> nn.Module:
    """Return a copy of `network` whose tensors have shapes but no numbers.

    The original is not touched: neither its weights nor its buffers nor its mode are
    read or written, and nothing of their size is allocated. Forward hooks stay with
    the original.
    """
    memo = {}
    for module in network.modules():
        owned = {**module._parameters, **module._buffers, **vars(module)}
        for tensor in owned.values():
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(
                    torch.empty_like(tensor, device="meta"), tensor.requires_grad
                )
            elif isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = torch.empty_like(tensor.detach(), device="meta")
    clone = copy.deepcopy(network, memo)
    for module in clone.modules():
        module._forward_hooks.clear()
        module._backward_hooks.clear()
    return clone


def _shapes(value) -> tuple[tuple[int, ...], ...]:
    """Return the shapes of all tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, torch.Tensor):
        return (tuple(value.shape),)
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return tuple(shape for item in value for shape in _shapes(item))
    return ()


def _deform_flop(x_shape, weight_shape, *args, out_shape=None, **kwargs) -> int:
    """Count a deformable convolution like the convolution that it replaces."""
    positions = prod(out_shape) // out_shape[1]
    return 2 * positions * prod(weight_shape)


def _counter() -> FlopCounterMode:
    """Make PyTorch's counter, with the one operation that torchvision adds."""
    mapping = {}
    if hasattr(torch.ops.torchvision, "deform_conv2d"):
        mapping[torch.ops.torchvision.deform_conv2d] = _deform_flop
    return FlopCounterMode(display=False, custom_mapping=mapping)


def _by_kind(counter: FlopCounterMode) -> dict[str, int]:
    """Return the multiply-adds counted so far, by kind."""
    macs: dict[str, int] = {}
    for operation, flops in counter.flop_counts.get("Global", {}).items():
        name = str(operation).rsplit(".", 1)[-1]
        kind = _KINDS.get(name, name)
        macs[kind] = macs.get(kind, 0) + flops // 2
    return macs


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
    clone = on_meta(network).eval()
    floats = (p.dtype for p in clone.parameters() if p.is_floating_point())
    x = torch.empty(1, *input_size, device="meta", dtype=next(floats, torch.float32))
    calls: list[Call | None] = []
    # the modules being called: each with its position in calls and the count so far
    begun: list[tuple[nn.Module, int, dict[str, int]]] = []
    counter = _counter()

    def enter(module, args, kwargs):
        begun.append((module, len(calls), _by_kind(counter)))
        calls.append(None)

    def leave(module, args, kwargs, output):
        _, position, before = begun.pop()
        macs = {k: n - before.get(k, 0) for k, n in _by_kind(counter).items()}
        calls[position] = Call(
            names[module],
            module,
            _shapes((args, kwargs)),
            _shapes(output),
            {k: n for k, n in macs.items() if n},
        )

    names = {module: name for name, module in clone.named_modules()}
    for module in clone.modules():
        module.register_forward_pre_hook(enter, with_kwargs=True)
        module.register_forward_hook(leave, with_kwargs=True)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), counter:
            clone(x)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        inside = next((m for m, *_ in reversed(begun) if names[m]), None)
        where = f" (it stops in {names[inside]})" if inside is not None else ""
        raise ValueError(
            f"{type(network).__name__} cannot take an input of {show_shape(input_size)}"
            f"{where}: {str(error).rstrip('.')}. Pass input_size=(channels, height, width) as the "
            "network expects it."
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
    return calls


def show_shape(shape: tuple[int, ...]) -> str:
    """Write a shape as people do: (64, 56, 56) -> '64 x 56 x 56'."""
    return " x ".join(str(n) for n in shape)


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
        groups their digits.

    Raises:
        ValueError: a path in `stages` is not a module of the network.
    """
    calls = trace(network, input_size)
    modules = dict(network.named_modules())
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
            for p in modules[path].parameters():
                if p.requires_grad and id(p) not in seen:
                    seen.add(id(p))
                    parameters += p.numel()
            for call in _calls_under(path, by_name):
                macs += sum(call.macs.values())
                shape = call.outputs
        rows.append((stage, _show_outputs(shape), parameters, macs))

    total = count_parameters(network), sum(calls[0].macs.values())
    rest = (
        total[0] - sum(row[2] for row in rows),
        total[1] - sum(row[3] for row in rows),
    )
    if any(rest):
        own = [n for n, p in network.named_parameters() if id(p) not in seen]
        rows.append((", ".join(own[:3]) or "outside modules", "", *rest))
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
    """Write the outputs of a module without their batch, or that it never ran."""
    if shapes is None:
        return "not used"
    return ", ".join(show_shape(shape[1:]) for shape in shapes)
