"""Receptive fields: which pixels can change an output, by gradient and by formula."""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from ..tables import Table
from .linearized import Linearized
from .shapes import map_layouts


@dataclass(frozen=True)
class ReceptiveField:
    """The pixels of the input that one position of a feature map depends on.

    Attributes:
        size: height and width of the field in pixels.
        jump: how many pixels the field moves when the position moves by one, the
            product of all strides; None where it cannot be seen, because the map has a
            single position or the border cuts the field off on both sides. Inside a
            window of attention it is 0.
        box: first row, first column, last row, last column in the input, inclusive.
        clipped: True when the box touches the border of the input, so that the
            field may be larger than `size` on a larger input.
        position: the row and column of the feature map that was looked at.
    """

    size: tuple[int, int]
    jump: tuple[int, int] | None
    box: tuple[int, int, int, int]
    clipped: bool
    position: tuple[int, int]

    def __repr__(self) -> str:
        jump = "" if self.jump is None else f", moving by {_times(self.jump)}"
        clipped = " (cut off by the border of the input)" if self.clipped else ""
        top, left, bottom, right = self.box
        return (
            f"Position {self.position} sees {_times(self.size)} pixels{clipped}{jump}: "
            f"rows {top} to {bottom}, columns {left} to {right}."
        )


def _times(pair: tuple[int, int]) -> str:
    return f"{pair[0]} x {pair[1]}"


class _Found(Exception):
    """Ends a forward pass at the layer that is asked for."""


def _positive_copy(network: nn.Module) -> nn.Module:
    """Copy a network and give every weight the value that makes sums into means."""
    clone = copy.deepcopy(network).cpu().float().eval()
    with torch.no_grad():
        for name, parameter in clone.named_parameters():
            if parameter.dim() > 1:
                parameter.fill_(parameter.shape[0] / parameter.numel())
            else:
                parameter.fill_(0.0 if name.endswith("bias") else 1.0)
            parameter.requires_grad_(False)
        for module in clone.modules():
            module._forward_hooks.clear()
    return clone


def receptive_field(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    layer: str | None = None,
    position: tuple[int, int] | None = None,
    *,
    layout: str | None = None,
) -> ReceptiveField:
    """Find which pixels one position of a feature map depends on, from gradients.

    The gradient is taken through a copy of the network that was made linear with
    positive weights, so no contribution can vanish or cancel: every pixel in the
    field has a gradient, whatever the trained weights are. A gate that is made of all
    positions (squeeze-and-excitation) lets every later position see the whole input.

    Args:
        network: any module; it is left exactly as it was.
        input_size: shape of one input (C, H, W). A field larger than this is cut off
            and marked; a larger input than the network's own shows it whole.
        layer: path of the layer whose output is meant; by default the last one whose
            output is a map with more than one position.
        position: row and column in that output, by default the middle.
        layout: where the channels of that output are: "nchw" for (B, C, H, W), "nhwc"
            for (B, H, W, C). By default it is found out, see
            `nbs_utils.counting.shapes.map_layouts`.

    Raises:
        ValueError: the network has no such layer, the layer's output is no map, or
            layout is neither.
    """
    if layout not in (None, "nchw", "nhwc"):
        raise ValueError(f"layout is {layout!r}; it must be 'nchw' or 'nhwc'.")
    clone = _positive_copy(network)
    modules = dict(clone.named_modules())
    if layer is not None and layer not in modules:
        raise ValueError(f"{type(network).__name__} has no layer called '{layer}'.")
    watched = list(modules) if layer is None else [layer]
    layouts = map_layouts(network, input_size, watched)
    if layout is not None:
        layouts = dict.fromkeys(watched if layer else layouts, layout)
    maps: list[torch.Tensor] = []

    def keep(name, output):
        if isinstance(output, torch.Tensor) and output.dim() == 4 and name in layouts:
            channels = 1 if layouts[name] == "nchw" else 3
            total = output.sum(dim=(0, channels))  # (height, width)
            if layer is not None or total.numel() > 1:
                maps.append(total)
        if layer is not None:
            raise _Found

    for name in watched:
        modules[name].register_forward_hook(
            lambda module, args, output, name=name: keep(name, output)
        )
    x = torch.ones(1, *input_size, requires_grad=True)
    try:
        with Linearized():
            clone(x)
    except _Found:
        pass
    if not maps:
        raise ValueError(
            f"{layer or type(network).__name__} gives no map with four axes, so a "
            "position in it has no receptive field. Name a layer before the pooling."
        )
    return _field(x, maps[-1], position)


def _field(
    x: torch.Tensor, total: torch.Tensor, position: tuple[int, int] | None
) -> ReceptiveField:
    """Read the field of a position off the gradient of a map summed over channels."""
    rows, columns = total.shape
    row, column = position or ((rows - 1) // 2, (columns - 1) // 2)
    box = _box(x, total[row, column])
    height, width = x.shape[2:]
    jump = None
    if row + 1 < rows and column + 1 < columns:
        after = _box(x, total[row + 1, column + 1])
        steps = _step(box, after, 0, height), _step(box, after, 1, width)
        jump = None if None in steps else steps
    top, left, bottom, right = box
    return ReceptiveField(
        (bottom - top + 1, right - left + 1),
        jump,
        box,
        top == 0 or left == 0 or bottom == height - 1 or right == width - 1,
        (row, column),
    )


def _step(box: tuple, after: tuple, axis: int, length: int) -> int | None:
    """Return how far an edge moved, taking one that the border does not cut off."""
    if box[axis] > 0:
        return after[axis] - box[axis]
    if after[axis + 2] < length - 1:
        return after[axis + 2] - box[axis + 2]
    return None


def _box(x: torch.Tensor, value: torch.Tensor) -> tuple[int, int, int, int]:
    """Return the smallest box of pixels that holds all that `value` depends on."""
    gradient = torch.autograd.grad(value, x, retain_graph=True)[0]
    touched = gradient.abs().sum(dim=(0, 1)) > 0
    rows = touched.any(dim=1).nonzero().flatten()
    columns = touched.any(dim=0).nonzero().flatten()
    return rows[0].item(), columns[0].item(), rows[-1].item(), columns[-1].item()


def receptive_field_formula(
    layers: Iterable[nn.Module | tuple[int, ...]],
) -> Table:
    """Follow the receptive field through a chain of convolutions and poolings.

    With kernel k, stride s and dilation d, the field r and the jump j of the next
    layer are r + (k - 1) d j and s j.

    Args:
        layers: modules (`nn.Conv2d` and the poolings count, what works on single
            positions is passed over) or tuples (kernel, stride[, dilation]).

    Returns:
        One row per layer: kernel, stride, jump and size of the field after it.

    Raises:
        ValueError: a layer is neither, or its kernel is not square.
    """
    rows, size, jump = [], 1, 1
    for index, layer in enumerate(layers):
        if isinstance(layer, tuple):
            name, (kernel, stride, *rest) = f"layer {index + 1}", layer
            dilation = rest[0] if rest else 1
        elif hasattr(layer, "kernel_size"):
            name = type(layer).__name__
            kernel, stride, dilation = (
                _one(getattr(layer, key, 1), layer)
                for key in ("kernel_size", "stride", "dilation")
            )
        elif isinstance(layer, nn.Module) and not list(layer.children()):
            continue
        else:
            raise ValueError(
                f"{layer!r} is no layer of a chain. Pass convolutions, poolings or "
                "tuples (kernel, stride), one after the other."
            )
        size += (kernel - 1) * dilation * jump
        jump *= stride
        rows.append((name, kernel, stride, jump, size))
    return Table(rows, columns=["layer", "kernel", "stride", "jump", "size"])


def _one(value: int | tuple[int, int], layer: nn.Module) -> int:
    """Return the one number of a square setting."""
    if isinstance(value, int):
        return value
    if value[0] != value[1]:
        raise ValueError(f"The formula is for square kernels; {layer} has {value}.")
    return value[0]
