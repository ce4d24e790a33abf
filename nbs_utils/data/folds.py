"""Folds of a small data set: each image is tested once, by a network that never saw it."""

import copy
import dataclasses
from collections.abc import Iterator

import torch
from torch import Tensor

from ..runtime import derive_seed
from .decoding import image_sums
from .parts import stratified
from .placing import _moments
from .storage import ArrayStore


def folds(data, k: int, seed: int = 0) -> Iterator:
    """Yield a data set k times, each time with another k-th of all images as its test.

    The images of all three splits are put together and dealt out anew, each class in
    proportion. Of those that are not tested, a tenth validates.

    Args:
        data: what `load_data` returned, with all images in memory.
        k: how many parts, at least 2.
        seed: of the parts.

    Raises:
        ValueError: k is below 2 or above the number of images, or the images are
            streamed from files.
    """
    stores = [split.store for split in (data.train, data.val, data.test)]
    if not all(isinstance(store, ArrayStore) for store in stores):
        raise ValueError(
            "The images do not fit into memory, and folds are dealt from memory. A set "
            "that large has a test split that is large enough."
        )
    rows = torch.cat([store.rows[store.indices] for store in stores])
    labels = torch.cat([split.labels for split in (data.train, data.val, data.test)])
    if not 2 <= k <= len(labels):
        raise ValueError(
            f"k is {k}; it must lie between 2 and {len(labels)}, the images."
        )
    images = rows.permute(0, 3, 1, 2) if stores[0].last else rows
    part = _deal(labels, k, seed)
    for i in range(k):
        test = (part == i).nonzero().squeeze(1)
        rest = (part != i).nonzero().squeeze(1)
        val, train = stratified(labels[rest], max(1, len(rest) // 10), seed)
        places = {"train": rest[train], "val": rest[val], "test": test}
        sums = image_sums(images[places["train"].to(images.device)].cpu())
        mean, std = _moments(sums, images.shape[-1] ** 2)
        fold = copy.copy(data)
        fold.mean, fold.std = mean, std
        for word, where in places.items():
            store = ArrayStore(images, labels, where, stores[0].resident, stores[0].pin)
            changed = {"store": store, "labels": store.labels, "positions": where}
            changed |= {"mean": mean, "std": std}
            own = dataclasses.replace(
                getattr(data, word), **changed, _view=None, _constants={}
            )
            setattr(fold, word, own)
        yield fold


def _deal(labels: Tensor, k: int, seed: int) -> Tensor:
    """Return for each image the number of its part, classes in proportion."""
    generator = torch.Generator().manual_seed(derive_seed(seed, 2003))
    part = torch.empty_like(labels)
    dealt = 0  # goes on from class to class, so that the parts are equally large
    for label in labels.unique():
        members = (labels == label).nonzero().squeeze(1)
        members = members[torch.randperm(len(members), generator=generator)]
        part[members] = (torch.arange(len(members)) + dealt) % k
        dealt += len(members)
    return part
