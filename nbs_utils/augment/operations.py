"""The operations that AutoAugment's line chooses from, each image with its own.

They come from AutoAugment (Cubuk et al., 2019), which took them from Pillow. What an
operation does at a magnitude is what torchvision does; there, all images of a batch
get the same one. Here a batch is divided by operation, and the images of a part are
changed together, each by its own magnitude.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

# name -> what its magnitude is
OPERATIONS = {
    "Identity": "none",
    "ShearX": "horizontal shift in pixels for each row of pixels",
    "ShearY": "vertical shift in pixels for each column of pixels",
    "TranslateX": "pixels to the right",
    "TranslateY": "pixels down",
    "Rotate": "degrees counter-clockwise",
    "Brightness": "-1 (black) to 1 (twice as bright)",
    "Color": "-1 (gray) to 1 (twice the distance from gray)",
    "Contrast": "-1 (the mean gray) to 1 (twice the distance from it)",
    "Sharpness": "-1 (smoothed) to 1 (twice the distance from smoothed)",
    "Posterize": "bits that are kept of the 8, 0 to 8",
    "Solarize": "0 to 1; what is at least that bright is inverted",
    "AutoContrast": "none",
    "Equalize": "none",
    "Invert": "none",
}
_NAMES = list(OPERATIONS)
_MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")


def apply_operation(
    x: Tensor, operation: str | list[str] | Tensor, magnitude: Tensor | float = 0.0
) -> Tensor:
    """Apply to each image an operation at a magnitude.

    Args:
        x: (B, C, H, W), C = 1 or 3, uint8, or float in 0..1, which is rounded to the
            256 levels of a byte first.
        operation: a name in `OPERATIONS` for all images, one for each, or int64 (B,)
            positions in `OPERATIONS`.
        magnitude: (B,) or one number; `OPERATIONS` says in which unit.

    Returns:
        (B, C, H, W) of the same type. What moves leaves black behind.

    Raises:
        ValueError: no operation has this name, there are not as many operations or
            magnitudes as images, or the images have another number of channels.
    """
    if x.ndim != 4 or x.shape[1] not in (1, 3):
        raise ValueError(
            f"The images have the shape {tuple(x.shape)}; the operations take "
            "(B, C, H, W) with 1 channel (gray) or 3 (color)."
        )
    if x.dtype != torch.uint8:
        levels = (x * 255).round().clamp(0, 255).byte()
        return apply_operation(levels, operation, magnitude).to(x.dtype) / 255
    which = positions(operation, len(x))
    magnitude = torch.as_tensor(magnitude, dtype=torch.float32).cpu()
    _require_one_each("magnitudes", magnitude.numel() if magnitude.ndim else 1, len(x))
    magnitude = magnitude.expand(len(x))
    out = x.clone()
    moving = torch.isin(which, positions(_MOVING, len(_MOVING)))
    groups = {name: which == _NAMES.index(name) for name in _CHANGES}
    for name, mask in {"move": moving, **groups}.items():
        if not mask.any():
            continue
        chosen = mask.nonzero().squeeze(1)
        amount, at = magnitude[chosen], chosen.to(x.device)
        if name == "move":
            changed = _move(x[at], which[chosen], amount)
        else:
            changed = _CHANGES[name](x[at], amount.to(x.device).view(-1, 1, 1, 1))
        out[at] = changed
    return out


def positions(operation: str | list[str] | Tensor, count: int) -> Tensor:
    """Return positions in `OPERATIONS`, int64 (count,) on the CPU."""
    if isinstance(operation, Tensor):
        _require_one_each("operations", operation.numel(), count)
        return operation.cpu().expand(count)
    names = [operation] * count if isinstance(operation, str) else list(operation)
    for name in names:
        if name not in OPERATIONS:
            raise ValueError(
                f"No operation is called '{name}'; there are {', '.join(OPERATIONS)}."
            )
    _require_one_each("operations", len(names), count)
    return torch.tensor([_NAMES.index(name) for name in names]).expand(count)


def _require_one_each(what: str, given: int, images: int) -> None:
    if given not in (1, images):
        raise ValueError(
            f"{given} {what} came with {images} images; give one for all, or one for "
            "each."
        )


# --- what moves: all five are one matrix per image


def _sources(which: Tensor, amount: Tensor, height: int, width: int) -> Tensor:
    """Return matrices (B, 2, 3) from a pixel's place to the place it comes from.

    Places are (x, y, 1) in pixels from the image's center. Rotation turns around it;
    shears leave the upper left corner where it is.
    """
    a = dict(zip(_MOVING, (which == positions(_MOVING, 5)[:, None]) * amount))
    angle = a["Rotate"] * torch.pi / 180
    cos, sin = angle.cos(), angle.sin()
    left = -a["TranslateX"].trunc() + a["ShearX"] * height / 2
    up = -a["TranslateY"].trunc() + a["ShearY"] * width / 2
    rows = [cos, a["ShearX"] - sin, left, a["ShearY"] + sin, cos, up]
    return torch.stack(rows, 1).view(-1, 2, 3)


def _move(x: Tensor, which: Tensor, amount: Tensor) -> Tensor:
    """Shear, shift or turn each image; a pixel takes its nearest source, or black."""
    height, width = x.shape[-2:]
    matrix = _sources(which, amount, height, width).to(x.device)
    columns = torch.arange(width, device=x.device) - (width - 1) / 2
    rows = torch.arange(height, device=x.device) - (height - 1) / 2
    place = torch.stack(
        [
            columns.expand(height, width),
            rows[:, None].expand(height, width),
            torch.ones(height, width, device=x.device),
        ],
        dim=-1,
    )  # (H, W, 3)
    scale = torch.tensor([width / 2, height / 2], device=x.device)
    source = place.view(1, -1, 3) @ (matrix.mT / scale)  # -1 to 1 over the image
    grid = source.view(len(x), height, width, 2)
    with torch.autocast(x.device.type, enabled=False):
        y = F.grid_sample(x.float(), grid, mode="nearest", align_corners=False)
    return y.byte()


# --- what changes colors: functions of uint8 (B, C, H, W) and amounts (B, 1, 1, 1)


def _blend(x: Tensor, other: Tensor, amount: Tensor) -> Tensor:
    """Go from an image towards another (-1 arrives) or as far away from it (1)."""
    return (x.float() * (1 + amount) - other * amount).clamp_(0, 255).byte()


def _gray(x: Tensor) -> Tensor:
    return tv.rgb_to_grayscale(x).float()


def _sharpen(x: Tensor, amount: Tensor) -> Tensor:
    """Blend with the average over 3 x 3 pixels, the middle one counted five times.

    The outermost pixels, which have no such average, stay as they are.
    """
    y, channels = x.float(), x.shape[1]
    if min(x.shape[-2:]) > 2:
        kernel = torch.ones(3, 3, device=x.device)
        kernel[1, 1] = 5
        kernel = (kernel / 13).expand(channels, 1, 3, 3)
        smooth = F.conv2d(y, kernel, groups=channels).round_()
        inner = y[..., 1:-1, 1:-1]
        inner += (inner - smooth) * amount
    return y.clamp_(0, 255).byte()


def _posterize(x: Tensor, bits: Tensor) -> Tensor:
    lost = 2 ** (8 - bits.int().clamp(0, 8))  # 1 with 8 bits, 256 with none
    return x & (256 - lost).clamp_max(255).byte()


_CHANGES = {
    "Brightness": lambda x, a: _blend(x, torch.zeros((), device=x.device), a),
    "Color": lambda x, a: _blend(x, _gray(x), a) if x.shape[1] == 3 else x,
    "Contrast": lambda x, a: _blend(x, _gray(x).mean((1, 2, 3), keepdim=True), a),
    "Sharpness": _sharpen,
    "Posterize": _posterize,
    "Solarize": lambda x, a: torch.where(x >= 255 * a, 255 - x, x),
    "AutoContrast": lambda x, a: tv.autocontrast(x),
    "Equalize": lambda x, a: tv.equalize(x),
    "Invert": lambda x, a: 255 - x,
}
