# Written by `nbs export` from chapters/classics/vgg.ipynb; edit the chapter, not this file.
"""VGG (2014), as its chapter builds it."""

from collections import OrderedDict

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.alexnet import LRN, init_he, make_classifier


def make_conv(
    in_channels: int, out_channels: int, kernel_size: int = 3, norm: bool = False
) -> dict[str, nn.Module]:
    """Return a convolution that keeps the map's size, and what follows it.

    Args:
        in_channels, out_channels: of the convolution, which has a bias.
        kernel_size: its side, an odd number; half of it is padded.
        norm: put a batch norm between convolution and ReLU.
    """
    padding = kernel_size // 2
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=padding)
    between = {"bn": nn.BatchNorm2d(out_channels)} if norm else {}
    return {"conv": conv, **between, "relu": nn.ReLU()}


def make_features(
    kernels: tuple[tuple[int, ...], ...],
    channels: tuple[int, ...],
    in_channels: int = 3,
    norm: bool = False,
    lrn: bool = False,
) -> nn.Sequential:
    """Return the convolutional part: (B, C, H, W) -> (B, channels[-1], H / 32, W / 32).

    Args:
        kernels: for each stage, the side of each convolution's kernel.
        channels: of each stage.
        in_channels: of the images.
        norm: a batch norm behind each convolution.
        lrn: local response normalization at the end of the first stage.
    """
    layers = OrderedDict()
    for stage, (sizes, width) in enumerate(zip(kernels, channels, strict=True), 1):
        for i, size in enumerate(sizes, start=1):
            for kind, layer in make_conv(in_channels, width, size, norm).items():
                layers[f"{kind}{stage}_{i}"] = layer
            in_channels = width
        if lrn and stage == 1:
            layers["lrn1"] = LRN()
        layers[f"pool{stage}"] = nn.MaxPool2d(2)
    return nn.Sequential(layers)


class VGG(nn.Module):
    """VGG (Simonyan and Zisserman 2015): (B, C, H, W) -> (B, num_classes).

    Args:
        kernels: for each stage, the side of each convolution's kernel.
        channels, hidden: channels of each stage; units of fc6 and of fc7.
        norm, lrn: batch norm behind each convolution; LRN in the first stage.
        dropout: probability behind fc6 and fc7.
        map_size: side of the map that fc6 reads; by default 7, or 1 for "cifar".
        stem: "imagenet", or "cifar" for images of 32 pixels, whose last map has one
            position; the layers are the same.
    """

    def __init__(
        self,
        kernels: tuple[tuple[int, ...], ...],
        channels: tuple[int, ...] = (64, 128, 256, 512, 512),
        hidden: int = 4096,
        norm: bool = False,
        lrn: bool = False,
        dropout: float = 0.5,
        map_size: int | None = None,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        side = map_size or by_stem(stem, imagenet=7, cifar=1)
        self.features = make_features(kernels, channels, in_channels, norm, lrn)
        self.resize = nn.AdaptiveAvgPool2d(side)
        sizes = channels[-1] * side**2, hidden, num_classes
        self.classifier = make_classifier(*sizes, dropout, dropout_first=False)
        self.least = 2 ** len(kernels)  # one position behind the last pooling
        init_he(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        x = self.resize(self.features(x))  # (B, 512, 7, 7)
        return self.classifier(x.flatten(1))  # (B, num_classes)


A = ((3,), (3,), (3, 3), (3, 3), (3, 3))
B = ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3))
C = ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1))
D = ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3))
E = ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3))

PAPER = {
    "vgg11": {"kernels": A},
    "vgg11_lrn": {"kernels": A, "lrn": True},
    "vgg13": {"kernels": B},
    "vgg16_1x1": {"kernels": C},
    "vgg16": {"kernels": D},
    "vgg19": {"kernels": E},
}
TODAY = {
    f"{name}_bn": PAPER[name] | {"norm": True}
    for name in ("vgg11", "vgg13", "vgg16", "vgg19")
}
register(VGG, PAPER, image_size=224, protocol="dense")
register(VGG, TODAY, image_size=224)
