"""PCA color noise (Krizhevsky et al., 2012), from the data set at hand."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ColorComponents:
    """The principal components of a data set's colors.

    Attributes:
        variance: (C,) of the values in 0..1 along each component, largest first.
        direction: (C, C), one component in each row, of length 1.
    """

    variance: Tensor
    direction: Tensor

    @property
    def share(self) -> Tensor:
        """The share of the variance that each component explains, (C,)."""
        return self.variance / self.variance.sum()


def color_components(images: Tensor) -> ColorComponents:
    """Compute the principal components of all pixels of images.

    Args:
        images: (N, C, H, W), uint8 in 0..255 or float in 0..1; some hundred images
            of the training split.

    Raises:
        ValueError: there is no image.
    """
    if images.ndim != 4 or not len(images):
        raise ValueError(
            f"The images have the shape {tuple(images.shape)}; components are computed "
            "from at least one image, (N, C, H, W)."
        )
    channels = images.shape[1]
    total, products = torch.zeros(channels), torch.zeros(channels, channels)
    for part in images.split(64):  # as doubles, all at once may not fit into memory
        pixels = part.cpu().transpose(0, 1).flatten(1).double()  # (C, N * H * W)
        pixels = pixels / 255 if images.dtype == torch.uint8 else pixels
        total, products = total + pixels.sum(1), products + pixels @ pixels.T
    count = images.numel() // channels
    mean = total / count
    covariance = products / count - torch.outer(mean, mean)
    variance, vectors = torch.linalg.eigh(covariance)  # smallest first, in columns
    variance, direction = variance.flip(0).clamp_min(0), vectors.T.flip(0)
    # An eigenvector's sign is free; fixed here, so that all machines agree.
    direction = direction * torch.where(direction.sum(1, keepdim=True) < 0, -1, 1)
    return ColorComponents(variance.float(), direction.float())


def shift_color(x: Tensor, shift: Tensor) -> Tensor:
    """Add to all pixels of each image its own color.

    Args:
        x: (B, C, H, W), uint8 in 0..255 or float in 0..1.
        shift: (B, C), in units of 0..1.

    Returns:
        (B, C, H, W) of the same type, cut off at its bounds.
    """
    shift = shift.to(x.device)[..., None, None]
    if x.dtype != torch.uint8:
        return (x + shift.to(x.dtype)).clamp(0, 1)
    return (x + 255 * shift).round_().clamp_(0, 255).byte()


def pca_noise(
    x: Tensor,
    generator: torch.Generator,
    components: ColorComponents,
    std: float = 0.1,
) -> Tensor:
    """Shift the colors of each image along the data's principal components.

    The shift is the sum over components i of `alpha_i * variance_i * direction_i`
    with alpha_i drawn from N(0, std ** 2), once for each image. The paper calls
    variance_i the eigenvalue, which it is.

    Args:
        x: (B, C, H, W), uint8 in 0..255 or float in 0..1.
        generator: source of the draws.
        components: what `color_components` returned for the training images.
        std: of the draws; 0.1 in the paper.

    Raises:
        ValueError: the components belong to images of another number of channels.
    """
    channels = len(components.variance)
    if channels != x.shape[1]:
        raise ValueError(
            f"The images have {x.shape[1]} channels and the components were computed "
            f"from images with {channels}; compute them from the images at hand."
        )
    alpha = torch.randn(
        len(x), channels, generator=generator, device=generator.device
    ).cpu()
    return shift_color(x, std * alpha * components.variance @ components.direction)
