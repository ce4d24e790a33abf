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
    """Return softmax(q k^T / sqrt(width)) v, and the weights of this mean.

    Args:
        q, k: queries (..., N, width) and keys (..., M, width).
        v: values (..., M, values).

    Returns:
        The outputs (..., N, values) and the weights (..., N, M), whose rows sum to 1.

    Source: Vaswani et al. (2017), equation 1.
    """
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])  # (..., N, M)
    weights = scores.softmax(dim=-1)  # over the keys
    return weights @ v, weights


class PatchEmbedding(nn.Module):
    """Cut images into square patches and map each one linearly to a token.

    (B, C, H, W) -> (B, (H / P) * (W / P), d), row by row.

    Args:
        patch_size: side P of a patch; divides H and W.
        embed_dim: length d of a token.
        in_channels: channels C of the images.

    Raises:
        ValueError: the patches do not divide the images.
    """

    def __init__(self, patch_size: int, embed_dim: int, in_channels: int = 3) -> None:
        super().__init__()
        self.patch_size = patch_size
        fan_in = in_channels * patch_size**2
        self.proj = nn.Linear(fan_in, embed_dim)
        nn.init.trunc_normal_(self.proj.weight, std=fan_in**-0.5)
        nn.init.zeros_(self.proj.bias)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        height, width = images.shape[-2:]
        if height % self.patch_size or width % self.patch_size:
            raise ValueError(
                f"Patches of {self.patch_size} x {self.patch_size} pixels do not "
                f"divide an image of {height} x {width}."
            )
        cut = "b c (rows p1) (columns p2) -> b (rows columns) (c p1 p2)"
        patches = rearrange(images, cut, p1=self.patch_size, p2=self.patch_size)
        return self.proj(patches)  # (B, patches, C * P * P) -> (B, patches, d)


class PositionEmbedding(nn.Module):
    """Add a learned vector to the token at every position.

    (B, N, d) -> (B, N, d).

    Args:
        length: number N of tokens.
        embed_dim: length d of a token.

    Raises:
        ValueError: another number of tokens came, so the image has another size.
    """

    def __init__(self, length: int, embed_dim: int) -> None:
        super().__init__()
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, length, embed_dim))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        if tokens.shape[1] != self.pos_embed.shape[1]:
            raise ValueError(
                f"The image gives {tokens.shape[1]} tokens, but there are positions "
                f"for {self.pos_embed.shape[1]}. Build the network with the image_size "
                "of the data, or interpolate its positions."
            )
        return tokens + self.pos_embed


class ImageToTokens(nn.Module):
    """Turn images into the sequence that a Transformer reads.

    (B, C, image_size, image_size) -> (B, N, d), where N counts the patches and the
    class token, if there is one.

    Args:
        patches: the embedding of the patches.
        length: number of patches of an image.
        embed_dim: length d of a token.
        class_token: whether a learned token stands before the patches.
        positions: whether a learned vector is added at every position.

    Source: Dosovitskiy et al. (2021), equation 1.
    """

    def __init__(
        self,
        patches: PatchEmbedding,
        length: int,
        embed_dim: int,
        class_token: bool = True,
        positions: bool = True,
    ) -> None:
        super().__init__()
        self.cls_token = None
        if class_token:
            self.cls_token = nn.Parameter(torch.zeros(1, 1, embed_dim))
        self.patches = patches
        self.positions = nn.Identity()
        if positions:
            self.positions = PositionEmbedding(length + int(class_token), embed_dim)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.patches(images)  # (B, patches, d)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1)
        return self.positions(x)  # (B, N, d)


class MultiHeadSelfAttention(nn.Module):
    """Let every token read from all tokens, through several heads at once.

    (B, N, d) -> (B, N, d); with `return_weights` also the weights (B, h, N, N).

    Args:
        embed_dim: length d of a token.
        num_heads: number h of attentions side by side, each on d / h numbers.

    Source: Vaswani et al. (2017), section 3.2.
    """

    def __init__(self, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(embed_dim, 3 * embed_dim)  # W_q, W_k and W_v in one
        self.proj = nn.Linear(embed_dim, embed_dim)  # W_o
        # Xavier for three d x d matrices, not for one of 3d x d: hence the gain.
        nn.init.xavier_uniform_(self.qkv.weight, gain=2**0.5)
        nn.init.xavier_uniform_(self.proj.weight)
        nn.init.zeros_(self.qkv.bias)
        nn.init.zeros_(self.proj.bias)

    def forward(
        self, x: torch.Tensor, return_weights: bool = False
    ) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        split = "b n (role head width) -> role b head n width"
        q, k, v = rearrange(self.qkv(x), split, role=3, head=self.num_heads)
        if return_weights:
            y, weights = attention(q, k, v)  # (B, h, N, d / h), (B, h, N, N)
        else:  # the same outputs, without ever storing the weights
            y = nn.functional.scaled_dot_product_attention(q, k, v)
        y = self.proj(rearrange(y, "b head n width -> b n (head width)"))  # (B, N, d)
        return (y, weights) if return_weights else y


class MLP(nn.Sequential):
    """Two linear layers with a GELU between them, for each token alone.

    (B, N, d) -> (B, N, d).

    Args:
        embed_dim: length d of a token.
        hidden: number of hidden units.
        dropout: probability, behind each of the two.
    """

    def __init__(self, embed_dim: int, hidden: int, dropout: float = 0.0) -> None:
        widen, narrow = nn.Linear(embed_dim, hidden), nn.Linear(hidden, embed_dim)
        for layer in (widen, narrow):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.normal_(layer.bias, std=1e-6)
        drops = nn.Dropout(dropout), nn.Dropout(dropout)
        super().__init__(widen, nn.GELU(), drops[0], narrow, drops[1])


class EncoderBlock(nn.Module):
    """Attention between the tokens, then an MLP in each; both are added.

    (B, N, d) -> (B, N, d).

    Args:
        embed_dim: length d of a token.
        num_heads: heads of the attention.
        mlp_dim: hidden units of the MLP.
        dropout: probability, behind every linear layer except qkv.

    Source: Dosovitskiy et al. (2021), equations 2 and 3.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, mlp_dim: int, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.attention = MultiHeadSelfAttention(embed_dim, num_heads)
        self.dropout = nn.Dropout(dropout)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.mlp = MLP(embed_dim, mlp_dim, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.dropout(self.attention(self.norm1(x)))  # (B, N, d)
        return x + self.mlp(self.norm2(x))


class Encoder(nn.Module):
    """Dropout, a stack of blocks, and the last normalization.

    (B, N, d) -> (B, N, d).

    Args:
        depth: number L of blocks.
        embed_dim, num_heads, mlp_dim, dropout: see `EncoderBlock`.
    """

    def __init__(
        self,
        depth: int,
        embed_dim: int,
        num_heads: int,
        mlp_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(
            *[
                EncoderBlock(embed_dim, num_heads, mlp_dim, dropout)
                for _ in range(depth)
            ]
        )
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.norm(self.blocks(self.dropout(x)))  # (B, N, d)


class VisionTransformer(nn.Module):
    """A Transformer encoder that reads an image as a sequence of patches.

    Args:
        num_classes, in_channels: numbers of outputs and of the images' channels.
        image_size, patch_size: in pixels.
        embed_dim, depth, num_heads, mlp_dim, dropout: see `Encoder`.
        class_token, positions: see `ImageToTokens`; without the token, the mean.
        stem: "imagenet" for patches of `patch_size`, or "cifar" for patches of 4.
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_dim: int = 3072,
        dropout: float = 0.0,
        class_token: bool = True,
        positions: bool = True,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        patch_size = by_stem(stem, imagenet=patch_size, cifar=4)
        self.reads_class_token = class_token
        patches = PatchEmbedding(patch_size, embed_dim, in_channels)
        length = (image_size // patch_size) ** 2
        self.tokens = ImageToTokens(patches, length, embed_dim, class_token, positions)
        self.encoder = Encoder(depth, embed_dim, num_heads, mlp_dim, dropout)
        self.head = nn.Linear(embed_dim, num_classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.encoder(self.tokens(images))  # (B, N, d)
        return self.head(x[:, 0] if self.reads_class_token else x.mean(dim=1))


SIZES = {
    "mini": dict(embed_dim=192, depth=6, num_heads=3, mlp_dim=768, image_size=128),
    "ti": dict(embed_dim=192, depth=12, num_heads=3, mlp_dim=768),
    "s": dict(embed_dim=384, depth=12, num_heads=6, mlp_dim=1536),
    "b": dict(embed_dim=768, depth=12, num_heads=12, mlp_dim=3072),
    "l": dict(embed_dim=1024, depth=24, num_heads=16, mlp_dim=4096),
    "h": dict(embed_dim=1280, depth=32, num_heads=16, mlp_dim=5120),
}
NAMES = "mini_8 mini_16 ti_16 s_16 b_16 b_32 l_16 l_32 h_14"
VITS = {
    f"vit_{size}_{patch}": SIZES[size] | {"patch_size": int(patch)}
    for size, patch in (name.split("_") for name in NAMES.split())
}
register(VisionTransformer, VITS)


@torch.no_grad()
def attention_maps(network: VisionTransformer, images: torch.Tensor) -> torch.Tensor:
    """Return the attention weights of all blocks, (L, B, h, N, N).

    Args:
        network: in evaluation mode.
        images: (B, C, H, W), normalized, on the network's device.
    """
    x = network.tokens(images)  # (B, N, d)
    maps = []
    for block in network.encoder.blocks:
        _, weights = block.attention(block.norm1(x), return_weights=True)
        maps.append(weights)
        x = block(x)
    return torch.stack(maps)
