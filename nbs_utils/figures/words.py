"""What a module or an operation is called in a diagram."""

from typing import NamedTuple

import torch
from torch import nn


class Words(NamedTuple):
    """How a box reads.

    `label` is the full text, `kind` the family that decides its color and whether it
    may be merged, `short` what stands for it inside a larger box ("" for nothing).
    """

    label: str
    kind: str
    short: str = ""


_ACTIVATIONS = {
    "relu": "ReLU",
    "relu_": "ReLU",
    "relu6": "ReLU6",
    "gelu": "GELU",
    "silu": "SiLU",
    "leaky_relu": "leaky ReLU",
    "hardswish": "hard swish",
    "hardsigmoid": "hard sigmoid",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
}
# Operations that only rearrange numbers.
_SHAPE = frozenset(
    (
        *("view", "reshape", "permute", "transpose", "contiguous", "flatten"),
        *("unflatten", "expand", "expand_as", "unsqueeze", "squeeze", "view_as"),
        *("narrow", "select", "swapaxes", "movedim", "to", "float", "type", "clone"),
        *("detach", "repeat", "t", "unbind", "adjoint", "__get__", "__getitem__"),
    )
)
# Of these, what comes out is told from where the numbers go (see moves.py).
MOVES = _SHAPE | {"pad", "roll", "flip", "channel_shuffle", "native_channel_shuffle"}
_CASTS = frozenset(("to", "float", "type", "contiguous", "clone", "detach"))
_REARRANGED = {
    "flatten": "flatten",
    "transpose": "transpose",
    "permute": "transpose",
    "swapaxes": "transpose",
    "movedim": "transpose",
}
_SPLIT = ("chunk", "split", "tensor_split")
_ADD = ("add", "add_", "__add__", "__radd__", "__iadd__")
_MULTIPLY = ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")
_DIVIDE = ("div", "div_", "__truediv__", "__itruediv__", "true_divide")
_CONCATENATE = ("cat", "concat", "concatenate", "hstack")
_PRODUCT = ("matmul", "__matmul__", "bmm", "mm", "einsum", "baddbmm")


def _size(value) -> str:
    """Write a kernel or image size: 3 and (3, 3) are "3×3"."""
    if isinstance(value, int):
        return f"{value}×{value}"
    value = [1 if n is None else n for n in value]
    return "×".join(str(n) for n in value)


def _stride(value) -> str:
    first = value if isinstance(value, int) else value[0]
    return f", /{first}" if first and first > 1 else ""


def _convolution(module: nn.Module) -> Words:
    kernel = _size(module.kernel_size)
    return _convolved(
        kernel,
        module.out_channels,
        module.stride,
        module.groups,
        module.in_channels,
        max(module.dilation),
    )


def _convolved(kernel, channels, stride, groups, in_channels, dilation) -> Words:
    """Return the words for a convolution; `kernel` is its size in words."""
    depthwise = 1 < groups == in_channels
    grouped = f", {groups} groups" if groups > 1 and not depthwise else ""
    text = f"{'depthwise' if depthwise else 'conv'} {kernel}, {channels}"
    text += f"{_stride(stride)}{grouped}"
    if dilation > 1:
        text += f", dilation {dilation}"
    return Words(text, "conv", f"depthwise {kernel}" if depthwise else kernel + grouped)


def _pool(module: nn.Module, word: str) -> Words:
    text = f"{word} pool {_size(module.kernel_size)}{_stride(module.stride)}"
    return Words(text, "pool", "pool")


def _global_pool(output_size, word: str) -> Words:
    if output_size in (1, (1, 1), [1, 1], (1,)):
        return Words(f"global {word} pool", "pool", "pool")
    return Words(f"{word} pool to {_size(output_size)}", "pool", "pool")


def describe_module(module: nn.Module) -> Words:
    """Return the words for a module: exact for PyTorch's own, else its class."""
    name = type(module).__name__
    if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        return _convolution(module)
    if isinstance(module, nn.Linear):
        return Words(f"linear, {module.out_features}", "linear", "linear")
    if isinstance(module, (nn.MaxPool2d, nn.MaxPool1d)):
        return _pool(module, "max")
    if isinstance(module, (nn.AvgPool2d, nn.AvgPool1d)):
        return _pool(module, "average")
    if isinstance(module, (nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool1d)):
        return _global_pool(module.output_size, "average")
    if isinstance(module, nn.AdaptiveMaxPool2d):
        return _global_pool(module.output_size, "max")
    if isinstance(module, nn.MultiheadAttention):
        return Words(f"attention, {module.num_heads} heads", "attention", "attention")
    if isinstance(module, nn.Flatten):
        return Words("flatten", "shape")
    if isinstance(module, nn.Identity):
        return Words("identity", "identity")
    if isinstance(module, nn.Softmax):
        return Words("softmax", "act")
    if isinstance(module, nn.modules.batchnorm._BatchNorm):
        return Words("batch norm", "norm")
    if isinstance(module, nn.LayerNorm):
        return Words("layer norm", "norm")
    if isinstance(module, nn.GroupNorm):
        n = module.num_groups
        return Words(f"group norm, {n} group{'s' if n > 1 else ''}", "norm")
    if isinstance(module, nn.ChannelShuffle):
        return _shuffled(module.groups)
    if name == "DeformConv2d":  # torchvision
        return _deformable(module.kernel_size, module.out_channels)
    if name in ("LocalResponseNorm", "LRN"):
        return Words("local response norm", "norm")
    if isinstance(module, (nn.Dropout, nn.Dropout2d, nn.AlphaDropout)):
        return Words(f"dropout {module.p:g}", "drop")
    activation = _ACTIVATIONS.get(name.lower())
    if activation:
        return Words(activation, "act")
    return Words(name, _kind_by_name(name), "")


def _shuffled(groups: int) -> Words:
    return Words(f"channel shuffle, {groups} groups", "move", "shuffle")


def _deformable(kernel, channels: int) -> Words:
    kernel = _size(tuple(kernel))
    return Words(f"deformable {kernel}, {channels}", "conv", f"deformable {kernel}")


def _kind_by_name(name: str) -> str:
    """Guess the family of somebody's own module from the name of its class."""
    low = name.lower()
    if low.startswith("drop") or "stochasticdepth" in low:
        return "drop"
    if "norm" in low and "conv" not in low and "act" not in low:
        return "norm"
    if "attention" in low:
        return "attention"
    if low.endswith(("lu", "swish", "sigmoid")):
        return "act"
    return "block"


def describe_operation(function, args, kwargs, computed, parameters) -> Words:
    """Return the words for a function of PyTorch.

    Args:
        function, args, kwargs: the call.
        computed: how many of the tensors among its arguments depend on the input.
        parameters: names of those that are parameters, or made of parameters only.
    """
    name = getattr(function, "__name__", str(function))
    own = parameters[-1] if parameters else ""
    if name in _ADD:
        if computed > 1:
            return Words("+", "add")
        return Words(f"+ {own}" if own else "+ constant", "scale")
    if name in _MULTIPLY or name in _DIVIDE:
        sign = "×" if name in _MULTIPLY else "/"
        if computed > 1:
            return Words(sign, "mul")
        return Words(f"{sign} {own}" if own else "scale", "scale")
    if name in _CONCATENATE:
        if computed > 1:
            return Words("concat", "cat")
        # a list of one: DenseNet's first layer concatenates nothing
        return Words(f"concat {own}", "scale") if own else Words("concat", "identity")
    if name == "__setitem__":
        return Words("concat", "cat")
    if name in _SPLIT:
        return Words("split", "split")
    if name == "roll":
        return Words("cyclic shift", "move", "shift")
    if name in ("channel_shuffle", "native_channel_shuffle"):
        return _shuffled(args[1] if len(args) > 1 else kwargs["groups"])
    if name in _SHAPE:
        if name == "__getitem__":
            return Words(_index(args), "shape")
        return Words(_REARRANGED.get(name, "reshape"), "shape")
    if name in _ACTIVATIONS:
        return Words(_ACTIVATIONS[name], "act")
    return _compute(name, args, kwargs)


def _compute(name: str, args, kwargs) -> Words:
    """Return the words for a function that computes something new."""
    if name in _PRODUCT:
        return Words("matrix product", "product", "")
    if "softmax" in name:
        return Words("softmax", "act")
    if "attention" in name:
        return Words("attention", "attention", "attention")
    if "dropout" in name:
        return Words("dropout", "drop")
    if name in ("conv1d", "conv2d", "conv3d"):
        names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
        given = dict(zip(names, args, strict=False)) | kwargs
        weight, groups = given["weight"], given.get("groups", 1)
        dilation = given.get("dilation", 1)
        return _convolved(
            _size(tuple(weight.shape[2:])),
            weight.shape[0],
            given.get("stride", 1),
            groups,
            weight.shape[1] * groups,
            dilation if isinstance(dilation, int) else max(dilation),
        )
    if name == "deform_conv2d":
        return _deformable(args[1].shape[2:], len(args[1]))
    if name == "linear":
        return Words("linear", "linear", "linear")
    if "adaptive_avg_pool" in name:
        size = args[1] if len(args) > 1 else kwargs.get("output_size", 1)
        return _global_pool(size, "average")
    if "pool" in name:
        word = "max" if "max" in name else "average"
        kernel = args[1] if len(args) > 1 else kwargs["kernel_size"]
        stride = args[2] if len(args) > 2 else kwargs.get("stride") or kernel
        return Words(f"{word} pool {_size(kernel)}{_stride(stride)}", "pool", "pool")
    if name.endswith("_norm") or name == "local_response_norm":
        return Words(name.replace("_", " "), "norm")
    if name in ("mean", "sum"):
        return Words("global average pool" if name == "mean" else "sum", "pool", "pool")
    return Words(name.strip("_").replace("_", " "), "other")


def _index(args) -> str:
    """Write what is picked out of a tensor, as in code: "[:, 0]"."""
    picks = args[1] if isinstance(args[1], tuple) else (args[1],)
    if any(isinstance(pick, torch.Tensor) for pick in picks):
        return "pick"
    if all(pick in (None, slice(None)) or pick is Ellipsis for pick in picks):
        return "reshape"

    def text(pick) -> str:
        if isinstance(pick, slice):
            ends = ["" if e is None else str(e) for e in (pick.start, pick.stop)]
            return ":".join(ends if pick.step is None else [*ends, str(pick.step)])
        return "..." if pick is Ellipsis else str(pick)

    return f"pick [{', '.join(text(pick) for pick in picks)}]"
