# Written by `nbs export` from chapters/efficient/shufflenet-v2.ipynb; edit the chapter, not this file.
"""ShuffleNet v2 (2018), as its chapter builds it."""

from collections.abc import Sequence

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct
from nbs_utils.zoo.resnet import initialize, make_stage
from nbs_utils.zoo.shufflenet_v1 import channel_shuffle


def pointwise(in_channels: int, out_channels: int) -> ConvNormAct:
    """Return a 1x1 convolution with batch norm and ReLU."""
    return ConvNormAct(in_channels, out_channels, 1, norm=nn.BatchNorm2d)


def depthwise(channels: int, stride: int) -> ConvNormAct:
    """Return a 3x3 convolution of each channel by itself, with no activation."""
    return ConvNormAct(
        channels, channels, 3, stride, groups=channels, norm=nn.BatchNorm2d, act=None
    )


class SplitUnit(nn.Module):
    """Half of the channels pass, a branch computes on the others (Ma et al., 2018).

    Args:
        in_channels, out_channels: of the unit; with stride 1 they are equal.
        stride: 1 splits the input; 2 halves the map, and both branches read it all.
        shuffle: False leaves every channel in its place.

    Shape: (B, in_channels, H, W) -> (B, out_channels, H / stride, W / stride).

    Raises:
        ValueError: the channels cannot be halved, or change without a stride.
    """

    expansion = 1  # as in ResNet

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1,
        shuffle: bool = True,
    ) -> None:  # fmt: skip
        super().__init__()
        if out_channels % 2 or (stride == 1 and in_channels != out_channels):
            raise ValueError(
                f"A unit cannot split {in_channels} channels and return "
                f"{out_channels}: take an even number, the same for both with stride 1."
            )
        half, self.shuffle, self.shortcut = out_channels // 2, shuffle, None
        if stride > 1:
            layers = depthwise(in_channels, stride), pointwise(in_channels, half)
            self.shortcut = nn.Sequential(*layers)
        read = half if stride == 1 else in_channels
        layers = pointwise(read, half), depthwise(half, stride), pointwise(half, half)
        self.branch = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        split = self.shortcut is None  # into two of (B, C / 2, H, W)
        passed, read = x.chunk(2, dim=1) if split else (self.shortcut(x), x)
        x = torch.cat([passed, self.branch(read)], dim=1)  # (B, C_out, H / s, W / s)
        return channel_shuffle(x, 2) if self.shuffle else x


class ShuffleNetV2(nn.Sequential):
    """A stem, three stages of split units, a 1x1 convolution, a classifier.

    Args:
        channels: of the stem, the three stages and the last convolution.
        depths: units of each stage, of which the first has stride 2.
        stem: "imagenet", or "cifar" for images of about 32 pixels: no stride and no
            pooling before the first stage.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        **options: for every unit, for example shuffle=False.
    """

    def __init__(
        self, channels: Sequence[int] = (24, 116, 232, 464, 1024),
        depths: Sequence[int] = (4, 8, 4), stem: str = "imagenet",
        num_classes: int = 1000, in_channels: int = 3, **options,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        before, *stages, last = channels
        stride, norm = by_stem(stem, imagenet=2, cifar=1), nn.BatchNorm2d
        self.conv1 = ConvNormAct(in_channels, before, 3, stride, norm=norm)
        if stem == "imagenet":  # (B, 24, 112, 112) before it
            self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)  # (B, 24, 56, 56)
        for i, (width, depth) in enumerate(zip(stages, depths, strict=True), start=2):
            stage = make_stage(SplitUnit, depth, before, width, 2, **options)
            self.add_module(f"stage{i}", stage)  # (B, 116, 28, 28) to (B, 464, 7, 7)
            before = width
        self.conv5 = ConvNormAct(before, last, 1, norm=norm)  # (B, 1024, 7, 7)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1024)
        self.fc = nn.Linear(last, num_classes)  # (B, num_classes)
        initialize(self)


VARIANTS = {
    "shufflenet_v2_x0_5": (24, 48, 96, 192, 1024),
    "shufflenet_v2_x1_0": (24, 116, 232, 464, 1024),
    "shufflenet_v2_x1_5": (24, 176, 352, 704, 1024),
    "shufflenet_v2_x2_0": (24, 244, 488, 976, 2048),
}
register(
    ShuffleNetV2,
    {name: {"channels": channels} for name, channels in VARIANTS.items()},
    image_size=224,
)
