"""One block of each kind of network, as small prototypes that tools are tried on.

They are written as a chapter would write them, once each, and hold nothing that is
specific to one tool. `BLOCKS` lists them by name with the shape of one input.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn


def conv_bn(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    activation: Callable[[], nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Return a convolution that keeps the size, batch norm, and an activation."""
    padding = kernel_size // 2
    layers = [
        nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            groups=groups,
            bias=False,
        ),
        nn.BatchNorm2d(out_channels),
    ]
    return nn.Sequential(*layers, *([activation()] if activation else []))


# --- classics ---------------------------------------------------------------------


class MLPConv(nn.Sequential):
    """A convolution with a small MLP at each position (Lin et al. 2013)."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(
            nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 1),
            nn.ReLU(),
            nn.Conv2d(out_channels, out_channels, 1),
            nn.ReLU(),
        )


class Inception(nn.Module):
    """Four branches, concatenated (Szegedy et al. 2015, Figure 2b)."""

    def __init__(self, in_channels, one, three, five, pooled) -> None:
        super().__init__()
        self.one = conv_bn(in_channels, one)
        self.three = nn.Sequential(
            conv_bn(in_channels, three[0]), conv_bn(*three, kernel_size=3)
        )
        self.five = nn.Sequential(
            conv_bn(in_channels, five[0]), conv_bn(*five, kernel_size=5)
        )
        self.pool = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1), conv_bn(in_channels, pooled)
        )

    def forward(self, x):
        branches = (self.one, self.three, self.five, self.pool)
        return torch.cat([branch(x) for branch in branches], dim=1)


# --- residual ---------------------------------------------------------------------


class Bottleneck(nn.Module):
    """A bottleneck with groups and, if asked for, a gate (ResNet, ResNeXt, SENet)."""

    def __init__(self, channels, width, groups=1, gate=False, stride=1) -> None:
        super().__init__()
        out_channels = channels * stride
        self.residual = nn.Sequential(
            conv_bn(channels, width),
            conv_bn(width, width, 3, stride, groups),
            conv_bn(width, out_channels, activation=None),
        )
        self.gate = SqueezeExcite(out_channels) if gate else nn.Identity()
        self.shortcut = (
            nn.Identity()
            if stride == 1
            else conv_bn(channels, out_channels, 1, stride, activation=None)
        )

    def forward(self, x):
        return F.relu(self.shortcut(x) + self.gate(self.residual(x)))


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate made of all channels' means (Hu et al. 2018)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        self.squeeze = nn.Linear(channels, channels // reduction)
        self.excite = nn.Linear(channels // reduction, channels)

    def forward(self, x):
        s = x.mean(dim=(2, 3))  # (B, C)
        s = torch.sigmoid(self.excite(F.relu(self.squeeze(s))))
        return x * s[:, :, None, None]


class DenseLayer(nn.Module):
    """Batch norm, ReLU, 1x1, batch norm, ReLU, 3x3 (DenseNet-B)."""

    def __init__(self, in_channels: int, growth: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            nn.Conv2d(in_channels, 4 * growth, 1, bias=False),
            nn.BatchNorm2d(4 * growth),
            nn.ReLU(),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x):
        return self.layers(x)


class DenseBlock(nn.Module):
    """Layers that read the concatenation of all before them (Huang et al. 2017)."""

    def __init__(self, in_channels: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            DenseLayer(in_channels + i * growth, growth) for i in range(layers)
        )

    def forward(self, x):
        maps = [x]
        for layer in self.layers:
            maps.append(layer(torch.cat(maps, dim=1)))
        return torch.cat(maps, dim=1)


class Separable(nn.Sequential):
    """A depthwise convolution, then a pointwise one, nothing between (Xception)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(
            nn.ReLU(),
            nn.Conv2d(
                in_channels, in_channels, 3, padding=1, groups=in_channels, bias=False
            ),
            nn.Conv2d(in_channels, out_channels, 1, bias=False),
            nn.BatchNorm2d(out_channels),
        )


class XceptionBlock(nn.Module):
    """Three separable convolutions with a skip (Chollet 2017, middle flow)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(*(Separable(channels, channels) for _ in range(3)))

    def forward(self, x):
        return x + self.body(x)


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, then an MLP at each position, channels last (Liu et al. 2022)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 4 * channels)
        self.reduce = nn.Linear(4 * channels, channels)
        self.layer_scale = nn.Parameter(torch.full((channels,), 1e-6))

    def forward(self, x):
        y = self.depthwise(x).permute(0, 2, 3, 1)  # (B, H, W, C)
        y = self.reduce(F.gelu(self.expand(self.norm(y))))
        return x + (self.layer_scale * y).permute(0, 3, 1, 2)


# --- efficient --------------------------------------------------------------------


class Fire(nn.Module):
    """Squeeze with 1x1, expand with 1x1 and 3x3 (Iandola et al. 2016)."""

    def __init__(self, in_channels: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(in_channels, squeezed, 1)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x):
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.expand1x1(x)), F.relu(self.expand3x3(x))], dim=1)


class InvertedResidual(nn.Module):
    """Expand, depthwise, project; with a gate, the block of EfficientNet."""

    def __init__(self, channels: int, expansion: int = 6, gate: bool = False) -> None:
        super().__init__()
        width = expansion * channels
        self.expand = conv_bn(channels, width, activation=nn.ReLU6)
        self.depthwise = conv_bn(width, width, 3, groups=width, activation=nn.ReLU6)
        self.gate = SqueezeExcite(width, 4 * expansion) if gate else nn.Identity()
        self.project = conv_bn(width, channels, activation=None)

    def forward(self, x):
        return x + self.project(self.gate(self.depthwise(self.expand(x))))


def channel_shuffle(x: torch.Tensor, groups: int) -> torch.Tensor:
    """Exchange channels between groups: reshape, transpose, reshape."""
    b, c, h, w = x.shape
    x = x.view(b, groups, c // groups, h, w).transpose(1, 2)
    return x.reshape(b, c, h, w)


class ShuffleUnit1(nn.Module):
    """Grouped 1x1, shuffle, depthwise, grouped 1x1 (Zhang et al. 2018, Figure 2)."""

    def __init__(self, channels: int, groups: int, stride: int = 1) -> None:
        super().__init__()
        self.groups, self.stride = groups, stride
        width = channels // 4
        self.reduce = conv_bn(channels, width, groups=groups)
        self.depthwise = conv_bn(width, width, 3, stride, width, activation=None)
        self.expand = conv_bn(width, channels, groups=groups, activation=None)

    def forward(self, x):
        y = channel_shuffle(self.reduce(x), self.groups)
        y = self.expand(self.depthwise(y))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, padding=1), y], dim=1))


class ShuffleUnit2(nn.Module):
    """Half of the channels pass by, then a shuffle (Ma et al. 2018, Figure 3)."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        half = channels // 2
        self.stride = stride
        inner = half if stride == 1 else channels
        self.main = nn.Sequential(
            conv_bn(inner, half),
            conv_bn(half, half, 3, stride, half, activation=None),
            conv_bn(half, half),
        )
        if stride > 1:
            self.side = nn.Sequential(
                conv_bn(inner, inner, 3, stride, inner, activation=None),
                conv_bn(inner, half),
            )

    def forward(self, x):
        if self.stride == 1:
            kept, x = x.chunk(2, dim=1)
            x = torch.cat([kept, self.main(x)], dim=1)
        else:
            x = torch.cat([self.side(x), self.main(x)], dim=1)
        return rearrange(x, "b (two c) h w -> b (c two) h w", two=2)


# --- attention and MLP ------------------------------------------------------------


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))


class MixerBlock(nn.Module):
    """An MLP across tokens, then one across channels (Tolstikhin et al. 2021)."""

    def __init__(self, tokens: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.token_mlp = MLP(tokens, channels // 2)
        self.channel_mlp = MLP(channels, 4 * channels)

    def forward(self, x):  # (B, N, D)
        y = rearrange(self.norm1(x), "b n d -> b d n")
        x = x + rearrange(self.token_mlp(y), "b d n -> b n d")
        return x + self.channel_mlp(self.norm2(x))


def shifted(x: torch.Tensor, offset: int, axis: int) -> torch.Tensor:
    """Return maps (B, C, H, W) moved along one axis, zeros coming in at the border."""
    reach, length = abs(offset), x.shape[axis]
    pad = (reach, reach, 0, 0) if axis == 3 else (0, 0, reach, reach)
    return F.pad(x, pad).narrow(axis, reach + offset, length)


class CycleFC(nn.Module):
    """A linear layer over channels that lie at different positions (CycleMLP).

    The sampling position steps through the channels: channel i is taken `i mod steps`
    positions further, counted from the middle.
    """

    def __init__(self, channels: int, steps: int, axis: int) -> None:
        super().__init__()
        self.steps, self.axis = steps, axis
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        y = torch.empty_like(x)
        for i in range(self.steps):
            part = x[:, i :: self.steps]
            y[:, i :: self.steps] = shifted(part, i - self.steps // 2, self.axis)
        return self.mix(y)


class CycleFCByRoll(nn.Module):
    """The same with cyclic shifts of groups of neighboring channels."""

    def __init__(self, channels: int, steps: int, axis: int) -> None:
        super().__init__()
        self.steps, self.axis = steps, axis
        self.mix = nn.Conv2d(channels, channels, 1)

    def forward(self, x):
        parts = x.chunk(self.steps, dim=1)
        moved = [p.roll(self.steps // 2 - i, self.axis) for i, p in enumerate(parts)]
        return self.mix(torch.cat(moved, dim=1))


class CycleMLPBlock(nn.Module):
    """Cycle FC along both axes and a plain one, summed; then an MLP."""

    def __init__(self, channels: int, layer: type[nn.Module] = CycleFC) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(1, channels), nn.GroupNorm(1, channels)
        self.rows, self.columns = layer(channels, 3, 2), layer(channels, 3, 3)
        self.plain = nn.Conv2d(channels, channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)
        self.expand = nn.Conv2d(channels, 4 * channels, 1)
        self.reduce = nn.Conv2d(4 * channels, channels, 1)

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.proj(self.rows(y) + self.columns(y) + self.plain(y))
        return x + self.reduce(F.gelu(self.expand(self.norm2(x))))


class WindowAttention(nn.Module):
    """Attention in windows of a map, which may be shifted cyclically (Swin)."""

    def __init__(self, channels: int, heads: int, window: int, shift: int) -> None:
        super().__init__()
        self.heads, self.window, self.shift = heads, window, shift
        self.qkv = nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)

    def mask(self, height: int, width: int, like: torch.Tensor) -> torch.Tensor:
        """Return (windows, n, n): -inf between positions that were not neighbors."""
        region = torch.zeros(height, width, device=like.device, dtype=like.dtype)
        cuts = (slice(-self.window), slice(-self.window, -self.shift))
        for i, rows in enumerate((*cuts, slice(-self.shift, None))):
            for j, columns in enumerate((*cuts, slice(-self.shift, None))):
                region[rows, columns] = 3 * i + j
        w = self.window
        region = rearrange(region, "(a h) (b w) -> (a b) (h w)", h=w, w=w)
        apart = region[:, :, None] != region[:, None, :]
        return torch.zeros_like(apart, dtype=like.dtype).masked_fill(apart, -torch.inf)

    def forward(self, x):  # (B, H, W, C)
        b, height, width, _ = x.shape
        w = self.window
        if self.shift:
            x = torch.roll(x, (-self.shift, -self.shift), dims=(1, 2))
        x = rearrange(x, "b (i h) (j w) c -> (b i j) (h w) c", h=w, w=w)
        qkv = rearrange(self.qkv(x), "b n (t h d) -> t b h n d", t=3, h=self.heads)
        q, k, v = qkv.unbind()
        scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B windows, h, n, n)
        if self.shift:
            scores = scores + self.mask(height, width, x).repeat(b, 1, 1)[:, None]
        x = rearrange(scores.softmax(-1) @ v, "b h n d -> b n (h d)")
        x = rearrange(
            self.proj(x),
            "(b i j) (h w) c -> b (i h) (j w) c",
            i=height // w,
            j=width // w,
            h=w,
        )
        if self.shift:
            x = torch.roll(x, (self.shift, self.shift), dims=(1, 2))
        return x


class SwinBlock(nn.Module):
    """Attention in windows and an MLP, on maps with channels last (Liu et al. 2021)."""

    def __init__(self, channels: int, heads: int, window: int = 7, shift: int = 0):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, window, shift)
        self.mlp = MLP(channels, 4 * channels)

    def forward(self, x):  # (B, H, W, C)
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Prototype(NamedTuple):
    """How to make a block, and the shape of one input without the batch."""

    build: Callable[[], nn.Module]
    input_size: tuple[int, ...]


BLOCKS: dict[str, Prototype] = {
    "NiN": Prototype(lambda: MLPConv(3, 96, 11), (3, 55, 55)),
    "Inception": Prototype(
        lambda: Inception(192, 64, (96, 128), (16, 32), 32), (192, 28, 28)
    ),
    "ResNet": Prototype(lambda: Bottleneck(256, 64), (256, 56, 56)),
    "ResNeXt": Prototype(lambda: Bottleneck(256, 128, groups=32), (256, 56, 56)),
    "dense": Prototype(lambda: DenseBlock(64, 32, 4), (64, 56, 56)),
    "separable": Prototype(lambda: XceptionBlock(728), (728, 19, 19)),
    "SE": Prototype(lambda: Bottleneck(256, 64, gate=True), (256, 56, 56)),
    "SE, stride 2": Prototype(
        lambda: Bottleneck(256, 128, gate=True, stride=2), (256, 56, 56)
    ),
    "ConvNeXt": Prototype(lambda: ConvNeXtBlock(96), (96, 56, 56)),
    "fire": Prototype(lambda: Fire(96, 16, 64), (96, 55, 55)),
    "inverted residual": Prototype(lambda: InvertedResidual(24), (24, 56, 56)),
    "inverted residual with SE": Prototype(
        lambda: InvertedResidual(40, gate=True), (40, 28, 28)
    ),
    "shuffle v1": Prototype(lambda: ShuffleUnit1(240, 3), (240, 28, 28)),
    "shuffle v1, stride 2": Prototype(
        lambda: ShuffleUnit1(240, 3, stride=2), (240, 28, 28)
    ),
    "shuffle v2": Prototype(lambda: ShuffleUnit2(116), (116, 28, 28)),
    "shuffle v2, stride 2": Prototype(
        lambda: ShuffleUnit2(116, stride=2), (116, 28, 28)
    ),
    "Mixer": Prototype(lambda: MixerBlock(196, 512), (196, 512)),
    "Cycle FC": Prototype(lambda: CycleMLPBlock(64), (64, 56, 56)),
    "Cycle FC by roll": Prototype(
        lambda: CycleMLPBlock(66, CycleFCByRoll), (66, 56, 56)
    ),
    "Swin": Prototype(lambda: SwinBlock(96, 3), (56, 56, 96)),
    "Swin, shifted": Prototype(lambda: SwinBlock(96, 3, shift=3), (56, 56, 96)),
}
