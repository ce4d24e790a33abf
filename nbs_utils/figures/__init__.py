"""Everything that is drawn: images, curves, the inside of a network, its diagram.

Each function draws exactly one figure and leaves it as the output of its cell: an
SVG with real text, on a white card. matplotlib is imported by the first function
that needs it, never by `import nbs_utils.figures`.
"""

from importlib import import_module

# name -> the module that holds it
_HOME = {
    "COLORS": "palette",
    "canvas": "style",
    "show": "style",
    "save_svg": "style",
    "show_images": "images",
    "plot_history": "curves",
    "plot_bars": "curves",
    "plot_ablation": "curves",
    "plot_confusion": "curves",
    "show_experiment": "experiments",
    "live_curve": "live",
    "activations": "layers",
    "activation_statistics": "layers",
    "plot_activation_statistics": "layers",
    "show_filters": "inside",
    "show_feature_maps": "inside",
    "grad_cam": "inside",
    "show_grad_cam": "inside",
    "attention_rollout": "inside",
    "show_attention": "inside",
    "draw_network": "diagram",
    "network_svg": "diagram",
    "draw_shapes": "shapes",
    "shapes_svg": "shapes",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    """Import a drawing function from its module on first use (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(
            f"nbs_utils.figures draws no '{name}'. It offers: {', '.join(_HOME)}."
        )
    value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
