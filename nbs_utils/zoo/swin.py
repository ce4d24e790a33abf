# Written by `nbs export` from chapters/attention/swin.ipynb; edit the chapter, not this file.
"""Swin Transformer (2021), as its chapter builds it."""

import math

import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.vit import MLP, MultiHeadSelfAttention, PatchEmbedding


def to_windows(x: torch.Tensor, side: int) -> torch.Tensor:
    """Cut maps into windows: (B, H, W, d) -> (B, windows, side * side, d)."""
    cut = "b (rows y) (columns x) d -> b (rows columns) (y x) d"
    return rearrange(x, cut, y=side, x=side)


def from_windows(windows: torch.Tensor, side: int, rows: int) -> torch.Tensor:
    """Put windows, of which `rows` lie below one another, back into maps."""
    put = "b (rows columns) (y x) d -> b (rows y) (columns x) d"
    return rearrange(windows, put, rows=rows, y=side)


def foreign_pairs(
    size: tuple[int, int], side: int, shift: tuple[int, int], device: torch.device
) -> torch.Tensor:
    """Tell which tokens of a rolled map share a window but are no neighbors.

    Args:
        size: height and width of the map, in tokens.
        side: of a window.
        shift: by how much the map was rolled up and to the left.
        device: of the result.

    Returns:
        (windows, side * side, side * side), True for a pair that must not be read.
    """
    pieces = []  # 0 far from the end, 1 in the last window, 2 if rolled into it
    for length, by in zip(size, shift):
        place = torch.arange(length, device=device)
        pieces.append((place >= length - side).int() + (place >= length - by).int())
    piece = 3 * pieces[0][:, None] + pieces[1]  # (H, W)
    piece = to_windows(piece[None, :, :, None], side)[0, :, :, 0]  # (windows, N)
    return piece[:, :, None] != piece[:, None, :]


def relative_index(side: int) -> torch.Tensor:
    """Number the offsets between the tokens of a window, (side**2, side**2).

    Entry (i, j) is the place of the offset from token j to token i in a table of
    (2 * side - 1)**2 offsets, row by row.
    """
    ticks = torch.arange(side)
    place = torch.cartesian_prod(ticks, ticks)  # (N, 2): row and column
    offset = place[:, None] - place + side - 1  # (N, N, 2), from 0 to 2 * side - 2
    return offset[..., 0] * (2 * side - 1) + offset[..., 1]


class StochasticDepth(nn.Module):
    """Leave out a branch for some images while training; enlarge it for the others.

    Args:
        p: probability with which an image goes without the branch, below 1.

    Shape: that of the input, whose first dimension counts the images.

    Source: Huang et al. (2016), with the scale in training instead of in evaluation.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(self, branch: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return branch
        ones = [1] * (branch.dim() - 1)
        kept = branch.new_empty(len(branch), *ones).bernoulli_(1 - self.p)
        return branch * kept / (1 - self.p)

    def extra_repr(self) -> str:
        return f"p={self.p:.3g}"


class WindowAttention(MultiHeadSelfAttention):
    """Let the tokens of each window read from one another, with a bias by offset.

    (B, windows, N, d) -> (B, windows, N, d) for N = window_size**2 tokens; with
    `return_weights` also the weights (B, windows, h, N, N).

    Args:
        embed_dim, num_heads: see `MultiHeadSelfAttention`.
        window_size: side of a window, in tokens.

    Source: Liu et al. (2021), equation 4.
    """

    def __init__(self, embed_dim: int, num_heads: int, window_size: int) -> None:
        super().__init__(embed_dim, num_heads)
        offsets = (2 * window_size - 1) ** 2
        self.bias_table = nn.Parameter(torch.empty(offsets, num_heads))
        nn.init.trunc_normal_(self.bias_table, std=0.02)
        self.register_buffer("index", relative_index(window_size).flatten())

    def forward(
        self,
        windows: torch.Tensor,
        forbidden: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        split = "b w n (role head width) -> role b w head n width"
        q, k, v = rearrange(self.qkv(windows), split, role=3, head=self.num_heads)
        scores = (q / math.sqrt(q.shape[-1])) @ k.transpose(-2, -1)  # (B, w, h, N, N)
        bias = self.bias_table[self.index]  # (N * N, h)
        scores = scores + rearrange(bias, "(n m) head -> head n m", n=q.shape[-2])
        if forbidden is not None:  # (w, N, N)
            scores = scores.masked_fill(forbidden[:, None], -torch.inf)
        weights = scores.softmax(dim=-1)
        y = rearrange(weights @ v, "b w head n width -> b w n (head width)")
        return (self.proj(y), weights) if return_weights else self.proj(y)


class ShiftedWindows(nn.Module):
    """Let a layer work within the windows of a map, which may be shifted.

    (B, H, W, d) -> (B, H, W, d).

    Args:
        inner: called with windows (B, windows, N, d) and, if they are shifted, the
            pairs of tokens that must not be read (windows, N, N).
        window_size: side of a window, in tokens.
        shift: tokens by which the windows are moved right and down; 0 for none.

    Source: Liu et al. (2021), section 3.2.
    """

    def __init__(self, inner: nn.Module, window_size: int, shift: int = 0) -> None:
        super().__init__()
        self.inner, self.window_size, self.shift = inner, window_size, shift

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        side, (height, width) = self.window_size, x.shape[1:3]
        x = F.pad(x, (0, 0, 0, -width % side, 0, -height % side))
        rows, columns = x.shape[1:3]
        shift = [self.shift if n > side else 0 for n in (rows, columns)]
        if not any(shift):
            x = from_windows(self.inner(to_windows(x, side)), side, rows // side)
        else:
            x = x.roll((-shift[0], -shift[1]), (1, 2))
            forbidden = foreign_pairs((rows, columns), side, shift, x.device)
            x = self.inner(to_windows(x, side), forbidden)
            x = from_windows(x, side, rows // side).roll(shift, (1, 2))
        return x[:, :height, :width]


class SwinBlock(nn.Module):
    """Attention within windows, then an MLP in each token; both are added.

    (B, H, W, d) -> (B, H, W, d).

    Args:
        embed_dim, num_heads: see `WindowAttention`.
        window_size, shift: see `ShiftedWindows`.
        drop_path: rate of the stochastic depth.

    Source: Liu et al. (2021), equation 3.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        window_size: int = 7,
        shift: int = 0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim)
        inner = WindowAttention(embed_dim, num_heads, window_size)
        self.attention = ShiftedWindows(inner, window_size, shift)
        self.drop_path = StochasticDepth(drop_path)
        self.norm2 = nn.LayerNorm(embed_dim)
        self.mlp = MLP(embed_dim, 4 * embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.drop_path(self.attention(self.norm1(x)))  # (B, H, W, d)
        return x + self.drop_path(self.mlp(self.norm2(x)))


class PatchMerging(nn.Module):
    """Make one token of twice the width out of 2 x 2 tokens.

    (B, H, W, d) -> (B, H / 2, W / 2, 2 * d), sides rounded up.

    Args:
        embed_dim: length d of a token that comes in.
    """

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.reduction = nn.Linear(4 * embed_dim, 2 * embed_dim, bias=False)
        self.norm = nn.LayerNorm(4 * embed_dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[1:3]
        x = F.pad(x, (0, 0, 0, width % 2, 0, height % 2))
        x = rearrange(x, "b (h y) (w x) d -> b h w (x y d)", y=2, x=2)
        return self.reduction(self.norm(x))


class PatchGrid(nn.Module):
    """Turn images into maps of tokens, one for each whole patch.

    (B, C, H, W) -> (B, H / P, W / P, d), sides rounded down.

    Args:
        patch_size: side P of a patch.
        embed_dim: length d of a token.
        in_channels: channels C of the images.
    """

    def __init__(self, patch_size: int, embed_dim: int, in_channels: int = 3) -> None:
        super().__init__()
        self.patches = PatchEmbedding(patch_size, embed_dim, in_channels)
        self.norm = nn.LayerNorm(embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        side = self.patches.patch_size
        rows, columns = (n // side for n in images.shape[-2:])
        x = self.patches(images[..., : rows * side, : columns * side])  # (B, N, d)
        return self.norm(rearrange(x, "b (h w) d -> b h w d", h=rows))


def make_stages(
    first: nn.Module,
    embed_dim: int,
    depths: tuple[int, ...],
    num_heads: tuple[int, ...],
    window_size: int,
    shift: int,
    drop_path: float,
) -> nn.Sequential:
    """Return the stages: what makes the tokens, then blocks; see `SwinTransformer`."""
    stages, l, last = [], 0, max(1, sum(depths) - 1)
    for depth, heads in zip(depths, num_heads, strict=True):
        if stages:
            first, embed_dim = PatchMerging(embed_dim), 2 * embed_dim
        blocks = []
        for i in range(depth):  # l counts the blocks of all stages
            move, rate = shift * (i % 2), drop_path * l / last
            blocks.append(SwinBlock(embed_dim, heads, window_size, move, rate))
            l += 1
        stages.append(nn.Sequential(first, *blocks))
    return nn.Sequential(*stages)


def begin(layer: nn.Module) -> None:
    """Give a linear layer the weights with which the paper's code begins."""
    if isinstance(layer, nn.Linear):
        nn.init.trunc_normal_(layer.weight, std=0.02)
        if layer.bias is not None:
            nn.init.zeros_(layer.bias)


class SwinTransformer(nn.Module):
    """A Transformer on maps of four scales, with attention in shifted windows.

    Args:
        num_classes, in_channels: numbers of outputs and of the images' channels.
        patch_size, window_size: side of a patch in pixels, of a window in tokens.
        embed_dim: length of a token in the first stage; doubles in each of the next.
        depths, num_heads: blocks, and heads of each block, in every stage.
        shift, drop_path: whether windows shift; rate of `StochasticDepth` at the end.
        stem: "imagenet", or "cifar" for patches of 2 pixels and windows of 4 tokens.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        in_channels: int = 3,
        patch_size: int = 4,
        embed_dim: int = 96,
        depths: tuple = (2, 2, 6, 2),
        num_heads: tuple = (3, 6, 12, 24),
        window_size: int = 7,
        shift: bool = True,
        drop_path: float = 0.0,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        self.patch_size = by_stem(stem, imagenet=patch_size, cifar=2)
        window = by_stem(stem, imagenet=window_size, cifar=4)
        first = PatchGrid(self.patch_size, embed_dim, in_channels)
        sizes = embed_dim, depths, num_heads, window, window // 2 if shift else 0
        self.stages = make_stages(first, *sizes, drop_path)
        d = embed_dim * 2 ** (len(depths) - 1)
        self.norm, self.head = nn.LayerNorm(d), nn.Linear(d, num_classes)
        self.apply(begin)
        self.no_weight_decay = [n for n, _ in self.named_parameters() if "_table" in n]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        require_side(images, self.patch_size)
        x = self.norm(self.stages(images))  # (B, H / 32, W / 32, 8 d)
        return self.head(x.mean(dim=(1, 2)))


SWINS = {
    "swin_t": dict(drop_path=0.2),
    "swin_s": dict(drop_path=0.3, depths=(2, 2, 18, 2)),
    "swin_b": dict(
        drop_path=0.5, depths=(2, 2, 18, 2), embed_dim=128, num_heads=(4, 8, 16, 32)
    ),
}
register(SwinTransformer, SWINS)
MINI = dict(embed_dim=32, depths=(2, 2, 2, 2), num_heads=(1, 2, 4, 8), window_size=4)
register(SwinTransformer, {"swin_mini": MINI}, image_size=128)
