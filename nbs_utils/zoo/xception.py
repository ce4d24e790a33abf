# Written by `nbs export` from chapters/residual/xception.ipynb; edit the chapter, not this file.
"""Xception (2016), as its chapter builds it."""

from collections import OrderedDict
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.googlenet import ConvNormAct
from nbs_utils.zoo.inception_v3 import scaled
from nbs_utils.zoo.resnet import make_shortcut


class SeparableConv2d(nn.Sequential):
    """A depthwise convolution, then a pointwise one, with nothing between them.

    The parts are called `depthwise` and `pointwise`; neither has a bias.

    Args:
        in_channels, out_channels: of the pair.
        kernel_size, stride, padding: of the depthwise part. None pads half of the
            kernel, so that with stride 1 and an odd kernel the map keeps its size.
        depth_multiplier: filters for each input channel.
        act: makes an activation between the two, called `act`; None for none.

    Shape: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int = 3,
        stride: int = 1, padding: int | None = None, depth_multiplier: int = 1,
        act: Callable[[], nn.Module] | None = None,
    ) -> None:  # fmt: skip
        padding = kernel_size // 2 if padding is None else padding
        filtered = depth_multiplier * in_channels
        shape = (in_channels, filtered, kernel_size, stride, padding)
        depthwise = nn.Conv2d(*shape, groups=in_channels, bias=False)
        parts = OrderedDict(depthwise=depthwise)  # (B, m C_in, H / s, W / s)
        if act is not None:
            parts["act"] = act()
        parts["pointwise"] = nn.Conv2d(filtered, out_channels, 1, bias=False)
        super().__init__(parts)


class XceptionModule(nn.Module):
    """Separable convolutions in a row, around which the input is added.

    Each is preceded by a ReLU and followed by a batch norm.

    Args:
        *widths: channels of the input, then those behind each convolution.
        stride: 2 ends the row with a max pooling that halves the map.
        first_relu: False leaves out the first ReLU, behind a layer that ends in one.

    Shape: (B, widths[0], H, W) -> (B, widths[-1], H / stride, W / stride).
    """

    def __init__(self, *widths: int, stride: int = 1, first_relu: bool = True) -> None:
        super().__init__()
        self.shortcut = make_shortcut("B", widths[0], widths[-1], stride)
        layers = []
        for c_in, c_out in pairwise(widths):
            layers += [nn.ReLU(), SeparableConv2d(c_in, c_out), nn.BatchNorm2d(c_out)]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, padding=1))
        self.residual = nn.Sequential(*(layers if first_relu else layers[1:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.residual(x) + self.shortcut(x)  # (B, widths[-1], H / s, W / s)


def make_stem(kind: str, in_channels: int, c1: int, c2: int) -> nn.Sequential:
    """Return the two ordinary convolutions of the first module.

    Args:
        kind: "imagenet" (unpadded, the first with stride 2), or "cifar" for images of
            about 32 pixels (padded, no stride).
        in_channels: of the images.
        c1, c2: channels of the two.
    """
    stride, padding = by_stem(kind, imagenet=(2, 0), cifar=(1, 1))
    options = {"padding": padding, "norm": nn.BatchNorm2d}
    return nn.Sequential(
        ConvNormAct(in_channels, c1, 3, stride, **options),  # (B, 32, 149, 149)
        ConvNormAct(c1, c2, 3, **options),  # (B, 64, 147, 147)
    )


def make_end(*widths: int) -> nn.Sequential:
    """Return the last module: separable convolutions, each with norm and ReLU."""
    layers = []
    for c_in, c_out in pairwise(widths):
        layers += [SeparableConv2d(c_in, c_out), nn.BatchNorm2d(c_out), nn.ReLU()]
    return nn.Sequential(*layers)


def initialize(network: nn.Module) -> None:
    """Draw the initial weights: variance 1 / 9 in depthwise layers, else He et al.

    The classifier keeps PyTorch's default.

    Args:
        network: changed in place.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):  # fan-in; of a depthwise layer K²
            kind = "linear" if layer.groups > 1 else "relu"
            nn.init.kaiming_normal_(layer.weight, nonlinearity=kind)


class Xception(nn.Sequential):
    """Xception (Chollet, 2017): (B, C, H, W) -> (B, num_classes).

    Args:
        width: multiplies all numbers of channels; see `scaled` of Inception v3.
        middle: modules of the middle flow.
        dropout: probability, in front of the classifier.
        stem, in_channels: see `make_stem`.
        num_classes: number of outputs.
    """

    def __init__(
        self, width: float = 1.0, middle: int = 8, dropout: float = 0.5,
        stem: str = "imagenet", num_classes: int = 1000, in_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()
        self.least = by_stem(stem, imagenet=7, cifar=1)  # one place behind the stem
        channels = (32, 64, 128, 256, 728, 1024, 1536, 2048)
        c1, c2, c3, c4, c5, c6, c7, c8 = (scaled(c, width) for c in channels)
        self.entry_flow = nn.Sequential(
            make_stem(stem, in_channels, c1, c2),  # (B, 64, 147, 147)
            XceptionModule(c2, c3, c3, stride=2, first_relu=False),  # (B, 128, 74, 74)
            XceptionModule(c3, c4, c4, stride=2),  # (B, 256, 37, 37)
            XceptionModule(c4, c5, c5, stride=2),  # (B, 728, 19, 19)
        )
        self.middle_flow = nn.Sequential(
            *(XceptionModule(c5, c5, c5, c5) for _ in range(middle))
        )
        self.exit_flow = nn.Sequential(
            XceptionModule(c5, c5, c6, stride=2),  # (B, 1024, 10, 10)
            make_end(c6, c7, c8),  # (B, 2048, 10, 10)
        )
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 2048)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(c8, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        return super().forward(x)


MINI = {"width": 0.25, "middle": 4, "dropout": 0.0}  # this book's
register(Xception, {"xception": {}}, image_size=299)
register(Xception, {"xception_mini": MINI}, image_size=128)
