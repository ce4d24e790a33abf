"""Faults that change one call of a PyTorch function, by kind; see `mutants`.

Each function here is a `Change`: it gets the function that a network calls, with its
arguments, and returns what the wrong network computes instead.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

# A change of one call: gets the function, its arguments and keywords, and returns what
# the wrong network computes, or None where the fault does not apply to this call.
Change = Callable[[Callable, tuple, dict], Tensor | tuple | None]


def _named(*names: str) -> Callable[[Callable], bool]:
    wanted = set(names)
    return lambda func: getattr(func, "__name__", "") in wanted


# --- faults that change a call

_ACTIVATIONS = {
    "relu": (F.relu6, "ReLU became ReLU6"),
    "relu_": (F.relu6, "ReLU became ReLU6"),
    "relu6": (F.relu, "ReLU6 became ReLU"),
    "hardtanh": (F.relu, "ReLU6 became ReLU"),
    "hardtanh_": (F.relu, "ReLU6 became ReLU"),
    "leaky_relu": (F.relu, "leaky ReLU became ReLU"),
    "leaky_relu_": (F.relu, "leaky ReLU became ReLU"),
    "silu": (F.hardswish, "SiLU became hard swish"),
    "silu_": (F.hardswish, "SiLU became hard swish"),
    "hardswish": (F.silu, "hard swish became SiLU"),
    "hardswish_": (F.silu, "hard swish became SiLU"),
    "hardsigmoid": (torch.sigmoid, "hard sigmoid became sigmoid"),
    "sigmoid": (F.hardsigmoid, "sigmoid became hard sigmoid"),
    "gelu": (partial(F.gelu, approximate="tanh"), "GELU became its approximation"),
}


def _activation(func, args, kwargs):
    other = _ACTIVATIONS.get(getattr(func, "__name__", ""))
    return other and other[0](args[0])


def _no_activation(func, args, kwargs):
    known = getattr(func, "__name__", "") in _ACTIVATIONS
    return args[0].clone() if known else None


def _tanh(func, args, kwargs):
    known = getattr(func, "__name__", "") in _ACTIVATIONS
    return torch.tanh(args[0]) if known else None


def _leaky(func, args, kwargs):
    if _named("relu", "relu_", "relu6", "hardtanh", "hardtanh_")(func):
        return torch.where(args[0] > 0, func(args[0].clone()), 0.01 * args[0])
    return None


def _arguments(args: tuple, kwargs: dict, names: tuple[str, ...]) -> dict:
    """Return the arguments of a call by their names."""
    return dict(zip(names, args, strict=False)) | kwargs


_NORM = [
    "input",
    "running_mean",
    "running_var",
    "weight",
    "bias",
    "training",
    "momentum",
    "eps",
]
_LAYER_NORM = ("input", "normalized_shape", "weight", "bias", "eps")
_POOL = ["input", "kernel_size", "stride", "padding"]


def _epsilon(factor: float) -> Change:
    def change(func, args, kwargs):
        name = getattr(func, "__name__", "")
        if name not in ("batch_norm", "layer_norm", "group_norm"):
            return None
        names = _NORM if name == "batch_norm" else _LAYER_NORM
        if name == "group_norm":
            names = ("input", "num_groups", "weight", "bias", "eps")
        given = _arguments(args, kwargs, tuple(names))
        if not isinstance(given.get("eps", 1e-5), float):
            return None
        return func(**given | {"eps": factor * given.get("eps", 1e-5)})

    return change


def _no_norm(func, args, kwargs):
    return (
        args[0].clone() if _named("batch_norm", "layer_norm")(func) and args else None
    )


def _no_shift(func, args, kwargs):
    if getattr(func, "__name__", "") != "batch_norm":
        return None
    given = _arguments(args, kwargs, tuple(_NORM))
    if given.get("bias") is None:
        return None
    return func(**given | {"bias": None})


def _no_mean(func, args, kwargs):
    if getattr(func, "__name__", "") != "batch_norm":
        return None
    given = _arguments(args, kwargs, tuple(_NORM))
    if given.get("running_mean") is None:
        return None
    return func(**given | {"running_mean": torch.zeros_like(given["running_mean"])})


def _max_pool_options(args, kwargs) -> dict:
    names = (*_POOL, "dilation", "ceil_mode", "return_indices")
    given = _arguments(args, kwargs, names)
    return {k: v for k, v in given.items() if k != "return_indices"}


def _is_max_pool(func) -> bool:
    return _named("max_pool2d", "boolean_dispatch", "_max_pool2d")(func)


def _max_to_average(func, args, kwargs):
    if not _is_max_pool(func):
        return None
    given = _max_pool_options(args, kwargs)
    keep = {k: v for k, v in given.items() if k in (*_POOL, "ceil_mode")}
    return F.avg_pool2d(**keep)


def _max_ceil(func, args, kwargs):
    if not _is_max_pool(func):
        return None
    given = _max_pool_options(args, kwargs)
    return F.max_pool2d(**given | {"ceil_mode": not given.get("ceil_mode", False)})


_AVERAGE = (*_POOL, "ceil_mode", "count_include_pad", "divisor_override")


def _average_to_max(func, args, kwargs):
    if not _named("avg_pool2d")(func):
        return None
    given = _arguments(args, kwargs, _AVERAGE)
    keep = {k: v for k, v in given.items() if k in (*_POOL, "ceil_mode")}
    return F.max_pool2d(**keep)


def _average_padding(func, args, kwargs):
    if not _named("avg_pool2d")(func):
        return None
    given = _arguments(args, kwargs, _AVERAGE)
    other = not given.get("count_include_pad", True)
    return func(**given | {"count_include_pad": other})


def _average_ceil(func, args, kwargs):
    if not _named("avg_pool2d")(func):
        return None
    given = _arguments(args, kwargs, _AVERAGE)
    return func(**given | {"ceil_mode": not given.get("ceil_mode", False)})


def _global_max(func, args, kwargs):
    if _named("adaptive_avg_pool2d")(func):
        return F.adaptive_max_pool2d(*args, **kwargs)
    if _named("mean")(func) and isinstance(args[0], Tensor) and args[0].dim() > 2:
        dims = kwargs.get("dim", args[1] if len(args) > 1 else None)
        keep = kwargs.get("keepdim", args[2] if len(args) > 2 else False)
        return None if dims is None else args[0].amax(dim=dims, keepdim=keep)
    return None


def _reversed_cat(func, args, kwargs):
    if not _named("cat", "concat", "concatenate")(func):
        return None
    parts = args[0] if args else kwargs["tensors"]
    rest = {k: v for k, v in kwargs.items() if k != "tensors"}
    return None if len(parts) < 2 else func(list(parts)[::-1], *args[1:], **rest)


def _reversed_split(func, args, kwargs):
    if not _named("chunk", "split", "unbind", "tensor_split")(func):
        return None
    parts = func(*args, **kwargs)
    alike = len({part.shape for part in parts}) == 1
    return tuple(parts)[::-1] if len(parts) > 1 and alike else None


def _two_tensors(func, args, names) -> tuple[Tensor, Tensor] | None:
    if not _named(*names)(func) or len(args) < 2:
        return None
    a, b = args[:2]
    both = isinstance(a, Tensor) and isinstance(b, Tensor)
    return (a, b) if both and a.dim() > 1 and b.dim() > 1 else None


_PRODUCTS = ("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply")
_SUMS = ("add", "add_", "__add__", "__radd__", "__iadd__")


def _no_gate(func, args, kwargs):
    two = _two_tensors(func, args, _PRODUCTS)
    return two and max(two, key=Tensor.numel).clone()


def _no_shortcut(func, args, kwargs):
    two = _two_tensors(func, args, _SUMS)
    return two and max(two, key=Tensor.numel).clone()


def _no_other_summand(func, args, kwargs):
    two = _two_tensors(func, args, _SUMS)
    return two[1].clone() if two and two[0].shape == two[1].shape else None


def _no_shuffle(func, args, kwargs):
    shuffles = _named("transpose", "swapaxes", "permute")(func)
    if not shuffles or not isinstance(args[0], Tensor) or args[0].dim() != 5:
        return None
    return args[0].clone()


def _no_roll(func, args, kwargs):
    return args[0].clone() if _named("roll")(func) else None


def _dropout_scale(func, args, kwargs):
    if not _named("dropout", "dropout_", "feature_dropout", "dropout2d")(func):
        return None
    given = _arguments(args, kwargs, ("input", "p", "training"))
    p = given.get("p", 0.5)
    return given["input"] * (1 - p) if p else None


def _flatten_order(func, args, kwargs):
    if not _named("flatten", "view", "reshape")(func) or not isinstance(
        args[0], Tensor
    ):
        return None
    y = func(*args, **kwargs)
    if args[0].dim() == 4 and y.dim() == 2 and args[0].shape[2:].numel() > 1:
        return args[0].permute(0, 2, 3, 1).reshape(y.shape)
    return None


def _softmax_scale(func, args, kwargs):
    if _named("scaled_dot_product_attention")(func):
        return func(*args, **kwargs | {"scale": 1.0})
    if _named("softmax")(func):
        return func(2 * args[0], *args[1:], **kwargs)
    return None


def _other_heads(func, args, kwargs):
    if not _named("multi_head_attention_forward")(func):
        return None
    heads = args[4]
    return func(*args[:4], heads // 2, *args[5:], **kwargs) if heads % 2 == 0 else None


def _local_response(func, args, kwargs):
    if not _named("local_response_norm")(func):
        return None
    given = _arguments(args, kwargs, ("input", "size", "alpha", "beta", "k"))
    return func(**given | {"alpha": 5 * given.get("alpha", 1e-4)})


_CONV = ["input", "weight", "bias", "stride", "padding", "dilation", "groups"]


def _convolution(func, args, kwargs) -> dict | None:
    if not _named("conv2d")(func):
        return None
    return _arguments(args, kwargs, tuple(_CONV))


def _two(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _mirror_padding(func, args, kwargs):
    given = _convolution(func, args, kwargs)
    if given is None or isinstance(given.get("padding", 0), str):
        return None
    height, width = _two(given.get("padding", 0))
    if not height and not width:
        return None
    if min(given["input"].shape[-2:]) <= max(height, width):
        return None
    x = F.pad(given["input"], (width, width, height, height), mode="reflect")
    return func(**given | {"input": x, "padding": 0})


def _shifted_padding(func, args, kwargs):
    given = _convolution(func, args, kwargs)
    if given is None or isinstance(given.get("padding", 0), str):
        return None
    if max(_two(given.get("stride", 1))) < 2 or not all(_two(given.get("padding", 0))):
        return None
    height, width = _two(given["padding"])
    padding = (width - 1, width + 1, height - 1, height + 1)
    return func(**given | {"input": F.pad(given["input"], padding), "padding": 0})


def _groups_in_another_order(func, args, kwargs):
    given = _convolution(func, args, kwargs)
    if given is None or given.get("groups", 1) < 2:
        return None
    parts = given["input"].chunk(given["groups"], dim=1)
    return func(**given | {"input": torch.cat(parts[::-1], dim=1)})


def _added_bias(func, args, kwargs):
    given = _convolution(func, args, kwargs)
    if given is None or given.get("bias") is not None:
        return None
    return func(*args, **kwargs) + 0.1


def _no_bias(func, args, kwargs):
    if not _named("linear", "conv2d")(func):
        return None
    given = _arguments(args, kwargs, ("input", "weight", "bias", *_CONV[3:]))
    if given.get("bias") is None:
        return None
    return func(**given | {"bias": None})


def _mean_of_tokens(func, args, kwargs):
    if not _named("__getitem__")(func) or args[0].dim() != 3:
        return None
    y = func(*args, **kwargs)
    return args[0].mean(1) if y.dim() == 2 and y.shape == args[0][:, 0].shape else None


# kind -> (change, how many single calls to change one at a time, all calls at once?)
CHANGES: dict[str, tuple[Change, int, bool]] = {
    "an epsilon 100 times as large": (_epsilon(100), 2, True),
    "an epsilon a tenth as large": (_epsilon(0.1), 1, True),
    "another activation": (_activation, 3, True),
    "tanh as the activation": (_tanh, 1, True),
    "a leaky activation": (_leaky, 1, True),
    "an activation left out": (_no_activation, 3, False),
    "a normalization left out": (_no_norm, 3, False),
    "a shift left out": (_no_shift, 2, False),
    "a running mean left out": (_no_mean, 2, False),
    "average in place of maximum": (_max_to_average, 3, True),
    "the ceiling of a maximum": (_max_ceil, 3, True),
    "maximum in place of average": (_average_to_max, 2, True),
    "the padding of an average": (_average_padding, 2, True),
    "the ceiling of an average": (_average_ceil, 2, True),
    "a global maximum": (_global_max, 3, True),
    "branches exchanged": (_reversed_cat, 3, True),
    "parts exchanged": (_reversed_split, 3, True),
    "a gate left out": (_no_gate, 3, True),
    "a shortcut left out": (_no_shortcut, 2, False),
    "a branch left out": (_no_other_summand, 3, False),
    "a shuffle left out": (_no_shuffle, 2, True),
    "a cyclic shift left out": (_no_roll, 2, True),
    "dropout's scaling": (_dropout_scale, 2, False),
    "another order of flattening": (_flatten_order, 1, False),
    "the scale of the scores": (_softmax_scale, 2, True),
    "another number of heads": (_other_heads, 2, True),
    "alpha of the local response": (_local_response, 1, True),
    "mirrored padding": (_mirror_padding, 3, True),
    "padding shifted by a pixel": (_shifted_padding, 3, False),
    "groups in another order": (_groups_in_another_order, 2, True),
    "a bias added": (_added_bias, 2, False),
    "a bias left out": (_no_bias, 3, False),
    "the mean of the tokens": (_mean_of_tokens, 1, False),
}
