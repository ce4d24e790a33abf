"""What a network learned: filters, feature maps, Grad-CAM and attention."""

from collections.abc import Sequence

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import nn
from torch.nn import functional as F

from ..counting.shapes import map_layouts
from ..runtime import evaluation_mode
from .images import draw_grid, to_pixels
from .layers import find_layer
from .style import WIDTH, show, styled

_LEVELS = 240  # shades, so that a mosaic and its gaps fit an exact palette


def colorize(values: np.ndarray, cmap: str, low: float, high: float) -> np.ndarray:
    """Return values (..., H, W) as colors (..., H, W, 3), uint8."""
    share = np.clip((values - low) / max(high - low, 1e-12), 0, 1)
    table = mpl.colormaps[cmap](np.linspace(0, 1, _LEVELS))[:, :3]
    colors = np.round(255 * table).astype(np.uint8)
    return colors[np.round(share * (_LEVELS - 1)).astype(int)]


def mosaic(tiles: np.ndarray, columns: int) -> np.ndarray:
    """Return tiles (N, h, w, 3) in one white-gapped picture."""
    scale = max(1, round(24 / tiles.shape[1]))
    tiles = tiles.repeat(scale, 1).repeat(scale, 2)
    n, h, w, _ = tiles.shape
    gap = max(1, round(0.07 * h))
    rows = -(-n // columns)
    page = np.full(
        (rows * (h + gap) - gap, columns * (w + gap) - gap, 3), 255, np.uint8
    )
    for i, tile in enumerate(tiles):
        y, x = (h + gap) * (i // columns), (w + gap) * (i % columns)
        page[y : y + h, x : x + w] = tile
    return page


@styled
def show_filters(
    weight: torch.Tensor, *, columns: int | None = None, title: str | None = None
) -> Figure | None:
    """Show the filters of a convolution.

    Filters over three channels are shown in color, each scaled by itself so that a
    weight of zero is middle gray. Of other filters the first input channel is shown:
    blue is negative, white zero, red positive.

    Args:
        weight: (D, C, h, w), for example `network.conv1.weight`.
        columns: by default 16 for many filters, 8 for few.
        title: set above.
    """
    if weight.ndim != 4:
        raise ValueError(
            f"Filters have a weight of shape (D, C, h, w); this one has "
            f"{tuple(weight.shape)}. Pass the weight of a convolution."
        )
    w = weight.detach().float().cpu()
    w = w / w.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-12)
    if w.shape[1] == 3:
        tiles = ((w + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    else:
        tiles = colorize(w[:, 0].numpy(), "RdBu_r", -1, 1)
    columns = columns or (16 if len(tiles) > 40 else min(len(tiles), 8))
    return show(_picture(mosaic(tiles, columns), title))


@styled
def show_feature_maps(
    maps: torch.Tensor | dict[str, torch.Tensor],
    *,
    count: int = 16,
    columns: int = 8,
    scale: str = "shared",
    title: str | None = None,
) -> Figure | None:
    """Show the first feature maps of a layer, or of several.

    Args:
        maps: (C, H, W) or (1, C, H, W) for one image, or a dictionary
            layer -> such a tensor, as `activations(network, x, layers)` returns it.
        count: how many maps of each layer.
        columns: maps in a row.
        scale: "shared" colors all maps of a layer by one scale from zero to the
            largest value (a dead map stays dark); "each" scales every map by itself.
        title: set above.
    """
    if scale not in ("shared", "each"):
        raise ValueError(f"scale is '{scale}'; it must be 'shared' or 'each'.")
    layers = maps if isinstance(maps, dict) else {"": maps}
    pages = [_page_of_maps(value, count, columns, scale) for value in layers.values()]
    names = [
        f"{name}: {' × '.join(str(n) for n in value.shape[-3:])}" if name else ""
        for name, value in layers.items()
    ]
    return show(draw_grid(pages, names, 1, title, most=WIDTH, above=True))


def _page_of_maps(value, count, columns, scale) -> np.ndarray:
    value = value.detach().float().cpu()
    value = value[0] if value.ndim == 4 and len(value) == 1 else value
    if value.ndim != 3:
        raise ValueError(
            f"Feature maps of one image have the shape (C, H, W); these have "
            f"{tuple(value.shape)}. Pick one image: maps[0]."
        )
    value = value[:count].numpy()
    if scale == "each":
        low = value.min((1, 2), keepdims=True)
        high = value.max((1, 2), keepdims=True)
        value = (value - low) / np.maximum(high - low, 1e-12)
    low = min(0.0, float(value.min()))
    tiles = colorize(value, "viridis", low, float(value.max()))
    return mosaic(tiles, min(columns, len(tiles)))


def _picture(page: np.ndarray, title: str | None):
    return draw_grid([page], [""], 1, title, most=WIDTH)


def grad_cam(
    network: nn.Module,
    layer: str | nn.Module,
    x: torch.Tensor,
    target: int | Sequence[int] | torch.Tensor | None = None,
) -> torch.Tensor:
    """Return where a layer found evidence for a class (Grad-CAM).

    With the layer's feature maps A_k and the logit y of the class, the weights are
    alpha_k = mean over positions of dy/dA_k, and the map is ReLU(sum_k alpha_k A_k):
    Selvaraju et al., "Grad-CAM" (ICCV 2017), equations 1 and 2.

    Args:
        network: run in evaluation mode and left in its own.
        layer: a module or its name; its output is (B, C, h, w), (B, h, w, C) as in
            Swin, or tokens (B, N, D), the last of which are the patches of the image.
        x: (B, C, H, W), normalized, on the network's device.
        target: class of each image, or one for all; None takes the predicted class.

    Returns:
        (B, h, w), not scaled; zero means no evidence for the class.

    Raises:
        ValueError: no such layer, or its output is neither maps nor tokens.
    """
    kept: list[torch.Tensor] = []

    def hook(module, inputs, output):
        kept.append(output if output.requires_grad else output.requires_grad_())
        return output.clone()  # what follows may work in place, on the copy

    module = find_layer(network, layer)
    handle = module.register_forward_hook(hook)
    try:
        with evaluation_mode(network), torch.enable_grad():
            logits = network(x)
            if target is None:
                target = logits.argmax(1)
            target = torch.as_tensor(target, device=logits.device).expand(len(x))
            score = logits.gather(1, target[:, None]).sum()
            (gradient,) = torch.autograd.grad(score, kept[0])
    finally:
        handle.remove()
    layout = "nchw"
    if kept[0].ndim == 4:
        name = next(name for name, m in network.named_modules() if m is module)
        found = map_layouts(network, tuple(x.shape[1:]), [name])
        layout = found.get(name, "neither")
    ratio = x.shape[2] / x.shape[3]
    maps = _as_maps(kept[0].detach(), layout, ratio)
    gradient = _as_maps(gradient, layout, ratio)
    alpha = gradient.mean((2, 3), keepdim=True)  # (B, C, 1, 1)
    return (alpha * maps).sum(1).relu()


def _as_maps(value: torch.Tensor, layout: str, ratio: float) -> torch.Tensor:
    """Return (B, C, h, w); of tokens, the patches at the end.

    Args:
        value: the output of a layer, or its gradient.
        layout: "nchw" or "nhwc" of maps.
        ratio: height over width of the image, which patches share.
    """
    if value.ndim == 4 and layout in ("nchw", "nhwc"):
        return value if layout == "nchw" else value.permute(0, 3, 1, 2)
    if value.ndim == 3:
        height = int((value.shape[1] * ratio) ** 0.5 + 1e-6)
        width = max(1, round(height / ratio))
        patches = value[:, -height * width :]  # class and register tokens come first
        return patches.transpose(1, 2).unflatten(2, (height, width))
    raise ValueError(
        f"The layer's output has the shape {tuple(value.shape)}; Grad-CAM needs "
        "feature maps (B, C, h, w) or (B, h, w, C), or tokens (B, N, D). Pick an "
        "earlier layer."
    )


def overlay(image: np.ndarray, heat: torch.Tensor) -> np.ndarray:
    """Return a photo in gray with heat laid over it, for Grad-CAM.

    Args:
        image: (H, W, 3) uint8.
        heat: (h, w), scaled here by its largest value and interpolated; zero is gray.
    """
    heat = _scaled(heat, image.shape[:2], mode="bilinear", align_corners=False)
    gray = image.astype(float) @ [0.299, 0.587, 0.114]
    base = np.repeat(gray[:, :, None], 3, 2) * 0.75 + 40
    color = 255 * mpl.colormaps["inferno"](0.25 + 0.75 * heat)[:, :, :3]
    share = 0.8 * heat[:, :, None] ** 0.8
    return np.round((1 - share) * base + share * color).clip(0, 255).astype(np.uint8)


def spotlight(image: np.ndarray, light: torch.Tensor) -> np.ndarray:
    """Return a photo that is seen where there is light, and night elsewhere.

    Args:
        image: (H, W, 3) uint8.
        light: (h, w), scaled here by its largest value; shown cell by cell, by its
            square root, since the eye sees ratios.
    """
    light = _scaled(light, image.shape[:2], mode="nearest")[:, :, None] ** 0.5
    night = np.array([44, 32, 90])  # indigo, which is rare in photographs
    return np.round(light * image + (1 - light) * night).astype(np.uint8)


def _scaled(values: torch.Tensor, size: tuple[int, int], **how) -> np.ndarray:
    """Return a map (h, w) with largest value 1, in the size of an image."""
    values = values.detach().float().cpu()[None, None]
    values = values / values.max().clamp_min(1e-12)
    return F.interpolate(values, size, **how)[0, 0].clamp(0, 1).numpy()


@styled
def show_grad_cam(
    network: nn.Module,
    layer: str | nn.Module,
    x: torch.Tensor,
    *,
    split=None,
    targets: Sequence[int] | None = None,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] | None = None,
    title: str | None = None,
) -> Figure | None:
    """Show photos, and below each where the network found its class (Grad-CAM).

    Args:
        network, layer: as in `grad_cam`.
        x: (B, C, H, W), normalized, on the network's device; four fill a row.
        split: gives `denormalize` and the class names; without it x must be in [0, 1].
        targets: the class asked about for each image; by default the predicted one.
        labels: the true classes; a wrong prediction then names both.
        classes: names of the classes, where there is no split.
        title: set above.
    """
    classes = classes or getattr(split, "classes", None)
    pixels = [to_pixels(i) for i in (split.denormalize(x) if split is not None else x)]
    with evaluation_mode(network), torch.no_grad():
        chance = network(x).float().softmax(1).cpu()
    predicted = chance.argmax(1).tolist()
    asked = predicted if targets is None else [int(t) for t in targets]
    maps = grad_cam(network, layer, x, asked)
    names = [str(classes[t]) if classes else f"class {t}" for t in asked]
    above = []
    for i, p in enumerate(predicted):
        true = p if labels is None else int(labels[i])
        name = str(classes[true]) if classes else f"class {true}"
        above.append("" if labels is None else f"true: {name}")
    below = [
        f"{name}\n{100 * chance[i, t]:.0f} %"
        for i, (name, t) in enumerate(zip(names, asked, strict=True))
    ]
    heats = [overlay(p, m) for p, m in zip(pixels, maps, strict=True)]
    columns = min(len(pixels), 4)
    grid, texts = [], []
    for start in range(0, len(pixels), columns):
        part = slice(start, start + columns)
        grid += pixels[part] + heats[part]
        texts += above[part] + below[part]
    return show(draw_grid(grid, texts, columns, title))


def attention_rollout(maps: torch.Tensor) -> torch.Tensor:
    """Return how much each input token reaches each output token, through all layers.

    Each layer counts as half attention (mean over heads) and half identity, for the
    skip connection; the layers are multiplied: Abnar and Zuidema, "Quantifying
    Attention Flow in Transformers" (ACL 2020), section 3.

    Args:
        maps: (L, heads, N, N), rows sum to one.

    Returns:
        (N, N), rows sum to one.
    """
    if maps.ndim != 4 or maps.shape[2] != maps.shape[3]:
        raise ValueError(
            f"Attention of all layers has the shape (L, heads, N, N), and this one "
            f"{tuple(maps.shape)}. Stack the layers' maps of one image."
        )
    n = maps.shape[-1]
    total = torch.eye(n, dtype=maps.dtype, device=maps.device)
    for layer in maps.mean(1):
        mixed = 0.5 * layer + 0.5 * torch.eye(n, dtype=maps.dtype, device=maps.device)
        total = mixed @ total
    return total


@styled
def show_attention(
    maps: torch.Tensor,
    image: torch.Tensor,
    *,
    names: Sequence[str] | None = None,
    query: tuple[int, int] | None = None,
    columns: int = 4,
    title: str | None = None,
) -> Figure | None:
    """Show an image, and beside it to which patches one token attends.

    The patch with the largest weight is shown as it is; others fade into the night with
    the square root of their weights.

    Args:
        maps: (M, N, N), one map for each layer or head (or (N, N) for a single one);
            row i holds what token i attends to. Tokens are a square of patches,
            with or without a class token before them.
        image: (C, H, W), uint8 or float in [0, 1].
        names: a text for each map; by default "map 1" and so on.
        query: (row, column) of the patch that asks; None takes the class token.
        columns: pictures in a row.
        title: set above.

    Raises:
        ValueError: the number of tokens is no square (plus one), or there is no class
            token and no query.
    """
    maps = maps.detach().float().cpu()
    maps = maps[None] if maps.ndim == 2 else maps
    n = maps.shape[-1]
    side = int(n**0.5)
    first = n - side * side  # tokens before the patches
    if maps.ndim != 3 or first not in (0, 1):
        raise ValueError(
            f"The attention has the shape {tuple(maps.shape)}; expected (M, N, N) with "
            "N a square number, or one more. Pick a layer or a head, or take a mean."
        )
    if query is None and first == 0:
        raise ValueError(
            f"{n} tokens are a square of patches without a class token; name the "
            "patch that asks, for example query=(3, 3)."
        )
    row = 0 if query is None else first + query[0] * side + query[1]
    pixels = to_pixels(image)
    heats = [spotlight(pixels, m[row, first:].unflatten(0, (side, side))) for m in maps]
    if query is not None:
        pixels = _outlined(pixels, query, side)
    names = (
        list(names) if names is not None else [f"map {i + 1}" for i in range(len(maps))]
    )
    return show(draw_grid([pixels, *heats], ["image", *names], columns, title))


def _outlined(pixels: np.ndarray, query: tuple[int, int], side: int) -> np.ndarray:
    """Return the image with a frame around one patch."""
    pixels = pixels.copy()
    h, w = pixels.shape[0] // side, pixels.shape[1] // side
    top, left = query[0] * h, query[1] * w
    patch = pixels[top : top + h, left : left + w].copy()
    pixels[top : top + h, left : left + w] = (255, 160, 0)
    edge = max(1, h // 8)
    pixels[top + edge : top + h - edge, left + edge : left + w - edge] = patch[
        edge : h - edge, edge : w - edge
    ]
    return pixels
