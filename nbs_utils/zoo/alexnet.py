# Written by `nbs export` from chapters/classics/alexnet.ipynb; edit the chapter, not this file.
"""AlexNet (2012), as its chapter builds it."""

from collections import OrderedDict

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side


class LRN(nn.Module):
    """Divide each activation by the energy of its neighboring channels.

    Args:
        size: number of neighboring channels in the sum, n in the paper.
        alpha: weight of the sum. The paper's alpha; `nn.LocalResponseNorm`
            divides its own alpha by `size`.
        beta: exponent of the denominator.
        k: constant in the denominator.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Source: Krizhevsky et al. 2012, section 3.3.
    """

    def __init__(
        self, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 2.0
    ) -> None:
        super().__init__()
        self.size, self.alpha, self.beta, self.k = size, alpha, beta, k

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        channels = x.shape[1]
        half = self.size // 2
        squares = nn.functional.pad(x.square(), (0, 0, 0, 0, half, half))
        energy = sum(squares[:, i : i + channels] for i in range(self.size))
        return x * (self.k + self.alpha * energy) ** -self.beta


def make_features(
    conv1: nn.Conv2d,
    channels: tuple[int, ...],
    towers: int,
    norm: bool,
) -> nn.Sequential:
    """Return the five convolutions: (B, 3, 224, 224) -> (B, channels[4], 6, 6)."""
    c1, c2, c3, c4, c5 = channels
    normalize = LRN if norm else nn.Identity
    layers = OrderedDict(
        conv1=conv1,
        relu1=nn.ReLU(),  # (B, c1, 55, 55)
        norm1=normalize(),
        pool1=nn.MaxPool2d(3, stride=2),  # (B, c1, 27, 27)
        conv2=nn.Conv2d(c1, c2, kernel_size=5, padding=2, groups=towers),
        relu2=nn.ReLU(),
        norm2=normalize(),
        pool2=nn.MaxPool2d(3, stride=2),  # (B, c2, 13, 13)
        conv3=nn.Conv2d(c2, c3, kernel_size=3, padding=1),
        relu3=nn.ReLU(),
        conv4=nn.Conv2d(c3, c4, kernel_size=3, padding=1, groups=towers),
        relu4=nn.ReLU(),
        conv5=nn.Conv2d(c4, c5, kernel_size=3, padding=1, groups=towers),
        relu5=nn.ReLU(),  # (B, c5, 13, 13)
        pool5=nn.MaxPool2d(3, stride=2),  # (B, c5, 6, 6)
    )
    return nn.Sequential(layers)


def make_classifier(
    in_features: int,
    hidden: int,
    num_classes: int,
    dropout: float,
    dropout_first: bool,
) -> nn.Sequential:
    """Return the three linear layers: (B, in_features) -> (B, num_classes)."""
    fc6, fc7 = nn.Linear(in_features, hidden), nn.Linear(hidden, hidden)
    drop6, drop7 = nn.Dropout(dropout), nn.Dropout(dropout)
    relu6, relu7 = nn.ReLU(), nn.ReLU()
    if dropout_first:
        layers = dict(drop6=drop6, fc6=fc6, relu6=relu6)
        layers |= dict(drop7=drop7, fc7=fc7, relu7=relu7)
    else:
        layers = dict(fc6=fc6, relu6=relu6, drop6=drop6)
        layers |= dict(fc7=fc7, relu7=relu7, drop7=drop7)
    layers["fc8"] = nn.Linear(hidden, num_classes)
    return nn.Sequential(OrderedDict(layers))


class AlexNet(nn.Module):
    """AlexNet (Krizhevsky et al. 2012; Krizhevsky 2014): (B, C, H, W) -> (B, K).

    Args:
        channels, hidden: outputs of the five convolutions; units of fc6 and of fc7.
        towers, norm: groups of convolutions 2, 4 and 5; whether there is LRN.
        padding: of conv1: 0 for images of 227 pixels, 2 for 224.
        dropout, dropout_first: probability; whether inputs (not outputs) are dropped.
        map_size: side of the map that fc6 reads; by default 6, or 3 for "cifar".
        stem: "imagenet" (11x11, stride 4) or "cifar" (5x5, stride 1) for 32 pixels.
    """

    def __init__(
        self,
        channels: tuple[int, ...] = (64, 192, 384, 256, 256),
        hidden: int = 4096,
        towers: int = 1,
        norm: bool = False,
        padding: int = 2,
        dropout: float = 0.5,
        dropout_first: bool = True,
        map_size: int | None = None,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        k, s, p, side = by_stem(stem, imagenet=(11, 4, padding, 6), cifar=(5, 1, 2, 3))
        conv1 = nn.Conv2d(in_channels, channels[0], k, stride=s, padding=p)
        self.features = make_features(conv1, channels, towers, norm)
        self.resize = nn.AdaptiveAvgPool2d(map_size or side)
        sizes = channels[4] * (map_size or side) ** 2, hidden, num_classes
        self.classifier = make_classifier(*sizes, dropout, dropout_first)
        self.least = 14 * s + k - 2 * p  # 15 positions behind conv1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        x = self.resize(self.features(x))  # (B, c5, 6, 6)
        return self.classifier(x.flatten(1))  # (B, num_classes)


ALEXNET_2014 = dict(channels=(64, 192, 384, 256, 256))
ALEXNET_2012 = dict(
    channels=(96, 256, 384, 384, 256),
    towers=2,
    norm=True,
    padding=0,
    dropout_first=False,
)
register(AlexNet, {"alexnet": ALEXNET_2014}, image_size=224, protocol="center")
register(AlexNet, {"alexnet_2012": ALEXNET_2012}, image_size=227, protocol="ten_crop")


def init_2012(network: nn.Module) -> None:
    """Initialize as the paper: N(0, 0.01 ** 2) weights, some biases 1, others 0."""
    ones = {"conv2", "conv4", "conv5", "fc6", "fc7"}
    for name, layer in network.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.constant_(layer.bias, float(name.split(".")[-1] in ones))


def init_he(network: nn.Module) -> None:
    """Initialize as He et al. 2015: variance 2 / fan-in for layers before a ReLU.

    No ReLU follows fc8. It begins near zero, so that all classes are equally likely.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    nn.init.normal_(network.classifier.fc8.weight, std=0.01)
