"""The register of networks: a name, the class behind it and its configuration."""

import difflib
import fnmatch
import inspect
import re

from torch import nn

_MODELS: dict[str, tuple[type[nn.Module], dict]] = {}
_ZOO = __name__.rpartition(".")[0]


def register(network_class: type[nn.Module], variants: dict[str, dict]) -> None:
    """Make the variants of a network available by name.

    Args:
        network_class: called as `network_class(num_classes=..., **configuration)`.
        variants: model name -> the keyword arguments that make this variant.

    A later registration of the same name wins, so inside a chapter the class that
    the chapter has just built is the one that `create_model` uses.

    Raises:
        ValueError: a name that could not be imported, an argument that the class does
            not take, or a name that another module of the zoo has already taken.
    """
    for name, configuration in variants.items():
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(
                f"'{name}' cannot be the name of a network: use lower-case letters, "
                "digits and underscores, as in 'vit_b_16'."
            )
        _require_arguments(network_class, name, configuration)
        taken = _MODELS[name][0].__module__ if name in _MODELS else None
        here = network_class.__module__
        if taken not in (None, here) and _in_zoo(taken) and _in_zoo(here):
            raise ValueError(
                f"The network '{name}' is registered by {taken} and by {here}; "
                "rename one of them."
            )
        _MODELS[name] = (network_class, dict(configuration))


def _in_zoo(module: str) -> bool:
    return module.startswith(f"{_ZOO}.")


def list_models(pattern: str | None = None) -> list[str]:
    """Return the names of all networks that match a shell pattern, sorted.

    Example: `list_models("resnet*")`.
    """
    return sorted(fnmatch.filter(_MODELS, pattern or "*"))


def model_entry(name: str) -> tuple[type[nn.Module], dict]:
    """Return the class of a network and a copy of the variant's configuration.

    Raises:
        ValueError: no network has this name; the message lists the nearest names.
    """
    if name not in _MODELS:
        near = difflib.get_close_matches(name.lower(), _MODELS, n=3, cutoff=0.5)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"No network is called '{name}'.{hint} "
            "`nbs list` (or list_models()) prints all names."
        )
    network_class, configuration = _MODELS[name]
    return network_class, dict(configuration)


def create_model(name: str, num_classes: int = 1000, **changes) -> nn.Module:
    """Build a network of the book by name, with freshly initialized weights.

    Args:
        name: one of `list_models()`, for example "resnet50".
        num_classes: number of outputs of the classifier.
        **changes: arguments of the network's class that override the variant's.

    Raises:
        ValueError: no network has this name, the number of classes is not positive,
            or the network does not take one of the changes; the message says what
            there is.
    """
    network_class, configuration = model_entry(name)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(
            f"num_classes is {num_classes!r}; it must be a whole number of at least 1."
        )
    _require_arguments(network_class, name, changes)
    try:
        return network_class(num_classes=num_classes, **(configuration | changes))
    except TypeError as error:
        # A class may pass arguments on to its blocks, which take only their own.
        if not changes:
            raise
        said = ", ".join(f"{key}={value!r}" for key, value in changes.items())
        raise ValueError(f"'{name}' cannot be built with {said}: {error}.") from error


def _require_arguments(network_class: type, name: str, given: dict) -> None:
    """Raise for arguments that the class does not take, naming those it does."""
    parameters = inspect.signature(network_class).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for argument in given:
        if argument not in parameters:
            allowed = ", ".join(p for p in parameters if p != "num_classes")
            raise ValueError(
                f"The network '{name}' takes no argument '{argument}'. "
                f"{network_class.__name__} takes: {allowed or 'only num_classes'}."
            )
