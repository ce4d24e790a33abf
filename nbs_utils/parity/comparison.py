"""Run two networks side by side and name the first layer where they part."""

from collections import Counter, defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import nn

from ..tables import Table


@dataclass
class Comparison:
    """How far two networks are apart on the same input.

    Attributes:
        max_difference: largest absolute difference between the outputs.
        first_difference: the first layer whose output differs, with its name in
            both networks; None when all compared layers agree.
        layers: one row per compared layer: its two names, output shape, difference.
        tolerance: what counted as a difference.
        note: where to look, when the layer itself is not to blame.
    """

    max_difference: float
    first_difference: str | None
    layers: Table
    tolerance: float
    note: str = ""

    def __repr__(self) -> str:
        text = f"Largest difference of the outputs: {self.max_difference:.2e}. "
        if self.first_difference:
            text += f"The first layer that differs is {self.first_difference}."
        elif self.max_difference > self.tolerance:
            text += f"All {len(self.layers)} layers that could be compared agree."
        else:
            text += f"All {len(self.layers)} compared layers agree."
        return f"{text} {self.note}".strip()


@dataclass
class _Record:
    """One call of a layer: its path, what identifies it, what came out."""

    name: str
    turn: int  # a layer may be called several times
    kind: str
    weights: tuple | None
    output: torch.Tensor


@contextmanager
def _evaluating(network: nn.Module):
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


def _record(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[_Record]]:
    """Run a network and keep what each of its layers gave."""
    records: list[_Record] = []

    turns: Counter[str] = Counter()

    def keep(module, args, output):
        name, weight, output = names[module], _weights(module), _first(output)
        turns[name] += 1
        if isinstance(output, torch.Tensor):
            mark = None if weight is None else _fingerprint(weight)
            # cloned, since an in-place ReLU would overwrite what came before it
            kept = output.detach().float().clone()
            kind = type(module).__name__
            records.append(_Record(name, turns[name], kind, mark, kept))

    names, inside = {}, set()
    for name, module in network.named_modules():
        unit = isinstance(module, nn.MultiheadAttention)
        if module in inside or (next(module.children(), None) and not unit):
            continue
        inside.update(module.children())
        names[module] = name
    hooks = [module.register_forward_hook(keep) for module in names]
    try:
        with _evaluating(network):
            output = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return _first(output).float(), records


def _first(output):
    """Return the first tensor of what a module gave."""
    while isinstance(output, tuple | list):
        output = output[0]
    return output


def _input_of(network: nn.Module, x: torch.Tensor, record: _Record) -> torch.Tensor:
    """Run a network again and return what one call of a layer was given."""
    turns, found = [], []

    def keep(module, args, kwargs):
        turns.append(1)
        if len(turns) == record.turn:
            value = _first([*args, *kwargs.values()])
            found.append(value.detach().float().clone())

    module = network.get_submodule(record.name)
    hook = module.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with _evaluating(network):
            network(x)
    finally:
        hook.remove()
    return found[0]


def _alike(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """Bring `b` into the layout of `a`: channels first or last, grid or sequence."""
    views = [b]
    if b.dim() == 4:
        views += [b.permute(0, 2, 3, 1), b.permute(0, 3, 1, 2)]
        views += [v.flatten(1, 2) for v in views[:2]]
        views += [b.flatten(2)]
    if b.dim() == 3 and a.dim() == 4:
        views += [b.transpose(1, 2)]
        views = [v.reshape(a.shape) for v in views if v.shape[1] == a.shape[1]]
    if b.numel() == a.numel() and [n for n in a.shape if n > 1] == [
        n for n in b.shape if n > 1
    ]:
        views += [b.reshape(a.shape)]
    return next((v for v in views if v.shape == a.shape), None)


def _pair(a: list[_Record], b: list[_Record]) -> list[tuple[int, int]]:
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


def compare(
    a: nn.Module,
    b: nn.Module,
    x: torch.Tensor | None = None,
    input_size: tuple[int, ...] = (3, 224, 224),
    *,
    tolerance: float = 1e-4,
) -> Comparison:
    """Run two networks on the same input and name the first layer that differs.

    Both run in evaluation mode and get their own mode back. Outputs are compared at
    the layers (modules without children, and `nn.MultiheadAttention`) that have a
    counterpart: the same weights, or else the same size and place.

    Args:
        a, b: the networks, on the same device.
        x: the input (B, C, H, W); by default two images of seeded noise.
        input_size: shape of one of those images.
        tolerance: a layer differs when the largest absolute difference of its output
            exceeds this, or this share of its largest output where that is above 1.

    Returns:
        A comparison that prints the verdict in a sentence.

    Raises:
        ValueError: the outputs of the two networks have different shapes.
    """
    if x is None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, *input_size, generator=generator)
        x = x.to(next(a.parameters(), x))
    out_a, records_a = _record(a, x)
    out_b, records_b = _record(b, x)
    if out_a.shape != out_b.shape:
        raise ValueError(
            f"The outputs cannot be compared: {type(a).__name__} gives "
            f"{tuple(out_a.shape)}, {type(b).__name__} {tuple(out_b.shape)}. Build "
            "both with the same number of classes."
        )
    rows, first = [], None
    for i, j in _pair(records_a, records_b):
        one, other = records_a[i], records_b[j]
        theirs = _alike(one.output, other.output)
        shape = " x ".join(str(n) for n in one.output.shape[1:])
        difference = float("inf")
        if theirs is not None:
            difference = (one.output - theirs).abs().max().item()
        rows.append((one.name, other.name, shape, difference))
        if first is None and _differs(one.output, theirs, tolerance):
            first = one, other
    table = Table(rows, columns=["layer", "counterpart", "output shape", "difference"])
    result = Comparison((out_a - out_b).abs().max().item(), None, table, tolerance)
    if first:
        result.first_difference = _describe(*first)
        given = _input_of(a, x, first[0]), _input_of(b, x, first[1])
        if _differs(given[0], _alike(*given), tolerance):
            result.note = (
                "What it is given differs already, so look at what runs between the "
                "layer before it and this one."
            )
    return result


def _differs(ours: torch.Tensor, theirs: torch.Tensor | None, tolerance: float) -> bool:
    """Tell whether two outputs are further apart than rounding explains."""
    if theirs is None:
        return True
    scale = max(1.0, ours.abs().max().item())
    # written so that a NaN counts as a difference
    return not (ours - theirs).abs().max().item() <= tolerance * scale


def _describe(one: _Record, other: _Record) -> str:
    """Name a layer in both networks, and the two shapes where they differ."""
    name = one.name if one.name == other.name else f"{one.name} (there {other.name})"
    if _alike(one.output, other.output) is None:
        shapes = tuple(one.output.shape[1:]), tuple(other.output.shape[1:])
        name += f", whose output is {shapes[0]} here and {shapes[1]} there"
    return name
