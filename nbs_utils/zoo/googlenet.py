# Written by `nbs export` from chapters/classics/googlenet.ipynb; edit the chapter, not this file.
"""GoogLeNet (2014), as its chapter builds it."""

from collections import OrderedDict
from collections.abc import Callable

from torch import nn


class ConvNormAct(nn.Sequential):
    """A convolution, then a normalization where one is given, then an activation.

    The parts are called `conv`, `norm` and `act`. The convolution has a bias exactly
    when no normalization follows, which would subtract it again.

    Args:
        in_channels, out_channels: of the convolution.
        kernel_size: one side, or (height, width).
        stride, groups: of the convolution.
        padding: None pads half of the kernel, so that with stride 1 and an odd
            kernel the map keeps its size.
        norm: makes the normalization from a number of channels; None for none.
        act: makes the activation; None for none.

    Shape: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] | None = None,
        groups: int = 1,
        norm: Callable[[int], nn.Module] | None = None,
        act: Callable[[], nn.Module] | None = nn.ReLU,
    ) -> None:
        if padding is None and isinstance(kernel_size, int):
            padding = kernel_size // 2
        elif padding is None:
            padding = tuple(side // 2 for side in kernel_size)
        shape = (in_channels, out_channels, kernel_size, stride, padding)
        conv = nn.Conv2d(*shape, groups=groups, bias=norm is None)
        parts = OrderedDict(conv=conv)
        if norm is not None:
            parts["norm"] = norm(out_channels)
        if act is not None:
            parts["act"] = act()
        super().__init__(parts)
