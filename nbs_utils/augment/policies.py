"""Policies that choose operations for each image: AutoAugment and its successors.

Operations, ranges and chances are torchvision's. They differ a little from the
first implementation, which only ever strengthens or weakens a color, where
torchvision draws the sign. All functions here take uint8 (B, C, H, W), or float in
0..1, which is rounded to the 256 levels of a byte first.
"""

import torch
from torch import Tensor

from .geometry import uniform
from .operations import OPERATIONS, apply_operation, positions

_NAMES = list(OPERATIONS)
SIGNED = _NAMES[_NAMES.index("ShearX") : _NAMES.index("Sharpness") + 1]
CHOICES = _NAMES[: _NAMES.index("Equalize") + 1]  # all but Invert
LEVELS = 31  # of RandAugment and TrivialAugment, 0 to 30; AutoAugment has ten

# The 25 sub-policies that the search found for each data set: two operations, each
# with its probability and its level from 0 to 9 (Cubuk et al., 2019, appendix).
POLICIES = {
    "imagenet": """
        Posterize .4 8, Rotate .6 9;       Solarize .6 5, AutoContrast .6
        Equalize .8, Equalize .6;          Posterize .6 7, Posterize .6 6
        Equalize .4, Solarize .2 4;        Equalize .4, Rotate .8 8
        Solarize .6 3, Equalize .6;        Posterize .8 5, Equalize 1
        Rotate .2 3, Solarize .6 8;        Equalize .6, Posterize .4 6
        Rotate .8 8, Color .4 0;           Rotate .4 9, Equalize .6
        Equalize 0, Equalize .8;           Invert .6, Equalize 1
        Color .6 4, Contrast 1 8;          Rotate .8 8, Color 1 2
        Color .8 8, Solarize .8 7;         Sharpness .4 7, Invert .6
        ShearX .6 5, Equalize 1;           Color .4 0, Equalize .6
        Equalize .4, Solarize .2 4;        Solarize .6 5, AutoContrast .6
        Invert .6, Equalize 1;             Color .6 4, Contrast 1 8
        Equalize .8, Equalize .6
    """,
    "cifar10": """
        Invert .1, Contrast .2 6;          Rotate .7 2, TranslateX .3 9
        Sharpness .8 1, Sharpness .9 3;    ShearY .5 8, TranslateY .7 9
        AutoContrast .5, Equalize .9;      ShearY .2 7, Posterize .3 7
        Color .4 3, Brightness .6 7;       Sharpness .3 9, Brightness .7 9
        Equalize .6, Equalize .5;          Contrast .6 7, Sharpness .6 5
        Color .7 7, TranslateX .5 8;       Equalize .3, AutoContrast .4
        TranslateY .4 3, Sharpness .2 6;   Brightness .9 6, Color .2 8
        Solarize .5 2, Invert 0;           Equalize .2, AutoContrast .6
        Equalize .2, Equalize .6;          Color .9 9, Equalize .6
        AutoContrast .8, Solarize .2 8;    Brightness .1 3, Color .7 0
        Solarize .4 5, AutoContrast .9;    TranslateY .9 9, TranslateY .7 9
        AutoContrast .9, Solarize .8 3;    Equalize .8, Invert .1
        TranslateY .7 9, AutoContrast .9
    """,
    "svhn": """
        ShearX .9 4, Invert .2;            ShearY .9 8, Invert .7
        Equalize .6, Solarize .6 6;        Invert .9, Equalize .6
        Equalize .6, Rotate .9 3;          ShearX .9 4, AutoContrast .8
        ShearY .9 8, Invert .4;            ShearY .9 5, Solarize .2 6
        Invert .9, AutoContrast .8;        Equalize .6, Rotate .9 3
        ShearX .9 4, Solarize .3 3;        ShearY .8 8, Invert .7
        Equalize .9, TranslateY .6 6;      Invert .9, Equalize .6
        Contrast .3 3, Rotate .8 4;        Invert .8, TranslateY 0 2
        ShearY .7 6, Solarize .4 8;        Invert .6, Rotate .8 4
        ShearY .3 7, TranslateX .9 3;      ShearX .1 6, Invert .6
        Solarize .7 2, TranslateY .6 7;    ShearY .8 4, Invert .8
        ShearX .7 9, TranslateY .8 3;      ShearY .8 5, AutoContrast .7
        ShearX .7 2, Invert .1
    """,
}


def read_policy(name: str) -> list[list[tuple[str, float, int]]]:
    """Return 25 pairs of (operation, probability, level); level 0 where it has none.

    Raises:
        ValueError: no policy has this name.
    """
    if name not in POLICIES:
        raise ValueError(
            f"AutoAugment has no policy for '{name}'; there are {', '.join(POLICIES)}."
        )
    pairs = POLICIES[name].replace("\n", ";").split(";")
    steps = [[step.split() for step in pair.split(",")] for pair in pairs]
    return [
        [(op, float(p), int(level[0]) if level else 0) for op, p, *level in pair]
        for pair in steps
        if pair != [[]]
    ]


def magnitudes(levels: int, height: int, width: int, wide: bool = False) -> Tensor:
    """Return what every operation's levels mean, for images of a size.

    Args:
        levels: how many, evenly spaced from no effect (0; but Solarize inverts pure
            white even there) to the largest.
        height, width: of the images in pixels; a shift grows with them unless wide.
        wide: the ranges of TrivialAugment instead of those of RandAugment.

    Returns:
        float32 (operations, levels), in the units and the order of `OPERATIONS`.
    """
    enhance = 0.99 if wide else 0.9
    largest = {
        "ShearX": 0.99 if wide else 0.3,
        "ShearY": 0.99 if wide else 0.3,
        "TranslateX": 32 if wide else 150 / 331 * width,
        "TranslateY": 32 if wide else 150 / 331 * height,
        "Rotate": 135 if wide else 30,
        **dict.fromkeys(["Brightness", "Color", "Contrast", "Sharpness"], enhance),
    }
    top = torch.tensor([float(largest.get(name, 0)) for name in OPERATIONS])
    share = torch.linspace(0, 1, levels)
    table = top[:, None] * share
    table[_NAMES.index("Posterize")] = (8 - (6 if wide else 4) * share).round()
    table[_NAMES.index("Solarize")] = 1 - share
    return table


def _apply(x: Tensor, which: Tensor, magnitude: Tensor, coin: Tensor) -> Tensor:
    """Apply operations, with a minus before those with a sign where coin < 0.5."""
    signed = torch.isin(which, positions(SIGNED, len(SIGNED)))
    return apply_operation(
        x, which, torch.where(signed & (coin < 0.5), -magnitude, magnitude)
    )


def auto_augment(
    x: Tensor, generator: torch.Generator, policy: str = "imagenet"
) -> Tensor:
    """Apply to each image one of 25 learned pairs of operations (Cubuk et al., 2019).

    Args:
        x: (B, C, H, W).
        generator: source of the draws.
        policy: "imagenet", "cifar10" or "svhn", the data that it was found on.

    Raises:
        ValueError: no policy has this name.
    """
    pairs = read_policy(policy)
    which = torch.stack([positions([s[0] for s in pair], 2) for pair in pairs])
    chance = torch.tensor([[s[1] for s in pair] for pair in pairs])  # (25, 2)
    level = torch.tensor([[s[2] for s in pair] for pair in pairs])
    table = magnitudes(10, *x.shape[-2:])
    draw = uniform(generator, 5, len(x)).cpu()
    pair = (draw[0] * len(pairs)).long()
    for step in range(2):
        ops, amount = which[pair, step], table[which, level][pair, step]
        applied = draw[1 + step] < chance[pair, step]
        ops = torch.where(applied, ops, _NAMES.index("Identity"))
        x = _apply(x, ops, amount, draw[3 + step])
    return x


def rand_augment(
    x: Tensor, generator: torch.Generator, num_ops: int = 2, magnitude: int = 9
) -> Tensor:
    """Apply to each image random operations of one strength (Cubuk et al., 2020).

    Args:
        x: (B, C, H, W).
        generator: source of the draws.
        num_ops: how many operations, one after the other; N in the paper.
        magnitude: strength of all of them, 0 to 30; M in the paper.

    Raises:
        ValueError: num_ops or magnitude is out of range.
    """
    if num_ops < 0 or int(num_ops) != num_ops:
        raise ValueError(f"num_ops is {num_ops}; it must be a whole number from 0 on.")
    if not 0 <= magnitude < LEVELS or int(magnitude) != magnitude:
        raise ValueError(
            f"magnitude is {magnitude}; it must be a whole number from 0 to "
            f"{LEVELS - 1}."
        )
    table = magnitudes(LEVELS, *x.shape[-2:])
    draw = uniform(generator, 2, num_ops, len(x)).cpu()
    for choice, coin in zip(*draw):
        ops = (choice * len(CHOICES)).long()
        x = _apply(x, ops, table[ops, int(magnitude)], coin)
    return x


def trivial_augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Apply to each image one random operation of random strength.

    This is TrivialAugment with its wide ranges (Mueller & Hutter, 2021), which has
    nothing to set.

    Args:
        x: (B, C, H, W).
        generator: source of the draws.
    """
    table = magnitudes(LEVELS, *x.shape[-2:], wide=True)
    choice, strength, coin = uniform(generator, 3, len(x)).cpu()
    ops = (choice * len(CHOICES)).long()
    return _apply(x, ops, table[ops, (strength * LEVELS).long()], coin)
