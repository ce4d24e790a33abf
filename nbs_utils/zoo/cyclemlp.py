# Written by `nbs export` from chapters/attention/cyclemlp.ipynb; edit the chapter, not this file.
"""CycleMLP (2021), as its chapter builds it."""

from collections import OrderedDict

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.vit import MLP

AXES = {"height": 1, "width": 2}  # of a map with its channels last


def step_channels(x: torch.Tensor, step: int, axis: str) -> torch.Tensor:
    """Read every channel of a map at its own distance along one axis.

    (B, H, W, C) -> (B, H, W, C). Channel c is taken from ((c + r) mod step) - r
    positions further, where r = step // 2; beyond the border there are zeros.

    Args:
        step: odd number of distances, through which the channels cycle.
        axis: "height" or "width".
    """
    dim, reach = AXES[axis], step // 2
    zeros = (reach, reach) if axis == "width" else (0, 0, reach, reach)
    padded = nn.functional.pad(x, (0, 0, *zeros))
    y = torch.empty_like(x)
    for first in range(step):  # of the channels with the same distance
        start = (first + reach) % step  # in the padded map: the distance, plus r
        same = padded.narrow(dim, start, x.shape[dim])[..., first::step]
        y[..., first::step] = same
    return y


class CycleFC(nn.Linear):
    """A linear layer over channels that are read at different positions.

    (B, H, W, C_in) -> (B, H, W, C_out).

    Args:
        in_channels, out_channels: C_in and C_out.
        step: number K of positions that the channels cycle through; odd.
        axis: "width" to step across the columns, "height" to step down the rows.

    Source: Chen et al. (2022).
    """

    def __init__(
        self, in_channels: int, out_channels: int, step: int = 3, axis: str = "width"
    ) -> None:
        if step % 2 == 0 or axis not in AXES:
            raise ValueError(
                f"step is {step} and axis is {axis!r}; they must be an odd number and "
                "'height' or 'width'."
            )
        super().__init__(in_channels, out_channels)
        self.step, self.axis = step, axis

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(step_channels(x, self.step, self.axis))


class BranchWeights(nn.Module):
    """Give three branches their shares, channel by channel, from the mean of their sum.

    (B, H, W, d) -> (B, 1, 1, d, 3); the three numbers of a channel sum to 1.

    Args:
        dim: channels d; divisible by 4.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.reduce, self.act = nn.Linear(dim, dim // 4), nn.GELU()
        self.expand = nn.Linear(dim // 4, 3 * dim)

    def forward(self, total: torch.Tensor) -> torch.Tensor:
        scores = self.expand(self.act(self.reduce(total.mean(dim=(1, 2)))))
        return scores.unflatten(1, (1, 1, -1, 3)).softmax(dim=-1)


class CycleMixer(nn.Module):
    """Mix positions and channels: across the columns, down the rows, and in place.

    (B, H, W, d) -> (B, H, W, d).

    Args:
        dim: channels d.
        step: of both cycle layers.
        reweight: whether the branches get shares by `BranchWeights`, or a third each.

    Source: the authors' code (Chen 2021).
    """

    def __init__(self, dim: int, step: int = 3, reweight: bool = True) -> None:
        super().__init__()
        self.across = CycleFC(dim, dim, step, "width")
        self.down = CycleFC(dim, dim, step, "height")
        self.here = nn.Linear(dim, dim, bias=False)
        self.weights = BranchWeights(dim) if reweight else None
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        across, down, here = self.across(x), self.down(x), self.here(x)
        total = across + down + here  # (B, H, W, d)
        if self.weights is None:
            return self.proj(total / 3)
        first, second, third = self.weights(total).unbind(dim=-1)  # (B, 1, 1, d)
        return self.proj(across * first + down * second + here * third)


class CycleBlock(nn.Module):
    """Mix positions, then an MLP at each position; both are added.

    (B, H, W, d) -> (B, H, W, d).

    Args:
        dim: channels d.
        ratio: hidden units of the MLP, as a multiple of d.
        step, reweight: see `CycleMixer`.
    """

    def __init__(
        self, dim: int, ratio: int = 4, step: int = 3, reweight: bool = True
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.mixer = CycleMixer(dim, step, reweight)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = MLP(dim, ratio * dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.mixer(self.norm1(x))  # (B, H, W, d)
        return x + self.mlp(self.norm2(x))


class ConvLast(nn.Conv2d):
    """A convolution for maps with the channels last: (B, H, W, C) -> (B, H', W', C')."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def initialize(network: nn.Module) -> None:
    """Draw the weights of linear layers with a deviation of 0.02; biases begin at zero.

    Convolutions keep PyTorch's start, as in the authors' code.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Linear):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make_stages(
    dims: list[int],
    depths: tuple[int, ...],
    ratios: tuple[int, ...],
    window: tuple[int, int, int],
    step: int,
    reweight: bool,
) -> nn.Sequential:
    """Return the stages: each a convolution that makes its map, then its blocks.

    Args:
        dims: channels of the images, then of each stage.
        depths, ratios: blocks, and the MLP's ratio, by stage.
        window: kernel, stride and padding of the first convolution.
        step, reweight: see `CycleMixer`.
    """
    stages = OrderedDict()
    plans = zip(dims, dims[1:], depths, ratios, strict=False)  # dims[1:] is shorter
    for i, (inputs, dim, depth, ratio) in enumerate(plans, start=1):
        blocks = [CycleBlock(dim, ratio, step, reweight) for _ in range(depth)]
        stages[f"stage{i}"] = nn.Sequential(ConvLast(inputs, dim, *window), *blocks)
        window = (3, 2, 1)
    return nn.Sequential(stages)


class CycleMLP(nn.Module):
    """CycleMLP (Chen et al. 2022): (B, C, H, W) -> (B, num_classes), any H and W.

    Args:
        depths, widths, ratios: blocks, channels, and the MLP's ratio, by stage.
        step, reweight: see `CycleMixer`.
        width: factor on all widths, which stay divisible by 4.
        stem: "imagenet" (7x7, stride 4), or "cifar" (3x3, stride 1) for 32 pixels.
        num_classes, in_channels: numbers of outputs and of the images' channels.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (2, 2, 4, 2),
        widths: tuple[int, ...] = (64, 128, 320, 512),
        ratios: tuple[int, ...] = (4, 4, 4, 4),
        step: int = 3,
        reweight: bool = True,
        width: float = 1.0,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.least = by_stem(stem, imagenet=3, cifar=1)  # pixels that the stem needs
        window = by_stem(stem, imagenet=(7, 4, 2), cifar=(3, 1, 1))
        dims = [in_channels, *(4 * round(channels * width / 4) for channels in widths)]
        self.stages = make_stages(dims, depths, ratios, window, step, reweight)
        self.norm = nn.LayerNorm(dims[-1])
        self.head = nn.Linear(dims[-1], num_classes)
        initialize(self)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_side(images, self.least)
        x = self.stages(images.permute(0, 2, 3, 1))  # (B, H/32, W/32, 512)
        return self.head(self.norm(x).mean(dim=(1, 2)))


WIDE = dict(ratios=(8, 8, 4, 4))
VARIANTS = {
    "cyclemlp_b1": dict(depths=(2, 2, 4, 2)),
    "cyclemlp_b2": dict(depths=(2, 3, 10, 3)),
    "cyclemlp_b3": dict(depths=(3, 4, 18, 3)) | WIDE,
    "cyclemlp_b4": dict(depths=(3, 8, 27, 3)) | WIDE,
    "cyclemlp_b5": dict(depths=(3, 4, 24, 3), widths=(96, 192, 384, 768)),
}
register(CycleMLP, VARIANTS, image_size=224)
