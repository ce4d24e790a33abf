"""What an experiment is made of: variants, seeds, and how each network begins."""

import hashlib
import inspect
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from .. import runtime
from ..training import Recipe

_KEYS = ("network", "recipe", "data")


class Fresh:
    """Data that a function makes anew for each seed, made once."""

    def __init__(self, make: Callable[[int], Any]):
        self.make, self.made = make, {}

    def of(self, seed: int):
        if seed not in self.made:
            self.made[seed] = self.make(seed)
        return self.made[seed]

    def __getstate__(self) -> dict:
        return {"make": self.make, "made": {}}  # each process makes its own


@dataclass(frozen=True)
class Variant:
    """One side of a comparison.

    Attributes:
        name: for people.
        network: builds it, without arguments; called once for each seed.
        recipe: how it is trained.
        data: what it is trained and scored on; `Fresh` where each seed has its own.
    """

    name: str
    network: Callable[[], nn.Module]
    recipe: Recipe
    data: Any

    def data_for(self, seed: int):
        """Return the data of a seed."""
        return self.data.of(seed) if isinstance(self.data, Fresh) else self.data

    def build(self, seed: int) -> nn.Module:
        """Return a fresh network. The same seed draws the same numbers for all.

        Variants that draw in the same order and shapes therefore begin with the same
        weights, up to the first layer in which they differ.
        """
        runtime.seed_everything(seed)
        network = self.network()
        if not isinstance(network, nn.Module):
            raise TypeError(
                f"The function of variant '{self.name}' returned "
                f"{type(network).__name__}; it must return a network (nn.Module)."
            )
        return network


def make_variants(variants: dict, data, recipe, epochs: int | None) -> list[Variant]:
    """Read the variants as a person gave them.

    Raises:
        TypeError: a variant is a network, not a function that builds it.
        ValueError: there is none, one is neither a function nor a table with the keys
            network, recipe and data, or one has no data.
    """
    if not isinstance(variants, dict) or not variants:
        raise ValueError(
            "variants must be a dictionary such as "
            '{"plain": build_plain, "shortcut": build_shortcut}, with at least one.'
        )
    data = Fresh(data) if callable(data) else data
    return [_variant(str(n), v, data, recipe, epochs) for n, v in variants.items()]


def _variant(name: str, given, data, recipe, epochs: int | None) -> Variant:
    if isinstance(given, nn.Module):
        raise TypeError(
            f"Variant '{name}' is a network; give a function that builds it, since "
            "each seed begins with fresh weights."
        )
    parts = dict(given) if isinstance(given, dict) else {"network": given}
    unknown = [key for key in parts if key not in _KEYS]
    if unknown or not callable(parts.get("network")):
        what = f"has the key '{unknown[0]}'" if unknown else "builds no network"
        raise ValueError(
            f"Variant '{name}' {what}; give a function without arguments that returns "
            "the network, or dict(network=function, recipe=..., data=...)."
        )
    network = parts["network"]
    try:
        inspect.signature(network).bind()
    except TypeError as error:
        raise ValueError(
            f"The function of variant '{name}' must take no argument ({error}). Bind "
            "them with functools.partial, or write lambda: build(...)."
        ) from error
    except ValueError:
        pass  # some built-in callables tell no signature
    plan = Recipe.load(parts.get("recipe", recipe))
    plan = plan if epochs is None else plan.stretched(epochs)
    own = parts.get("data", data)
    if own is None:
        raise ValueError(
            f"Variant '{name}' has no data: pass data to the experiment, or "
            "dict(network=..., data=...) here."
        )
    own = Fresh(own) if callable(own) else own
    # The best epoch is chosen on the images that are scored, which flatters noise.
    return Variant(name, network, plan.replace(keep="last"), own)


def make_seeds(seeds) -> list[int]:
    """Return the seeds: 3 means 0, 1, 2. In a quick run there are at most two."""
    given = range(seeds) if isinstance(seeds, int) else seeds
    chosen = [int(seed) for seed in given]
    if not chosen or len(set(chosen)) < len(chosen):
        raise ValueError(
            f"seeds is {seeds!r}; give how many, at least 1, or different numbers."
        )
    return chosen[:2] if runtime.is_quick() else chosen


def shared_starts(variants: list[Variant], against: str, seed: int) -> str:
    """Return a sentence that says which first weights variants share at a seed.

    Tensors of one value, as the scales and shifts of norms, are drawn by no one and
    do not count.
    """
    drawn = {one.name: _random_tensors(one.build(seed)) for one in variants}
    base = drawn.pop(against)
    if not drawn:
        return ""
    if all(own == base for own in drawn.values()):
        return "At a seed, all begin with the same weights."
    counts = ", ".join(
        f"{name} {sum((own & base).values())} of {sum(own.values())}"
        for name, own in drawn.items()
    )
    return f"Randomly drawn weight tensors that begin as those of {against}: {counts}."


def _random_tensors(network: nn.Module) -> Counter:
    tensors = (value for _, value in network.named_parameters())
    return Counter(
        (tuple(value.shape), hashlib.blake2b(_bytes(value)).digest())
        for value in tensors
        if value.numel() and (value != value.flatten()[0]).any()
    )


def fingerprint(network: nn.Module, data, on: str, metric: str) -> str:
    """Return a word that changes with whatever decides a run, recipe and seed aside.

    It holds the network's modules as they print themselves, its first weights, and a
    batch of training and of scored images. A change inside of a `forward` that moves
    none of these does not show.
    """
    digest = hashlib.blake2b(digest_size=12)
    digest.update(f"{network!r}{on}{metric}{data.title}{len(data.train)}".encode())
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(_bytes(value))
    batch = min(data.batch_size, len(data.train))
    for split, epoch in ((data.train, 0), (getattr(data, on), None)):
        x, y = next(iter(split.batches(batch, epoch=epoch)))
        digest.update(_bytes(x))
        digest.update(_bytes(y))
        digest.update(_bytes(split.labels))
    return digest.hexdigest()


def _bytes(value: torch.Tensor) -> bytes:
    return (
        value.detach()
        .cpu()
        .contiguous()
        .reshape(-1)
        .view(torch.uint8)
        .numpy()
        .tobytes()
    )


def check_same_images(variants: list[Variant], seeds: list[int], on: str) -> None:
    """Refuse sides of a comparison that would be scored on different images.

    Raises:
        ValueError: naming the variant and the seed whose images differ.
    """
    first = None
    checked = set()
    for variant in variants:
        if id(variant.data) in checked:
            continue
        checked.add(id(variant.data))
        for seed in seeds if isinstance(variant.data, Fresh) else seeds[:1]:
            labels = getattr(variant.data_for(seed), on).labels.cpu()
            first = labels if first is None else first
            if not torch.equal(first, labels):
                raise ValueError(
                    f"Variant '{variant.name}' with seed {seed} would be scored on "
                    f"other {on} images than the rest: differences would be those of "
                    "the images. Keep the split fixed (the seed of load_data chooses "
                    "it) and change the training images alone."
                )
