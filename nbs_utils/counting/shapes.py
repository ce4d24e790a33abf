"""Run a network on shapes alone: no weights, no numbers, nothing of it changed."""

import copy
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, ExitStack

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel


def on_meta(network: nn.Module) -> nn.Module:
    """Return a copy of `network` whose tensors have shapes but no numbers.

    The original is not touched: neither its weights nor its buffers nor its mode are
    read or written, and nothing of their size is allocated. Forward hooks stay with
    the original.
    """
    memo = {}
    for module in network.modules():
        owned = {**module._parameters, **module._buffers, **vars(module)}
        for tensor in owned.values():
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(
                    torch.empty_like(tensor, device="meta"), tensor.requires_grad
                )
            elif isinstance(tensor, torch.Tensor):
                memo[id(tensor)] = torch.empty_like(tensor.detach(), device="meta")
    clone = copy.deepcopy(network, memo)
    for module in clone.modules():
        module._forward_hooks.clear()
        module._backward_hooks.clear()
    return clone


def show_shape(shape: tuple[int, ...]) -> str:
    """Write a shape as people do: (64, 56, 56) -> '64 x 56 x 56'."""
    return " x ".join(str(n) for n in shape)


def tensors_in(value) -> list[torch.Tensor]:
    """Return all tensors in nested tuples, lists and dictionaries, in order."""
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def run_on_shapes(
    network: nn.Module,
    input_size: tuple[int, ...],
    prepare: Callable[[nn.Module, torch.Tensor], None],
    modes: Iterable[AbstractContextManager] = (),
) -> None:
    """Run one image through a copy of a network on the meta device, in evaluation mode.

    Attention is computed through its plain matrix products, so that whoever watches
    sees them.

    Args:
        network: any module; nothing of it is changed.
        input_size: shape of one input without the batch, for example (3, 224, 224).
        prepare: called with the copy and its input before it runs, to add hooks.
        modes: contexts that are active while it runs.

    Raises:
        ValueError: the network cannot take an input of this size.
    """
    clone = on_meta(network).eval()
    floats = (p.dtype for p in clone.parameters() if p.is_floating_point())
    x = torch.empty(1, *input_size, device="meta", dtype=next(floats, torch.float32))
    prepare(clone, x)
    inside: list[str] = []  # the modules being called

    def leave(module, args, output) -> None:
        inside.pop()

    for name, module in clone.named_modules():
        module.register_forward_pre_hook(lambda m, args, n=name: inside.append(n))
        module.register_forward_hook(leave)
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with ExitStack() as stack:
            for mode in (torch.no_grad(), sdpa_kernel(SDPBackend.MATH), *modes):
                stack.enter_context(mode)
            clone(x)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        stopped = next((name for name in reversed(inside) if name), None)
        where = f" (it stops in {stopped})" if stopped is not None else ""
        raise ValueError(
            f"{type(network).__name__} cannot take an input of {show_shape(input_size)}"
            f"{where}: {str(error).rstrip('.')}. Pass input_size=(channels, height, "
            "width) as the network expects it, without the batch."
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)


def map_layouts(
    network: nn.Module, input_size: tuple[int, ...], layers: Iterable[str]
) -> dict[str, str]:
    """Find where the channels of some layers' feature maps are.

    The network runs on shapes alone, once at its size and once with twice the height:
    the height of a map is the axis that grows. Where a network takes one size only,
    the axes are told by their lengths: height and width have the ratio of the image's.

    Args:
        network: any module.
        input_size: (C, H, W) of one input.
        layers: paths of modules; outputs that are no tensor with four axes are no maps.

    Returns:
        Layer -> "nchw" (channels, height, width) or "nhwc" (height, width, channels),
        of a layer that runs several times the last one. A layer whose output is no
        map, as the weights of attention, is left out.

    Raises:
        ValueError: the network cannot take an input of this size.
    """
    layers = list(layers)
    channels, height, width = input_size
    usual = _output_shapes(network, input_size, layers)
    try:
        taller = _output_shapes(network, (channels, 2 * height, width), layers)
        wider = _output_shapes(network, (channels, height, 2 * width), layers)
    except (ValueError, NotImplementedError):
        taller = wider = {}
    found = {}
    for name, shape in usual.items():
        if name in taller and name in wider:
            grown = [_grown(shape, other[name]) for other in (taller, wider)]
            if grown in ([[1], [2]], [[2], [3]]):
                found[name] = "nhwc" if grown[0] == [1] else "nchw"
                continue
            if any(grown):  # windows, tokens against tokens
                continue
        layout = _likely(shape, height / width)
        if layout:
            found[name] = layout
    return found


def _output_shapes(network, input_size, layers) -> dict[str, tuple[int, ...]]:
    """Return the shapes of those outputs of layers that have four axes."""
    shapes: dict[str, tuple[int, ...]] = {}

    def prepare(clone: nn.Module, x: torch.Tensor) -> None:
        modules = dict(clone.named_modules())
        for name in layers:
            modules[name].register_forward_hook(
                lambda module, args, output, name=name: note(name, output)
            )

    def note(name: str, output) -> None:
        if isinstance(output, torch.Tensor) and output.dim() == 4:
            shapes[name] = tuple(output.shape)

    run_on_shapes(network, input_size, prepare)
    return shapes


def _grown(before: tuple[int, ...], after: tuple[int, ...]) -> list[int]:
    """Return the axes whose lengths differ."""
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def _likely(shape: tuple[int, ...], ratio: float) -> str | None:
    """Guess the layout of a map from its lengths; None where neither fits."""
    if shape[0] != 1:
        return None

    def fits(height: int, width: int) -> bool:
        return abs(height - ratio * width) < max(1.0, ratio)

    if fits(shape[2], shape[3]):
        return "nchw"
    return "nhwc" if fits(shape[1], shape[2]) else None
