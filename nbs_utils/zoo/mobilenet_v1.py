# Written by `nbs export` from chapters/efficient/mobilenet-v1.ipynb; edit the chapter, not this file.
"""MobileNet v1 (2017), as its chapter builds it."""

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct


class DepthwiseSeparable(nn.Sequential):
    """A depthwise 3x3 and a pointwise convolution, each with batch norm (Howard et al.).

    Args:
        in_channels, out_channels: of the block.
        stride: of the depthwise convolution.
        activation: class of the activation behind each of the two.

    Shape: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1,
        activation: type[nn.Module] = nn.ReLU,
    ) -> None:  # fmt: skip
        conv = partial(ConvNormAct, norm=nn.BatchNorm2d, act=activation)
        depthwise = conv(in_channels, in_channels, 3, stride, groups=in_channels)
        pointwise = conv(in_channels, out_channels, 1)
        super().__init__(OrderedDict(depthwise=depthwise, pointwise=pointwise))


def initialize(network: nn.Module) -> None:
    """Draw the weights of all convolutions after He et al. (2015), by their inputs.

    Batch norms keep scale 1 and shift 0, the classifier PyTorch's default.
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")


BODY = (  # channels of the output and stride of each block
    *((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)),
    *((512, 1), (512, 1), (512, 1), (512, 1), (512, 1)),
    *((1024, 2), (1024, 1)),
)


def scaled(channels: int, width: float) -> int:
    """Return a number of channels times the width multiplier, at least 8."""
    return max(8, int(channels * width))


class MobileNetV1(nn.Sequential):
    """A chain of depthwise separable convolutions (Howard et al., 2017).

    Args:
        width: the width multiplier, by which all numbers of channels are multiplied.
        body: output channels and stride of each block, before multiplication.
        block: makes a block, called as block(in_channels, out_channels, stride,
            activation).
        activation: class of all activations.
        stem: "imagenet" (stride 2) or "cifar" (stride 1), for small images.
        num_classes, in_channels: numbers of outputs and of the images' channels.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(
        self, width: float = 1.0, body: tuple[tuple[int, int], ...] = BODY,
        block: Callable[..., nn.Module] = DepthwiseSeparable,
        activation: type[nn.Module] = nn.ReLU, stem: str = "imagenet",
        num_classes: int = 1000, in_channels: int = 3,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        channels, stride = scaled(32, width), by_stem(stem, imagenet=2, cifar=1)
        self.conv_0 = ConvNormAct(
            in_channels, channels, 3, stride, norm=nn.BatchNorm2d, act=activation
        )  # (B, 32, 112, 112)
        for i, (out_channels, stride) in enumerate(body, start=1):
            out_channels = scaled(out_channels, width)
            made = block(channels, out_channels, stride, activation)
            self.add_module(
                f"conv_{i}", made
            )  # (B, 64, 112, 112), ..., (B, 1024, 7, 7)
            channels = out_channels
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1024)
        self.fc = nn.Linear(channels, num_classes)  # (B, num_classes)
        initialize(self)
        names = [name for name, _ in self.named_parameters()]
        self.no_weight_decay = [n for n in names if n.endswith("depthwise.conv.weight")]


VARIANTS = {
    "mobilenet_v1": {},
    "mobilenet_v1_x0_75": {"width": 0.75},
    "mobilenet_v1_x0_5": {"width": 0.5},
    "mobilenet_v1_x0_25": {"width": 0.25},
}
register(MobileNetV1, VARIANTS, image_size=224)
