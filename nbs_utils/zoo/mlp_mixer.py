# Written by `nbs export` from chapters/attention/mlp-mixer.ipynb; edit the chapter, not this file.
"""MLP-Mixer (2021), as its chapter builds it."""

import torch
from einops import rearrange
from torch import nn

from nbs_utils.zoo import by_stem, register
from nbs_utils.zoo.vit import MLP, PatchEmbedding


class TokenMixing(nn.Module):
    """Apply one MLP across the tokens, to every channel by itself.

    (B, N, d) -> (B, N, d).

    Args:
        num_tokens: number N of tokens.
        hidden: hidden units of the MLP.
        dropout: probability, behind each of its two layers.

    Raises:
        ValueError: another number of tokens came, so the image has another size.

    Source: Tolstikhin et al. (2021), equation 1.
    """

    def __init__(self, num_tokens: int, hidden: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.mlp = MLP(num_tokens, hidden, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if x.shape[1] != self.num_tokens:
            raise ValueError(
                f"The image gives {x.shape[1]} tokens, but the MLP across them was "
                f"made for {self.num_tokens}. Build the network with the image_size "
                "of the data."
            )
        columns = rearrange(x, "b n d -> b d n")
        return rearrange(self.mlp(columns), "b d n -> b n d")


class MixerBlock(nn.Module):
    """An MLP across the tokens, then one across the channels; both are added.

    (B, N, d) -> (B, N, d).

    Args:
        num_tokens, embed_dim: the sizes N and d of the table.
        token_dim, channel_dim: hidden units of the two MLPs.
        dropout: probability, behind every linear layer.

    Source: Tolstikhin et al. (2021), equation 1.
    """

    def __init__(
        self,
        num_tokens: int,
        embed_dim: int,
        token_dim: int,
        channel_dim: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.token_mixing = TokenMixing(num_tokens, token_dim, dropout)
        self.norm2 = nn.LayerNorm(embed_dim, eps=1e-6)
        self.channel_mixing = MLP(embed_dim, channel_dim, dropout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.token_mixing(self.norm1(x))  # (B, N, d)
        return x + self.channel_mixing(self.norm2(x))


class MLPMixer(nn.Module):
    """A stack of MLPs across tokens and across channels, in turn.

    Args:
        num_classes, in_channels: numbers of outputs and of the images' channels.
        image_size, patch_size: in pixels.
        embed_dim, token_dim, channel_dim, dropout: see `MixerBlock`.
        depth: number of blocks.
        stem: "imagenet" for patches of `patch_size`, or "cifar" for patches of 4.

    Source: Tolstikhin et al. (2021).
    """

    def __init__(
        self,
        num_classes: int = 1000,
        image_size: int = 224,
        patch_size: int = 16,
        in_channels: int = 3,
        embed_dim: int = 768,
        depth: int = 12,
        token_dim: int = 384,
        channel_dim: int = 3072,
        dropout: float = 0.0,
        stem: str = "imagenet",
    ) -> None:
        super().__init__()
        patch_size = by_stem(stem, imagenet=patch_size, cifar=4)
        num_tokens = (image_size // patch_size) ** 2
        sizes = num_tokens, embed_dim, token_dim, channel_dim, dropout
        self.patches = PatchEmbedding(patch_size, embed_dim, in_channels)
        self.blocks = nn.Sequential(*[MixerBlock(*sizes) for _ in range(depth)])
        self.norm = nn.LayerNorm(embed_dim, eps=1e-6)
        self.head = nn.Linear(embed_dim, num_classes)
        for parameter in self.head.parameters():
            nn.init.zeros_(parameter)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = self.norm(self.blocks(self.patches(images)))  # (B, N, d)
        return self.head(x.mean(dim=1))


SIZES = {"s": (512, 8), "b": (768, 12), "l": (1024, 24)}  # width d, blocks
MIXERS = {
    f"mixer_{size}{patch}": {
        "patch_size": patch,
        "embed_dim": SIZES[size][0],
        "depth": SIZES[size][1],
        "token_dim": SIZES[size][0] // 2,
        "channel_dim": SIZES[size][0] * 4,
    }
    for size, patch in (("s", 32), ("s", 16), ("b", 32), ("b", 16), ("l", 16))
}
MIXERS["mixer_mini_16"] = {
    "image_size": 128,
    "patch_size": 16,
    "embed_dim": 128,
    "depth": 8,
    "token_dim": 64,
    "channel_dim": 512,
}
register(MLPMixer, MIXERS)
