"""What a network computes on the way: outputs of its layers, and their statistics."""

import difflib
import fnmatch
from collections.abc import Iterable, Sequence

import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import nn

from ..counting.shapes import map_layouts
from ..runtime import evaluation_mode
from .style import COLORS, new_figure, show, styled

# Modules after which a unit is on or off.
ACTIVATIONS = (
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.ELU,
    nn.GELU,
    nn.SiLU,
    nn.Hardswish,
    nn.Sigmoid,
    nn.Tanh,
)


def find_layer(network: nn.Module, layer: str | nn.Module) -> nn.Module:
    """Return a layer by its name in the network; a module is returned as it is.

    Raises:
        ValueError: the network has no layer of this name; nearest names are given.
    """
    if isinstance(layer, nn.Module):
        return layer
    layers = dict(network.named_modules())
    if layer not in layers:
        near = difflib.get_close_matches(layer, layers, n=3, cutoff=0.3)
        raise ValueError(
            f"The network has no layer '{layer}'. "
            + (f"Near it: {', '.join(near)}. " if near else "")
            + "All names: [name for name, _ in network.named_modules()]."
        )
    return layers[layer]


def select_layers(network: nn.Module, layers: Iterable[str] | None) -> list[str]:
    """Return names of layers that match shell patterns; None means activations.

    Raises:
        ValueError: nothing matches.
    """
    named = [(name, module) for name, module in network.named_modules() if name]
    if layers is None:
        found = [name for name, module in named if isinstance(module, ACTIVATIONS)]
        if not found:
            raise ValueError(
                "The network has no activation modules (it calls them as functions). "
                "Name the layers to look at: layers=['layer1.*', 'fc']."
            )
        return found
    patterns = [layers] if isinstance(layers, str) else list(layers)
    found = [
        name for name, _ in named if any(fnmatch.fnmatch(name, p) for p in patterns)
    ]
    if not found:
        raise ValueError(
            f"No layer matches {', '.join(patterns)}. The outermost ones are called "
            f"{', '.join(name for name, _ in network.named_children())}."
        )
    return found


@torch.no_grad()
def activations(
    network: nn.Module, x: torch.Tensor, layers: Sequence[str] | None = None
) -> dict[str, torch.Tensor]:
    """Return the outputs of some layers for a batch, in order of execution.

    Args:
        network: any network; it runs in evaluation mode and is left in its own.
        x: (B, C, H, W), normalized, on the network's device.
        layers: names or shell patterns such as "layer?.0"; None takes all activation
            modules. A layer that runs twice appears as "relu" and "relu (2)".

    Returns:
        Name -> tensor (B, ...), detached copies.
    """
    seen: dict[str, torch.Tensor] = {}

    def keep(name: str):
        def hook(module, inputs, output):
            if isinstance(output, torch.Tensor):
                times = sum(k == name or k.startswith(f"{name} (") for k in seen)
                # A copy: the next layer may work in place.
                seen[f"{name} ({times + 1})" if times else name] = output.clone()

        return hook

    names = select_layers(network, layers)
    handles = [find_layer(network, n).register_forward_hook(keep(n)) for n in names]
    try:
        with evaluation_mode(network):
            network(x)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def activation_statistics(
    network: nn.Module, x: torch.Tensor, layers: Sequence[str] | None = None
) -> pd.DataFrame:
    """Return mean, standard deviation and share of dead units, layer by layer.

    A unit is a channel (or a feature of a linear layer or token). It is dead where
    it is never above zero, for any image and at any position. Where a map's channels
    are, is found out: Swin and ConvNeXt have some maps with channels last.

    Args:
        network, x, layers: as in `activations`.

    Returns:
        One row for each layer in order of execution: layer, mean, std, dead.
    """
    rows = []
    seen = activations(network, x, layers)
    paths = {name.split(" (")[0] for name, value in seen.items() if value.ndim == 4}
    layouts = map_layouts(network, tuple(x.shape[1:]), paths) if paths else {}
    for name, value in seen.items():
        value = value.float()
        # channels are dimension 1 of most maps, the last of tokens and features
        first = layouts.get(name.split(" (")[0], "nchw") == "nchw"
        axis = 1 if value.ndim == 4 and first else value.ndim - 1
        highest = value.movedim(axis, 0).flatten(1).amax(1)
        rows.append(
            {
                "layer": name,
                "mean": value.mean().item(),
                "std": value.std(correction=0).item(),
                "dead": (highest <= 0).float().mean().item(),
            }
        )
    return pd.DataFrame(rows)


@styled
def plot_activation_statistics(
    network: nn.Module | dict[str, nn.Module],
    x: torch.Tensor,
    layers: Sequence[str] | None = None,
    *,
    title: str | None = None,
) -> Figure | None:
    """Plot how the activations' mean, spread and dead units change with depth.

    Args:
        network: a network, or a dictionary name -> network to compare several.
        x: (B, C, H, W), normalized, on the network's device.
        layers: names or shell patterns; None takes all activation modules.
        title: set above.
    """
    networks = network if isinstance(network, dict) else {"": network}
    tables = {n: activation_statistics(net, x, layers) for n, net in networks.items()}
    return show(draw_statistics(tables, title))


def draw_statistics(tables: dict[str, pd.DataFrame], title: str | None = None):
    """Return the figure with one line for each table."""
    figure, panels = new_figure(3, 1, height=5.4, sharex=True)
    looks = zip(
        ["blue", "vermillion", "green", "purple"] * 9,
        ["-", (0, (4, 1.6)), (0, (1, 1.4)), (0, (5, 1.4, 1, 1.4))] * 9,
        strict=True,
    )
    for (name, table), (color, dash) in zip(tables.items(), looks, strict=False):
        depth = range(1, len(table) + 1)
        marker = "o" if len(table) <= 24 else None
        look = {"color": COLORS[color], "linestyle": dash, "marker": marker}
        panels[0].plot(depth, table["mean"], label=name, **look)
        panels[1].plot(depth, table["std"], **look)
        panels[2].plot(depth, 100 * table["dead"], **look)
    spreads = pd.concat(tables.values())["std"]
    if spreads.min() > 0 and spreads.max() > 20 * spreads.min():
        panels[1].set_yscale("log")
    panels[2].set_ylim(-4, 104)
    for axes, label in zip(panels, ("Mean", "Std. deviation", "Dead units, %")):
        axes.set_ylabel(label)
    first = next(iter(tables.values()))
    alike = all(list(t["layer"]) == list(first["layer"]) for t in tables.values())
    if alike and len(first) <= 20:
        panels[2].set_xticks(
            range(1, len(first) + 1), first["layer"], rotation=45, ha="right"
        )
    else:
        panels[2].set_xlabel("Layer, counted from the input")
    if len(tables) > 1:
        panels[0].legend(loc="best", ncols=min(len(tables), 3))
    if title:
        panels[0].set_title(title)
    figure.align_ylabels()
    return figure
