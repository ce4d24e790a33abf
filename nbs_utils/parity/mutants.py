"""Networks with one fault each, on which a proof of equality is tried.

A fault keeps every tensor and the shape of the output: an epsilon, an activation, a
pooling mode, a stride moved by one layer, a gate or a shuffle left out. Most are made
while the network runs, by changing one call of a PyTorch function on its way (a
`TorchFunctionMode`), so that they work in any network, however it is written; the
others change one attribute of a layer.
"""

import copy
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .comparison import Comparison, compare
from .faults import CHANGES, Change


@dataclass(frozen=True)
class Mutant:
    """A wrong network: what kind of fault it has, where, and the network itself."""

    kind: str
    where: str
    network: nn.Module

    def __str__(self) -> str:
        return f"{self.kind}, {self.where}"


class _Altering(TorchFunctionMode):
    """Change the calls of functions to which a fault applies, all or only some."""

    def __init__(self, change: Change, only: int | None):
        super().__init__()
        self.change, self.only, self.seen = change, only, 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        meant = self.only is None or self.only == self.seen
        try:
            changed = self.change(func, args, kwargs)
        except RuntimeError:
            if meant:
                raise
            changed = True  # it applies here and fails, but another place is meant
        if changed is not None:
            self.seen += 1
            if meant:
                return changed
        return func(*args, **kwargs)


class Altered(nn.Module):
    """A network of which one function call is another one while it runs."""

    def __init__(self, network: nn.Module, change: Change, only: int | None = None):
        super().__init__()
        self.network, self.change, self.only = network, change, only
        self.calls = 0  # to which the change applied when it ran last

    def forward(self, x):
        with _Altering(self.change, self.only) as mode:
            y = self.network(x)
        self.calls = mode.seen
        return y


def mutants_of(
    network: nn.Module, x: Tensor, kinds: tuple[str, ...] | None = None
) -> Iterator[Mutant]:
    """Yield wrong versions of a network: each has one fault and the same tensors.

    Args:
        network: is not changed; each mutant is a copy of it, or runs it with one of
            its function calls changed. Do not change its weights meanwhile.
        x: an input (B, C, H, W) on which the places of faults are found.
        kinds: only these kinds of faults; by default all of `list_kinds()`.

    Yields:
        networks whose output has the shape of the network's; whether a fault changes
        the function is not said. A momentum, for example, does not in evaluation mode
        and is no fault here.
    """
    network = network.eval()
    with torch.no_grad():
        shape = _shape(network(x))
        for kind, (change, single, everywhere) in CHANGES.items():
            if kinds is not None and kind not in kinds:
                continue
            yield from _altered(kind, network, x, shape, change, single, everywhere)
        for kind, make in _LAYERS.items():
            if kinds is not None and kind not in kinds:
                continue
            for where, wrong in make(network):
                if _runs(wrong, x, shape):
                    yield Mutant(kind, where, wrong)


def list_kinds() -> list[str]:
    """Return the kinds of faults."""
    return [*CHANGES, *_LAYERS]


def _altered(kind, network, x, shape, change, single, everywhere) -> Iterator[Mutant]:
    """Yield one fault at the first, a middle and the last place, and everywhere."""
    probe = Altered(network, change, only=-1)
    try:
        probe(x)
    except Exception:  # noqa: BLE001 (an impossible call)
        return
    places = probe.calls
    if not places:
        return
    picked = {1: [places // 2], 2: [0, places - 1]}.get(
        single, [0, places // 2, places - 1]
    )
    for place in dict.fromkeys(picked):
        wrong = Altered(network, change, place).eval()
        if _runs(wrong, x, shape):
            yield Mutant(kind, f"in place {place + 1} of {places}", wrong)
    if everywhere and places > 1:
        wrong = Altered(network, change).eval()
        if _runs(wrong, x, shape):
            yield Mutant(kind, f"in all {places} places", wrong)


def _shape(output) -> torch.Size:
    while isinstance(output, tuple | list):
        output = output[0]
    return output.shape


def _runs(network: nn.Module, x: Tensor, shape: torch.Size) -> bool:
    """Tell whether a wrong network runs at all and keeps the shape of the output."""
    try:
        with torch.no_grad():
            return _shape(network(x)) == shape
    except Exception:  # noqa: BLE001 (a fault that shows itself)
        return False


# --- faults in a layer's attributes


def _moved_stride(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Move a stride to the convolution before or behind it."""
    names = [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    found = 0
    for before, after in itertools.pairwise(names):
        one, other = network.get_submodule(before), network.get_submodule(after)
        if before.rpartition(".")[0] == "" or one.stride == other.stride or found == 3:
            continue
        wrong = copy.deepcopy(network)
        a, b = wrong.get_submodule(before), wrong.get_submodule(after)
        a.stride, b.stride = b.stride, a.stride
        found += 1
        yield f"between {before} and {after}", wrong


def _exchanged_scales(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Exchange the scales of two norms of one size."""
    norms = [
        (n, m)
        for n, m in network.named_modules()
        if "Norm" in type(m).__name__
        and isinstance(getattr(m, "weight", None), nn.Parameter)
    ]
    found = 0
    for (name, one), (name2, other) in itertools.pairwise(norms):
        if one.weight.shape != other.weight.shape or found == 2:
            continue
        wrong = copy.deepcopy(network)
        a, b = wrong.get_submodule(name), wrong.get_submodule(name2)
        a.weight, b.weight = b.weight, a.weight
        found += 1
        yield f"of {name} and {name2}", wrong


def _dilated(network: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Dilate a 3x3 convolution and pad it so that the size of the map stays."""
    names = [
        n
        for n, m in network.named_modules()
        if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3) and m.padding == (1, 1)
    ]
    for name in dict.fromkeys([*names[:1], *names[-1:]]):
        wrong = copy.deepcopy(network)
        wrong.get_submodule(name).dilation = (2, 2)
        wrong.get_submodule(name).padding = (2, 2)
        yield f"in {name}", wrong


_LAYERS = {
    "a stride moved by one layer": _moved_stride,
    "two exchanged scales": _exchanged_scales,
    "a dilation": _dilated,
}


def held_to(network: nn.Module, wrong: nn.Module, images: Tensor) -> Comparison:
    """Compare a mutant with its network: at one size, then at all if it agrees there.

    The verdict is that of `compare`, which begins with these images too and accepts
    only what agrees at every size; a fault that shows at the first costs one size.

    Args:
        network, wrong: networks in double precision.
        images: (B, C, H, W), `varied_images` of the size with which `compare` begins.
    """
    comparison = compare(wrong, network, images)
    if comparison.agrees:
        comparison = compare(wrong, network, input_size=tuple(images.shape[1:]))
    return comparison


def changes_function(network: nn.Module, wrong: nn.Module, seed: int = 99) -> bool:
    """Tell by a dense search whether a fault changes what a network computes.

    Independent of `compare`: plain outputs on large random inputs of several sizes and
    strengths, in double precision, held to each other to 1e-12 of their size. An error
    for a size that the network itself takes is a change, too.

    Args:
        network, wrong: networks in evaluation mode and in double precision.
        seed: of the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    first = next(m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear))
    channels = first.in_channels if isinstance(first, nn.Conv2d) else 3
    for side in (224, 223, 160, 129, 64, 63, 33, 32, 299):
        for strength in (1.0, 10.0):
            x = torch.randn(3, channels, side, side, generator=generator)
            x = strength * x.double()
            with torch.no_grad():
                try:
                    right = _first(network(x))
                except Exception:  # noqa: BLE001  # too small for this network
                    break
                try:
                    given = _first(wrong(x))
                except Exception:  # noqa: BLE001
                    return True
            if given.shape != right.shape:
                return True
            if (given - right).abs().max() > 1e-12 * right.abs().max():
                return True
    return False


def _first(output) -> Tensor:
    while isinstance(output, tuple | list):
        output = output[0]
    return output
