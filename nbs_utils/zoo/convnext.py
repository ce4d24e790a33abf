# Written by `nbs export` from chapters/residual/convnext.ipynb; edit the chapter, not this file.
"""ConvNeXt (2022), as its chapter builds it."""

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.swin import StochasticDepth
from nbs_utils.zoo.vit import MLP


class LayerNorm2d(nn.LayerNorm):
    """Normalize the channels of a map, at each position by themselves.

    Args:
        channels: C.

    Shape: (B, C, H, W) -> (B, C, H, W).
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = super().forward(x.permute(0, 2, 3, 1))  # (B, H, W, C)
        return x.permute(0, 3, 1, 2)


class ConvNeXtBlock(nn.Module):
    """A large depthwise convolution, then an MLP at each position; both form a branch.

    Args:
        channels: C of the map.
        layer_scale: what the branch is multiplied by at first.
        drop_path: rate of the stochastic depth.
        kernel_size: of the depthwise convolution, odd.

    Shape: (B, C, H, W) -> (B, C, H, W).

    Source: Liu et al. (2022), figure 4.
    """

    def __init__(
        self,
        channels: int,
        layer_scale: float = 1e-6,
        drop_path: float = 0.0,
        kernel_size: int = 7,
    ) -> None:
        super().__init__()
        shape = channels, channels, kernel_size
        self.layer_scale = nn.Parameter(torch.full((channels,), layer_scale))
        self.depthwise = nn.Conv2d(*shape, padding=kernel_size // 2, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.mlp = MLP(channels, 4 * channels)
        self.drop_path = StochasticDepth(drop_path)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.depthwise(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = self.layer_scale * self.mlp(self.norm(y))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


def downsample(in_channels: int, out_channels: int) -> nn.Sequential:
    """Return the layers between two stages: (B, C, H, W) -> (B, C', H / 2, W / 2)."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size=2, stride=2)
    return nn.Sequential(LayerNorm2d(in_channels), conv)


def begin(layer: nn.Module) -> None:
    """Give a layer the weights with which the authors' code begins."""
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)


class ConvNeXt(nn.Sequential):
    """A stem of patches, four stages of blocks, a linear classifier (Liu et al., 2022).

    Args:
        depths, widths: number of blocks and of channels, for each stage.
        drop_path: rate of `StochasticDepth` in the last block.
        layer_scale, kernel_size: see `ConvNeXtBlock`.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        stem: "imagenet" for patches of 4 pixels, "cifar" for patches of 2.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(
        self, depths: tuple[int, ...] = (3, 3, 9, 3),
        widths: tuple[int, ...] = (96, 192, 384, 768), drop_path: float = 0.0,
        layer_scale: float = 1e-6, kernel_size: int = 7, num_classes: int = 1000,
        in_channels: int = 3, stem: str = "imagenet",
    ) -> None:  # fmt: skip
        super().__init__()
        patch = by_stem(stem, imagenet=4, cifar=2)
        self.least = patch * 2 ** (len(widths) - 1)
        conv = nn.Conv2d(in_channels, widths[0], patch, stride=patch)
        self.stem = nn.Sequential(conv, LayerNorm2d(widths[0]))  # (B, 96, 56, 56)
        last = max(1, sum(depths) - 1)  # number of the last block, from 0
        for i, (depth, width) in enumerate(zip(depths, widths, strict=True)):
            stage = [downsample(widths[i - 1], width)] if i else []
            for j in range(depth):
                rate = drop_path * (sum(depths[:i]) + j) / last
                stage.append(ConvNeXtBlock(width, layer_scale, rate, kernel_size))
            # (B, 96, 56, 56), (B, 192, 28, 28), (B, 384, 14, 14), (B, 768, 7, 7)
            self.add_module(f"res{i + 2}", nn.Sequential(*stage))
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 768)
        self.norm = nn.LayerNorm(widths[-1], eps=1e-6)
        self.head = nn.Linear(widths[-1], num_classes)
        self.apply(begin)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_side(images, self.least)
        return super().forward(images)


DEEP = (3, 3, 27, 3)
CONVNEXTS = {
    "convnext_tiny": dict(drop_path=0.1),
    "convnext_small": dict(drop_path=0.4, depths=DEEP),
    "convnext_base": dict(drop_path=0.5, depths=DEEP, widths=(128, 256, 512, 1024)),
    "convnext_large": dict(drop_path=0.5, depths=DEEP, widths=(192, 384, 768, 1536)),
}
register(ConvNeXt, CONVNEXTS)
MINI = dict(depths=(2, 2, 2, 2), widths=(32, 64, 128, 256))
register(ConvNeXt, {"convnext_mini": MINI}, image_size=128)
