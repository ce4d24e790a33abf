"""Carry weights from one network into another by structure, not by name.

Two implementations of one architecture rarely use the same names, but they hold the
same tensors in the same order. The order of registration and the order in which the
tensors are used are both tried. Where they lead to different pairs, as for branches of
equal shape that one network registers in another order, both are tried out, and the one
under which the networks compute the same is taken. Heads that evaluation does not use
are set aside first.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from difflib import SequenceMatcher, get_close_matches
from itertools import zip_longest

import torch
from torch import nn

from ..counting.operations import show_shape
from .calibration import varied_images
from .leaves import Leaf, agree, leaves, order_of_use, position_of, tensor_pairs, unify
from .recording import distance, evaluating, first_tensor, spread

Pairs = list[tuple[Leaf, Leaf]]


@dataclass
class Report:
    """What `transplant` did. `complete` is True when nothing was left over.

    Attributes:
        copied: (name in the source, name in the target) of each tensor.
        unused: tensors of the source that found no place, with the reason.
        unfilled: tensors of the target that kept their own numbers, with the reason.
        aside: tensors that neither found a partner nor are used in evaluation, as those
            of an auxiliary head, with the network that holds them.
        order: the order in which the layers were matched.
        doubt: which layers could as well be exchanged, or empty.
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
    aside: dict[str, str] = field(default_factory=dict)
    doubt: str = ""

    @property
    def complete(self) -> bool:
        """True when every tensor that evaluation uses took part, in both networks."""
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
        if self.aside:
            first = next(iter(self.aside))
            lines.append(
                f"Set aside, since evaluation does not use them: {len(self.aside)} "
                f"tensors, as {first} of {self.aside[first]}."
            )
        if self.complete:
            lines.append("Nothing is left over on either side.")
        for title, left in (
            ("Not used from the source", self.unused),
            ("Not filled in the target", self.unfilled),
        ):
            if left:
                lines.append(f"{title} ({len(left)}):")
                lines += [f"  {name}: {why}" for name, why in left.items()]
        if self.doubt:
            lines.append(self.doubt)
        return "\n".join(lines)


def _fits(a: list[Leaf], b: list[Leaf]) -> bool:
    """Tell whether two lists of layers agree from the first to the last."""
    return len(a) == len(b) and all(agree(x, y) for x, y in zip(a, b, strict=True))


def _align(a: list[Leaf], b: list[Leaf]) -> tuple[list[tuple[Leaf, Leaf]], list, list]:
    """Pair the longest runs of layers that agree, then what is left, by shape."""
    matcher = SequenceMatcher(
        None, [x.signature for x in a], [x.signature for x in b], autojunk=False
    )
    pairs, left_a, left_b = [], [], []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        same = tag == "equal"
        for x, y in zip(a[i1:i2], b[j1:j2], strict=True) if same else ():
            if agree(x, y):
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
        partner = next((y for y in candidates if agree(leaf, y)), None)
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
    source: nn.Module,
    target: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    *,
    pairs: dict[str, str] | None = None,
) -> Report:
    """Copy the weights and buffers of `source` into `target` by structure.

    Layers are matched in order of registration or in the order in which they are used.
    Shapes must agree, except that a convolution (D, C, P, P) may become a linear
    layer (D, C * P * P) over patches flattened as (C, P, P) and back, that one layer
    (3 D, D) or an `nn.MultiheadAttention` may become three layers for query, key and
    value and back, and that dimensions of length 1 do not count. Loose parameters
    such as a class token are matched by shape.

    Args:
        source: the network to copy from.
        target: the network to copy into; changed in place.
        input_size: shape of one input, used to see the order in which layers run.
        pairs: layers or whole branches that belong together, by their paths:
            {"branch1": "branches.0"}. What stands under one goes to what stands under
            the other; the rest is matched as always.

    Returns:
        A report that prints what was copied and what did not fit; nothing is raised
        for a tensor without a partner, so look at `report.complete`. Where branches
        of equal shape could be exchanged and no choice makes the networks equal,
        `report.doubt` says which.

    Raises:
        ValueError: one of the networks is on the meta device and has no numbers, or
            `pairs` names what is not there or does not fit.
    """
    for network, role in ((source, "source"), (target, "target")):
        if any(p.is_meta for p in network.parameters()):
            raise ValueError(
                f"The {role} network ({type(network).__name__}) is on the meta device "
                "and has no numbers to copy. Build it on a real device."
            )
    report = Report(type(source).__name__, type(target).__name__)
    sides = [_Side(source, input_size), _Side(target, input_size)]
    found = [] if not pairs else _named_pairs(*sides, pairs)
    candidates = _candidates(*sides)
    chosen = candidates[0]
    if len(candidates) > 1:
        chosen, report.doubt = _try_out(source, target, candidates, found, input_size)
    report.order = chosen.order
    with torch.no_grad():
        _copy(found + chosen.pairs, report)
    for x, y in zip_longest(chosen.left_a, chosen.left_b):
        _leave(report.unused, x, y, "the target")
        _leave(report.unfilled, y, x, "the source")
    for side, left in zip(sides, (chosen.aside_a, chosen.aside_b)):
        for leaf in left:
            for name in leaf.tensors:
                path = f"{leaf.name}.{name}".lstrip(".")
                report.aside[path] = f"the {type(side.network).__name__}"
    return report


class _Side:
    """The layers of one network: in both orders, and those that are not used."""

    def __init__(self, network: nn.Module, input_size: tuple[int, ...]):
        self.network = network
        layers, loose = leaves(network)
        self.order = order_of_use(network, input_size)
        self.aside = []
        if self.order:
            used = {id(x): position_of(x, self.order) for x in layers + loose}
            self.aside = [x for x in layers + loose if used[id(x)] is None]
            layers = [x for x in layers if used[id(x)] is not None]
            loose = [x for x in loose if used[id(x)] is not None]
        self.layers, self.loose = layers, loose

    @property
    def by_use(self) -> list[Leaf]:
        return sorted(self.layers, key=lambda x: position_of(x, self.order))

    def take(self, path: str) -> list[Leaf]:
        """Remove and return all layers at or under a path, in their order."""
        found = []
        for group in (self.layers, self.loose, self.aside):
            here = [
                x
                for x in group
                if x.name == path
                or x.name.startswith(f"{path}.")
                or path in [f"{x.name}.{n}".lstrip(".") for n in x.tensors]
            ]
            found += here
            group[:] = [x for x in group if not any(x is y for y in here)]
        if not found:
            known = [name for name, _ in self.network.named_modules() if name]
            near = get_close_matches(path, known, n=3)
            hint = f" Did you mean {' or '.join(near)}?" if near else ""
            raise ValueError(
                f"pairs names '{path}', but {type(self.network).__name__} has no "
                f"layer there that holds tensors.{hint}"
            )
        return found


@dataclass
class _Candidate:
    """One way to match: the pairs, and what is left over on both sides."""

    order: str
    pairs: Pairs
    left_a: list[Leaf]
    left_b: list[Leaf]
    aside_a: list[Leaf] = field(default_factory=list)
    aside_b: list[Leaf] = field(default_factory=list)

    def key(self) -> set:
        return {(x.name, *x.tensors, y.name, *y.tensors) for x, y in self.pairs}


def _named_pairs(a: _Side, b: _Side, pairs: dict[str, str]) -> Pairs:
    """Match what the caller named, and take it out of both sides."""
    found = []
    for path_a, path_b in pairs.items():
        under_a, under_b = unify(a.take(path_a), b.take(path_b))
        if not _fits(under_a, under_b):
            raise ValueError(
                f"pairs says that '{path_a}' becomes '{path_b}', but their tensors do "
                f"not fit: {_shapes(under_a)} there, {_shapes(under_b)} here."
            )
        found += zip(under_a, under_b, strict=True)
    return found


def _shapes(items: list[Leaf]) -> str:
    shapes = [show_shape(tuple(t.shape)) for x in items for t in x.tensors.values()]
    return ", ".join(shapes[:4]) + (", ..." if len(shapes) > 4 else "")


def _candidates(a: _Side, b: _Side) -> list[_Candidate]:
    """Return the ways to match, the most plausible first, each only once."""
    found = [_in_order("registration", a, b, a.layers, b.layers)]
    if a.order and b.order:
        by_use = _in_order("execution", a, b, a.by_use, b.by_use)
        whole = [not (c.left_a or c.left_b) for c in (found[0], by_use)]
        if whole == [False, True] or (
            whole == [False, False] and len(by_use.pairs) > len(found[0].pairs)
        ):
            found = [by_use]
        elif whole == [True, True]:
            found.append(by_use)
        if whole != [False, False]:
            found.append(_by_rank(a, b, found[0]))
    unique: list[_Candidate] = []
    for one in found:
        if all(one.key() != other.key() for other in unique):
            unique.append(one)
    return unique


def _in_order(order: str, a: _Side, b: _Side, layers_a, layers_b) -> _Candidate:
    """Match two lists of layers one after the other, then the loose tensors."""
    layers_a, layers_b = unify(list(layers_a), list(layers_b))
    pairs, left_a, left_b = _align(layers_a, layers_b)
    more, left_a, left_b = _by_shape(
        _single(left_a) + a.loose, _single(left_b) + b.loose
    )
    heads, aside_a, aside_b = [], a.aside, b.aside
    if _fits(aside_a, aside_b):
        heads = list(zip(aside_a, aside_b, strict=True))
        aside_a = aside_b = []
    return _Candidate(order, pairs + more + heads, left_a, left_b, aside_a, aside_b)


def _by_rank(a: _Side, b: _Side, like: _Candidate) -> _Candidate:
    """Match anew: of the layers of one shape, the first used with the first used."""
    groups: dict = defaultdict(lambda: ([], []))
    for x, y in like.pairs:
        places = position_of(x, a.order), position_of(y, b.order)
        if None not in places:
            shapes = tuple(tuple(t.shape) for t in x.tensors.values())
            groups[x.signature, shapes][0].append((places[0], x))
            groups[x.signature, shapes][1].append((places[1], y))
    again = {}
    for left, right in groups.values():
        left.sort(key=lambda item: item[0])
        right.sort(key=lambda item: item[0])
        again |= {id(x): y for (_, x), (_, y) in zip(left, right, strict=True)}
    pairs = [(x, again.get(id(x), y)) for x, y in like.pairs]
    return _Candidate(
        "execution", pairs, like.left_a, like.left_b, like.aside_a, like.aside_b
    )


def _try_out(source, target, candidates, found, input_size) -> tuple[_Candidate, str]:
    """Return the candidate under which both networks compute the same, or a doubt."""
    images = varied_images(2, input_size)
    first = next(source.parameters(), images)
    images = images.to(first)
    with evaluating(source):
        wanted = first_tensor(source(images))
    for candidate in candidates:
        with torch.no_grad():
            _copy(found + candidate.pairs, Report("", ""))
        with evaluating(target):
            given = first_tensor(target(images))
        # coarse, in the networks' own precision: `compare` is the proof
        if wanted.shape == given.shape and distance(given, wanted) <= 1e-2 * max(
            spread(wanted, 2), 1e-5 * wanted.abs().max().item()
        ):
            return candidate, ""
    one, other = candidates[0], candidates[1]
    partner = {id(x): y.name for x, y in other.pairs}
    x, y = next((x, y) for x, y in one.pairs if partner.get(id(x), y.name) != y.name)
    return one, (
        f"Doubtful: {x.name} of the source fits both {y.name} and {partner[id(x)]} of "
        "the target, and the networks are equal either way in no case. If branches "
        f"are exchanged, say which belong together: pairs={{'{x.name}': "
        f"'{partner[id(x)]}'}}."
    )


def _copy(pairs: Pairs, report: Report) -> None:
    for a, b in pairs:
        for (name_a, from_), (name_b, to) in tensor_pairs(a, b):
            to.copy_(from_.reshape(to.shape))
            _note(report, a.name, name_a, from_, b.name, name_b, to)


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
