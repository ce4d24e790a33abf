"""A classifier applied to every place of a larger image: fully convolutional networks.

A linear layer that reads a flattened map of C x h x w numbers is a convolution whose
kernel is as large as that map, and the layers after it are 1x1 convolutions. Written
so, a network takes images of any size and returns a map of class scores instead of
one row (Sermanet et al., 2014; Long et al., 2015).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from ..counting.operations import trace

# What may stand between the map and the scores and acts on each place by itself.
_POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.GELU, nn.SiLU),
    *(nn.Hardswish, nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Mish, nn.Softplus),
    *(nn.Dropout, nn.Identity),
)
_POINTWISE_CALLS = ("relu", "relu_", "dropout", "tanh", "sigmoid", "hardswish", "silu")
_FLATTEN_CALLS = ("flatten", "view", "reshape", "squeeze")
_PASSED_ON = ("dropout", "to", "contiguous", "clone", "detach", "float")


class NotDense(ValueError):
    """A network whose classifier has no convolution that would do the same."""


class DenseNetwork(nn.Module):
    """A network that returns a map of class scores for an image of any size.

    Its layers and weights are those of the network that it was made from.

    Args:
        body: (B, C, H, W) -> the class map (B, K, h, w).

    Shape: (B, C, H, W) -> class scores (B, K), the mean of the class map over space.
    """

    def __init__(self, body: nn.Module):
        super().__init__()
        self.body = body

    def class_map(self, images: Tensor) -> Tensor:
        """Return the class scores at every place, (B, K, h, w)."""
        return self.body(images)

    def forward(self, images: Tensor) -> Tensor:
        return self.class_map(images).float().mean((2, 3))


@dataclass
class _Head:
    """The end of a network, from its last map to its scores, as nodes of a graph."""

    layers: list[fx.Node]  # after the flattening, in the order in which they run
    flatten: fx.Node
    pool: fx.Node | None
    map: fx.Node  # what goes into the pool, or into the flattening


def fully_convolutional(
    network: nn.Module, input_size: tuple[int, int, int] = (3, 224, 224)
) -> DenseNetwork:
    """Turn a classifier into a network that can be applied densely.

    - Flattening, then linear layers (AlexNet, VGG): the first linear layer becomes a
      convolution with a kernel as large as the map at the network's own size, the
      others 1x1 convolutions. An adaptive pool before it is dropped where it does
      nothing at that size, and becomes a plain pool where it divides the map evenly.
    - Global average, then one linear layer (ResNet): the layer becomes a 1x1
      convolution on the map, and the mean is taken over class scores instead.
    - Global average, then several layers with a nonlinearity: the average becomes
      that over a sliding window as large as the map at the network's own size.

    At the network's own size the result is the network's. At a larger size it is the
    mean over sliding windows where no layer pads; where layers pad, a window of the
    larger image sees its neighbors where a crop sees zeros.

    Args:
        network: left as it is; the new one shares its weights.
        input_size: (C, H, W) of the images that it was made for.

    Raises:
        NotDense: it has no map of features before its classifier (ViT), a pool in
            between that is no sliding window, or a form that is not understood.
    """
    name = type(network).__name__
    calls = trace(network, input_size)  # raises for a size that it cannot take
    shapes: dict[str, list] = {}
    for call in calls:
        shapes.setdefault(call.name, []).append(call)
    try:
        graph = _Tracer(shapes).trace(network)
    except Exception as error:  # whatever a forward may do to a symbol
        raise NotDense(_sorry(name, "its forward pass cannot be followed")) from error
    body = fx.GraphModule(network, graph)
    head = _find_head(body, name)
    size = _map_size(body, head, input_size)
    if not any(_kind(body, n) is nn.Linear for n in head.layers):
        _without_linear(body, head, size, name)
    elif _is_global(body, head, size) and not _pools_windows(body, head):
        _scores_first(body, head)
    else:
        _as_convolutions(body, head, size, name)
    body.graph.lint()
    body.recompile()
    dense = DenseNetwork(body)
    dense.train(network.training)
    return dense


def _sorry(name: str, why: str) -> str:
    return (
        f"{name} cannot be applied densely: {why}. Dense evaluation needs maps of "
        "features that end in a pool or a flattening and linear layers; use a protocol "
        "of crops, such as ten_crop."
    )


class _Tracer(fx.Tracer):
    """Follow a forward pass, but not into modules that turn maps into maps."""

    def __init__(self, shapes: dict[str, list]):
        super().__init__()
        self.shapes = shapes

    def is_leaf_module(self, module: nn.Module, path: str) -> bool:
        if super().is_leaf_module(module, path):
            return True
        calls = self.shapes.get(path, [])
        return bool(calls) and all(_map_to_map(c.inputs, c.outputs) for c in calls)


def _map_to_map(inputs: tuple, outputs: tuple) -> bool:
    """Tell whether a module turns one map into one, and keeps more than one place."""
    if len(inputs) != 1 or len(outputs) != 1:
        return False
    a, b = inputs[0], outputs[0]
    collapsed = b[2:] == (1, 1) and a[2:] != (1, 1)
    return len(a) == 4 and len(b) == 4 and not collapsed


# ---- Finding the head


def _kind(body: fx.GraphModule, node: fx.Node):
    """Return the class of a node's module, or the name of a function or method."""
    if node.op == "call_module":
        return type(body.get_submodule(node.target))
    if node.op == "call_function":
        return getattr(node.target, "__name__", str(node.target))
    return node.target if node.op == "call_method" else None


def _find_head(body: fx.GraphModule, name: str) -> _Head:
    """Walk from the scores back to the last map."""
    output = next(n for n in reversed(body.graph.nodes) if n.op == "output")
    node, layers = output.args[0], []
    while isinstance(node, fx.Node):
        kind = _kind(body, node)
        if kind is nn.Flatten or kind in _FLATTEN_CALLS or _is_mean(node, kind):
            break
        module = isinstance(kind, type)
        known = (
            issubclass(kind, (nn.Linear, nn.BatchNorm1d, *_POINTWISE))
            if module
            else kind in (*_POINTWISE_CALLS, *_PASSED_ON)
        )
        if not known:
            what = kind.__name__ if module else kind
            raise NotDense(_sorry(name, f"before its scores stands '{what}'"))
        layers.insert(0, node)
        node = node.args[0]
    else:
        raise NotDense(_sorry(name, "it returns no single tensor of class scores"))
    flatten, pool = node, None
    node = flatten.args[0]
    if _is_mean(flatten, _kind(body, flatten)):
        return _Head(layers, flatten, flatten, node)
    inner = layers
    while isinstance(node, fx.Node) and (
        _kind(body, node) in _POINTWISE or _kind(body, node) in _FLATTEN_CALLS
    ):  # dropout between pool and flattening, or two flattenings
        if _kind(body, node) in _POINTWISE:
            inner.insert(0, node)
        node = node.args[0]
    kind = _kind(body, node)
    if kind in (nn.AdaptiveAvgPool2d, nn.AvgPool2d, "adaptive_avg_pool2d") or _is_mean(
        node, kind
    ):
        pool, node = node, node.args[0]
    return _Head(inner, flatten, pool, node)


def _is_mean(node: fx.Node, kind) -> bool:
    """Tell whether a node is the mean over the two dimensions of space."""
    if kind != "mean":
        return False
    over = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    return over is not None and sorted(d % 4 for d in over) == [2, 3]


def _map_size(body, head: _Head, input_size) -> tuple[int, ...]:
    """Return the shape (C, h, w) of the last map at the network's own size."""
    seen: list = []

    class Shapes(fx.Interpreter):
        def run_node(self, node):
            value = super().run_node(node)
            if node is head.map:
                seen.append(tuple(value.shape[1:]))
            return value

    from ..counting.operations import on_meta

    with torch.no_grad():
        clone = on_meta(body).eval()
        Shapes(clone, graph=body.graph).run(torch.empty(1, *input_size, device="meta"))
    if len(seen[0]) != 3:
        name = type(body).__name__
        raise NotDense(_sorry(name, "its classifier reads no map of features"))
    return seen[0]


def _is_global(body, head: _Head, size) -> bool:
    """Tell whether the head sees each channel's mean over the whole map."""
    if head.pool is None:
        return False
    kind = _kind(body, head.pool)
    if kind is nn.AdaptiveAvgPool2d:
        return body.get_submodule(head.pool.target).output_size in (1, (1, 1))
    if kind == "adaptive_avg_pool2d":
        return head.pool.args[1] in (1, (1, 1))
    return kind is not nn.AvgPool2d  # that slides already; what is left is a mean


def _pools_windows(body, head: _Head) -> bool:
    """Tell whether the order of mean and layers matters: something is nonlinear."""
    linear = (nn.Linear, nn.BatchNorm1d, nn.Dropout, nn.Identity)
    for node in head.layers:
        kind = _kind(body, node)
        if kind not in linear and kind not in _PASSED_ON:
            return True
    return False


# ---- Rewriting it


def _drop(body: fx.GraphModule, *nodes: fx.Node | None) -> None:
    """Take nodes out of a graph: what they read goes to those who read them."""
    for node in nodes:
        if node is not None and node in body.graph.nodes:
            node.replace_all_uses_with(node.args[0])
            body.graph.erase_node(node)


def _replace(body, node: fx.Node, module: nn.Module) -> None:
    """Let a node call another module; the network's own is not touched."""
    path = f"dense_{len(list(body.children()))}"
    body.add_submodule(path, module)
    node.op, node.target, node.args, node.kwargs = (
        "call_module",
        path,
        (node.args[0],),
        {},
    )


def _between(body, head: _Head) -> list[fx.Node]:
    """Return the flattenings between the head's map and its layers."""
    last, nodes = head.flatten, []
    while last is not head.map and last is not head.pool:
        if _kind(body, last) is nn.Flatten or _kind(body, last) in _FLATTEN_CALLS:
            nodes.append(last)
        last = last.args[0]
    return nodes


def _convolve(body, head: _Head, kernel: tuple[int, int]) -> None:
    """Turn the linear layers into convolutions, the first with this kernel."""
    for node in head.layers:
        kind = _kind(body, node)
        if kind is nn.Linear:
            _replace(
                body, node, as_convolution(body.get_submodule(node.target), kernel)
            )
            kernel = (1, 1)
        elif kind is nn.BatchNorm1d:
            _replace(body, node, _as_2d(body.get_submodule(node.target)))


def as_convolution(linear: nn.Linear, kernel: tuple[int, int] = (1, 1)) -> nn.Conv2d:
    """Write a linear layer that reads flattened (C, h, w) as a convolution.

    Args:
        linear: (D, C * h * w).
        kernel: (h, w).

    Returns:
        a convolution with a kernel (D, C, h, w) that shares the weights.
    """
    channels = linear.in_features // (kernel[0] * kernel[1])
    with torch.device("meta"):
        made = nn.Conv2d(
            channels, linear.out_features, kernel, bias=linear.bias is not None
        )
    shape = (linear.out_features, channels, *kernel)
    made.weight = nn.Parameter(
        linear.weight.detach().view(shape), linear.weight.requires_grad
    )
    made.bias = linear.bias
    return made


def _as_2d(norm: nn.BatchNorm1d) -> nn.BatchNorm2d:
    with torch.device("meta"):
        made = nn.BatchNorm2d(
            norm.num_features,
            norm.eps,
            norm.momentum,
            norm.affine,
            norm.track_running_stats,
        )
    made._parameters, made._buffers = norm._parameters, norm._buffers
    return made


def _scores_first(body, head: _Head) -> None:
    """Global average then linear: the same, with the mean taken over class scores."""
    _convolve(body, head, (1, 1))
    _drop(body, *_between(body, head), head.pool)


def _without_linear(body, head: _Head, size, name: str) -> None:
    """A network whose map is a class map already (NiN, SqueezeNet)."""
    if head.pool is None and size[1:] != (1, 1):
        raise NotDense(_sorry(name, "it flattens a map and has no linear layer"))
    _drop(
        body, *_between(body, head), head.pool if _is_global(body, head, size) else None
    )


def _as_convolutions(body, head: _Head, size, name: str) -> None:
    """Flattening then linear layers, or a global average before nonlinear ones."""
    _, height, width = size
    out = _pooled_size(body, head, size)
    if head.pool is not None and _kind(body, head.pool) is not nn.AvgPool2d:
        if out == (height, width):
            pool = None
        elif height % out[0] == 0 and width % out[1] == 0:
            window = height // out[0], width // out[1]
            # one output: slide it; several: they tile the map
            pool = nn.AvgPool2d(window, stride=1 if out == (1, 1) else window)
        else:
            raise NotDense(
                _sorry(
                    name,
                    f"at this size its last map of {height} x {width} is pooled to "
                    f"{out[0]} x {out[1]}, which is no sliding window",
                )
            )
        nodes = _between(body, head)
        if pool is None:
            nodes.append(head.pool)
        else:
            _replace(body, head.pool, pool)
    else:
        nodes = _between(body, head)
    _convolve(body, head, out)
    _drop(body, *nodes)


def _pooled_size(body, head: _Head, size) -> tuple[int, int]:
    """Return the height and width that the flattening sees."""
    if head.pool is None:
        return size[1:]
    if _is_global(body, head, size):
        return 1, 1
    if _kind(body, head.pool) == "adaptive_avg_pool2d":
        wanted = head.pool.args[1]
    else:
        module = body.get_submodule(head.pool.target)
        if isinstance(module, nn.AvgPool2d):
            return tuple(module(torch.zeros(1, *size)).shape[2:])
        wanted = module.output_size
    return (wanted, wanted) if isinstance(wanted, int) else tuple(wanted)
