# Written by `nbs export` from chapters/classics/inception-v3.ipynb; edit the chapter, not this file.
"""Inception v3 (2015), as its chapter builds it."""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.googlenet import ConvNormAct


def conv(
    in_channels: int,
    out_channels: int,
    kernel_size: int | tuple[int, int],
    stride: int = 1,
    padding: int | tuple[int, int] | None = None,
) -> ConvNormAct:
    """Return a convolution, a batch norm with eps 0.001 and a ReLU."""
    norm = partial(nn.BatchNorm2d, eps=0.001)
    shape = (in_channels, out_channels, kernel_size, stride, padding)
    return ConvNormAct(*shape, norm=norm)


def scaled(channels: int, width: float) -> int:
    """Return that multiple of a published number of channels, but at least 16."""
    return max(16, int(channels * width))


class Inception(nn.ModuleDict):
    """Branches that read the same map; their outputs are concatenated.

    Args:
        in_channels: of the map.
        branches: name -> the layers of one branch; see `make_branch`.
        width: see `scaled`.

    Shape: (B, C, H, W) -> (B, out_channels, H, W), or about half of H and W.
    """

    def __init__(
        self, in_channels: int, branches: dict[str, list], width: float = 1.0
    ) -> None:
        super().__init__()
        self.out_channels = 0
        for name, layers in branches.items():
            self[name], channels = make_branch(in_channels, layers, width)
            self.out_channels += channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.values()], dim=1)


def make_branch(
    channels: int, layers: list, width: float = 1.0
) -> tuple[nn.Sequential, int]:
    """Return the layers of a branch in a row, and the channels of its output.

    Args:
        channels: of the input.
        layers: in order: (channels, kernel size), (channels, kernel size, stride),
            "average" or "maximum" for a pooling, or a dictionary for a fork.
        width: see `scaled`.
    """
    branch = nn.Sequential()
    for layer in layers:
        module, channels = make_layer(channels, layer, width)
        branch.append(module)
    return branch, channels


def make_layer(
    channels: int, layer: tuple | str | dict, width: float
) -> tuple[nn.Module, int]:
    """Return one layer of a branch, and the channels of its output."""
    if layer == "average":
        return nn.AvgPool2d(3, stride=1, padding=1), channels
    if layer == "maximum":
        return nn.MaxPool2d(3, stride=2), channels
    if isinstance(layer, dict):
        fork = Inception(channels, layer, width)
        return fork, fork.out_channels
    out_channels, kernel_size, *stride = layer
    out_channels = scaled(out_channels, width)
    padding = 0 if stride else None
    return conv(
        channels, out_channels, kernel_size, *stride, padding=padding
    ), out_channels


def module_35(pool_channels: int) -> dict[str, list]:
    """Describe a module of the grid of 35."""
    return {
        "1x1": [(64, 1)],
        "5x5": [(48, 1), (64, 5)],
        "3x3_3x3": [(64, 1), (96, 3), (96, 3)],
        "pool": ["average", (pool_channels, 1)],
    }


def module_17(channels: int) -> dict[str, list]:
    """Describe a module of the grid of 17; the paper's figure 6 with n = 7."""
    row, column = (1, 7), (7, 1)
    return {
        "1x1": [(192, 1)],
        "7x7": [(channels, 1), (channels, row), (192, column)],
        "7x7_7x7": [
            (channels, 1),
            (channels, column),
            (channels, row),
            (channels, column),
            (192, row),
        ],
        "pool": ["average", (192, 1)],
    }


FORK = {"1x3": [(384, (1, 3))], "3x1": [(384, (3, 1))]}
MODULE_8 = {  # figure 7 of the paper
    "1x1": [(320, 1)],
    "3x3": [(384, 1), FORK],
    "3x3_3x3": [(448, 1), (384, 3), FORK],
    "pool": ["average", (192, 1)],
}


TO_17 = {  # figure 10 of the paper
    "3x3": [(384, 3, 2)],
    "3x3_3x3": [(64, 1), (96, 3), (96, 3, 2)],
    "pool": ["maximum"],
}
TO_8 = {
    "3x3": [(192, 1), (320, 3, 2)],
    "7x7_3x3": [(192, 1), (192, (1, 7)), (192, (7, 1)), (192, 3, 2)],
    "pool": ["maximum"],
}


class AuxiliaryHead(nn.Module):
    """A classifier on the last map of the grid of 17, for training only.

    Args:
        in_channels: of the map.
        num_classes: number of outputs.
        width: see `scaled`.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(self, in_channels: int, num_classes: int, width: float = 1.0) -> None:
        super().__init__()
        reduced, features = scaled(128, width), scaled(768, width)
        self.reduce = conv(in_channels, reduced, 1)
        self.conv = conv(reduced, features, 5, padding=0)
        self.fc = nn.Linear(features, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if min(x.shape[-2:]) >= 17:
            x = F.avg_pool2d(x, 5, stride=3)  # (B, 768, 5, 5)
        else:
            x = F.adaptive_avg_pool2d(x, 5)
        x = self.conv(self.reduce(x))  # (B, 768, 1, 1)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


def make_stem(kind: str, in_channels: int, width: float) -> nn.Sequential:
    """Return the layers before the first module; their names are the authors'.

    Args:
        kind: "imagenet", or "cifar" for images of about 32 pixels.
        in_channels: of the images.
        width: see `scaled`.
    """
    stride, padding = by_stem(kind, imagenet=(2, 0), cifar=(1, 1))
    pool = by_stem(kind, imagenet=nn.MaxPool2d(3, stride=2), cifar=nn.Identity())
    c1, c2, c3, c4 = (scaled(c, width) for c in (32, 64, 80, 192))
    layers = OrderedDict(
        conv_1a=conv(in_channels, c1, 3, stride, padding),  # (B, 32, 149, 149)
        conv_2a=conv(c1, c1, 3, padding=padding),  # (B, 32, 147, 147)
        conv_2b=conv(c1, c2, 3),  # (B, 64, 147, 147)
        pool_3a=pool,  # (B, 64, 73, 73)
        conv_3b=conv(c2, c3, 1),  # (B, 80, 73, 73)
        conv_4a=conv(c3, c4, 3, padding=padding),  # (B, 192, 71, 71)
        pool_5a=nn.MaxPool2d(3, stride=2),  # (B, 192, 35, 35)
    )
    return nn.Sequential(layers)


GRID_35 = {"b": module_35(32), "c": module_35(64), "d": module_35(64)}
GRID_17 = {
    "a": TO_17,
    "b": module_17(128),
    "c": module_17(160),
    "d": module_17(160),
    "e": module_17(192),
}
GRID_8 = {"a": TO_8, "b": MODULE_8, "c": MODULE_8}


def make_stage(
    channels: int, modules: dict[str, dict], width: float
) -> tuple[nn.Sequential, int]:
    """Return the modules of a stage in a row, and the channels of its output.

    Args:
        channels: of the input.
        modules: name -> description of a module; see `Inception`.
        width: see `scaled`.
    """
    stage = nn.Sequential()
    for name, branches in modules.items():
        stage.add_module(name, Inception(channels, branches, width))
        channels = stage[-1].out_channels
    return stage, channels


def initialize(network: nn.Module) -> None:
    """Draw the initial weights: He et al. (2015), smaller in the auxiliary head.

    The classifier keeps PyTorch's default.

    Args:
        network: changed in place.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for module in network.modules():
        if isinstance(module, AuxiliaryHead):
            nn.init.normal_(module.conv.conv.weight, std=0.01)
            nn.init.normal_(module.fc.weight, std=0.001)
            nn.init.zeros_(module.fc.bias)


class InceptionV3(nn.Module):
    """Inception v3 (Szegedy et al., 2016): (B, C, H, W) -> (B, num_classes).

    Args:
        width, stem: see `scaled` and `make_stem`.
        aux: add the auxiliary head; then training mode returns (logits, its logits).
        dropout: probability, before the classifier.
        num_classes, in_channels: outputs, and channels of the images.
    """

    def __init__(
        self,
        width: float = 1.0,
        aux: bool = False,
        dropout: float = 0.2,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.least = by_stem(stem, imagenet=75, cifar=15)  # one place at the end
        self.stem = make_stem(stem, in_channels, width)
        self.mixed_5, c = make_stage(scaled(192, width), GRID_35, width)
        self.mixed_6, c = make_stage(c, GRID_17, width)
        self.aux = AuxiliaryHead(c, num_classes, width) if aux else None
        self.mixed_7, c = make_stage(c, GRID_8, width)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(c, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        require_side(x, self.least)
        x = self.mixed_6(self.mixed_5(self.stem(x)))  # (B, 768, 17, 17)
        aux = self.aux(x) if self.aux is not None and self.training else None
        logits = self.fc(self.dropout(self.pool(self.mixed_7(x))))
        return logits if aux is None else (logits, aux)


register(InceptionV3, {"inception_v3": {}}, image_size=299)
