# Written by `nbs export` from chapters/efficient/efficientnet.ipynb; edit the chapter, not this file.
"""EfficientNet (2019), as its chapter builds it."""

import math
from collections import OrderedDict
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct
from nbs_utils.zoo.mobilenet_v2 import InvertedResidual, round_channels
from nbs_utils.zoo.resnet import initialize
from nbs_utils.zoo.senet import SqueezeExcite


class MBConv(InvertedResidual):
    """An inverted residual with SiLU and a gate on its wide middle.

    Args:
        in_channels, out_channels, stride, **options: see `InvertedResidual`.
        se_ratio: width of the gate's hidden layer over `in_channels`.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1,
        se_ratio: float = 0.25, **options,
    ) -> None:  # fmt: skip
        reduced = max(1, int(se_ratio * in_channels))
        gate = partial(SqueezeExcite, reduced=reduced, activation=nn.SiLU)
        options = {"activation": nn.SiLU, "gate": gate} | options
        super().__init__(in_channels, out_channels, stride, **options)


class SameConv2d(nn.Conv2d):
    """A convolution that pads as TensorFlow's "same" does, an odd row at the end."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (
            max((-(-side // stride) - 1) * stride + kernel - side, 0)
            for side in x.shape[-2:]
        )
        before = columns // 2, rows // 2
        x = F.pad(x, (before[0], columns - before[0], before[1], rows - before[1]))
        return F.conv2d(x, self.weight, self.bias, self.stride, groups=self.groups)


def pad_same(network: nn.Module) -> None:
    """Let the convolutions of a network that have a stride pad as in TensorFlow."""
    for layer in network.modules():
        if isinstance(layer, ConvNormAct) and layer.conv.stride[0] > 1:
            old = layer.conv
            shape = old.in_channels, old.out_channels, old.kernel_size, old.stride
            layer.conv = SameConv2d(*shape, groups=old.groups, bias=False)


# expansion, kernel, stride of the first block, channels, blocks: stages 2 to 8 of B0
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)


def make_stages(
    stages: tuple[tuple[int, ...], ...], channels: int, width: float, depth: float,
    drop_path: float, stem: str, **options,
) -> tuple[OrderedDict, int]:  # fmt: skip
    """Return the stages of blocks by name, and the channels behind the last one.

    Args:
        channels: behind the stem.
        drop_path: rate of stochastic depth that the block after the last would have.
        stages, width, depth, stem, **options: see `EfficientNet`.
    """
    depths = [math.ceil(depth * blocks) for *_, blocks in stages]
    made, done = OrderedDict(), 0
    for i, ((t, k, s, c, _), blocks) in enumerate(zip(stages, depths), start=2):
        stride = by_stem(stem, imagenet=s, cifar=1 if i == 3 else s)
        stage = nn.Sequential()
        for j in range(blocks):
            shape = channels, round_channels(c * width), stride if j == 0 else 1
            options["drop_path"] = drop_path * done / sum(depths)
            stage.append(MBConv(*shape, expand_ratio=t, kernel_size=k, **options))
            channels, done = shape[1], done + 1
        made[f"stage{i}"] = stage
    return made, channels


def draw_weights(network: nn.Module) -> None:
    """Draw the first weights of a network whose last layer is called `fc`."""
    initialize(network)
    bound = network.fc.out_features**-0.5
    nn.init.uniform_(network.fc.weight, -bound, bound)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)


class EfficientNet(nn.Sequential):
    """A stem, stages of gated inverted residuals, a classifier (Tan and Le, 2019).

    Args:
        width, depth: factors of the channels and of the blocks of each stage.
        stages, stem: of the baseline, see `STAGES`; "cifar" is for images of about 32
            pixels: no stride in the first convolution and in the third stage.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        dropout, drop_path: before the classifier; see `make_stages`.
        eps, momentum, same: of the batch norms; pad as TensorFlow does.
        **options: for every block, for example se_ratio=0.25.
    """

    def __init__(
        self, width: float = 1.0, depth: float = 1.0,
        stages: tuple[tuple[int, ...], ...] = STAGES, stem: str = "imagenet",
        num_classes: int = 1000, in_channels: int = 3, dropout: float = 0.2,
        drop_path: float = 0.2, eps: float = 1e-5, momentum: float = 0.1,
        same: bool = False, **options,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        norm = partial(nn.BatchNorm2d, eps=eps, momentum=momentum)
        conv = partial(ConvNormAct, norm=norm, act=nn.SiLU)
        channels, stride = (
            round_channels(32 * width),
            by_stem(stem, imagenet=2, cifar=1),
        )
        self.stage1 = conv(in_channels, channels, 3, stride)  # (B, 32, 112, 112)
        shape = stages, channels, width, depth, drop_path, stem
        made, channels = make_stages(*shape, norm=norm, **options)
        for name, stage in made.items():
            self.add_module(name, stage)  # (B, 16, 112, 112) to (B, 320, 7, 7)
        wide = round_channels(1280 * width)
        self.stage9 = conv(channels, wide, 1)  # (B, 1280, 7, 7)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1280)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(wide, num_classes)  # (B, num_classes)
        if same:
            pad_same(self)
        draw_weights(self)


COEFFICIENTS = {
    "efficientnet_b0": (1.0, 1.0, 224, 0.2, 1e-5),
    "efficientnet_b1": (1.0, 1.1, 240, 0.2, 1e-5),
    "efficientnet_b2": (1.1, 1.2, 260, 0.3, 1e-5),
    "efficientnet_b3": (1.2, 1.4, 300, 0.3, 1e-5),
    "efficientnet_b4": (1.4, 1.8, 380, 0.4, 1e-5),
    "efficientnet_b5": (1.6, 2.2, 456, 0.4, 1e-3),
    "efficientnet_b6": (1.8, 2.6, 528, 0.5, 1e-3),
    "efficientnet_b7": (2.0, 3.1, 600, 0.5, 1e-3),
    # this book's: the rule with phi = -6, which asks for 224 * 1.15**-6 = 96.8 pixels
    "efficientnet_mini": (1.1**-6, 1.2**-6, 96, 0.2, 1e-5),
}
for name, (width, depth, side, dropout, eps) in COEFFICIENTS.items():
    momentum = 0.01 if eps == 1e-3 else 0.1
    variant = {"width": width, "depth": depth, "dropout": dropout, "eps": eps}
    variant["momentum"] = momentum
    register(EfficientNet, {name: variant}, image_size=side)
