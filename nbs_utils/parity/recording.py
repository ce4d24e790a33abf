"""Run a network, keep what each of its layers gave, and pair the layers of two."""

import copy
import math
from collections import Counter, defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn


@dataclass
class Record:
    """One call of a layer: its path, what identifies it, what came out."""

    name: str
    turn: int  # a layer may be called several times
    kind: str
    weights: tuple | None
    output: torch.Tensor


@contextmanager
def evaluating(network: nn.Module):
    """Switch to evaluation mode and put every module's own mode back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _weights(module: nn.Module) -> torch.Tensor | None:
    """Return the tensor that tells a layer from others, if it has one."""
    if isinstance(module, nn.MultiheadAttention):
        return module.out_proj.weight  # what comes out of both is this projection
    return next((p for p in module.parameters(recurse=False)), None)


def _fingerprint(weight: torch.Tensor) -> tuple:
    """Identify a weight by its size and a sample of its numbers, whatever its shape."""
    flat = weight.detach().flatten()
    sample = flat[:: max(1, flat.numel() // 256)].float().cpu()
    return flat.numel(), sample.numpy().tobytes()


def record(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[Record]]:
    """Run a network and keep what each of its layers gave."""
    records: list[Record] = []

    turns: Counter[str] = Counter()

    def keep(module, args, output):
        name, weight, output = names[module], _weights(module), first_tensor(output)
        turns[name] += 1
        if isinstance(output, torch.Tensor):
            mark = None if weight is None else _fingerprint(weight)
            # cloned, since an in-place ReLU would overwrite what came before it
            kept = output.detach().clone()
            kind = type(module).__name__
            records.append(Record(name, turns[name], kind, mark, kept))

    names, inside = {}, set()
    for name, module in network.named_modules():
        unit = isinstance(module, nn.MultiheadAttention)
        if module in inside or (next(module.children(), None) and not unit):
            continue
        inside.update(module.children())
        names[module] = name
    hooks = [module.register_forward_hook(keep) for module in names]
    try:
        with evaluating(network):
            output = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return first_tensor(output), records


def first_tensor(output):
    """Return the first tensor of what a module gave."""
    while isinstance(output, tuple | list):
        output = output[0]
    return output


def input_of(network: nn.Module, x: torch.Tensor, record: Record) -> torch.Tensor:
    """Run a network again and return what one call of a layer was given."""
    turns, found = [], []

    def keep(module, args, kwargs):
        turns.append(1)
        if len(turns) == record.turn:
            value = first_tensor([*args, *kwargs.values()])
            found.append(value.detach().clone())

    module = network.get_submodule(record.name)
    hook = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with evaluating(network):
            network(x)
    finally:
        hook.remove()
    return found[0]


def _views(a: torch.Tensor, b: torch.Tensor) -> list[torch.Tensor]:
    """Bring `b` into the layout of `a`: channels first or last, grid or sequence."""
    views = [b]
    if b.dim() == 4:
        views += [b.permute(0, 2, 3, 1), b.permute(0, 3, 1, 2)]
        views += [v.flatten(1, 2) for v in views[:2]]
        views += [b.flatten(2)]
    if b.dim() == 3:
        turned = b.transpose(1, 2)
        views += [turned]
        if a.dim() == 4:
            views += [
                v.reshape(a.shape)
                for v in (b, turned)
                if v.numel() == a.numel() and v.shape[1] == a.shape[1]
            ]
    if b.numel() == a.numel() and [n for n in a.shape if n > 1] == [
        n for n in b.shape if n > 1
    ]:
        views += [b.reshape(a.shape)]
    return [v for v in views if v.shape == a.shape]


def distance(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest absolute difference of two outputs of one layer.

    Layouts may differ: channels first or last, a grid or a sequence; where nothing
    else is possible, as for windows cut out of a map, the sorted numbers are compared.
    Infinite when the two do not hold equally many numbers, or hold a NaN.
    """
    views = _views(a, b)
    if views:
        found = min(((a - view).abs().max().item() for view in views), key=_order)
    elif a.numel() == b.numel():
        found = (a.flatten().sort()[0] - b.flatten().sort()[0]).abs().max().item()
    else:
        found = float("inf")
    return float("inf") if math.isnan(found) else found


def _order(value: float) -> float:
    return float("inf") if math.isnan(value) else value


def spread(output: torch.Tensor, images: int) -> float:
    """Return how much different images differ in an output: the largest deviation.

    Args:
        output: of a layer, images along its first dimension where there are several.
        images: how many images the network was given.
    """
    if output.dim() == 0 or output.numel() == 0:
        return 0.0
    several = output.shape[0] > 1 and output.shape[0] % images == 0
    mean = output.mean(dim=0, keepdim=True) if several else output.mean()
    return (output - mean).abs().max().item()


def in_precision(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Return a copy whose floating-point tensors have another precision.

    A device that has no float64 (Apple's) gives its numbers to the processor. A
    network that has this precision already is returned itself.
    """
    tensors = [*network.parameters(), *network.buffers()]
    if all(t.dtype == dtype or not t.is_floating_point() for t in tensors):
        return network
    memo = {}
    for module in network.modules():
        owned = {**module._parameters, **module._buffers, **vars(module)}
        for tensor in owned.values():
            if not isinstance(tensor, torch.Tensor):
                continue
            wanted = dtype if tensor.is_floating_point() else tensor.dtype
            device = "cpu" if tensor.device.type == "mps" else tensor.device
            moved = tensor.detach().to(device, wanted, copy=True)
            if isinstance(tensor, nn.Parameter):
                moved = nn.Parameter(moved, requires_grad=False)
            memo[id(tensor)] = moved
    return copy.deepcopy(network, memo)


def pair_layers(a: list[Record], b: list[Record]) -> list[tuple[int, int]]:
    """Find for each call in one network its counterpart in the other.

    Layers with weights are paired by their numbers, those that remain by their size
    in order; layers without weights by their place between two of those.
    """
    pairs: dict[int, int] = {}
    for key in (lambda r: r.weights, lambda r: r.weights and r.weights[0]):
        waiting: dict = defaultdict(deque)
        for j, record in enumerate(b):
            if record.weights and j not in pairs.values():
                waiting[key(record)].append(j)
        for i, record in enumerate(a):
            if record.weights and i not in pairs and waiting[key(record)]:
                pairs[i] = waiting[key(record)].popleft()
    anchors = [(-1, -1), *sorted(pairs.items()), (len(a), len(b))]
    for (i1, j1), (i2, j2) in pairwise(anchors):
        between = range(i1 + 1, i2), range(j1 + 1, j2)
        kinds = [a[i].kind for i in between[0]], [b[j].kind for j in between[1]]
        if kinds[0] == kinds[1]:
            pairs.update(zip(*between, strict=True))
    return sorted(pairs.items())
