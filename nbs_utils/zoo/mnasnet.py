# Written by `nbs export` from chapters/efficient/mnasnet.ipynb; edit the chapter, not this file.
"""MnasNet (2018), as its chapter builds it."""

from functools import partial

from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.googlenet import ConvNormAct
from nbs_utils.zoo.mobilenet_v2 import InvertedResidual, round_channels
from nbs_utils.zoo.resnet import initialize, make_stage
from nbs_utils.zoo.senet import SqueezeExcite


class MnasBlock(InvertedResidual):
    """An inverted residual with ReLU and, if wanted, a gate on its wide middle.

    Args:
        in_channels, out_channels, stride, **options: see `InvertedResidual`.
        se_ratio: width of the gate's hidden layer over `in_channels`; 0 for no gate.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int = 1,
        se_ratio: float = 0.0, **options,
    ) -> None:  # fmt: skip
        options = {"activation": nn.ReLU} | options
        if se_ratio:
            reduced = max(1, int(in_channels * se_ratio))
            options["gate"] = partial(SqueezeExcite, reduced=reduced)
        super().__init__(in_channels, out_channels, stride, **options)


# t, k, c, n, s, r of each stage: expansion, kernel, channels, blocks, stride of the
# first block, width of the gates' hidden layer over the block's input (0: no gates)
A1 = (
    (1, 3, 16, 1, 1, 0),
    (6, 3, 24, 2, 2, 0),
    (3, 5, 40, 3, 2, 0.25),
    (6, 3, 80, 4, 2, 0),
    (6, 3, 112, 2, 1, 0.25),
    (6, 5, 160, 3, 2, 0.25),
    (6, 3, 320, 1, 1, 0),
)
B1 = (
    (1, 3, 16, 1, 1, 0),
    (3, 3, 24, 3, 2, 0),
    (3, 5, 40, 3, 2, 0),
    (6, 5, 80, 3, 2, 0),
    (6, 3, 96, 2, 1, 0),
    (6, 5, 192, 4, 2, 0),
    (6, 3, 320, 1, 1, 0),
)


class MnasNet(nn.Sequential):
    """A stem, seven stages that a search chose, a classifier (Tan et al., 2019).

    Args:
        width: multiplies the channels, which are then rounded to multiples of 8; the
            last convolution keeps its own.
        stages: t, k, c, n, s and r for each stage, as in `A1`.
        stem: "imagenet", or "cifar" for images of about 32 pixels: no stride in the
            first convolution and in the second stage.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        dropout: share of the features that is dropped before the classifier.
        momentum: weight of a new batch in the running statistics of the batch norms.
    """

    def __init__(
        self, width: float = 1.0, stages: tuple[tuple, ...] = B1,
        stem: str = "imagenet", num_classes: int = 1000, in_channels: int = 3,
        dropout: float = 0.2, momentum: float = 0.01,
    ) -> None:  # fmt: skip
        super().__init__()  # input (B, 3, 224, 224)
        norm = partial(nn.BatchNorm2d, momentum=momentum)
        channels = round_channels(32 * width)
        stride = by_stem(stem, imagenet=2, cifar=1)
        self.conv1 = ConvNormAct(in_channels, channels, 3, stride, norm=norm)
        for i, (t, k, c, n, s, r) in enumerate(stages, start=1):
            out_channels = round_channels(c * width)
            stride = 1 if i == 2 and stem == "cifar" else s
            options = {"expand_ratio": t, "kernel_size": k, "se_ratio": r, "norm": norm}
            shape = (n, channels, out_channels, stride)
            self.add_module(f"stage{i}", make_stage(MnasBlock, *shape, **options))
            channels = out_channels  # (B, 16, 112, 112) to (B, 320, 7, 7)
        self.conv2 = ConvNormAct(channels, 1280, 1, norm=norm)  # (B, 1280, 7, 7)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1280)
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(1280, num_classes)  # (B, num_classes)
        initialize(self)
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)


WIDTHS = {
    "mnasnet0_5": 0.5,
    "mnasnet0_75": 0.75,
    "mnasnet1_0": 1.0,
    "mnasnet1_3": 1.3,
}
register(MnasNet, {name: {"width": width} for name, width in WIDTHS.items()})
register(MnasNet, {"mnasnet_a1": {"stages": A1}})
