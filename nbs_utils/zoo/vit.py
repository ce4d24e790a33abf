# Written by `nbs export` from chapters/attention/vit.ipynb; edit the chapter, not this file.
"""Vision Transformer (2020), as its chapter builds it."""

import math

import torch
from einops import rearrange
from torch import nn

from nbs_utils.zoo import by_stem, register


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return softmax(q k^T / sqrt(d)) v, and the weights of this mean.

    Args:
        q, k, v: queries, keys and values, (..., N, d).

    Returns:
        The outputs (..., N, d) and the weights (..., N, N), whose rows sum to 1.

    Source: Vaswani et al. (2017), equation 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., N, N)
    weights = scores.softmax(dim=-1)  # over the keys
    return weights @ v, weights


class PatchEmbedding(nn.Module):
    """Cut images into square patches and map each one linearly to a token.

    (B, C, H, W) -> (B, N, D) with N = (H / P) * (W / P), row by row.

    Args:
        patch_size: side P of a patch; divides H and W.
        width: length D of a token.
        in_channels: channels C of the images.

    Raises:
        ValueError: the patches do not divide the images.

    Source: Dosovitskiy et al. (2021), section 3.1.
    """

    def __init__(self, patch_size: int, width: int, in_channels: int = 3) -> None:
        super().__init__()
        self.patch_size = patch_size
        fan_in = in_channels * patch_size**2
        self.proj = nn.Linear(fan_in, width)
        nn.init.trunc_normal_(self.proj.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"Patches of {self.patch_size} x {self.patch_size} pixels do not "
                f"divide an image of {height} x {width}."
            )
        cut = "b c (h p) (w q) -> b (h w) (c p q)"
        patches = rearrange(images, cut, p=self.patch_size, q=self.patch_size)
        return self.proj(patches)  # (B, N, C * P * P) -> (B, N, D)


class PositionEmbedding(nn.Module):
    """Add a learned vector to the token at every place.

    (B, N, D) -> (B, N, D).

    Args:
        length: number N of places.
        width: length D of a token.

    Raises:
        ValueError: another number of tokens came, so the image has another size.
    """

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(1, length, width))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if tokens.shape[1] != self.places.shape[1]:
            raise ValueError(
                f"The image gives {tokens.shape[1]} tokens, but there are positions "
                f"for {self.places.shape[1]}. Build the network with the image_size "
                "of the data, or interpolate its positions."
            )
        return tokens + self.places


class ImageToTokens(nn.Module):
    """Turn images into the sequence that a Transformer reads.

    (B, C, image_size, image_size) -> (B, N + 1, D), or N without class token.

    Args:
        patches: the embedding of the patches.
        length: number N of patches of an image.
        width: length D of a token.
        class_token: whether a learned token stands before the patches.
        positions: whether a learned vector is added at every place.

    Source: Dosovitskiy et al. (2021), equation 1.
    """

    def __init__(
        self,
        patches: PatchEmbedding,
        length: int,
        width: int,
        class_token: bool = True,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.class_token = None
        if class_token:
            self.class_token = nn.Parameter(torch.zeros(1, 1, width))
        self.patches = patches
        self.positions = nn.Identity()
        if positions:
            self.positions = PositionEmbedding(length + class_token, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)  # (B, N, D)
        if self.class_token is not None:
            x = torch.cat([self.class_token.expand(len(x), -1, -1), x], dim=1)
        return self.positions(x)  # (B, N + 1, D)


class MultiHeadSelfAttention(nn.Module):
    """Let every token read from all tokens, through several heads at once.

    (B, N, D) -> (B, N, D); with `return_weights` also the weights (B, heads, N, N).

    Args:
        width: length D of a token.
        heads: number of attentions side by side, each on D / heads numbers.

    Source: Vaswani et al. (2017), section 3.2.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)  # W_q, W_k and W_v in one
        self.proj = nn.Linear(width, width)  # W_o
        # Xavier for three D x D matrices, not for one of 3D x D: hence the gain.
        nn.init.xavier_uniform_(self.qkv.weight, gain=2**0.5)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: torch.Tensor, return_weights: bool = False):
        split = "b n (role head d) -> role b head n d"
        q, k, v = rearrange(self.qkv(x), split, role=3, head=self.heads)
        y, weights = attention(q, k, v)  # (B, heads, N, d), (B, heads, N, N)
        y = self.proj(rearrange(y, "b head n d -> b n (head d)"))
        return (y, weights) if return_weights else y


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them, for each token alone.

    (B, N, D) -> (B, N, D).

    Args:
        width: length D of a token.
        hidden: number of hidden units.
        dropout: probability, behind each of the two.
    """

    def __init__(self, width: int, hidden: int, dropout: float = 0.0) -> None:
        widen, narrow = nn.Linear(width, hidden), nn.Linear(hidden, width)
        for layer in (widen, narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)
        drops = nn.Dropout(dropout), nn.Dropout(dropout)
        super().__init__(widen, nn.GELU(), drops[0], narrow, drops[1])


class EncoderBlock(nn.Module):
    """Attention between the tokens, then an MLP in each; both are added.

    (B, N, D) -> (B, N, D).

    Args:
        width: length D of a token.
        heads: heads of the attention.
        mlp_width: hidden units of the MLP.
        dropout: probability, behind every linear layer except qkv.

    Source: Dosovitskiy et al. (2021), equations 2 and 3.
    """

    def __init__(
        self, width: int, heads: int, mlp_width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attention = MultiHeadSelfAttention(width, heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, mlp_width, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))  # (B, N, D)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Sequential):
    """Dropout, a stack of blocks, and the last normalization.

    (B, N, D) -> (B, N, D).

    Args:
        depth: number L of blocks.
        width, heads, mlp_width, dropout: see `EncoderBlock`.
    """

    def __init__(
        self, depth: int, width: int, heads: int, mlp_width: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *[EncoderBlock(width, heads, mlp_width, dropout) for _ in range(depth)]
        )
        self.norm = nn.LayerNorm(width, eps=1e-6)


class VisionTransformer(nn.Module):
    """A Transformer encoder that reads an image as a sequence of patches.

    Args:
        num_classes: number of outputs; 1,000 for ImageNet.
        image_size, patch_size, in_channels: of the images, the first in pixels.
        width, depth, heads, mlp_width: hidden size D, layers, heads and MLP size in
            Table 1 of Dosovitskiy et al. (2021).
        dropout: 0.1 in the paper's training on ImageNet alone.
        class_token: classify from it; without it, from the mean of the patches.
        positions: whether tokens know their place.
        stem: "imagenet" for patches of `patch_size`, or "cifar" for images of about 32
            pixels, which are cut into patches of 4.

    Raises:
        ValueError: `stem` is neither.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        width: int = 768,
        depth: int = 12,
        heads: int = 12,
        mlp_width: int = 3072,
        dropout: float = 0.0,
        class_token: bool = True,
        positions: bool = True,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        patch_size = by_stem(stem, imagenet=patch_size, cifar=4)
        self.class_token = class_token
        patches = PatchEmbedding(patch_size, width, in_channels)
        length = (image_size // patch_size) ** 2
        self.tokens = ImageToTokens(patches, length, width, class_token, positions)
        self.encoder = Encoder(depth, width, heads, mlp_width, dropout)
        self.head = nn.Linear(width, num_classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        z = self.encoder(self.tokens(images))  # (B, N + 1, D)
        return self.head(z[:, 0] if self.class_token else z.mean(dim=1))


SIZES = {
    "mini": dict(width=192, depth=6, heads=3, mlp_width=768, image_size=128),
    "ti": dict(width=192, depth=12, heads=3, mlp_width=768),
    "s": dict(width=384, depth=12, heads=6, mlp_width=1536),
    "b": dict(width=768, depth=12, heads=12, mlp_width=3072),
    "l": dict(width=1024, depth=24, heads=16, mlp_width=4096),
    "h": dict(width=1280, depth=32, heads=16, mlp_width=5120),
}
NAMES = "mini_8 mini_16 ti_16 s_16 b_16 b_32 l_16 l_32 h_14"
VITS = {
    f"vit_{size}_{patch}": SIZES[size] | {"patch_size": int(patch)}
    for size, patch in (name.split("_") for name in NAMES.split())
}
register(VisionTransformer, VITS)


@torch.no_grad()
def attention_maps(network: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """Return the attention weights of all blocks, (L, B, heads, N + 1, N + 1).

    Args:
        network: in evaluation mode.
        images: (B, C, H, W), normalized, on the network's device.
    """
    x = network.tokens(images)
    maps = []
    for block in network.encoder.blocks:
        _, weights = block.attention(block.norm1(x), return_weights=True)
        maps.append(weights)
        x = block(x)
    return torch.stack(maps)
