# Written by `nbs export` from chapters/efficient/mobilenet-v2.ipynb; edit the chapter, not this file.
"""MobileNet v2 (2018), as its chapter builds it."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct
from nbs_utils.zoo.resnet import initialize, make_stage
from nbs_utils.zoo.swin import StochasticDepth


class InvertedResidual(nn.Module):
    """Widen with a 1x1 convolution, filter every channel, narrow, add the input.

    Args:
        in_channels, out_channels: of the narrow ends.
        stride, kernel_size: of the depthwise convolution.
        expand_ratio: t; the middle has t * in_channels channels. 1 widens nothing.
        activation, norm, gate: make an activation and, from a number of channels, a
            norm and what acts on the wide middle before it is narrowed.
        linear, shortcut: no activation at the end; add the input where shapes agree.
        drop_path: rate of the stochastic depth, where the input is added.
    """

    expansion = 1  # as in ResNet: channels of the output over `out_channels`

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1,
        expand_ratio: float = 6, kernel_size: int = 3, drop_path: float = 0.0,
        activation: Callable[[], nn.Module] = nn.ReLU6, linear: bool = True,
        norm: Callable[[int], nn.Module] = nn.BatchNorm2d, shortcut: bool = True,
        gate: Callable[[int], nn.Module] | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        wide = round(expand_ratio * in_channels)
        layer = partial(ConvNormAct, norm=norm, act=activation)
        parts = OrderedDict()
        if wide != in_channels:
            parts["expand"] = layer(in_channels, wide, 1)
        parts["depthwise"] = layer(wide, wide, kernel_size, stride, groups=wide)
        if gate is not None:
            parts["gate"] = gate(wide)
        act = None if linear else activation
        parts["project"] = ConvNormAct(wide, out_channels, 1, norm=norm, act=act)
        self.branch = nn.Sequential(parts)
        self.shortcut = shortcut and stride == 1 and in_channels == out_channels
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.branch(x)  # (B, C_out, H / s, W / s)
        return x + self.drop_path(y) if self.shortcut else y


def round_channels(value: float, divisor: int = 8) -> int:
    """Return the multiple of `divisor` nearest to `value`, never 0.

    Halves go up, and so does what would lose more than a tenth.
    """
    rounded = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * value else rounded


# t, c, n, s of each stage: expansion, channels, blocks, stride of the first block
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def make_stages(
    stages: tuple[tuple[int, ...], ...], channels: int, width: float, stem: str,
    **options,
) -> tuple[OrderedDict, int]:  # fmt: skip
    """Return the stages by name, and the channels behind the last one.

    Args:
        channels: behind the stem.
        stages, width, stem, **options: see `MobileNetV2`.
    """
    made = OrderedDict()
    for i, (t, c, n, s) in enumerate(stages, start=1):
        out_channels = round_channels(c * width)
        stride = 1 if i == 2 and stem == "cifar" else s
        shape = (n, channels, out_channels, stride)
        made[f"bottleneck{i}"] = make_stage(
            InvertedResidual, *shape, expand_ratio=t, **options
        )
        channels = out_channels
    return made, channels


class MobileNetV2(nn.Sequential):
    """A stem, stages of inverted residuals, a classifier (Sandler et al., 2018).

    Args:
        width: multiplies the channels, which are then rounded to multiples of 8;
            below 1 the last convolution keeps its own.
        stages: t, c, n and s for each stage, as in the paper's Table 2.
        stem: "imagenet", or "cifar" for images of about 32 pixels: no stride in the
            first convolution and in the second stage.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        dropout: share of the features that is dropped before the classifier.
        activation, **options: for every block, for example linear=False.
    """

    def __init__(
        self, width: float = 1.0, stages: tuple[tuple[int, ...], ...] = STAGES,
        stem: str = "imagenet", num_classes: int = 1000, in_channels: int = 3,
        dropout: float = 0.2, activation: Callable[[], nn.Module] = nn.ReLU6,
        **options,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        conv = partial(ConvNormAct, norm=nn.BatchNorm2d, act=activation)
        channels = round_channels(32 * width)
        stride = by_stem(stem, imagenet=2, cifar=1)
        self.conv1 = conv(in_channels, channels, 3, stride)  # (B, 32, 112, 112)
        options["activation"] = activation
        made, channels = make_stages(stages, channels, width, stem, **options)
        for name, stage in made.items():
            self.add_module(name, stage)  # (B, 16, 112, 112) to (B, 320, 7, 7)
        wide = round_channels(1280 * max(1.0, width))
        self.conv2 = conv(channels, wide, 1)  # (B, 1280, 7, 7)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1280)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(wide, num_classes)  # (B, num_classes)
        initialize(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


WIDTHS = {
    "mobilenet_v2_x0_35": 0.35,
    "mobilenet_v2_x0_5": 0.5,
    "mobilenet_v2_x0_75": 0.75,
    "mobilenet_v2": 1.0,
    "mobilenet_v2_x1_3": 1.3,
    "mobilenet_v2_x1_4": 1.4,
}
register(MobileNetV2, {name: {"width": width} for name, width in WIDTHS.items()})
