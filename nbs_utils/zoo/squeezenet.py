# Written by `nbs export` from chapters/efficient/squeezenet.ipynb; edit the chapter, not this file.
"""SqueezeNet (2016), as its chapter builds it."""

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.googlenet import ConvNormAct, downsample


def fire_widths(
    fires: int = 8, base: int = 128, increment: int = 128, frequency: int = 2,
    squeeze_ratio: float = 0.125, share_3x3: float = 0.5,
) -> list[tuple[int, int, int]]:  # fmt: skip
    """Return the filters of each fire module: squeeze, expand 1x1, expand 3x3.

    Args:
        fires: number of modules.
        base, increment, frequency: a module has `base` filters in its expand layers,
            and after every `frequency` modules `increment` more.
        squeeze_ratio: filters of the squeeze layer over those of the expand layers.
        share_3x3: share of the expand filters that are 3x3.
    """
    widths = []
    for i in range(fires):
        expand = base + increment * (i // frequency)
        e3 = round(share_3x3 * expand)
        widths.append((round(squeeze_ratio * expand), expand - e3, e3))
    return widths


def make_bypass(kind: str, in_channels: int, out_channels: int) -> nn.Module | None:
    """Return the way around a fire module, or None where there is none.

    Args:
        kind: "none"; "simple", the identity where the numbers of channels agree; or
            "complex", elsewhere a 1x1 convolution, without activation.
        in_channels, out_channels: of the module.

    Raises:
        ValueError: `kind` is none of these.
    """
    if kind not in ("none", "simple", "complex"):
        raise ValueError(
            f"bypass is {kind!r}; it must be 'none', 'simple' or 'complex'."
        )
    if kind == "none":
        return None
    if in_channels == out_channels:
        return nn.Identity()
    return nn.Conv2d(in_channels, out_channels, 1) if kind == "complex" else None


class Fire(nn.Module):
    """Squeeze by 1x1, expand by 1x1 and 3x3 side by side (Iandola et al., 2016).

    Args:
        in_channels: of the input.
        squeeze, expand1x1, expand3x3: numbers of filters, s1x1, e1x1 and e3x3.
        bypass: see `make_bypass`.

    Shape: (B, in_channels, H, W) -> (B, expand1x1 + expand3x3, H, W).
    """

    def __init__(
        self,
        in_channels: int,
        squeeze: int,
        expand1x1: int,
        expand3x3: int,
        bypass: str = "none",
    ) -> None:
        super().__init__()
        self.squeeze = ConvNormAct(in_channels, squeeze, 1)
        self.expand1x1 = ConvNormAct(squeeze, expand1x1, 1)
        self.expand3x3 = ConvNormAct(squeeze, expand3x3, 3)
        self.bypass = make_bypass(bypass, in_channels, expand1x1 + expand3x3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        s = self.squeeze(x)  # (B, squeeze, H, W)
        y = torch.cat([self.expand1x1(s), self.expand3x3(s)], dim=1)
        return y if self.bypass is None else y + self.bypass(x)


def initialize(network: nn.Module, classifier: nn.Module) -> None:
    """Draw the initial weights; biases begin at zero.

    Uniform with variance 2 / fan-in in front of a ReLU, 1 / fan-in on a bypass (He et
    al., 2015); the classifier normal with standard deviation 0.01.
    """
    for name, layer in network.named_modules():
        if isinstance(layer, nn.Conv2d):
            kind = "linear" if name.endswith("bypass") else "relu"
            nn.init.kaiming_uniform_(layer.weight, nonlinearity=kind)
            nn.init.zeros_(layer.bias)
    nn.init.normal_(classifier.weight, std=0.01)


class SqueezeNet(nn.Sequential):
    """A convolution, fire modules, a 1x1 convolution as classifier (Iandola et al., 2016).

    Args:
        num_classes, in_channels: numbers of outputs and of the images' channels.
        stem: "imagenet" (stride 2, no padding) or "cifar" (3x3, stride 1, padding 1).
        conv1: filters of the first convolution, and side of their kernel.
        pools: behind which layers the map is halved; conv1 is layer 1.
        bypass: "none", "simple" or "complex"; see `make_bypass`.
        dropout, last_relu: probability in front of the last convolution; a ReLU behind.
        **widths: see `fire_widths`.
    """

    def __init__(
        self, num_classes: int = 1000, in_channels: int = 3, stem: str = "imagenet",
        conv1: tuple[int, int] = (96, 7), pools: tuple[int, ...] = (1, 4, 8),
        bypass: str = "none", dropout: float = 0.5, last_relu: bool = True, **widths,
    ) -> None:  # fmt: skip
        super().__init__()
        channels, side = conv1
        kernel, stride, padding = by_stem(stem, imagenet=(side, 2, 0), cifar=(3, 1, 1))
        self.conv1 = ConvNormAct(in_channels, channels, kernel, stride, padding)
        for layer, width in enumerate([None, *fire_widths(**widths)], start=1):
            if width:
                self.add_module(f"fire{layer}", Fire(channels, *width, bypass))
                channels = width[1] + width[2]
            if layer in pools:
                self.add_module(f"pool{layer}", downsample())
        self.add_module(f"drop{layer}", nn.Dropout(dropout))
        last = ConvNormAct(channels, num_classes, 1, act=nn.ReLU if last_relu else None)
        self.add_module(f"conv{layer + 1}", last)
        average = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.add_module(f"pool{layer + 1}", average)  # (B, num_classes)
        # a pooling that rounds up needs twice as many pixels as it leaves
        self.least = kernel + stride * (2 ** len(pools) - 1) - 2 * padding
        initialize(self, last.conv)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        return super().forward(x)


VERSIONS = {
    "squeezenet1_0": {"conv1": (96, 7), "pools": (1, 4, 8)},
    "squeezenet1_1": {"conv1": (64, 3), "pools": (1, 3, 5)},
}
BYPASSES = {
    f"{name}_{kind}_bypass": version | {"bypass": kind}
    for name, version in VERSIONS.items()
    for kind in ("simple", "complex")
}
register(SqueezeNet, VERSIONS | BYPASSES)
