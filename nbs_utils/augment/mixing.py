"""Mixtures of two images and of their labels; these take what a network sees."""

import numpy as np
import torch
from torch import Tensor

from .geometry import uniform
from .holes import inside


def _partners(
    x: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Return a random partner for each image and shares from Beta(alpha, alpha)."""
    if alpha <= 0:
        raise ValueError(f"alpha is {alpha}; Beta(alpha, alpha) needs it above 0.")
    device = generator.device
    partner = torch.randperm(len(x), generator=generator, device=device)
    # PyTorch's Beta takes no generator; NumPy's is seeded by the one given.
    seed = torch.randint(2**62, (), generator=generator, device=device)
    share = np.random.default_rng(int(seed)).beta(alpha, alpha, len(x))
    return partner.to(x.device), torch.from_numpy(share)


def mixup(
    x: Tensor, y: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Blend each image with another of the batch (Zhang et al., 2018).

    Args:
        x: float (B, C, H, W).
        y: int64 (B,).
        alpha: of the Beta distribution; small values blend little.
        generator: source of the draws.

    Returns:
        the blends `lam * x + (1 - lam) * x[partner]`, and (y, y[partner], lam) with
        lam float32 (B,), drawn for each image: the loss is
        `lam * loss(y_a) + (1 - lam) * loss(y_b)`.
    """
    partner, share = _partners(x, alpha, generator)
    lam = share.float().to(x.device)
    blend = lam.view(-1, 1, 1, 1).to(x.dtype)
    return torch.lerp(x[partner], x, blend), (y, y[partner], lam)


def cutmix(
    x: Tensor, y: Tensor, alpha: float, generator: torch.Generator
) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Paste a box of another image of the batch into each one (Yun et al., 2019).

    Args:
        x: float (B, C, H, W).
        y: int64 (B,).
        alpha: of the Beta distribution that the kept area is drawn from.
        generator: source of the draws.

    Returns:
        the images, and (y, y[partner], lam): lam float32 (B,) is the share of pixels
        that each image kept, counted after the box was cut off at the border.
    """
    partner, share = _partners(x, alpha, generator)
    rows, columns = x.shape[-2:]
    side = (1 - share).sqrt()
    height, width = (side * rows).long(), (side * columns).long()
    draw = uniform(generator, 2, len(x)).cpu()
    top = (draw[0] * rows).long() - height // 2
    left = (draw[1] * columns).long() - width // 2
    pasted = inside(x, top, left, height, width)
    lam = 1 - pasted.float().mean((1, 2, 3))
    return torch.where(pasted, x[partner], x), (y, y[partner], lam)
