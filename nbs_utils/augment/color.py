"""Brightness, contrast, saturation and hue of a batch, each image by its own factor."""

import torch
from torch import Tensor

from .geometry import uniform

_GREY = (0.2989, 0.587, 0.114)  # the weights of torchvision and of ITU-R BT.601


def _column(factor: Tensor, x: Tensor) -> Tensor:
    return torch.as_tensor(factor).to(x.device, x.dtype).reshape(-1, 1, 1, 1)


def _gray(x: Tensor) -> Tensor:
    """Return the gray image (B, 1, H, W) of (B, 3, H, W)."""
    if x.shape[1] == 1:
        return x
    red, green, blue = x.split(1, dim=1)
    return _GREY[0] * red + _GREY[1] * green + _GREY[2] * blue


def _turn_hue(x: Tensor, turn: Tensor) -> Tensor:
    """Turn the color circle by a share of a full turn, through HSV.

    With value v and chroma c of a pixel, channel n of the result is
    v - c * clamp(min(k, 4 - k), 0, 1), k = (n + 6 * hue) mod 6, n = 5, 3, 1.
    """
    red, green, blue = x.unbind(1)
    value, where = x.max(1)
    chroma = value - x.amin(1)
    safe = torch.where(chroma > 0, chroma, torch.ones_like(chroma))
    sector = torch.stack([green - blue, blue - red, red - green], 1) / safe[:, None]
    sector = sector.gather(1, where[:, None])[:, 0] + 2 * where
    hue = sector + 6 * turn[:, 0]  # in sixths of a turn; 0 is red
    n = torch.tensor([5.0, 3.0, 1.0], device=x.device, dtype=x.dtype).view(1, 3, 1, 1)
    k = (n + hue[:, None]) % 6
    share = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[:, None] - chroma[:, None] * share


def adjust_color(
    x: Tensor,
    brightness: Tensor | None = None,
    contrast: Tensor | None = None,
    saturation: Tensor | None = None,
    hue: Tensor | None = None,
) -> Tensor:
    """Change the colors of each image by its own factors, in this order.

    Args:
        x: (B, C, H, W), uint8 in 0..255 or float in 0..1.
        brightness: (B,), 0 is black, 1 leaves the image as it is.
        contrast: (B,), 0 is the image's mean gray.
        saturation: (B,), 0 is the gray image.
        hue: (B,), share of a full turn of the color circle, -0.5 to 0.5.

    Returns:
        (B, C, H, W) of the same type, cut off at its bounds.
    """
    y = x.float() / 255 if x.dtype == torch.uint8 else x
    if brightness is not None:
        y = (y * _column(brightness, y)).clamp(0, 1)
    if contrast is not None:
        mean = _gray(y).mean((1, 2, 3), keepdim=True)
        y = torch.lerp(mean, y, _column(contrast, y)).clamp(0, 1)
    if y.shape[1] == 3:  # gray images have neither
        if saturation is not None:
            y = torch.lerp(_gray(y), y, _column(saturation, y)).clamp(0, 1)
        if hue is not None:
            y = _turn_hue(y, _column(hue, y))
    return (y * 255).round().to(torch.uint8) if x.dtype == torch.uint8 else y


def color_jitter(
    x: Tensor,
    generator: torch.Generator,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.0,
) -> Tensor:
    """Change brightness, contrast, saturation and hue of each image at random.

    Factors are uniform in [1 - amount, 1 + amount], the hue in [-hue, hue]. The four
    are applied in this order for all images; torchvision shuffles them.

    Args:
        x: (B, 3, H, W), or (B, 1, H, W), where only the first two do anything.
        generator: source of the draws.
        brightness, contrast, saturation: largest change of the factor.
        hue: largest turn of the color circle, 0 to 0.5.

    Raises:
        ValueError: an amount is negative, or the hue above half a turn.
    """
    named = {"brightness": brightness, "contrast": contrast, "saturation": saturation}
    for name, amount in named.items():
        if amount < 0:
            raise ValueError(f"{name} is {amount}; the largest change is at least 0.")
    if not 0 <= hue <= 0.5:
        raise ValueError(
            f"hue is {hue}; it must be between 0 and 0.5, half a turn of the circle."
        )
    draw = 2 * uniform(generator, 4, len(x)) - 1
    amounts = torch.tensor([brightness, contrast, saturation, hue], device=draw.device)
    factors = (1 + draw[:3] * amounts[:3, None]).clamp_min(0)
    return adjust_color(x, *factors, hue=draw[3] * hue if hue else None)
