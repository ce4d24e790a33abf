"""What makes a run the run it is: recipe, seed, batch size, and the data it sees."""

import hashlib
from typing import Any

import torch

from .recipe import Recipe


def run_identity(recipe: Recipe, data: Any, seed: int, batch_size: int) -> dict:
    """Return what must be the same for a run to go on, under names for people."""
    return {
        **recipe_identity(recipe),
        "seed": seed,
        "batch size": batch_size,
        **data_identity(data),
    }


def recipe_identity(recipe: Recipe) -> dict:
    """Return the values of a recipe that decide how it trains."""
    values = recipe.as_dict().items()
    return {f"recipe {k}": v for k, v in values if k not in ("name", "source")}


def data_identity(data: Any) -> dict:
    """Return what tells one data set, split and augmentation from another.

    Where the images lie (in memory or in files, in which folder) does not count. Two
    augmentations of one's own that have the same name cannot be told apart.
    """
    return {
        "data": data.name,
        "data title": data.title,
        "channels": data.channels,
        "image size": data.image_size,
        "augmentation": getattr(data, "augment", "none"),
        "training images": len(data.train),
        "validation images": len(data.val),
        "choice of training images (hash)": split_hash(data.train),
        "choice of validation images (hash)": split_hash(data.val),
    }


def split_hash(split: Any) -> str:
    """Return a hash of the images in a split: their positions, where known, and labels.

    Args:
        split: has `labels`, (N,), and may have `positions`, (N,): where its images
            stand in the data set.
    """
    digest = hashlib.blake2b(digest_size=6)
    for numbers in (getattr(split, "positions", None), split.labels):
        if numbers is not None:
            numbers = torch.as_tensor(numbers).to("cpu", torch.int64)
            digest.update(numbers.contiguous().numpy().tobytes())
    return digest.hexdigest()
