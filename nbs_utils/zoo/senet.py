# Written by `nbs export` from chapters/residual/senet.ipynb; edit the chapter, not this file.
"""SENet (2017), as its chapter builds it."""

import torch
from torch import nn

from nbs_utils.zoo import register
from nbs_utils.zoo.resnet import (
    Bottleneck,
    ResidualBlock,
    conv_bn,
    initialize,
    make_stage,
    make_stem,
)
from nbs_utils.zoo.resnext import GroupedBottleneck


class SqueezeExcite(nn.Module):
    """Multiply each channel by a gate computed from all channels' means (Hu et al.).

    Args:
        channels: C of the map.
        reduced: width of the hidden layer, C / r.
        activation: class of the activation behind the hidden layer.
        gate: class of the function that makes the gates.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Raises:
        ValueError: the hidden layer would have no channel.
    """

    def __init__(
        self, channels: int, reduced: int, activation: type[nn.Module] = nn.ReLU,
        gate: type[nn.Module] = nn.Sigmoid,
    ) -> None:  # fmt: skip
        super().__init__()
        if reduced < 1:
            raise ValueError(
                f"The hidden layer of a gate for {channels} channels has {reduced}; "
                "it needs at least one. Choose a smaller reduction."
            )
        self.reduce = nn.Conv2d(channels, reduced, 1)
        self.activation = activation()
        self.expand = nn.Conv2d(reduced, channels, 1)
        self.gate = gate()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = x.mean(dim=(2, 3), keepdim=True)  # squeeze: (B, C, 1, 1)
        hidden = self.activation(self.reduce(means))  # (B, reduced, 1, 1)
        gates = self.gate(self.expand(hidden))  # excitation: (B, C, 1, 1)
        return x * gates  # scale: (B, C, H, W)


def gate_for(channels: int, reduction: int) -> SqueezeExcite:
    """Return the gates at the end of a branch with so many channels."""
    return SqueezeExcite(channels, channels // reduction)


class SEBottleneck(Bottleneck):
    """ResNet's bottleneck with gates at the end of its branch.

    Args:
        in_channels, channels, stride, **options: see `Bottleneck`.
        reduction: channels of the output over the width of the hidden layer.
    """

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, reduction: int = 16,
        **options,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, channels, stride, **options)
        self.residual.append(gate_for(self.expansion * channels, reduction))


class SEGroupedBottleneck(GroupedBottleneck):
    """ResNeXt's bottleneck with gates at the end of its branch; see `SEBottleneck`."""

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, reduction: int = 16,
        **options,
    ) -> None:  # fmt: skip
        super().__init__(in_channels, channels, stride, **options)
        self.residual.append(gate_for(self.expansion * channels, reduction))


class SENet154Block(ResidualBlock):
    """The block of SENet-154: a first 1x1 of half the width, a 3x3 on the shortcut.

    Args:
        in_channels: channels of the input.
        channels: a quarter of the channels of the output, and of the neck.
        stride: of the 3x3 convolution in groups, and of the shortcut.
        reduction: see `SEBottleneck`.
        cardinality: number of groups.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, reduction: int = 16,
        cardinality: int = 64,
    ) -> None:  # fmt: skip
        half, neck, out_channels = 2 * channels, 4 * channels, 4 * channels
        grouped = nn.Conv2d(half, neck, 3, stride, 1, groups=cardinality, bias=False)
        residual = nn.Sequential(
            *conv_bn(in_channels, half, 1),
            nn.ReLU(),
            *(grouped, nn.BatchNorm2d(neck)),
            nn.ReLU(),
            *conv_bn(neck, out_channels, 1),
            gate_for(out_channels, reduction),
        )
        shortcut = nn.Identity()
        if stride > 1 or in_channels != out_channels:
            kernel_size = 3 if stride > 1 else 1
            shortcut = nn.Sequential(
                *conv_bn(in_channels, out_channels, kernel_size, stride)
            )
        super().__init__(residual, shortcut)


def stem_of(
    kind: str, in_channels: int, width: int
) -> tuple[nn.Sequential, list[nn.Module], int]:
    """Return the first layers, the pooling behind them (if any) and their channels.

    Args:
        kind: "imagenet" or "cifar", as in `make_stem`, or "deep" as in SENet-154.
        in_channels: channels of the images.
        width: channels of the stem; a deep one ends with twice as many.
    """
    if kind != "deep":
        pool = [nn.MaxPool2d(3, stride=2, padding=1)] if kind == "imagenet" else []
        return make_stem(kind, in_channels, width), pool, width
    stem = nn.Sequential(
        *(*conv_bn(in_channels, width, 3, 2), nn.ReLU()),
        *(*conv_bn(width, width, 3), nn.ReLU()),
        *(*conv_bn(width, 2 * width, 3), nn.ReLU()),
    )
    return stem, [nn.MaxPool2d(3, stride=2, ceil_mode=True)], 2 * width


class SENet(nn.Sequential):
    """A residual network whose blocks gate their channels (Hu et al., 2018).

    Args:
        block: class of the blocks.
        depths, widths: number of blocks and their `channels`, for each stage.
        stem: "imagenet", "cifar" or "deep"; see `stem_of`.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        zero_init_gamma: see `nbs_utils.zoo.resnet.initialize`.
        dropout: share of the features that is dropped before the classifier.
        **options: passed on to every block, for example reduction=16.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(
        self, block: type[ResidualBlock], depths: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512), stem: str = "imagenet",
        num_classes: int = 1000, in_channels: int = 3, zero_init_gamma: bool = False,
        dropout: float = 0.0, **options,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        self.conv1, pool, channels = stem_of(stem, in_channels, widths[0])
        for i, (depth, width) in enumerate(zip(depths, widths)):
            stride = 1 if i == 0 else 2
            stage = make_stage(block, depth, channels, width, stride, **options)
            # (B, 256, 56, 56), (B, 512, 28, 28), (B, 1024, 14, 14), (B, 2048, 7, 7)
            self.add_module(
                f"conv{i + 2}_x", nn.Sequential(*pool, *stage) if i == 0 else stage
            )
            channels = block.expansion * width
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 2048)
        if dropout:
            self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(channels, num_classes)  # (B, num_classes)
        initialize(self)
        for module in self.modules() if zero_init_gamma else ():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.residual[-2].weight)  # [-1] are the gates


FOUR = (3, 4, 6, 3)
IMAGENET = {
    "se_resnet50": {"block": SEBottleneck, "depths": FOUR},
    "se_resnext50_32x4d": {"block": SEGroupedBottleneck, "depths": FOUR},
    "senet154": {
        "block": SENet154Block,
        "depths": (3, 8, 36, 3),
        "stem": "deep",
        "dropout": 0.2,
    },
    "se_resnext26_mini": {  # this book's
        "block": SEGroupedBottleneck,
        "depths": (2, 2, 2, 2),
        "widths": (16, 32, 64, 128),
        "cardinality": 8,
        "base_width": 16,
    },
}
register(SENet, IMAGENET, image_size=224)
