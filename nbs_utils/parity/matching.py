"""Carry weights from one network into another by structure, not by name.

Two implementations of one architecture rarely use the same names, but they hold the
same tensors in the same order. The order of registration is tried first, then the
order in which the layers run; where neither fits as a whole, the longest sequences
that do fit are copied and the report says what is left over and why.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from itertools import zip_longest
from math import prod

import torch
from torch import nn

from ..counting.operations import show_shape, trace


@dataclass(frozen=True, eq=False)
class Leaf:
    """A layer that holds tensors itself: its path, and its tensors by their names."""

    name: str
    tensors: dict[str, torch.Tensor]

    @property
    def signature(self) -> tuple:
        """What must agree for two layers to be exchanged: kinds and sizes."""
        return tuple(_canonical(t) for t in self.tensors.values())


@dataclass
class Report:
    """What `transplant` did. `complete` is True when nothing was left over.

    Attributes:
        copied: (name in the source, name in the target) of each tensor.
        unused: tensors of the source that found no place, with the reason.
        unfilled: tensors of the target that kept their own numbers, with the reason.
        order: the order in which the layers were matched.
    """

    source: str
    target: str
    order: str = ""
    copied: list[tuple[str, str]] = field(default_factory=list)
    reshaped: list[str] = field(default_factory=list)
    parameters: int = 0
    buffers: int = 0
    unused: dict[str, str] = field(default_factory=dict)
    unfilled: dict[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """True when every tensor of both networks took part."""
        return not self.unused and not self.unfilled

    def __repr__(self) -> str:
        lines = []
        lines.append(
            f"{len(self.copied)} tensors copied from {self.source} to {self.target}, "
            f"matched in order of {self.order}: {self.parameters:,} parameters and "
            f"{self.buffers:,} numbers in buffers."
        )
        if self.reshaped:
            lines.append(f"Reshaped on the way: {'; '.join(self.reshaped)}.")
        if self.complete:
            lines.append("Nothing is left over on either side.")
        for title, left in (
            ("Not used from the source", self.unused),
            ("Not filled in the target", self.unfilled),
        ):
            if left:
                lines.append(f"{title} ({len(left)}):")
                lines += [f"  {name}: {why}" for name, why in left.items()]
        return "\n".join(lines)


def _canonical(tensor: torch.Tensor) -> tuple:
    """Describe a tensor so that a convolution equals the linear layer like it.

    A kernel (D, C, P, P) applied once per patch is the matrix (D, C * P * P); leading
    and inner ones, as in a class token (1, 1, D), carry no information.
    """
    shape = [n for n in tensor.shape if n != 1] or [1]
    kind = "number" if tensor.is_floating_point() else "integer"
    return kind, shape[0], prod(shape)


def _agree(a: Leaf, b: Leaf) -> bool:
    """Tell whether the tensors of two layers may be copied one into the other."""
    return len(a.tensors) == len(b.tensors) and all(
        _same_shape(from_.shape, to.shape)
        for (_, from_), (_, to) in _tensor_pairs(a, b)
    )


def _same_shape(a: torch.Size, b: torch.Size) -> bool:
    """Allow ones to come and go, and a kernel to become the matrix of its patches."""
    without = [n for n in a if n != 1], [n for n in b if n != 1]
    if without[0] == without[1]:
        return True
    kernel_and_matrix = {len(a) > 2, len(b) > 2} == {True, False}
    return kernel_and_matrix and a[0] == b[0] and a.numel() == b.numel()


def leaves(network: nn.Module) -> tuple[list[Leaf], list[Leaf]]:
    """List the layers of a network that hold tensors, in order of registration.

    Returns:
        The layers proper, and apart from them the loose tensors: parameters and
        buffers (class token, position embedding) of modules that contain others.
    """
    layers, loose = [], []
    for path, module in network.named_modules():
        lasting = {
            name: buffer
            for name, buffer in module._buffers.items()
            if name not in module._non_persistent_buffers_set
        }
        own = {**module._parameters, **lasting}
        own = {name: tensor for name, tensor in own.items() if tensor is not None}
        if not own:
            continue
        # MultiheadAttention holds the projection of q, k and v itself
        holds_others = next(module.children(), None) is not None
        if holds_others and not isinstance(module, nn.MultiheadAttention):
            loose += [Leaf(path, {name: tensor}) for name, tensor in own.items()]
        else:
            layers.append(Leaf(path, own))
    return layers, loose


def _by_execution(
    network: nn.Module, layers: list[Leaf], input_size: tuple[int, ...]
) -> list[Leaf]:
    """Sort layers by their first call; what is never called comes last."""
    first: dict[str, int] = {}
    for position, call in enumerate(trace(network, input_size)):
        first.setdefault(call.name, position)

    def key(item):
        index, leaf = item
        path = leaf.name
        while path and path not in first:  # an attention's projection runs inside it
            path = path.rpartition(".")[0]
        return first[path] if path else float("inf"), index

    return [leaf for _, leaf in sorted(enumerate(layers), key=key)]


def _fits(a: list[Leaf], b: list[Leaf]) -> bool:
    """Tell whether two lists of layers agree from the first to the last."""
    return len(a) == len(b) and all(
        x.signature == y.signature and _agree(x, y) for x, y in zip(a, b, strict=True)
    )


def _align(a: list[Leaf], b: list[Leaf]) -> tuple[list[tuple[Leaf, Leaf]], list, list]:
    """Pair the longest runs of layers that agree, then what is left, by shape."""
    matcher = SequenceMatcher(
        None, [x.signature for x in a], [x.signature for x in b], autojunk=False
    )
    pairs, left_a, left_b = [], [], []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        same = tag == "equal"
        for x, y in zip(a[i1:i2], b[j1:j2], strict=True) if same else ():
            if _agree(x, y):
                pairs.append((x, y))
            else:
                left_a.append(x)
                left_b.append(y)
        if not same:
            left_a += a[i1:i2]
            left_b += b[j1:j2]
    more, left_a, left_b = _by_shape(left_a, left_b)
    return pairs + more, left_a, left_b


def _by_shape(a: list[Leaf], b: list[Leaf]) -> tuple[list, list, list]:
    """Pair layers of equal signature in order, wherever they stand."""
    waiting = defaultdict(list)
    for leaf in b:
        waiting[leaf.signature].append(leaf)
    pairs, left = [], []
    for leaf in a:
        candidates = waiting[leaf.signature]
        partner = next((y for y in candidates if _agree(leaf, y)), None)
        if partner is None:
            left.append(leaf)
        else:
            candidates.remove(partner)
            pairs.append((leaf, partner))
    return pairs, left, [y for y in b if any(y is z for z in waiting[y.signature])]


def _single(items: list[Leaf]) -> list[Leaf]:
    """Break layers into single tensors, the last resort of matching."""
    return [Leaf(x.name, {n: t}) for x in items for n, t in x.tensors.items()]


def transplant(
    source: nn.Module, target: nn.Module, input_size: tuple[int, ...] = (3, 224, 224)
) -> Report:
    """Copy the weights and buffers of `source` into `target` by structure.

    Layers are matched in order of registration, else in the order in which they run.
    Shapes must agree, except that a convolution (D, C, P, P) may become a linear
    layer (D, C * P * P) over patches flattened as (C, P, P) and back, that the joint
    projection of `nn.MultiheadAttention` may become a linear layer (3 D, D), and that
    dimensions of length 1 do not count. Loose parameters such as a class token are
    matched by shape.

    Args:
        source: the network to copy from.
        target: the network to copy into; changed in place.
        input_size: shape of one input, used to see the order in which layers run.

    Returns:
        A report that prints what was copied and what did not fit; nothing is raised
        for a tensor without a partner, so look at `report.complete`.

    Raises:
        ValueError: one of the networks is on the meta device and has no numbers.
    """
    for network, role in ((source, "source"), (target, "target")):
        if any(p.is_meta for p in network.parameters()):
            raise ValueError(
                f"The {role} network ({type(network).__name__}) is on the meta device "
                "and has no numbers to copy. Build it on a real device."
            )
    report = Report(type(source).__name__, type(target).__name__)
    pairs, left_a, left_b = _match(source, target, input_size, report)
    with torch.no_grad():
        for a, b in pairs:
            for (name_a, from_), (name_b, to) in _tensor_pairs(a, b):
                to.copy_(from_.reshape(to.shape))
                _note(report, a.name, name_a, from_, b.name, name_b, to)
    for x, y in zip_longest(left_a, left_b):
        _leave(report.unused, x, y, "the target")
        _leave(report.unfilled, y, x, "the source")
    return report


def _match(source, target, input_size, report) -> tuple[list, list, list]:
    """Decide which layer of the source goes where; note the order in the report."""
    a, loose_a = leaves(source)
    b, loose_b = leaves(target)
    report.order = "registration"
    if not _fits(a, b):
        try:
            run_a = _by_execution(source, a, input_size)
            run_b = _by_execution(target, b, input_size)
        except ValueError:  # another input size: the order of registration remains
            pass
        else:
            if _fits(run_a, run_b) or len(_align(run_a, run_b)[0]) > len(
                _align(a, b)[0]
            ):
                a, b = run_a, run_b
                report.order = "execution"
    pairs, left_a, left_b = _align(a, b)
    more, left_a, left_b = _by_shape(
        _single(left_a) + loose_a, _single(left_b) + loose_b
    )
    return pairs + more, left_a, left_b


def _tensor_pairs(a: Leaf, b: Leaf):
    """Pair the tensors of two layers by name, else by position."""
    if a.tensors.keys() == b.tensors.keys():
        return [((n, a.tensors[n]), (n, b.tensors[n])) for n in a.tensors]
    return list(zip(a.tensors.items(), b.tensors.items(), strict=True))


def _note(report, path_a, name_a, from_, path_b, name_b, to) -> None:
    full_a = f"{path_a}.{name_a}".lstrip(".")
    full_b = f"{path_b}.{name_b}".lstrip(".")
    report.copied.append((full_a, full_b))
    if from_.shape != to.shape:
        report.reshaped.append(
            f"{full_a} ({show_shape(from_.shape)}) to {full_b} ({show_shape(to.shape)})"
        )
    if isinstance(to, nn.Parameter):
        report.parameters += to.numel()
    else:
        report.buffers += to.numel()


def _leave(left: dict, leaf: Leaf | None, other: Leaf | None, where: str) -> None:
    """Say why a tensor has no partner."""
    if leaf is None:
        return
    for name, tensor in leaf.tensors.items():
        shape = show_shape(tuple(tensor.shape)) or "one number"
        reason = f"{shape}, nothing left in {where} has this shape"
        if other is not None:
            name_b, tensor_b = next(iter(other.tensors.items()))
            there = f"{other.name}.{name_b}".lstrip(".")
            reason += f" (there, {there} is {show_shape(tuple(tensor_b.shape))})"
        left[f"{leaf.name}.{name}".lstrip(".")] = reason
