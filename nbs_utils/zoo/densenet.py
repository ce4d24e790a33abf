# Written by `nbs export` from chapters/residual/densenet.ipynb; edit the chapter, not this file.
"""DenseNet (2016), as its chapter builds it."""

from collections import OrderedDict
from contextlib import contextmanager, nullcontext

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from nbs_utils.zoo import by_stem, register, require_side


class NormActConv(nn.Sequential):
    """Batch norm, ReLU and a convolution without bias, then dropout if there is any.

    The parts are called `norm`, `act`, `conv` and `drop`.

    Args:
        in_channels, out_channels, kernel_size: of the convolution; its padding keeps
            the size of the map.
        dropout: chance of each output to become zero while training.

    Shape: (B, C_in, H, W) -> (B, C_out, H, W).
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: int, dropout: float = 0
    ) -> None:
        shape = (in_channels, out_channels, kernel_size)
        parts = OrderedDict(
            norm=nn.BatchNorm2d(in_channels),
            act=nn.ReLU(),
            conv=nn.Conv2d(*shape, padding=kernel_size // 2, bias=False),
        )
        if dropout:
            parts["drop"] = nn.Dropout(dropout)
        super().__init__(parts)


@contextmanager
def frozen_statistics(norm: nn.BatchNorm2d):
    """Let a batch norm work without moving its running statistics."""
    momentum, norm.momentum = norm.momentum, 0.0
    batches = norm.num_batches_tracked.clone()
    try:
        yield
    finally:
        norm.momentum = momentum
        norm.num_batches_tracked.copy_(batches)


class DenseLayer(nn.Module):
    """H_l of the paper: reads all earlier feature maps, writes a few new ones.

    Args:
        in_channels: C_l, of all earlier maps together.
        growth_rate: k, channels that it writes.
        bottleneck: the 1x1 convolution writes this many times k; 0 leaves it out.
        dropout: behind each convolution.
        recompute: keep only the arguments for the backward pass, and repeat
            concatenation, batch norm and ReLU there.

    Shape: any number of (B, C_i, H, W) -> (B, growth_rate, H, W).
    """

    def __init__(
        self, in_channels, growth_rate, bottleneck=4, dropout=0.0, recompute=False
    ):
        super().__init__()
        self.recompute = recompute
        width = bottleneck * growth_rate
        if bottleneck:
            self.read = NormActConv(in_channels, width, 1, dropout)
            self.grow = NormActConv(width, growth_rate, 3, dropout)
        else:
            self.read = NormActConv(in_channels, growth_rate, 3, dropout)
            self.grow = nn.Identity()

    def join_and_read(self, *features: torch.Tensor) -> torch.Tensor:
        return self.read(torch.cat(features, dim=1))

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            return self.grow(self.join_and_read(*features))
        twice = lambda: (nullcontext(), frozen_statistics(self.read.norm))
        x = checkpoint(
            self.join_and_read, *features, use_reentrant=False, context_fn=twice
        )
        return self.grow(x)


class DenseBlock(nn.Sequential):
    """Layers each of which reads the block's input and all earlier layers' outputs.

    Args:
        depth: number of layers.
        in_channels: of the input.
        growth_rate: of each layer.
        **options: of each layer, see `DenseLayer`.

    Shape: (B, in_channels, H, W) -> (B, in_channels + depth * growth_rate, H, W).
    """

    def __init__(self, depth: int, in_channels: int, growth_rate: int, **options):
        super().__init__(
            *(
                DenseLayer(in_channels + i * growth_rate, growth_rate, **options)
                for i in range(depth)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features = [x]
        for layer in self:
            features.append(layer(*features))  # (B, growth_rate, H, W)
        return torch.cat(features, dim=1)


def make_transition(
    in_channels: int, out_channels: int, dropout: float = 0.0
) -> nn.Sequential:
    """Return what stands between two blocks: (B, C, H, W) -> (B, C', H / 2, W / 2)."""
    transition = NormActConv(in_channels, out_channels, 1, dropout)
    transition.add_module("pool", nn.AvgPool2d(2))
    return transition


def make_stem(kind: str, in_channels: int, out_channels: int) -> nn.Sequential:
    """Return the first convolution, with batch norm and ReLU where pooling follows.

    Args:
        kind: "imagenet" (7x7 with stride 2, batch norm, ReLU) or "cifar" (3x3 alone).
        in_channels: channels of the images.
        out_channels: k_0, channels that enter the first block.

    Raises:
        ValueError: `kind` is neither.
    """
    kernel_size, stride = by_stem(kind, imagenet=(7, 2), cifar=(3, 1))
    shape = (in_channels, out_channels, kernel_size, stride, kernel_size // 2)
    stem = nn.Sequential(nn.Conv2d(*shape, bias=False))
    if kind == "imagenet":
        stem.extend([nn.BatchNorm2d(out_channels), nn.ReLU()])
    return stem


def initialize(network: nn.Module) -> None:
    """Draw weights: He et al. (2015), normal with variance 2 / fan-in; biases zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)


def make_stages(
    channels: int,
    growth_rate: int,
    depths: tuple[int, ...],
    compression: float,
    **options,
) -> tuple[OrderedDict, int]:
    """Return blocks and transitions by name, and the channels behind the last block.

    Args:
        channels: k_0, that enter the first block.
        growth_rate, depths, compression, **options: see `DenseNet`.
    """
    stages, dropout = OrderedDict(), options.get("dropout", 0.0)
    for i, depth in enumerate(depths, start=1):
        stages[f"dense_block{i}"] = DenseBlock(depth, channels, growth_rate, **options)
        channels += depth * growth_rate
        if i < len(depths):
            left = int(compression * channels)
            stages[f"transition{i}"] = make_transition(channels, left, dropout)
            channels = left
    return stages, channels


def least_side(stem: str, blocks: int) -> int:
    """Return the smallest image, in pixels, of which every pooling has one left."""
    halvings = 2 ** (blocks - 1)  # by the transitions
    return 4 * (halvings - 1) + 1 if stem == "imagenet" else halvings


class DenseNet(nn.Sequential):
    """A stem, dense blocks with transitions, a linear classifier (Huang et al., 2017).

    Args:
        growth_rate, depths: k, and the number of layers of each block.
        compression, stem_channels: theta, and k_0 (by default 2 k).
        stem, **options: see `make_stem` and `DenseLayer`.
        num_classes, in_channels: numbers of outputs and of the images' channels.
    """

    def __init__(
        self,
        growth_rate: int,
        depths: tuple[int, ...],
        compression: float = 0.5,
        stem_channels: int | None = None,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        **options,
    ) -> None:
        super().__init__()  # input (B, 3, 224, 224)
        entering = stem_channels or 2 * growth_rate
        self.convolution = make_stem(stem, in_channels, entering)  # (B, 64, 112, 112)
        if stem == "imagenet":
            self.pooling = nn.MaxPool2d(3, stride=2, padding=1)  # (B, 64, 56, 56)
        stages, channels = make_stages(
            entering, growth_rate, depths, compression, **options
        )
        for name, stage in stages.items():
            self.add_module(name, stage)  # (B, 256, 56, 56) to (B, 1024, 7, 7)
        self.norm = nn.Sequential(nn.BatchNorm2d(channels), nn.ReLU())
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1024)
        self.classifier = nn.Linear(channels, num_classes)  # (B, num_classes)
        initialize(self)
        self.least = least_side(stem, len(depths))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least)
        return super().forward(x)


IMAGENET = {
    "densenet121": {"growth_rate": 32, "depths": (6, 12, 24, 16)},
    "densenet161": {"growth_rate": 48, "depths": (6, 12, 36, 24)},
    "densenet169": {"growth_rate": 32, "depths": (6, 12, 32, 32)},
    "densenet201": {"growth_rate": 32, "depths": (6, 12, 48, 32)},
}
CIFAR = {
    f"densenet_{depth}_{k}": {
        "growth_rate": k,
        "depths": ((depth - 4) // 3,) * 3,
        "bottleneck": 0,
        "compression": 1.0,
        "stem_channels": 16,
        "stem": "cifar",
        "num_classes": 10,
    }
    for depth, k in ((40, 12), (100, 12), (100, 24))
}
# 40-12 is pytorchcv's, the others are the paper's.
CIFAR |= {
    f"densenet_bc_{depth}_{k}": {
        "growth_rate": k,
        "depths": ((depth - 4) // 6,) * 3,
        "stem": "cifar",
        "num_classes": 10,
    }
    for depth, k in ((40, 12), (100, 12), (190, 40), (250, 24))
}
register(DenseNet, IMAGENET, image_size=224)
register(DenseNet, CIFAR, image_size=32)
