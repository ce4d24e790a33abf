# Written by `nbs export` from chapters/residual/darknet53.ipynb; edit the chapter, not this file.
"""Darknet-53 (2018), as its chapter builds it."""

from collections import OrderedDict
from functools import partial

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.googlenet import ConvNormAct


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1,
    slope: float = 0.1,
) -> ConvNormAct:  # fmt: skip
    """Return a convolution without bias, its batch norm and a leaky ReLU."""
    shape = (in_channels, out_channels, kernel_size, stride)
    act = partial(nn.LeakyReLU, slope)
    return ConvNormAct(*shape, norm=nn.BatchNorm2d, act=act)


class Pair(nn.Module):
    """A 1x1 and a 3x3 convolution, around which the input may be added.

    Args:
        channels: C of input and output; the 1x1 convolution has half as many.
        shortcut: add the input, as in Darknet-53, or not, as in Darknet-19.
        slope: of the leaky ReLU.

    Shape: (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int, shortcut: bool = True, slope: float = 0.1):
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(channels, half, 1, slope=slope), conv(half, channels, 3, slope=slope)
        )
        self.shortcut = shortcut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)  # (B, C, H, W)
        return x + y if self.shortcut else y


def make_stage(
    in_channels: int, channels: int, depth: int, downsample: str = "conv",
    shortcut: bool = True, slope: float = 0.1,
) -> nn.Sequential:  # fmt: skip
    """Return a convolution to more channels, which halves the map, and pairs.

    Args:
        in_channels, channels: of the stage's input and of its output.
        depth: number of pairs.
        downsample: "conv" (stride 2), "pool" (2x2 max pooling in front of the
            convolution) or "none" (the map keeps its size).
        shortcut, slope: see `Pair`.

    Raises:
        ValueError: `downsample` is none of these.
    """
    if downsample not in ("conv", "pool", "none"):
        raise ValueError(
            f"downsample is {downsample!r}; it must be 'conv', 'pool' or 'none'."
        )
    stride = 2 if downsample == "conv" else 1
    pool = [nn.MaxPool2d(2)] if downsample == "pool" else []
    pairs = [Pair(channels, shortcut, slope) for _ in range(depth)]
    first = conv(in_channels, channels, 3, stride, slope)
    return nn.Sequential(*pool, first, *pairs)


def make_head(channels: int, num_classes: int, scores_first: bool) -> nn.Sequential:
    """Return the classifier, behind the global average or in front of it.

    Args:
        scores_first: a 1x1 convolution gives class scores at every place, which are
            averaged (Darknet-19); else features are averaged (Darknet-53).

    Shape: (B, channels, H, W) -> (B, num_classes).
    """
    pool, flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
    if scores_first:
        scores = nn.Conv2d(channels, num_classes, 1)
        parts = OrderedDict(scores=scores, pool=pool, flatten=flatten)
    else:
        fc = nn.Linear(channels, num_classes)
        parts = OrderedDict(pool=pool, flatten=flatten, fc=fc)
    return nn.Sequential(parts)


def initialize(network: nn.Module) -> None:
    """Draw the initial weights after He et al. (2015); biases begin at zero.

    The classifier, the only layer with a bias, has no activation behind it: variance
    1 / fan-in instead of 2 / fan-in.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            kind = "relu" if layer.bias is None else "linear"
            nn.init.kaiming_normal_(layer.weight, nonlinearity=kind)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


class Darknet(nn.Sequential):
    """Darknet-19 and Darknet-53 (Redmon and Farhadi, 2017 and 2018).

    Args:
        depths: number of pairs in each stage.
        downsample, shortcut, scores_first, slope: see `make_stage` and `make_head`.
        width: multiplies all numbers of channels, which begin with 32.
        stem: "imagenet", or "cifar" for small images.
        num_classes, in_channels: numbers of outputs and of the images' channels.
    """

    def __init__(
        self, depths: tuple[int, ...], downsample: str = "conv", shortcut: bool = True,
        scores_first: bool = False, width: float = 1.0, slope: float = 0.1,
        stem: str = "imagenet", num_classes: int = 1000, in_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 256, 256)
        channels = round(32 * width)
        self.conv1 = conv(in_channels, channels, 3, slope=slope)  # (B, 32, 256, 256)
        whole = by_stem(stem, imagenet=0, cifar=2)  # stages that halve nothing
        for i, depth in enumerate(depths):
            how = "none" if i < whole else downsample
            # (B, 64, 128, 128), (B, 128, 64, 64), (B, 256, 32, 32) and so on
            stage = make_stage(channels, 2 * channels, depth, how, shortcut, slope)
            self.add_module(f"stage{i + 1}", stage)
            channels = 2 * channels
        self.head = make_head(channels, num_classes, scores_first)
        self.least = 2 ** (len(depths) - whole) if downsample == "pool" else 1
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        return super().forward(x)

    def maps(self, x: torch.Tensor) -> list[torch.Tensor]:
        """Return the last three maps, which a detector reads: strides 8, 16 and 32."""
        found = [x]
        for part in list(self.children())[:-1]:
            found.append(part(found[-1]))
        return found[-3:]


DARKNETS = {
    "darknet19": {
        "depths": (0, 1, 1, 2, 2),
        "downsample": "pool",
        "shortcut": False,
        "scores_first": True,
    },
    "darknet53": {"depths": (1, 2, 8, 8, 4)},
    "darknet21_mini": {"depths": (1, 1, 2, 2, 1), "width": 0.5},  # this book's
}
register(Darknet, DARKNETS, image_size=256)
