# Written by `nbs export` from chapters/residual/resnext.ipynb; edit the chapter, not this file.
"""ResNeXt (2016), as its chapter builds it."""

from torch import nn

from nbs_utils.zoo import register
from nbs_utils.zoo.resnet import ResidualBlock, ResNet, conv_bn, make_shortcut


class GroupedBottleneck(ResidualBlock):
    """A bottleneck whose 3x3 convolution works in groups (Xie et al., 2017).

    Args:
        in_channels: channels of the input.
        channels: an `expansion`-th of the channels of the output.
        stride: of the 3x3 convolution.
        shortcut: "A", "B", "C" or "none"; see `make_shortcut`.
        cardinality: number of groups.
        base_width: a group has `channels * base_width / 64` channels, rounded down.

    Raises:
        ValueError: the groups would have less than one channel.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, shortcut: str = "B",
        cardinality: int = 32, base_width: int = 4,
    ) -> None:  # fmt: skip
        neck = cardinality * (channels * base_width // 64)
        if neck < 1:
            raise ValueError(
                f"{cardinality} groups of {channels} * {base_width} / 64 channels are "
                "none; choose a larger base_width or more channels."
            )
        out_channels = self.expansion * channels
        grouped = nn.Conv2d(neck, neck, 3, stride, 1, groups=cardinality, bias=False)
        residual = nn.Sequential(
            *conv_bn(in_channels, neck, 1),
            nn.ReLU(),
            *(grouped, nn.BatchNorm2d(neck)),
            nn.ReLU(),
            *conv_bn(neck, out_channels, 1),
        )
        way = make_shortcut(shortcut, in_channels, out_channels, stride)
        super().__init__(residual, way)


class ResNeXt(ResNet):
    """A residual network of grouped bottlenecks (Xie et al., 2017).

    Args:
        depths, widths: number of blocks and their `channels`, for each stage.
        cardinality, base_width: see `GroupedBottleneck`.
        block: class of the blocks.
        stem, num_classes, in_channels, zero_init_gamma: see `ResNet`.
        shortcut: see `make_shortcut`.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(
        self, depths: tuple[int, ...], widths: tuple[int, ...] = (64, 128, 256, 512),
        cardinality: int = 32, base_width: int = 4,
        block: type[ResidualBlock] = GroupedBottleneck, stem: str = "imagenet",
        num_classes: int = 1000, in_channels: int = 3,
        zero_init_gamma: bool = False, shortcut: str = "B",
    ) -> None:  # fmt: skip
        super().__init__(
            *(block, depths, widths, stem, num_classes, in_channels, zero_init_gamma),
            shortcut=shortcut, cardinality=cardinality, base_width=base_width,
        )  # fmt: skip


IMAGENET = {
    "resnext50_32x4d": {"depths": (3, 4, 6, 3)},
    "resnext101_32x4d": {"depths": (3, 4, 23, 3)},
    "resnext101_32x8d": {"depths": (3, 4, 23, 3), "base_width": 8},  # not in the paper
    "resnext101_64x4d": {"depths": (3, 4, 23, 3), "cardinality": 64},
}
SMALL = {"depths": (3, 3, 3), "widths": (64, 128, 256), "stem": "cifar"}
CIFAR = {
    "resnext29_8x64d": SMALL | {"cardinality": 8, "base_width": 64},
    "resnext29_16x64d": SMALL | {"cardinality": 16, "base_width": 64},
    "resnext29_32x4d": SMALL,  # not in the paper
}
MINI = {"depths": (2, 2, 2, 2), "widths": (16, 32, 64, 128)}  # this book's
register(ResNeXt, IMAGENET, image_size=224)
register(ResNeXt, {"resnext26_mini": MINI | {"cardinality": 8, "base_width": 16}})
register(ResNeXt, CIFAR, image_size=32)
