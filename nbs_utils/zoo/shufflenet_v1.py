# Written by `nbs export` from chapters/efficient/shufflenet-v1.ipynb; edit the chapter, not this file.
"""ShuffleNet v1 (2017), as its chapter builds it."""

from functools import partial

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct, initialize


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Deal the channels of all groups out in turn (Zhang et al., 2018).

    The channel at place a of group i, of n channels each, goes from position i n + a to
    a G + i. With one group, or one channel in each, nothing moves.

    Args:
        x: (B, C, H, W).
        groups: G, a divisor of C.

    Returns:
        (B, C, H, W), the same channels in another order.
    """
    x = x.unflatten(1, (groups, -1))  # (B, G, n, H, W)
    return x.transpose(1, 2).flatten(1, 2)  # (B, n, G, H, W), then (B, C, H, W)


class ShuffleUnit(nn.Module):
    """A bottleneck of grouped 1x1 convolutions and a shuffle (Zhang et al., 2018).

    Args:
        in_channels, out_channels: of the unit; with stride 1 they are equal.
        groups: G of both 1x1 convolutions and of the shuffle.
        stride: 1 adds the input, 2 halves the map and concatenates the averaged input.
        first_groups: of the first 1x1 convolution, where it has others.
        shuffle: False leaves every channel in its place.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride).

    Raises:
        ValueError: the channels of a layer do not make whole groups.
    """

    def __init__(
        self, in_channels: int, out_channels: int, groups: int, stride: int = 1,
        first_groups: int | None = None, shuffle: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        neck, conv = out_channels // 4, partial(ConvNormAct, norm=nn.BatchNorm2d)
        added = out_channels - in_channels if stride == 2 else out_channels
        if neck % groups or added % groups:
            raise ValueError(
                f"A unit of {out_channels} channels has a neck of {neck} and computes "
                f"{added}, and these do not make {groups} groups."
            )
        self.shuffled = groups if shuffle else 1
        self.compress = conv(in_channels, neck, 1, groups=first_groups or groups)
        self.depthwise = conv(neck, neck, 3, stride, groups=neck, act=None)
        self.expand = conv(neck, added, 1, groups=groups, act=None)
        self.pool = nn.AvgPool2d(3, stride=2, padding=1) if stride == 2 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        branch = channel_shuffle(self.compress(x), self.shuffled)  # (B, m, H, W)
        branch = self.expand(self.depthwise(branch))
        if self.pool is None:
            return (x + branch).relu()
        return torch.cat((branch, self.pool(x)), dim=1).relu()


class ShuffleNet(nn.Sequential):
    """A stem and three stages of ShuffleNet units (Zhang et al., 2018).

    Args:
        groups: of the units' 1x1 convolutions.
        channels: of the first stage, called stage2; each further stage has twice as many.
        stem_channels: of the 3x3 convolution in front.
        depths: number of units in each stage.
        stem: "imagenet" (stride 2, then pooling) or "cifar" (neither).
        num_classes, in_channels: numbers of outputs and of the images' channels.
        shuffle: see `ShuffleUnit`.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(
        self, groups: int, channels: int, stem_channels: int = 24,
        depths: tuple[int, ...] = (4, 8, 4), stem: str = "imagenet",
        num_classes: int = 1000, in_channels: int = 3, shuffle: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        stride = by_stem(stem, imagenet=2, cifar=1)
        self.conv1 = ConvNormAct(
            in_channels, stem_channels, 3, stride, norm=nn.BatchNorm2d
        )  # (B, 24, 112, 112)
        if stem == "imagenet":
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (B, 24, 56, 56)
        width, first_groups = stem_channels, 1
        for i, depth in enumerate(depths):
            units = []
            for j in range(depth):  # G = 3: (B, 240, 28, 28), (B, 480, 14, 14), ...
                shape = (width, channels * 2**i, groups, 2 if j == 0 else 1)
                units.append(ShuffleUnit(*shape, first_groups, shuffle))
                width, first_groups = channels * 2**i, None
            self.add_module(f"stage{i + 2}", nn.Sequential(*units))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 960)
        self.fc = nn.Linear(width, num_classes)
        initialize(self)


STAGE2 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}  # groups -> channels, Table 1
HALF = {1: (72, 12), 3: (120, 12), 4: (144, 12), 8: (192, 16)}  # and of the stem
NAME = "shufflenet_v1_x{}_g{}"
VARIANTS = {
    NAME.format("1_0", g): {"groups": g, "channels": c} for g, c in STAGE2.items()
}
VARIANTS |= {
    NAME.format("0_5", g): {"groups": g, "channels": c, "stem_channels": stem}
    for g, (c, stem) in HALF.items()
}
VARIANTS |= {
    NAME.format("1_5", 3): {"groups": 3, "channels": 360},
    NAME.format("2_0", 3): {"groups": 3, "channels": 480, "stem_channels": 48},
}
register(ShuffleNet, VARIANTS, image_size=224)
