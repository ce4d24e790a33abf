"""Windows, mirrors and resized boxes, each image of a batch by its own."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..runtime import cpu_cores, in_threads

TRIES = 10  # torchvision, too, gives up after ten boxes that do not fit


class BatchGenerator(torch.Generator):
    """A generator that gives a part of a batch what the whole batch would draw.

    Several processes that share a batch so augment it as one process would.

    Args:
        first: position of the part's first image in the batch.
        batch_size: images of the whole batch.
    """

    def __new__(cls, first: int, batch_size: int):
        return super().__new__(cls)

    def __init__(self, first: int, batch_size: int):
        self.first, self.batch_size = first, batch_size


def uniform(generator: torch.Generator, *shape: int) -> Tensor:
    """Draw from [0, 1) where the generator lives; the last axis is the images'."""
    if not isinstance(generator, BatchGenerator):
        return torch.rand(*shape, generator=generator, device=generator.device)
    *rest, count = shape
    first = generator.first
    whole = max(generator.batch_size, first + count)
    draws = torch.rand(*rest, whole, generator=generator, device=generator.device)
    return draws[..., first : first + count]


def crop(x: Tensor, top: Tensor, left: Tensor, height: int, width: int) -> Tensor:
    """Cut one window out of each image, each at its own place.

    Args:
        x: (B, C, H, W).
        top, left: (B,) int64, the window's corner in each image.
        height, width: size of the windows in pixels.

    Returns:
        (B, C, height, width).

    Raises:
        ValueError: the windows are larger than the images.
    """
    if height > x.shape[2] or width > x.shape[3]:
        raise ValueError(
            f"A crop of {height} x {width} px is larger than the images of "
            f"{x.shape[2]} x {x.shape[3]} px; ask for a smaller one, or pad or resize "
            "the images first."
        )
    rows = torch.arange(len(x))
    if x.device.type == "cpu":
        # All windows are views of the same memory; NumPy copies the chosen ones row
        # by row (0.6 us per CIFAR image), torch element by element (2.9 us).
        windows = x.detach().unfold(2, height, 1).unfold(3, width, 1).numpy()
        return torch.from_numpy(windows[rows.numpy(), :, top.numpy(), left.numpy()])
    rows, top, left = (n.to(x.device, non_blocking=True) for n in (rows, top, left))
    return x.unfold(2, height, 1).unfold(3, width, 1)[rows, :, top, left]


def random_crop(x: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad with black and cut out the original size at a random place.

    Args:
        x: (B, C, H, W).
        padding: pixels added on each side; 4 for CIFAR (He et al., 2016).
        generator: source of the draws.

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: the padding is negative.
    """
    _require_padding(padding)
    top, left = (uniform(generator, 2, len(x)) * (2 * padding + 1)).long()
    return crop(F.pad(x, [padding] * 4), top, left, *x.shape[-2:])


def _require_padding(padding: int) -> None:
    if padding < 0:
        raise ValueError(f"padding is {padding} px; it must be at least 0.")


def flip(x: Tensor, mask: Tensor) -> Tensor:
    """Mirror left to right the images (B, C, H, W) where mask (B,) is True."""
    if x.device.type != "cpu":
        mask = mask.to(x.device, non_blocking=True)
        return torch.where(mask.view(-1, 1, 1, 1), x.flip(-1), x)
    return _flip_in_place(x.clone(), mask)


def _flip_in_place(x: Tensor, mask: Tensor) -> Tensor:
    """Do what `flip` does, on a CPU and on images that nobody else holds."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    rows = x.permute(0, 2, 3, 1) if last else x  # whole images as they lie in memory
    chosen = mask.nonzero().squeeze(1)
    mirrored = rows.index_select(0, chosen).flip(2 if last else 3)
    # torch.where takes 2.6 us per CIFAR image for bytes, this 0.4 us.
    rows.numpy()[chosen.numpy()] = mirrored.numpy()
    return x


def random_flip(x: Tensor, generator: torch.Generator, p: float = 0.5) -> Tensor:
    """Mirror each image (B, C, H, W) left to right with probability p."""
    return flip(x, uniform(generator, len(x)) < p)


def random_crop_flip(x: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    """Pad, crop and mirror, the augmentation of CIFAR (He et al., 2016), in one go.

    Args:
        x: (B, C, H, W).
        padding: pixels of black added on each side.
        generator: source of the draws.

    Returns:
        (B, C, H, W).
    """
    _require_padding(padding)
    draw = uniform(generator, 3, len(x))
    top, left = (draw[:2] * (2 * padding + 1)).long()
    y = crop(F.pad(x, [padding] * 4), top, left, *x.shape[-2:])
    mask = draw[2] < 0.5
    return _flip_in_place(y, mask) if y.device.type == "cpu" else flip(y, mask)


# --- random resized crop


def _resampling(
    start: Tensor, length: Tensor, size: int, total: int, whole: bool
) -> Tensor:
    """Return matrices (B, size, total) that resample [start, start + length).

    The weights are a triangle around each output pixel's place in the input, widened
    where the window shrinks (antialiasing), as in PIL and torchvision. With `whole`
    they reach over the window's ends, as if the whole had been resized, then cut.
    """
    scale = length.float() / size
    out = torch.arange(size, device=start.device) + 0.5
    center = start[:, None] + out * scale[:, None]  # (B, size)
    inside = torch.arange(total, device=start.device) + 0.5
    distance = (inside - center[..., None]).abs()  # (B, size, total)
    weight = (1 - distance / scale.clamp_min(1)[:, None, None]).clamp_min(0)
    first, last = start[:, None, None], (start + length)[:, None, None]
    if not whole:
        weight = weight * ((inside > first) & (inside < last))
    return weight / weight.sum(-1, keepdim=True)


def resample(
    x: Tensor,
    top: Tensor,
    left: Tensor,
    height: Tensor,
    width: Tensor,
    size: int,
    whole: bool = False,
) -> Tensor:
    """Do what `resized_crop` does for all boxes at once, by two matrix products.

    With `whole` it is what resizing the image and then cutting does (`scaled_crop`).
    """
    boxes = torch.stack([top, left, height, width]).to(x.device, non_blocking=True)
    rows = _resampling(boxes[0], boxes[2], size, x.shape[2], whole)
    columns = _resampling(boxes[1], boxes[3], size, x.shape[3], whole)
    with torch.autocast(x.device.type, enabled=False):
        y = rows[:, None] @ x.float() @ columns[:, None].mT
    return y.round_().clamp_(0, 255).byte() if x.dtype == torch.uint8 else y


def resized_crop(
    x: Tensor, top: Tensor, left: Tensor, height: Tensor, width: Tensor, size: int
) -> Tensor:
    """Cut a box out of each image and resize it to a square (bilinear, antialiased).

    Args:
        x: (B, C, H, W).
        top, left, height, width: (B,) int64, the box of each image in pixels.
        size: side of the result in pixels.

    Returns:
        (B, C, size, size) of the same type.
    """
    if x.device.type != "cpu":
        return resample(x, top, left, height, width, size)

    # On a CPU one image after the other, in the layout that the kernel for bytes
    # wants; threads share the images, since one image is too small to share.
    y = x.new_empty(len(x), size, size, x.shape[1])
    rows = y.numpy()
    boxes = list(zip(*(n.tolist() for n in (top, left, height, width))))

    def work(part: range) -> None:
        for i in part:
            t, l, h, w = boxes[i]
            window = x[i : i + 1, :, t : t + h, l : l + w]
            out = F.interpolate(window, (size, size), mode="bilinear", antialias=True)
            rows[i] = out[0].permute(1, 2, 0).numpy()

    threads = min(cpu_cores(), torch.get_num_threads(), max(1, len(x) // 16))
    in_threads(work, [range(k, len(x), threads) for k in range(threads)], threads)
    return y.permute(0, 3, 1, 2)


def draw_boxes(
    count: int,
    height: int,
    width: int,
    scale: Sequence[float],
    ratio: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """Draw boxes of random area and shape inside an image, as torchvision does.

    Ten boxes are drawn for each image and the first that fits is taken; where none
    fits, the largest central box of an allowed shape.

    Args:
        count: how many boxes.
        height, width: size of the image in pixels.
        scale: least and largest area, as shares of the image.
        ratio: least and largest width over height, drawn uniformly in the logarithm.
        generator: source of the draws.

    Returns:
        int64 (4, count): top, left, height, width.

    Raises:
        ValueError: a range is empty, an area is none, or larger than the image.
    """
    if not 0 < scale[0] <= scale[1] <= 1:
        raise ValueError(
            f"scale is {tuple(scale)}; it must be (least, largest) area, as shares of "
            "the image between 0 and 1."
        )
    if not 0 < ratio[0] <= ratio[1]:
        raise ValueError(
            f"ratio is {tuple(ratio)}; it must be (least, largest) width over height, "
            "both above 0."
        )
    draw = uniform(generator, 4, TRIES, count)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * draw[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * draw[1])
    w, h = (area * shape).sqrt().round(), (area / shape).sqrt().round()
    fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)
    first = fits.int().argmax(0, keepdim=True)
    h, w = h.gather(0, first)[0], w.gather(0, first)[0]
    top = (draw[2, 0] * (height - h + 1)).floor()
    left = (draw[3, 0] * (width - w + 1)).floor()
    boxes = torch.stack([top, left, h, w]).long()
    shape = min(max(width / height, ratio[0]), ratio[1])
    h0, w0 = min(height, round(width / shape)), min(width, round(height * shape))
    central = torch.tensor([(height - h0) // 2, (width - w0) // 2, h0, w0])
    return torch.where(fits.any(0), boxes, central[:, None].to(boxes.device))


def random_resized_crop(
    x: Tensor,
    size: int,
    scale: Sequence[float] = (0.08, 1.0),
    ratio: Sequence[float] = (3 / 4, 4 / 3),
    generator: torch.Generator | None = None,
) -> Tensor:
    """Resize a random part of each image to a square (Szegedy et al., 2015).

    Args:
        x: (B, C, H, W).
        size: side of the result in pixels.
        scale: least and largest area, as shares of the image.
        ratio: least and largest width over height.
        generator: source of the draws.

    Returns:
        (B, C, size, size).
    """
    generator = generator or torch.default_generator
    boxes = draw_boxes(len(x), *x.shape[-2:], scale, ratio, generator)
    return resized_crop(x, *boxes, size)
