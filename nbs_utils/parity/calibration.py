"""Make a network's signals live, so that a comparison can see every layer.

With fresh weights, running variances of 1 and small initial matrices, the signals of
many networks die in evaluation mode: two photographs give logits that differ in the
eighth digit, and so does a network with a wrong layer. Here every scale, shift, table
and gate gets numbers of its own, every convolution and linear layer an output of
ordinary size (Mishkin and Matas, "All you need is a good init", 2016), and every batch
norm the statistics of what it is given.
"""

import math
from itertools import chain

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

_MATRICES = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)


def varied_images(count: int, size: tuple[int, ...], seed: int = 0) -> Tensor:
    """Return seeded noise at several scales, so that the images really differ.

    White noise alone looks the same to a network that averages over positions.

    Args:
        count: how many images, B.
        size: shape of one: (C, H, W), or any other for a network that takes no images.
        seed: the same seed gives the same images.

    Returns:
        (B, *size), with a standard deviation of about 2.
    """
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, *size, generator=generator)
    if len(size) == 3:
        height, width = size[1:]
        for parts in (12, 3):
            coarse = torch.randn(count, size[0], parts, parts, generator=generator)
            images += F.interpolate(coarse, (height, width), mode="bilinear")
    else:
        images *= 2
    # each with a brightness and a contrast of its own
    each = (count, *(1 for _ in size))
    contrast = 0.7 + 0.6 * torch.rand(each, generator=generator)
    return contrast * images + 0.5 * torch.randn(each, generator=generator)


def vary(network: nn.Module, seed: int = 0) -> None:
    """Give scales, shifts, gates and tables seeded numbers that are all different.

    Args:
        network: changed in place; matrices and kernels keep their numbers, except
            those that hold one number only, as a head of zeros.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = {id(p) for p in _loose_parameters(network)}

    def uniform(tensor, low, high):
        noise = torch.rand(tensor.shape, generator=generator)
        return (low + (high - low) * noise).to(tensor)

    with torch.no_grad():
        for name, tensor in network.named_parameters():
            short = name.rpartition(".")[2]
            constant = bool((tensor == tensor.flatten()[:1]).all())
            inner = max((n for n in tensor.shape), default=1)
            if inner == tensor.numel():  # one direction: a scale, a shift, a gate
                if constant and (tensor.flatten()[0] != 0 or short == "weight"):
                    tensor.copy_(uniform(tensor, math.log(0.4), math.log(3)).exp())
                elif constant:
                    tensor.copy_(uniform(tensor, -0.7, 0.7))
                elif id(tensor) in tables:
                    tensor.mul_(0.5 / tensor.std().clamp_min(1e-6))
            elif id(tensor) in tables or constant:
                noise = torch.randn(tensor.shape, generator=generator).to(tensor)
                std = 0.5 if id(tensor) in tables else tensor[0].numel() ** -0.5
                tensor.copy_(std * noise)
        for module in network.modules():
            if isinstance(module, nn.Linear):  # some are used without being called
                std = module.weight.std().clamp_min(1e-12)
                module.weight.mul_(module.in_features**-0.5 / std)


def _loose_parameters(network: nn.Module):
    """Yield the tables and tokens: parameters of modules that contain others."""
    for module in network.modules():
        if isinstance(module, nn.MultiheadAttention):
            continue
        if next(module.children(), None) is not None:
            yield from module.parameters(recurse=False)


@torch.no_grad()
def calibrate(network: nn.Module, images: Tensor, seed: int = 0) -> None:
    """Set the sizes of all signals in one forward pass over `images`.

    Each convolution and linear layer is scaled when it runs for the first time, so
    that the standard deviation of its output is a seeded number between 2 and 4, so that some of what is clipped at 6 clips;
    each batch norm takes mean and variance of its input as running statistics.

    Args:
        network: changed in place, left in evaluation mode.
        images: (B, ...) with B of at least 2.
    """
    generator = torch.Generator().manual_seed(seed)
    done = set()

    def scale(module, args, output):
        if module in done or not isinstance(output, Tensor):
            return None
        done.add(module)
        target = 2 + 2 * torch.rand((), generator=generator).item()
        std = output.std().item()
        if not 1e-12 < std < math.inf:
            return None
        for parameter in module.parameters(recurse=False):
            parameter.mul_(target / std)
        return output * (target / std)

    network.eval()
    norms = [m for m in network.modules() if isinstance(m, _BatchNorm)]
    momenta = [norm.momentum for norm in norms]
    hooks = [
        m.register_forward_hook(scale)
        for m in network.modules()
        if isinstance(m, _MATRICES)
    ]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the average over all passes, here over one
    try:
        network(images)
    finally:
        for hook in hooks:
            hook.remove()
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()


def native_size(network: nn.Module) -> tuple[int, ...]:
    """Return the shape (C, H, W) of the images that a network was made for.

    Where the network does not say it, 224 pixels; channels are those of its first
    convolution.
    """
    height, width = 224, 224
    said = getattr(network, "image_size", None) or getattr(network, "in_size", None)
    configuration = getattr(network, "pretrained_cfg", None)
    first = (getattr(network, name, None) for name in ("patch_embed", "stem"))
    patches = next((p.img_size for p in first if hasattr(p, "img_size")), None)
    if said is None:
        said = patches or (configuration and configuration.get("input_size")[-2:])
    if isinstance(said, int):
        height = width = said
    elif said:
        height, width = said
    convolutions = (m for m in network.modules() if isinstance(m, nn.Conv2d))
    first = next(convolutions, None)
    channels = first.in_channels if first is not None else 3
    return channels, height, width


def enliven(network: nn.Module, seed: int = 0) -> None:
    """Vary and calibrate a network at its native size; see `vary`, `calibrate`.

    Raises:
        ValueError: the network does not take images of its native size.
    """
    vary(network, seed)
    size = native_size(network)
    norms = any(isinstance(m, _BatchNorm) for m in network.modules())
    images = varied_images(4 if norms else 2, size, seed + 1)
    example = next(chain(network.parameters(), network.buffers()), images)
    try:
        calibrate(network, images.to(example), seed)
    except (RuntimeError, AssertionError) as error:
        shape = " x ".join(str(n) for n in size)
        raise ValueError(
            f"{type(network).__name__} takes no images of shape {shape}, so its "
            f"batch norms cannot be calibrated: {str(error).splitlines()[0]}. Say "
            "vary=False to get it as its library makes it."
        ) from error
