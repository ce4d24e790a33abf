"""Other training images for every seed, while the images that are scored stay."""

import copy
import dataclasses

import torch


def fresh_images(data, images: int, seed: int):
    """Return data with a small part of the training split, another for each seed.

    The parts of different seeds share no image, and each holds the classes in about
    the proportion of the whole. Validation and test split, and the mean and deviation
    that images are normalized with, stay those of `data`. With few training images,
    their choice is the larger part of what chance does to a result, and a comparison
    over seeds of one and the same part would not show it.

    Args:
        data: what `load_data` returned, kept in memory.
        images: of the part.
        seed: which part, from 0.

    Raises:
        ValueError: the training split has no such part, or its files are streamed.

    Example: `nbs.experiment(variants, lambda seed: fresh_images(data, 200, seed))`.
    """
    split = data.train
    if not hasattr(split.store, "indices"):
        raise ValueError(
            f"The files of {data.title} are streamed, and parts are only made of "
            "images that lie in memory. Load it with memory_budget= above "
            f"{data.nbytes:,} bytes, or smaller images."
        )
    parts = len(split) // images if images > 0 else 0
    if not 0 <= seed < parts:
        raise ValueError(
            f"Part {seed} of {images} images was asked for; the {len(split):,} training "
            f"images of {data.title} hold {parts}, counted from 0."
        )
    chosen = _spread(split.labels)[seed * images : (seed + 1) * images]
    train = copy.copy(split)
    train._view = None  # what evaluation has seen of the whole
    train.store = copy.copy(split.store)
    train.store.indices = split.store.indices[chosen.to(split.store.indices.device)]
    train.labels = train.store.labels = split.labels[chosen]
    return dataclasses.replace(data, train=train)


def _spread(labels: torch.Tensor) -> torch.Tensor:
    """Return an order in which any stretch holds the classes in proportion."""
    generator = torch.Generator().manual_seed(0)
    place = torch.empty(len(labels), dtype=torch.float64)
    for label in labels.unique():
        own = (labels == label).nonzero()[:, 0]
        # evenly spaced in 0..1, in random order, each class begun at another point
        order = torch.randperm(len(own), generator=generator).double()
        place[own] = (order + torch.rand(1, generator=generator).double()) / len(own)
    return place.argsort()
