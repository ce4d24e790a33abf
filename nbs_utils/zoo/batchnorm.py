# Written by `nbs export` from chapters/classics/batchnorm.ipynb; edit the chapter, not this file.
"""Batch normalization (2015), as its chapter builds it."""

import copy
from collections import OrderedDict
from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from nbs_utils.zoo import by_stem, register, require_side
from nbs_utils.zoo.googlenet import ConvNormAct


class NormalizeBatch(torch.autograd.Function):
    """Batch norm with the statistics of the batch, its backward pass by hand."""

    @staticmethod
    def forward(ctx, x, weight, bias, eps):
        mean = x.mean((0, 2, 3))
        var = x.var((0, 2, 3), correction=0)  # biased: divided by n
        inverse = (var + eps).rsqrt()
        normal = (x - mean[:, None, None]) * inverse[:, None, None]
        ctx.save_for_backward(normal, weight, inverse)
        ctx.mark_non_differentiable(mean, var)
        return normal * weight[:, None, None] + bias[:, None, None], mean, var

    @staticmethod
    def backward(ctx, above, *_):
        normal, weight, inverse = ctx.saved_tensors
        n = above.numel() // len(weight)
        to_bias = above.sum((0, 2, 3))
        to_weight = (above * normal).sum((0, 2, 3))
        left = above - (to_bias / n)[:, None, None]
        left = left - normal * (to_weight / n)[:, None, None]
        return left * (weight * inverse)[:, None, None], to_weight, to_bias, None


class BatchNorm2d(nn.Module):
    """Batch norm over (B, C, H, W), as `nn.BatchNorm2d` computes it.

    Args:
        num_features: channels C.
        eps: added to the variance, inside the root.
        momentum: share of the newest batch in the running statistics; None for the
            plain average of all batches.

    Shape: (B, C, H, W) -> the same. Second derivatives are not provided.
    """

    def __init__(self, num_features, eps=1e-5, momentum=0.1):
        super().__init__()
        self.eps, self.momentum = eps, momentum
        self.weight = nn.Parameter(torch.ones(num_features))  # gamma
        self.bias = nn.Parameter(torch.zeros(num_features))  # beta
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, x):
        if not self.training:
            scale = self.weight / (self.running_var + self.eps).sqrt()
            shift = self.bias - self.running_mean * scale
            return x * scale[:, None, None] + shift[:, None, None]
        n = x.numel() // x.shape[1]
        if n == 1:
            raise ValueError("Batch norm needs more than one value for each channel.")
        y, mean, var = NormalizeBatch.apply(x, self.weight, self.bias, self.eps)
        self.num_batches_tracked += 1
        share = self.momentum
        if share is None:
            share = 1 / self.num_batches_tracked.item()
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var * n / (n - 1), share)  # unbiased
        return y


class HalvingPool(nn.Module):
    """Max pooling 3x3 with stride 2: (B, C, H, W) -> (B, C, ceil(H/2), ceil(W/2))."""

    def forward(self, x):
        odd = (x.shape[-2] % 2, x.shape[-1] % 2)
        return nn.functional.max_pool2d(x, 3, 2, padding=odd, ceil_mode=True)


class InceptionModule(nn.Module):
    """Branches of convolutions with batch norm, joined along the channels.

    Args:
        in_channels: channels of the input.
        widths: 1x1; reduction and width of the 3x3; reduction and width of the double
            3x3; width behind the pooling. Without a 1x1 the module has stride 2, and
            what the pooling gives is passed through.
        pool: "average" or "max".
        norm: makes the normalization; None for convolutions with a bias.

    Shape: (B, C_in, H, W) -> (B, C_out, H / stride, W / stride).
    """

    def __init__(self, in_channels, widths, pool="average", norm=nn.BatchNorm2d):
        super().__init__()
        one, reduce, three, reduce_double, double, projection = widths
        stride = 1 if one else 2
        layer = partial(ConvNormAct, norm=norm)
        single = layer(in_channels, reduce, 1), layer(reduce, three, 3, stride)
        twice = (
            layer(in_channels, reduce_double, 1),
            layer(reduce_double, double, 3),
            layer(double, double, 3, stride),
        )
        branches = [nn.Sequential(*single), nn.Sequential(*twice)]
        if one:
            pooling = (nn.AvgPool2d if pool == "average" else nn.MaxPool2d)(3, 1, 1)
            pooled = nn.Sequential(pooling, layer(in_channels, projection, 1))
            branches = [layer(in_channels, one, 1), *branches, pooled]
        else:
            branches.append(HalvingPool())
        self.branches = nn.ModuleList(branches)
        self.out_channels = one + three + double + (projection or in_channels)

    def forward(self, x):
        return torch.cat([branch(x) for branch in self.branches], dim=1)


def make_stem(
    in_channels: int,
    out_channels: int,
    kernel_size: int,
    stride: int,
    separable: bool,
    norm: Callable[[int], nn.Module] | None,
) -> nn.Sequential:
    """Return the first layer: (B, C_in, H, W) -> (B, C_out, H / s, W / s)."""
    if not separable:
        return ConvNormAct(in_channels, out_channels, kernel_size, stride, norm=norm)
    between = in_channels * max(1, min(8, out_channels // in_channels))
    shape = (in_channels, between, kernel_size, stride, kernel_size // 2)
    parts = OrderedDict(
        depthwise=nn.Conv2d(*shape, groups=in_channels, bias=False),
        pointwise=ConvNormAct(between, out_channels, 1, norm=norm),
    )
    return nn.Sequential(parts)


FIGURE_5 = {
    # 1x1; 3x3: reduction, width; double 3x3: reduction, width; projection; pooling
    "3a": (64, 64, 64, 64, 96, 32, "average"),
    "3b": (64, 64, 96, 64, 96, 64, "average"),
    "3c": (0, 128, 160, 64, 96, 0, "max"),
    "4a": (224, 64, 96, 96, 128, 128, "average"),
    "4b": (192, 96, 128, 96, 128, 128, "average"),
    "4c": (160, 128, 160, 128, 160, None, "average"),  # None: the paper is at odds
    "4d": (96, 128, 192, 160, 192, None, "average"),  # with itself
    "4e": (0, 128, 192, 192, 256, 0, "max"),
    "5a": (352, 192, 320, 160, 224, 128, "average"),
    "5b": (352, 192, 320, 192, 224, 128, "max"),
}


def widen(channels: int, width: float) -> int:
    """Return `width` times the channels, at least 16; none stay none."""
    return max(int(channels * width), 16) if channels else 0


def make_entry(
    in_channels: int,
    stem: str,
    separable: bool,
    width: float,
    norm: Callable[[int], nn.Module] | None,
) -> OrderedDict[str, nn.Module]:
    """Return what comes before the modules; see `BNInception`."""
    kernel_size, stride = by_stem(stem, imagenet=(7, 2), cifar=(3, 1))
    c1, c2, c3 = (widen(c, width) for c in (64, 64, 192))

    def pool():
        if stem == "cifar":
            return nn.Identity()
        return nn.MaxPool2d(3, stride=2, ceil_mode=True)

    twice = ConvNormAct(c1, c2, 1, norm=norm), ConvNormAct(c2, c3, 3, norm=norm)
    return OrderedDict(
        conv1=make_stem(in_channels, c1, kernel_size, stride, separable, norm),
        pool1=pool(),  # (B, 64, 56, 56)
        conv2=nn.Sequential(*twice),
        pool2=pool(),  # (B, 192, 28, 28)
    )


def make_modules(
    channels: int,
    projection: int,
    width: float,
    norm: Callable[[int], nn.Module] | None,
) -> OrderedDict[str, InceptionModule]:
    """Return the ten modules for an input of `channels`; see `BNInception`."""
    modules = OrderedDict()
    for name, (*widths, last, pool) in FIGURE_5.items():
        widths = (*widths, projection if last is None else last)
        module = InceptionModule(
            channels, [widen(c, width) for c in widths], pool, norm
        )
        modules[f"inception_{name}"] = module
        channels = module.out_channels
    return modules


def initialize(network: nn.Module) -> None:
    """Draw weights as He et al. (2015) do, with biases of zero."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)


class BNInception(nn.Sequential):
    """Inception with batch norm (Ioffe and Szegedy 2015, Figure 5).

    Args:
        separable: whether the first layer is separable, as in the paper.
        projection: channels behind the pooling of modules 4c and 4d.
        width: factor for all numbers of channels, which stay at least 16.
        norm: makes the normalization; None for convolutions with a bias.
        stem: "imagenet" (7x7, stride 2, two poolings) or "cifar" (3x3, no pooling).
        num_classes, in_channels: numbers of outputs and of the images' channels.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(
        self,
        separable: bool = True,
        projection: int = 96,
        width: float = 1.0,
        norm: Callable[[int], nn.Module] | None = nn.BatchNorm2d,
        stem: str = "imagenet",
        num_classes: int = 1000,
        in_channels: int = 3,
    ) -> None:
        super().__init__()
        self.least_side = by_stem(stem, imagenet=32, cifar=8)
        entry = make_entry(in_channels, stem, separable, width, norm)
        modules = make_modules(widen(192, width), projection, width, norm)
        for name, module in (*entry.items(), *modules.items()):
            self.add_module(name, module)  # (B, 192, 28, 28), (B, 1024, 7, 7)
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())  # (B, 1024)
        self.fc = nn.Linear(module.out_channels, num_classes)
        initialize(self)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, self.least_side)
        return super().forward(x)


VARIANTS = {
    "bn_inception": {},
    "bn_inception_caffe": {"separable": False, "projection": 128},
}
register(BNInception, VARIANTS, image_size=224)


@torch.no_grad()
def fold_norms(network: nn.Module) -> nn.Module:
    """Return a copy for evaluation whose convolutions contain their batch norms.

    Args:
        network: with `ConvNormAct` layers; their norms keep running statistics.
    """
    network = copy.deepcopy(network).eval()
    for layer in list(network.modules()):
        if isinstance(layer, ConvNormAct) and hasattr(layer, "norm"):
            conv, norm = layer.conv, layer.norm
            scale = norm.weight / (norm.running_var + norm.eps).sqrt()
            conv.weight *= scale[:, None, None, None]
            conv.bias = nn.Parameter(norm.bias - norm.running_mean * scale)
            del layer.norm
    return network
