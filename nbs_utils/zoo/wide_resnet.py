# Written by `nbs export` from chapters/residual/wide-resnet.ipynb; edit the chapter, not this file.
"""Wide ResNet (2016), as its chapter builds it."""

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.resnet import (
    ResidualBlock,
    ResNet,
    conv_bn,
    initialize,
    make_shortcut,
    make_stage,
)


def conv(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> nn.Conv2d:
    """Return a convolution without bias that keeps the map, or divides it by stride."""
    padding = kernel_size // 2
    return nn.Conv2d(
        in_channels, out_channels, kernel_size, stride, padding, bias=False
    )


def bn_relu(channels: int) -> tuple[nn.BatchNorm2d, nn.ReLU]:
    """Return what stands in front of each convolution of a pre-activation block."""
    return nn.BatchNorm2d(channels), nn.ReLU()


class PreActBlock(nn.Module):
    """shortcut + F(relu(bn(x))), and nothing behind the sum (He et al., 2016b).

    Args:
        residual: the function F; it begins and ends with a convolution.
        in_channels, out_channels, stride: of the block. Where they change the shape,
            a 1x1 convolution of the activated input is the shortcut, else x itself.
    """

    def __init__(
        self, residual: nn.Sequential, in_channels: int, out_channels: int, stride: int
    ) -> None:
        super().__init__()
        same_shape = in_channels == out_channels and stride == 1
        self.activation = nn.Sequential(*bn_relu(in_channels))
        self.residual = residual
        self.shortcut = (
            None if same_shape else conv(in_channels, out_channels, 1, stride)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        activated = self.activation(x)  # (B, C_in, H, W)
        shortcut = x if self.shortcut is None else self.shortcut(activated)
        return shortcut + self.residual(activated)  # (B, C_out, H / s, W / s)


class PreActBasic(PreActBlock):
    """Two 3x3 convolutions in pre-activation order.

    Args:
        in_channels: channels of the input.
        channels: of both convolutions, and of the output.
        stride: of the first convolution.
        dropout: probability of silencing a number in front of the second convolution.
    """

    expansion = 1  # channels of the output = expansion * channels

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, dropout: float = 0.0
    ) -> None:
        residual = nn.Sequential(
            conv(in_channels, channels, 3, stride),
            *bn_relu(channels),
            nn.Dropout(dropout),
            conv(channels, channels, 3),
        )
        super().__init__(residual, in_channels, channels, stride)


class PreActBottleneck(PreActBlock):
    """A 1x1, a 3x3 and a 1x1 convolution in pre-activation order.

    Args:
        in_channels: channels of the input.
        channels: of the 3x3 convolution; the output has `expansion` times as many.
        stride: of the convolution that `stride_on` names.
        stride_on: "3x3", or "1x1" as in the authors' code.

    Raises:
        ValueError: `stride_on` is neither.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, stride_on: str = "3x3"
    ) -> None:
        if stride_on not in ("1x1", "3x3"):
            raise ValueError(f"stride_on is {stride_on!r}; it must be '1x1' or '3x3'.")
        reduce, work = (stride, 1) if stride_on == "1x1" else (1, stride)
        out_channels = self.expansion * channels
        residual = nn.Sequential(
            conv(in_channels, channels, 1, reduce),
            *bn_relu(channels),
            conv(channels, channels, 3, work),
            *bn_relu(channels),
            conv(channels, out_channels, 1),
        )
        super().__init__(residual, in_channels, out_channels, stride)


class WideBottleneck(ResidualBlock):
    """The bottleneck of 2015 with `widen` times as many channels inside.

    Args:
        in_channels: channels of the input.
        channels: of the 3x3 convolution, before widening; the output has four times
            as many, however wide the block is inside.
        stride: of the 3x3 convolution.
        widen: the factor of the inner channels.
    """

    expansion = 4

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, widen: int = 2
    ) -> None:
        inner, out_channels = widen * channels, self.expansion * channels
        residual = nn.Sequential(
            *conv_bn(in_channels, inner, 1),
            nn.ReLU(),
            *conv_bn(inner, inner, 3, stride),
            nn.ReLU(),
            *conv_bn(inner, out_channels, 1),
        )
        super().__init__(
            residual, make_shortcut("B", in_channels, out_channels, stride)
        )


class PreActResNet(nn.Sequential):
    """Stages of pre-activation blocks between a stem and a linear classifier.

    Args:
        block: class of the blocks, `PreActBasic` or `PreActBottleneck`.
        depths, widths: number of blocks and their `channels`, for each stage.
        stem: "imagenet" (7x7, stride 2, and a pooling) or "cifar" (3x3).
        stem_width: channels of the stem; by default those of the first stage.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        **options: passed on to every block, for example dropout=0.3.
    """

    def __init__(
        self,
        block: type[PreActBlock],
        depths: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stem: str = "imagenet",
        stem_width: int | None = None,
        num_classes: int = 1000,
        in_channels: int = 3,
        **options,
    ) -> None:
        super().__init__()  # input (B, 3, 32, 32)
        channels = stem_width or widths[0]
        kernel_size, stride = by_stem(stem, imagenet=(7, 2), cifar=(3, 1))
        self.conv1 = conv(in_channels, channels, kernel_size, stride)  # (B, 16, 32, 32)
        for i, (depth, width) in enumerate(zip(depths, widths)):
            stride = 1 if i == 0 else 2
            stage = make_stage(block, depth, channels, width, stride, **options)
            if i == 0 and stem == "imagenet":
                stage.insert(0, nn.MaxPool2d(3, stride=2, padding=1))
            # (B, 160, 32, 32), (B, 320, 16, 16), (B, 640, 8, 8)
            self.add_module(f"conv{i + 2}_x", stage)
            channels = block.expansion * width
        self.norm = nn.Sequential(*bn_relu(channels))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 640)
        self.fc = nn.Linear(channels, num_classes)  # (B, num_classes)
        initialize(self)
        nn.init.zeros_(self.fc.bias)


def wide(depth: int, k: int) -> dict:
    """Return the options of WRN-`depth`-`k`: three stages of (depth - 4) / 6 blocks."""
    return {
        "block": PreActBasic,
        "depths": ((depth - 4) // 6,) * 3,
        "widths": (16 * k, 32 * k, 64 * k),
        "stem": "cifar",
        "stem_width": 16,
    }


DEPTHS = {16: (4, 8, 10), 22: (8, 10), 28: (10, 12), 40: (1, 2, 4, 8)}
WIDE = {f"wrn_{d}_{k}": wide(d, k) for d, factors in DEPTHS.items() for k in factors}


def thin(block: type[PreActBlock], n: int) -> dict:
    """Return the options of a thin network for CIFAR: three stages of n blocks."""
    return {
        "block": block,
        "depths": (n, n, n),
        "widths": (16, 32, 64),
        "stem": "cifar",
    }


THIN = {f"cifar_preact_resnet{6 * n + 2}": thin(PreActBasic, n) for n in (3, 9, 18)} | {
    f"cifar_preact_resnet{9 * n + 2}": thin(PreActBottleneck, n) for n in (18, 111)
}


IMAGENET = {
    "preact_resnet18": {"block": PreActBasic, "depths": (2, 2, 2, 2)},
    "preact_resnet34": {"block": PreActBasic, "depths": (3, 4, 6, 3)},
    "preact_resnet50": {"block": PreActBottleneck, "depths": (3, 4, 6, 3)},
    "preact_resnet101": {"block": PreActBottleneck, "depths": (3, 4, 23, 3)},
    "preact_resnet152": {"block": PreActBottleneck, "depths": (3, 8, 36, 3)},
    "preact_resnet200": {"block": PreActBottleneck, "depths": (3, 24, 36, 3)},
}
POST_ACTIVATION = {
    "wide_resnet50_2": {"block": WideBottleneck, "depths": (3, 4, 6, 3)},
    "wide_resnet101_2": {"block": WideBottleneck, "depths": (3, 4, 23, 3)},
}
register(PreActResNet, WIDE | THIN, image_size=32)
register(PreActResNet, IMAGENET, image_size=224)
register(ResNet, POST_ACTIVATION, image_size=224)
