"""The networks of the book, exported from its chapters.

Every other module here is written by `nbs export` from the cells of a chapter that
are tagged `export`. Edit the chapter, not the module.

    from nbs_utils.zoo import resnet50          # a function that builds the network
    from nbs_utils.zoo.resnet import Bottleneck  # a class, to build something new
"""

from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

from torch import nn

from .contract import by_stem, require_side
from .registry import Entry, create_model, list_models, model_entry, register

__all__ = [
    "Entry",
    "by_stem",
    "create_model",
    "list_models",
    "model_entry",
    "register",
    "require_side",
]


def _builder(name: str) -> Callable[..., nn.Module]:
    """Return the function that builds one network: `resnet50(num_classes=10)`."""

    def build(num_classes: int | None = None, **changes) -> nn.Module:
        return create_model(name, num_classes, **changes)

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Build {name}; see `create_model`."
    return build


# All modules at once: they are few and import only torch, and a network may carry the
# name of its module (alexnet). Setting the functions last makes
# `from nbs_utils.zoo import alexnet` the function, whatever was imported before.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
for _name in list_models():
    globals()[_name] = _builder(_name)


def __getattr__(name: str) -> Callable[..., nn.Module]:
    """Find a network that was registered later, for example by a notebook."""
    if name in list_models():
        return _builder(name)
    raise AttributeError(
        f"nbs_utils.zoo has no network called '{name}'. "
        "list_models() returns the names of all."
    )
