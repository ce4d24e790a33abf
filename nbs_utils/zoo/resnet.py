# Written by `nbs export` from chapters/residual/resnet.ipynb; edit the chapter, not this file.
"""ResNet (2015), as its chapter builds it."""

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register


def conv_bn(
    in_channels: int, out_channels: int, kernel_size: int, stride: int = 1
) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """Return a convolution without bias and the batch norm that follows it.

    The padding keeps the height and width of the input; a stride divides them.
    """
    padding = kernel_size // 2
    return (
        nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, bias=False),
        nn.BatchNorm2d(out_channels),
    )


class ZeroPadShortcut(nn.Module):
    """Option A: the input, subsampled, with channels of zeros appended.

    Args:
        in_channels: channels of the input (B, C_in, H, W).
        out_channels: channels of the output (B, C_out, H / stride, W / stride).
        stride: keep every `stride`-th row and column.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added_channels = out_channels - in_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x[:, :, :: self.stride, :: self.stride]  # (B, C_in, H / s, W / s)
        # pad counts from the last dimension: width, height, then channels
        return nn.functional.pad(x, (0, 0, 0, 0, 0, self.added_channels))


def make_shortcut(
    option: str, in_channels: int, out_channels: int, stride: int
) -> nn.Module | None:
    """Return the way around a block, or None for a plain network.

    Args:
        option: "A" (zero padding), "B" (projection where the shape changes),
            "C" (projection everywhere) or "none".
        in_channels, out_channels, stride: of the block that is bridged.

    Raises:
        ValueError: `option` is none of these.
    """
    if option not in ("A", "B", "C", "none"):
        raise ValueError(f"shortcut is {option!r}; it must be 'A', 'B', 'C' or 'none'.")
    if option == "none":
        return None
    same_shape = in_channels == out_channels and stride == 1
    if option == "C" or (option == "B" and not same_shape):
        return nn.Sequential(*conv_bn(in_channels, out_channels, 1, stride))
    if same_shape:
        return nn.Identity()
    return ZeroPadShortcut(in_channels, out_channels, stride)


class ResidualBlock(nn.Module):
    """relu(F(x) + shortcut(x)): the rule that all blocks of a ResNet share.

    Args:
        residual: the function F; its last layer is a batch norm.
        shortcut: brings x into the shape of F(x); None leaves it out (plain network).
    """

    def __init__(self, residual: nn.Sequential, shortcut: nn.Module | None) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.residual(x)  # (B, C_out, H / s, W / s)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        return self.relu(y)


class BasicBlock(ResidualBlock):
    """Two 3x3 convolutions around which the input is added.

    Args:
        in_channels: channels of the input.
        channels: of both convolutions, and of the output.
        stride: of the first convolution.
        shortcut: "A", "B", "C" or "none"; see `make_shortcut`.
    """

    expansion = 1  # channels of the output = expansion * channels

    def __init__(
        self, in_channels: int, channels: int, stride: int = 1, shortcut: str = "B"
    ) -> None:
        residual = nn.Sequential(
            *conv_bn(in_channels, channels, 3, stride),
            nn.ReLU(),
            *conv_bn(channels, channels, 3),
        )
        super().__init__(
            residual, make_shortcut(shortcut, in_channels, channels, stride)
        )


class Bottleneck(ResidualBlock):
    """A 1x1, a 3x3 and a 1x1 convolution around which the input is added.

    Args:
        in_channels: channels of the input.
        channels: of the 3x3 convolution; the output has `expansion` times as many.
        stride: of the convolution that `stride_on` names.
        shortcut: "A", "B", "C" or "none"; see `make_shortcut`.
        stride_on: "3x3" as in torchvision ("v1.5"), or "1x1" as in the paper.

    Raises:
        ValueError: `stride_on` is neither.
    """

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        shortcut: str = "B",
        stride_on: str = "3x3",
    ) -> None:
        if stride_on not in ("1x1", "3x3"):
            raise ValueError(f"stride_on is {stride_on!r}; it must be '1x1' or '3x3'.")
        reduce, work = (stride, 1) if stride_on == "1x1" else (1, stride)
        out_channels = self.expansion * channels
        residual = nn.Sequential(
            *conv_bn(in_channels, channels, 1, reduce),
            nn.ReLU(),
            *conv_bn(channels, channels, 3, work),
            nn.ReLU(),
            *conv_bn(channels, out_channels, 1),
        )
        super().__init__(
            residual, make_shortcut(shortcut, in_channels, out_channels, stride)
        )


def make_stage(
    block: type[ResidualBlock],
    depth: int,
    in_channels: int,
    channels: int,
    stride: int,
    **options,
) -> nn.Sequential:
    """Return `depth` blocks in a row, of which the first has the stride.

    Args:
        block: the class of the blocks.
        in_channels: channels of the stage's input.
        channels: of each block; the output has `block.expansion` times as many.
        **options: passed on to every block, for example shortcut="A".
    """
    blocks = []
    for i in range(depth):
        blocks.append(block(in_channels, channels, stride if i == 0 else 1, **options))
        in_channels = block.expansion * channels
    return nn.Sequential(*blocks)


def make_stem(kind: str, in_channels: int, width: int) -> nn.Sequential:
    """Return the first convolution with its batch norm and ReLU.

    Args:
        kind: "imagenet" (7x7, stride 2) or "cifar" (3x3, stride 1).
        in_channels: channels of the images.
        width: channels of the output.

    Raises:
        ValueError: `kind` is neither.
    """
    kernel_size, stride = by_stem(kind, imagenet=(7, 2), cifar=(3, 1))
    return nn.Sequential(*conv_bn(in_channels, width, kernel_size, stride), nn.ReLU())


def initialize(network: nn.Module, zero_init_gamma: bool = False) -> None:
    """Draw the initial weights of a network of residual blocks.

    Convolutions: He et al. (2015), normal with variance 2 / fan-out. Batch norms:
    scale 1, shift 0. The classifier keeps PyTorch's default.

    Args:
        network: changed in place.
        zero_init_gamma: set the last scale of every block to zero, so that it begins
            as its shortcut alone; Goyal et al. (2017).
    """
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.ones_(module.weight)
            nn.init.zeros_(module.bias)
    if zero_init_gamma:
        for module in network.modules():
            if isinstance(module, ResidualBlock):
                nn.init.zeros_(module.residual[-1].weight)


class ResNet(nn.Sequential):
    """A stem, stages of residual blocks and a linear classifier (He et al., 2016).

    Args:
        block: class of the blocks, `BasicBlock` or `Bottleneck`.
        depths, widths: number of blocks and their `channels`, for each stage.
        stem: "imagenet" or "cifar"; see `make_stem`.
        num_classes, in_channels: numbers of outputs and of the images' channels.
        zero_init_gamma: see `initialize`.
        **options: passed on to every block, for example shortcut="A".
    """

    def __init__(
        self,
        block: type[ResidualBlock],
        depths: tuple[int, ...],
        widths: tuple[int, ...] = (64, 128, 256, 512),
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
        zero_init_gamma: bool = False,
        **options,
    ) -> None:
        super().__init__()  # input (B, 3, 224, 224)
        channels = widths[0]
        self.conv1 = make_stem(stem, in_channels, channels)  # (B, 64, 112, 112)
        for i, (depth, width) in enumerate(zip(depths, widths)):
            stride = 1 if i == 0 else 2
            stage = make_stage(block, depth, channels, width, stride, **options)
            if i == 0 and stem == "imagenet":
                stage.insert(0, nn.MaxPool2d(3, stride=2, padding=1))
            # (B, 256, 56, 56), (B, 512, 28, 28), (B, 1024, 14, 14), (B, 2048, 7, 7)
            self.add_module(f"conv{i + 2}_x", stage)
            channels = block.expansion * width
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 2048)
        self.fc = nn.Linear(channels, num_classes)  # (B, num_classes)
        initialize(self, zero_init_gamma)


IMAGENET = {
    "resnet18": {"block": BasicBlock, "depths": (2, 2, 2, 2)},
    "resnet34": {"block": BasicBlock, "depths": (3, 4, 6, 3)},
    "resnet50": {"block": Bottleneck, "depths": (3, 4, 6, 3)},
    "resnet101": {"block": Bottleneck, "depths": (3, 4, 23, 3)},
    "resnet152": {"block": Bottleneck, "depths": (3, 8, 36, 3)},
}
# The paper's own bottleneck networks, with the stride on the first 1x1 convolution.
IMAGENET |= {
    f"{name}_v1": IMAGENET[name] | {"stride_on": "1x1"}
    for name in ("resnet50", "resnet101", "resnet152")
}
# For 32-pixel images: three stages of n basic blocks make 6n + 2 layers.
CIFAR = {
    f"cifar_resnet{6 * n + 2}": {
        "block": BasicBlock,
        "depths": (n, n, n),
        "widths": (16, 32, 64),
        "stem": "cifar",
        "shortcut": "A",
    }
    for n in (3, 5, 7, 9, 18, 200)
}
register(ResNet, IMAGENET, image_size=224, protocol="ten_crop")
register(ResNet, CIFAR, image_size=32)
