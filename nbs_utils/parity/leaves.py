"""The layers of a network that hold tensors, and the order in which they are used."""

import re
from dataclasses import dataclass
from math import prod

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ..counting.operations import on_meta


@dataclass(frozen=True, eq=False)
class Leaf:
    """A layer that holds tensors itself: its path, and its tensors by their names."""

    name: str
    tensors: dict[str, torch.Tensor]

    @property
    def signature(self) -> tuple:
        """What must agree for two layers to be exchanged: kinds and sizes."""
        return tuple(_canonical(t) for t in self.tensors.values())


def _canonical(tensor: torch.Tensor) -> tuple:
    """Describe a tensor so that a convolution equals the linear layer like it.

    A kernel (D, C, P, P) applied once per patch is the matrix (D, C * P * P); leading
    and inner ones, as in a class token (1, 1, D), carry no information.
    """
    shape = [n for n in tensor.shape if n != 1] or [1]
    kind = "number" if tensor.is_floating_point() else "integer"
    return kind, shape[0], prod(shape)


def agree(a: Leaf, b: Leaf) -> bool:
    """Tell whether the tensors of two layers may be copied one into the other."""
    return (
        len(a.tensors) == len(b.tensors)
        and a.signature == b.signature
        and all(
            _same_shape(from_.shape, to.shape)
            for (_, from_), (_, to) in tensor_pairs(a, b)
        )
    )


def _same_shape(a: torch.Size, b: torch.Size) -> bool:
    """Allow ones to come and go, and a kernel to become the matrix of its patches."""
    if len(a) == len(b) > 2 and a[0] != 1 != b[0]:
        return a == b  # a kernel of 1 x 3 is not one of 3 x 1
    without = [n for n in a if n != 1], [n for n in b if n != 1]
    if without[0] == without[1]:
        return True
    kernel_and_matrix = {len(a) > 2, len(b) > 2} == {True, False}
    return kernel_and_matrix and a[0] == b[0] and a.numel() == b.numel()


def tensor_pairs(a: Leaf, b: Leaf) -> list[tuple]:
    """Pair the tensors of two layers by name, else by position."""
    if a.tensors.keys() == b.tensors.keys():
        return [((n, a.tensors[n]), (n, b.tensors[n])) for n in a.tensors]
    return list(zip(a.tensors.items(), b.tensors.items(), strict=True))


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
        if holds_layers(module) and not isinstance(module, nn.MultiheadAttention):
            loose += [Leaf(path, {name: tensor}) for name, tensor in own.items()]
        else:
            layers.append(Leaf(path, own))
    return layers, loose


def holds_layers(module: nn.Module) -> bool:
    """Tell whether a part has tensors: timm's norms hold an activation, which has none."""
    return any(
        next(tensors, None) is not None
        for child in module.children()
        for tensors in (child.parameters(), child.buffers())
    )


class _Uses(TorchFunctionMode):
    """Note in which order tensors are first used in a computation."""

    def __init__(self, names: dict[int, str]):
        super().__init__()
        self.names, self.order = names, {}

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        # `weight.dtype` asks about a tensor, it does not use it
        if isinstance(result, torch.Tensor | tuple | list):
            self._note([args, kwargs])
        return result

    def _note(self, value) -> None:
        if isinstance(value, torch.Tensor):
            name = self.names.get(id(value))
            if name is not None:
                self.order.setdefault(name, len(self.order))
        elif isinstance(value, dict):
            self._note(list(value.values()))
        elif isinstance(value, tuple | list):
            for item in value:
                self._note(item)


def order_of_use(
    network: nn.Module, input_size: tuple[int, ...]
) -> dict[str, int] | None:
    """Return when each tensor is first used in evaluation, by its name.

    A tensor that is not used, as of an auxiliary head, is missing.

    Args:
        network: is not run itself, only a copy without numbers.
        input_size: shape of one input.

    Returns:
        name -> position, or None when the network cannot be run on such an input.
    """
    clone = on_meta(network).eval()
    named = [*clone.named_parameters(), *clone.named_buffers()]
    uses = _Uses({id(tensor): name for name, tensor in named})
    try:
        with torch.no_grad(), uses:
            clone(torch.empty(2, *input_size, device="meta"))
    except Exception:  # noqa: BLE001
        return None
    return uses.order


def position_of(leaf: Leaf, order: dict[str, int]) -> int | None:
    """Return when a layer is first used, or None when it is not."""
    found = [order.get(f"{leaf.name}.{n}".lstrip(".")) for n in leaf.tensors]
    return min((p for p in found if p is not None), default=None)


# --- query, key and value: in one matrix or in three


def unify(a: list[Leaf], b: list[Leaf]) -> tuple[list[Leaf], list[Leaf]]:
    """Split the joint projections of one list where the other has three layers.

    The parts are views: what is copied into them is copied into the joint matrix.
    """
    left, right, i, j = [], [], 0, 0
    while i < len(a) and j < len(b):
        thirds_a, thirds_b = _thirds(b[j], a[i : i + 3]), _thirds(a[i], b[j : j + 3])
        if agree(a[i], b[j]) or not (thirds_a or thirds_b):
            left.append(a[i])
            right.append(b[j])
            i, j = i + 1, j + 1
        elif thirds_a:
            left += _by_role(a[i : i + 3])
            right += thirds_a
            i, j = i + 3, j + 1
        else:
            left += thirds_b
            right += _by_role(b[j : j + 3])
            i, j = i + 1, j + 3
    return left + a[i:], right + b[j:]


def _thirds(joint: Leaf, three: list[Leaf]) -> list[Leaf]:
    """Return the three parts of a joint projection if they fit three layers."""
    if len(three) < 3 or any(t.dim() == 0 for t in joint.tensors.values()):
        return []
    if any(len(t) % 3 or t.dim() > 2 for t in joint.tensors.values()):
        return []
    if not any(t.dim() == 2 for t in joint.tensors.values()):
        return []
    parts = [
        Leaf(
            f"{joint.name}[{role}]",
            {n: _third(t, k) for n, t in joint.tensors.items()},
        )
        for k, role in enumerate("qkv")
    ]
    fits = all(agree(part, one) for part, one in zip(parts, three, strict=True))
    return parts if fits else []


def _third(tensor: torch.Tensor, k: int) -> torch.Tensor:
    part = tensor.detach().chunk(3)[k]
    is_parameter = isinstance(tensor, nn.Parameter)
    return nn.Parameter(part, requires_grad=False) if is_parameter else part


def _by_role(three: list[Leaf]) -> list[Leaf]:
    """Sort query, key, value by their names where these say it, else keep the order."""
    roles = [
        re.match(r"(?:to_|proj_|in_proj_)?([qkv])", leaf.name.rpartition(".")[2])
        for leaf in three
    ]
    letters = [found and found[1] for found in roles]
    if sorted(filter(None, letters)) != ["k", "q", "v"]:
        return three
    return [three[letters.index(role)] for role in "qkv"]
