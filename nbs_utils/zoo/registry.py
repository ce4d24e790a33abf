"""The register of networks: a name, the class behind it and its configuration."""

import difflib
import fnmatch
import importlib
import pkgutil

from torch import nn

_MODELS: dict[str, tuple[type[nn.Module], dict]] = {}


def register(network_class: type[nn.Module], variants: dict[str, dict]) -> None:
    """Make the variants of a network available by name.

    Args:
        network_class: called as `network_class(num_classes=..., **configuration)`.
        variants: model name -> the keyword arguments that make this variant.

    A later registration of the same name wins, so inside a chapter the class that
    the chapter has just built is the one that `create_model` uses.
    """
    for name, configuration in variants.items():
        _MODELS[name] = (network_class, dict(configuration))


def _import_zoo() -> None:
    """Import every module of the zoo once; each registers its own variants."""
    import nbs_utils.zoo as zoo

    known = dict(_MODELS)  # what a notebook registered must survive the import
    for module in pkgutil.iter_modules(zoo.__path__):
        importlib.import_module(f"{zoo.__name__}.{module.name}")
    _MODELS.update(known)


def list_models(pattern: str = "*") -> list[str]:
    """Return the names of all networks that match a shell pattern, sorted.

    Example: `list_models("resnet*")`.
    """
    _import_zoo()
    return sorted(fnmatch.filter(_MODELS, pattern))


def create_model(name: str, num_classes: int = 1000, **changes) -> nn.Module:
    """Build a network of the book by name, with freshly initialized weights.

    Args:
        name: one of `list_models()`, for example "resnet50".
        num_classes: number of outputs of the classifier.
        **changes: arguments of the network's class that override the variant's.

    Raises:
        ValueError: no network has this name; the message lists the nearest names.
    """
    if name not in _MODELS:
        _import_zoo()
    if name not in _MODELS:
        near = difflib.get_close_matches(name, _MODELS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"No network is called '{name}'.{hint} "
            "`nbs list` (or list_models()) prints all names."
        )
    network_class, configuration = _MODELS[name]
    return network_class(num_classes=num_classes, **(configuration | changes))
