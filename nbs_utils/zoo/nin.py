# Written by `nbs export` from chapters/classics/nin.ipynb; edit the chapter, not this file.
"""NiN (2013), as its chapter builds it."""

from collections import OrderedDict

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side


class MlpConv(nn.Sequential):
    """A convolution and the 1x1 convolutions behind it, with a ReLU after each.

    Args:
        in_channels: channels of the input.
        widths: channels of each of the convolutions.
        kernel_size, stride, padding: of the first one.
        norm: whether a batch norm stands in front of each ReLU.
        rectified: whether the last convolution has a ReLU (and batch norm), too.

    Shape: (B, C_in, H, W) -> (B, widths[-1], H_out, W_out).

    Source: Lin et al. 2013, section 3.1.
    """

    def __init__(
        self,
        in_channels: int,
        widths: tuple[int, ...],
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        norm: bool = False,
        rectified: bool = True,
    ) -> None:
        layers, window = OrderedDict(), (kernel_size, stride, padding)
        for i, width in enumerate(widths):
            layers[f"cccp{i}" if i else "conv"] = nn.Conv2d(in_channels, width, *window)
            if rectified or i < len(widths) - 1:
                layers |= {f"bn{i}": nn.BatchNorm2d(width)} if norm else {}
                layers[f"relu{i}"] = nn.ReLU()
            in_channels, window = width, (1, 1, 0)
        super().__init__(layers)


def halve(pool: str, padded: bool) -> nn.Module:
    """Return pooling over windows of 3x3 with stride 2.

    Args:
        pool: "max" or "average".
        padded: begin a pixel outside the map, (H, W) -> (ceil(H / 2), ceil(W / 2));
            else in its corner, as the authors do, and the last window may reach over
            the edge, (H, W) -> (H // 2, W // 2).
    """
    kinds = dict(max=nn.MaxPool2d, average=nn.AvgPool2d)
    edge = dict(padding=1) if padded else dict(ceil_mode=True)
    return kinds[pool](kernel_size=3, stride=2, **edge)


def init_he(network: nn.Module) -> None:
    """Draw weights by He's rule for layers before a ReLU; biases begin at zero."""
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)


def make_features(
    in_channels: int,
    widths: list[tuple[int, ...]],
    windows: list[tuple[int, int, int]],
    between: list[tuple[str, float]],
    padded: bool,
    norm: bool,
    rectified: bool,
) -> nn.Sequential:
    """Return the blocks, with pooling and dropout between them: images to class maps.

    Args:
        widths, windows: of each block; windows are (kernel, stride, padding).
        between: (pool, dropout) behind each block but the last.
        padded, norm, rectified: as in `halve` and, the last block's, in `MlpConv`.
    """
    layers = OrderedDict()
    for i, (outputs, window) in enumerate(zip(widths, windows, strict=True), start=1):
        options = norm, rectified or i <= len(between)
        layers[f"mlpconv{i}"] = MlpConv(in_channels, outputs, *window, *options)
        if i <= len(between):
            pool, dropout = between[i - 1]
            layers[f"pool{i}"] = halve(pool, padded)
            layers[f"drop{i}"] = nn.Dropout(dropout)
        in_channels = outputs[-1]
    return nn.Sequential(layers)


class NiN(nn.Module):
    """Network in Network (Lin et al. 2013): (B, C, H, W) -> (B, num_classes).

    Args:
        widths: channels of each block's convolutions; the last gets the class maps, too.
        kernels: of the first convolution in each block but the first.
        pools, dropout: "max" or "average", and a probability, behind each but the last.
        padded, norm, rectified: as in `make_features`.
        stem: "imagenet" (11x11, stride 4) or "cifar" (5x5, stride 1) for 32 pixels.
    """

    def __init__(
        self,
        widths: tuple = ((96,) * 3, (256,) * 3, (384,) * 3, (1024, 1024)),
        kernels: tuple[int, ...] = (5, 3, 3),
        pools: tuple[str, ...] = ("max", "max", "max"),
        dropout: tuple[float, ...] = (0.0, 0.0, 0.5),
        padded: bool = False,
        norm: bool = False,
        rectified: bool = True,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        k, s, p = by_stem(stem, imagenet=(11, 4, 0), cifar=(5, 1, 2))
        windows = [(k, s, p), *((side, 1, side // 2) for side in kernels)]
        widths = [*widths[:-1], (*widths[-1], num_classes)]
        options = list(zip(pools, dropout, strict=True)), padded, norm, rectified
        self.features = make_features(in_channels, widths, windows, *options)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.least = (2 ** len(pools) - 1) * s + k - 2 * p  # pixels
        init_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        maps = self.features(x)  # (B, num_classes, h, w), the class maps
        return self.average(maps).flatten(1)  # (B, num_classes)


NIN_CIFAR = dict(
    widths=((192, 160, 96), (192, 192, 192), (192, 192)),
    kernels=(5, 3),
    pools=("max", "max"),
    dropout=(0.5, 0.5),
    stem="cifar",
)
register(NiN, {"nin": {}}, image_size=224)
register(NiN, {"nin_cifar": NIN_CIFAR}, image_size=32)
