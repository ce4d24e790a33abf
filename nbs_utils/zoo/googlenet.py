# Written by `nbs export` from chapters/classics/googlenet.ipynb; edit the chapter, not this file.
"""GoogLeNet (2014), as its chapter builds it."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.alexnet import LRN

# Channels of the branches: #1x1, #3x3 reduce, #3x3, #5x5 reduce, #5x5, pool proj
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}


class ConvNormAct(nn.Sequential):
    """A convolution, then a normalization where one is given, then an activation.

    The parts are called `conv`, `norm` and `act`. The convolution has a bias exactly
    when no normalization follows, which would subtract it again.

    Args:
        in_channels, out_channels, stride, groups: of the convolution.
        kernel_size: one side, or (height, width).
        padding: None pads half of the kernel, so that with stride 1 and an odd
            kernel the map keeps its size.
        norm, act: make the normalization, from a number of channels, and the
            activation; None for none.

    Shape: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        norm: Callable[[int], nn.Module] | None = None,
        act: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        if padding is None and isinstance(kernel_size, int):
            padding = kernel_size // 2
        elif padding is None:
            padding = tuple(side // 2 for side in kernel_size)
        shape = (in_channels, out_channels, kernel_size, stride, padding)
        conv = nn.Conv2d(*shape, groups=groups, bias=norm is None)
        parts = OrderedDict(conv=conv)
        if norm is not None:
            parts["norm"] = norm(out_channels)
        if act is not None:
            parts["act"] = act()
        super().__init__(parts)


class Inception(nn.Module):
    """Four branches side by side; their channels are concatenated.

    Args:
        in_channels: of the input.
        c1, r3, c3, r5, c5, cp: channels of the 1x1 branch, of the reduction before
            the 3x3, of the 3x3, of the reduction before the 5x5, of the 5x5 and of
            the projection behind the pooling, as in the paper's Table 1.
        large: side of the large kernel, 5 in the paper.
        norm: see `ConvNormAct`.

    Shape: (B, in_channels, H, W) -> (B, c1 + c3 + c5 + cp, H, W).
    """

    def __init__(self, in_channels, c1, r3, c3, r5, c5, cp, large=5, norm=None):
        super().__init__()
        self.out_channels = c1 + c3 + c5 + cp
        conv = partial(ConvNormAct, norm=norm)
        self.branch_1x1 = conv(in_channels, c1, 1)
        self.branch_3x3 = nn.Sequential(conv(in_channels, r3, 1), conv(r3, c3, 3))
        self.branch_5x5 = nn.Sequential(conv(in_channels, r5, 1), conv(r5, c5, large))
        self.branch_pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), conv(in_channels, cp, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branches = (self.branch_1x1, self.branch_3x3, self.branch_5x5, self.branch_pool)
        return torch.cat([branch(x) for branch in branches], dim=1)


def downsample(kernel_size: int = 3) -> nn.MaxPool2d:
    """Return a max pooling with stride 2 that rounds up: 112, 56, 28, 14, 7."""
    return nn.MaxPool2d(kernel_size, stride=2, ceil_mode=True)


def make_stem(
    kind: str, in_channels: int, width: float, norm: Callable[[int], nn.Module] | None
) -> tuple[nn.Sequential, ...]:
    """Return conv1, pool1 and conv2, everything in front of pool2.

    Args:
        kind: "imagenet" (7x7 with stride 2, then pooling) or "cifar" (3x3 with
            stride 1, no pooling).
        in_channels: channels of the images.
        width: multiplies all channels.
        norm: see `ConvNormAct`; None puts local response normalization behind pool1
            and conv2.
    """
    c1, c2 = round(64 * width), round(192 * width)
    kernel_size, stride = by_stem(kind, imagenet=(7, 2), cifar=(3, 1))
    conv1 = ConvNormAct(in_channels, c1, kernel_size, stride, norm=norm)
    pool1 = by_stem(kind, imagenet=[downsample()], cifar=[])
    conv2 = [ConvNormAct(c1, c1, 1, norm=norm), ConvNormAct(c1, c2, 3, norm=norm)]
    if norm is None:  # Caffe's constants; it divides alpha by the 5 channels
        pool1.append(LRN(5, alpha=1e-4 / 5, beta=0.75, k=1.0))
        conv2.append(LRN(5, alpha=1e-4 / 5, beta=0.75, k=1.0))
    return conv1, nn.Sequential(*pool1), nn.Sequential(*conv2)


def initialize(network: nn.Module) -> None:
    """Draw initial weights after He et al. (2015): variance 2 / fan-in, biases zero.

    Layers without a ReLU behind them, the classifiers, begin near zero: N(0, 0.01).
    """
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if name.endswith(("fc", "fc2")):
                nn.init.normal_(layer.weight, std=0.01)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class AuxiliaryHead(nn.Sequential):
    """A small classifier on a map in the middle of the network, used in training.

    Args:
        in_channels: of the map.
        channels, hidden: of the 1x1 convolution; units of the hidden linear layer.
        num_classes: number of outputs.
        window: side of the average pooling in front, 5 in the paper (with stride 3);
            None leaves it out. The map is then brought to 4x4 positions, which changes
            nothing for the paper's images of 224 pixels.
        dropout: probability.
        norm: see `ConvNormAct`.

    Shape: (B, in_channels, H, W) -> (B, num_classes).
    """

    def __init__(
        self, in_channels, channels, hidden, num_classes, window, dropout, norm=None
    ):
        super().__init__()
        if window is not None:
            self.pool = nn.AvgPool2d(window, stride=3)  # (B, C, 4, 4) from 14x14
        self.resize = nn.AdaptiveAvgPool2d(4)
        self.conv = ConvNormAct(in_channels, channels, 1, norm=norm)  # (B, 128, 4, 4)
        self.flatten = nn.Flatten()  # (B, 2048)
        self.fc1 = nn.Linear(16 * channels, hidden)
        self.relu = nn.ReLU()
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)
        initialize(self)


class Trunk(nn.Module):
    """The network without its classifiers: a stem and nine Inception modules.

    Args:
        width: multiplies all numbers of channels.
        norm: see `make_stem`.
        large, last_pool: sides of the large kernels and of pool4's window.
        stem, in_channels: see `make_stem`.

    Shape: (B, C, H, W) -> the maps behind 4a, 4d and 5b.
    """

    def __init__(self, width, norm, large, last_pool, stem, in_channels):
        super().__init__()
        self.conv1, self.pool1, self.conv2 = make_stem(stem, in_channels, width, norm)
        self.pool2, self.pool3, self.pool4 = map(downsample, (3, 3, last_pool))
        channels, self.channels = round(192 * width), {}
        for name, row in MODULES.items():
            module = Inception(channels, *(round(n * width) for n in row), large, norm)
            self.add_module(f"inception_{name}", module)
            channels = self.channels[name] = module.out_channels
        least = 4 * (last_pool - 1)  # the smallest map in front of pool2
        self.least = by_stem(stem, imagenet=4 * least - 1, cifar=least)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        require_side(x, self.least)
        x = self.conv1(x)  # (B, 64, 112, 112)
        x = self.conv2(self.pool1(x))  # (B, 192, 56, 56)
        x = self.inception_3a(self.pool2(x))  # (B, 256, 28, 28)
        x = self.inception_3b(x)  # (B, 480, 28, 28)
        x_4a = self.inception_4a(self.pool3(x))  # (B, 512, 14, 14)
        x = self.inception_4c(self.inception_4b(x_4a))  # (B, 512, 14, 14)
        x_4d = self.inception_4d(x)  # (B, 528, 14, 14)
        x = self.inception_4e(x_4d)  # (B, 832, 14, 14)
        x = self.inception_5a(self.pool4(x))  # (B, 832, 7, 7)
        return x_4a, x_4d, self.inception_5b(x)  # the last is (B, 1024, 7, 7)


class GoogLeNet(Trunk):
    """A stem, nine Inception modules and a linear classifier (Szegedy et al., 2015).

    Args:
        batch_norm: batch norm everywhere instead of LRN in the stem.
        width, large, last_pool, stem, in_channels: see `Trunk`.
        dropout, aux_dropout: probabilities, in front of the classifiers.
        aux: with auxiliary heads; see `AuxiliaryHead` for `aux_window`, which small
            images do without.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet",
        width: float = 1.0, batch_norm: bool = False, large: int = 5,
        last_pool: int = 3, dropout: float = 0.4, aux: bool = False,
        aux_window: int | None = 5, aux_dropout: float = 0.7,
    ) -> None:  # fmt: skip
        norm = partial(nn.BatchNorm2d, eps=1e-3) if batch_norm else None
        super().__init__(width, norm, large, last_pool, stem, in_channels)
        self.pool5 = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(self.channels["5b"], num_classes)
        initialize(self)
        self.aux_4a = self.aux_4d = None
        if aux:  # drawn last, so that the rest begins the same without them
            window = by_stem(stem, imagenet=aux_window, cifar=None)
            sizes = round(128 * width), round(1024 * width), num_classes
            options = (*sizes, window, aux_dropout, norm)
            self.aux_4a = AuxiliaryHead(self.channels["4a"], *options)
            self.aux_4d = AuxiliaryHead(self.channels["4d"], *options)

    def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, ...]:
        x_4a, x_4d, x = super().forward(x)
        logits = self.fc(self.dropout(self.pool5(x)))  # (B, num_classes)
        if self.training and self.aux_4a is not None:
            return logits, self.aux_4a(x_4a), self.aux_4d(x_4d)
        return logits


PAPER = {}
TORCHVISION = {
    "batch_norm": True,
    "large": 3,
    "last_pool": 2,
    "dropout": 0.2,
    "aux_window": None,
}
register(GoogLeNet, {"googlenet": PAPER}, protocol="googlenet_144")
register(GoogLeNet, {"googlenet_tv": TORCHVISION})
