"""A network made linear, so that its gradient shows what an output depends on.

Every operation is replaced by one that depends on the same numbers, with a positive
derivative in each: activations and normalization by the identity, a maximum by a mean,
a product of two activations by their sum. Nothing can then vanish or cancel. So that
nothing over- or underflows through many layers either, a gradient is brought back to 0
and 1 after each operation: only where it is zero matters.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

# Each of these passes on a position unchanged, or scales it: what it depends on stays
# the same, but its gradient could vanish (a ReLU at zero) or be spread by chance.
_POINTWISE = {
    *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "leaky_relu", "leaky_relu_"),
    *("elu", "elu_", "selu", "selu_", "celu", "gelu", "silu", "mish", "hardswish"),
    *("hardsigmoid", "sigmoid", "sigmoid_", "tanh", "tanh_", "threshold", "softplus"),
    *("prelu", "rrelu", "softsign", "logsigmoid", "hardshrink", "softshrink"),
    *("batch_norm", "layer_norm", "group_norm", "local_response_norm", "dropout"),
    *("instance_norm", "rms_norm", "dropout2d", "feature_dropout", "normalize"),
    *("clamp", "clamp_", "clamp_min", "clamp_max", "clip", "exp", "log", "log1p"),
    *("sqrt", "rsqrt", "square", "pow", "__pow__", "abs", "neg", "__neg__", "erf"),
    *("reciprocal", "sin", "cos", "sign", "__rsub__", "rsub", "__rtruediv__"),
}
# Of two activations a sum; with a constant, what the constant does not touch.
_PRODUCTS = {
    *("mul", "mul_", "__mul__", "__rmul__", "__imul__", "multiply"),
    *("div", "div_", "__truediv__", "__itruediv__", "true_divide", "divide"),
    *("maximum", "minimum", "sub", "sub_", "subtract", "__sub__", "__isub__"),
}
_DIFFERENCES = {"sub", "sub_", "subtract", "__sub__", "__isub__"}
_MATRIX_PRODUCTS = {"matmul", "__matmul__", "bmm", "mm", "einsum"}
# below the largest score by more than this, attention does not reach
_MASKED = 50.0


class Linearized(TorchFunctionMode):
    """Make what runs inside linear in the tensors that need a gradient.

    The functions are replaced, not the modules, so that a network may call either.
    """

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = _replaced(func, args, dict(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if _depends(tensor) and tensor.is_floating_point():
                tensor.register_hook(_support)
        return result


def _support(gradient: Tensor) -> Tensor:
    """Return 1 where a gradient is not zero."""
    return (gradient != 0).to(gradient.dtype)


def _depends(value) -> bool:
    """Tell whether a value depends on the pixels; parameters need no gradient here."""
    return isinstance(value, Tensor) and value.requires_grad


def _replaced(func, args, kwargs):
    """Call the linear stand-in of a function."""
    name = getattr(func, "__name__", "")
    if not any(map(_depends, _flat((args, kwargs)))):
        return func(*args, **kwargs)
    if name in _POINTWISE:
        return args[0] if args else kwargs["input"]
    if name in _PRODUCTS and len(args) > 1:
        return _product(name, *args[:2])
    if name in _MATRIX_PRODUCTS:
        return _matrix_product(func, args, kwargs)
    if "softmax" in name:
        return _attended(args[0], args[1] if len(args) > 1 else kwargs.get("dim", -1))
    if name == "scaled_dot_product_attention":
        return _attention(*args, **kwargs)
    if name == "multi_head_attention_forward":
        return _everywhere(*args[:3], mask=kwargs.get("attn_mask")), None
    if "adaptive_max_pool2d" in name:
        size = args[1] if len(args) > 1 else kwargs["output_size"]
        return F.adaptive_avg_pool2d(args[0], size)
    if "max_pool2d" in name:
        return _mean_pool(*args, **kwargs)
    if name in ("amax", "amin", "std", "var", "logsumexp"):
        dims = args[1:2] or [kwargs.get("dim")]
        return args[0].mean(*dims, keepdim=kwargs.get("keepdim", False))
    if name in ("max", "min"):
        return _largest(func, args, kwargs)
    return func(*args, **kwargs)


def _flat(value) -> list:
    """Return the items of nested tuples, lists and dictionaries."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [item for part in value for item in _flat(part)]
    return [value]


def _product(name: str, a, b) -> Tensor:
    """Return what a product, a quotient or a difference depends on."""
    if _depends(a) and _depends(b):
        in_place = name.startswith("__i") or name in ("mul_", "div_", "sub_")
        return a.add_(b) if in_place else a + b
    pixels, constant = (a, b) if _depends(a) else (b, a)
    constant = torch.as_tensor(constant)
    if "mul" in name:  # a factor of 0, as in a mask, does matter
        return pixels * constant.abs().to(pixels.dtype)
    return pixels + torch.zeros_like(constant, dtype=pixels.dtype)  # broadcasts alike


def _matrix_product(func, args, kwargs) -> Tensor:
    """Return the derivative of a product of matrices, with 1 for each number but 0."""
    places = [i for i, value in enumerate(args) if _depends(value)]
    if len(places) < 2:
        return func(*args, **kwargs)
    total = 0
    for place in places:
        others = [
            value if i == place or not isinstance(value, Tensor) else _pattern(value)
            for i, value in enumerate(args)
        ]
        total = total + func(*others, **kwargs)
    # values of 1, so that no mask is lost in large scores
    return total - total.detach() + _pattern(total)


def _pattern(value: Tensor) -> Tensor:
    return (value.detach() != 0).to(value.dtype)


def _attended(scores: Tensor, dim: int) -> Tensor:
    """Return 1 where attention reaches, depending on all scores that take part."""
    fixed = scores.detach()
    reached = (fixed > fixed.amax(dim, keepdim=True) - _MASKED).to(scores.dtype)
    linear = (scores.masked_fill(reached == 0, 0) * reached).sum(dim, keepdim=True)
    return reached * (1 + linear - linear.detach())


def _attention(q, k, v, attn_mask=None, dropout_p=0.0, is_causal=False, **_) -> Tensor:
    """Return what scaled dot-product attention depends on."""
    scores = _matrix_product(torch.matmul, (q, k.transpose(-2, -1)), {})
    if is_causal:
        attn_mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, -torch.inf)
    elif attn_mask is not None:
        scores = scores + attn_mask
    return _matrix_product(torch.matmul, (_attended(scores, -1), v), {})


def _everywhere(query: Tensor, key: Tensor, value: Tensor, mask) -> Tensor:
    """Return tokens that depend on all tokens, as attention without a mask makes them.

    Args:
        query, key, value: (N, B, D), as the function behind `nn.MultiheadAttention`
            takes them.
        mask: must be None.
    """
    if mask is not None:
        raise NotImplementedError(
            "Receptive fields through nn.MultiheadAttention with a mask are not built."
        )
    others = (key + value).mean((0, -1), keepdim=True)
    return query.mean(-1, keepdim=True).expand_as(query) + others


def _mean_pool(
    x, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, **_
):
    """Average over the windows of a maximum pooling of the same arguments."""
    if dilation not in (1, (1, 1), [1, 1]):
        raise NotImplementedError("Receptive fields of dilated pooling are not built.")
    return F.avg_pool2d(x, kernel_size, stride or kernel_size, padding, ceil_mode)


def _largest(func, args, kwargs):
    """Average where `max` or `min` picks, over everything or along one axis."""
    dims = args[1:2] or ([kwargs["dim"]] if "dim" in kwargs else [])
    if dims and isinstance(dims[0], Tensor):  # the larger of two tensors
        return args[0] + dims[0]
    if not dims:
        return args[0].mean()
    picked = func(*args, **kwargs)
    keepdim = picked.values.dim() == args[0].dim()
    mean = args[0].mean(dims[0], keepdim=keepdim)
    return type(picked)((mean, picked.indices))
