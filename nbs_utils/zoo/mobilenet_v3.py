# Written by `nbs export` from chapters/efficient/mobilenet-v3.ipynb; edit the chapter, not this file.
"""MobileNet v3 (2019), as its chapter builds it."""

from collections import OrderedDict
from functools import partial

from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct
from nbs_utils.zoo.mobilenet_v2 import InvertedResidual, round_channels
from nbs_utils.zoo.resnet import initialize
from nbs_utils.zoo.senet import SqueezeExcite


def hard_gate(wide: int) -> SqueezeExcite:
    """Return the gates of a wide middle: a quarter of it hidden, hard sigmoids."""
    return SqueezeExcite(wide, round_channels(wide // 4), gate=nn.Hardsigmoid)


ACTIVATIONS = {"RE": nn.ReLU, "HS": nn.Hardswish}

# kernel, expansion size, channels out, squeeze-excite, nonlinearity, stride
LARGE = (
    (3, 16, 16, False, "RE", 1),
    (3, 64, 24, False, "RE", 2),
    (3, 72, 24, False, "RE", 1),
    (5, 72, 40, True, "RE", 2),
    (5, 120, 40, True, "RE", 1),
    (5, 120, 40, True, "RE", 1),
    (3, 240, 80, False, "HS", 2),
    (3, 200, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 184, 80, False, "HS", 1),
    (3, 480, 112, True, "HS", 1),
    (3, 672, 112, True, "HS", 1),
    (5, 672, 160, True, "HS", 2),
    (5, 960, 160, True, "HS", 1),
    (5, 960, 160, True, "HS", 1),
)
SMALL = (
    (3, 16, 16, True, "RE", 2),
    (3, 72, 24, False, "RE", 2),
    (3, 88, 24, False, "RE", 1),
    (5, 96, 40, True, "HS", 2),
    (5, 240, 40, True, "HS", 1),
    (5, 240, 40, True, "HS", 1),
    (5, 120, 48, True, "HS", 1),
    (5, 144, 48, True, "HS", 1),
    (5, 288, 96, True, "HS", 2),
    (5, 576, 96, True, "HS", 1),
    (5, 576, 96, True, "HS", 1),
)


def make_blocks(
    rows: tuple[tuple, ...], channels: int, width: float, stem: str, norm, gate
) -> tuple[OrderedDict, int]:
    """Return the blocks by name, and the channels behind the last one.

    Args:
        rows: see `LARGE`.
        channels: behind the stem.
        width, stem, norm, gate: see `MobileNetV3` and `InvertedResidual`.
    """
    made, narrow = OrderedDict(), 16
    for i, (kernel_size, wide, out, gated, kind, stride) in enumerate(rows, start=1):
        if stride == 2 and stem == "cifar":
            stride, stem = 1, "imagenet"  # only the first one
        block = InvertedResidual(
            channels,
            round_channels(out * width),
            stride,
            expand_ratio=round_channels(channels * wide / narrow) / channels,
            kernel_size=kernel_size,
            activation=ACTIVATIONS[kind],
            norm=norm,
            gate=gate if gated else None,
        )
        made[f"bneck{i}"] = block
        channels, narrow = round_channels(out * width), out
    return made, channels


class MobileNetV3(nn.Sequential):
    """A stem, searched inverted residuals, a head behind the pooling (Howard et al.).

    Args:
        blocks: kernel, expansion size, channels out, squeeze-excite, nonlinearity and
            stride of each block, as in the paper's Tables 1 and 2.
        head: channels behind the pooling; as the stem's 16 not thinned below width 1.
        width: multiplies the other channels, which are rounded to multiples of 8.
        stem: "imagenet", or "cifar" for images of about 32 pixels: no stride in the
            first convolution and in the first block that has one.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        dropout: share of the features that is dropped before the classifier.
        eps, momentum: of the batch norms.
        gate: makes the gates of a block from the channels of its wide middle.
    """

    def __init__(
        self, blocks: tuple[tuple, ...] = LARGE, head: int = 1280, width: float = 1.0,
        stem: str = "imagenet", num_classes: int = 1000, in_channels: int = 3,
        dropout: float = 0.2, eps: float = 1e-3, momentum: float = 0.01, gate=hard_gate,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        norm = partial(nn.BatchNorm2d, eps=eps, momentum=momentum)
        layer = partial(ConvNormAct, norm=norm, act=nn.Hardswish)
        channels = max(16, round_channels(16 * width))
        stride = by_stem(stem, imagenet=2, cifar=1)
        self.conv1 = layer(in_channels, channels, 3, stride)  # (B, 16, 112, 112)
        made, channels = make_blocks(blocks, channels, width, stem, norm, gate)
        for name, block in made.items():
            self.add_module(name, block)  # (B, 16, 112, 112) to (B, 160, 7, 7)
        self.conv2 = layer(channels, 6 * channels, 1)  # (B, 960, 7, 7)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 960)
        head = round_channels(head * max(1.0, width))
        self.wide = nn.Sequential(nn.Linear(6 * channels, head), nn.Hardswish())
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(head, num_classes)  # (B, 1280) -> (B, num_classes)
        initialize(self)
        for linear in (self.wide[0], self.fc):
            nn.init.normal_(linear.weight, std=0.01)
            nn.init.zeros_(linear.bias)


VARIANTS = {
    "mobilenet_v3_large": {"blocks": LARGE, "head": 1280},
    "mobilenet_v3_large_x0_75": {"blocks": LARGE, "head": 1280, "width": 0.75},
    "mobilenet_v3_small": {"blocks": SMALL, "head": 1024},
    "mobilenet_v3_small_x0_75": {"blocks": SMALL, "head": 1024, "width": 0.75},
    "mobilenet_v3_small_x0_5": {"blocks": SMALL, "head": 1024, "width": 0.5},
}
register(MobileNetV3, VARIANTS, image_size=224)
