"""The register of networks: a name, the class behind it and its configuration."""

import difflib
import fnmatch
import inspect
import re
from dataclasses import dataclass, replace

from torch import nn

# Up to this side, in pixels, a network whose class has a stem for small images gets it.
SMALL_IMAGES = 64

_ZOO = __name__.rpartition(".")[0]


@dataclass(frozen=True)
class Entry:
    """What the register knows of one variant.

    Attributes:
        name: as in `create_model(name)`.
        network_class: called as `network_class(num_classes=..., **configuration)`.
        configuration: the keyword arguments that make this variant.
        image_size: side of the images that it was made for, in pixels.
        protocol: how its published accuracy was measured; see `nbs_utils.data.views`.
    """

    name: str
    network_class: type[nn.Module]
    configuration: dict
    image_size: int
    protocol: str

    @property
    def arguments(self) -> dict:
        """Every argument of the class: its default, or this variant's value."""
        parameters = inspect.signature(self.network_class).parameters.values()
        defaults = {
            p.name: p.default for p in parameters if p.kind is not p.VAR_KEYWORD
        }
        return defaults | self.configuration

    def for_images(self, image_size: int) -> dict:
        """Return the arguments that images of another size ask for.

        A class with an argument `image_size`, whose weights depend on it, gets it; one
        with an argument `stem` gets "cifar" where the images are small.

        Args:
            image_size: side of the images, in pixels.
        """
        own, given = self.arguments, {}
        if "image_size" in own:
            given["image_size"] = image_size
        if own.get("stem") == "imagenet" and image_size <= SMALL_IMAGES:
            given["stem"] = "cifar"
        return given


_MODELS: dict[str, Entry] = {}


def register(
    network_class: type[nn.Module],
    variants: dict[str, dict],
    *,
    image_size: int | None = None,
    protocol: str = "center",
) -> None:
    """Make the variants of a network available by name.

    Args:
        network_class: called as `network_class(num_classes=..., **configuration)`.
        variants: model name -> the keyword arguments that make this variant.
        image_size: side of the images that they were made for, in pixels; by default
            the variant's own argument `image_size`, 32 with the stem "cifar", else 224.
        protocol: how their published accuracy was measured; see `nbs_utils.data.views`.

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
        taken = _MODELS[name].network_class.__module__ if name in _MODELS else None
        here = network_class.__module__
        if taken not in (None, here) and _in_zoo(taken) and _in_zoo(here):
            raise ValueError(
                f"The network '{name}' is registered by {taken} and by {here}; "
                "rename one of them."
            )
        entry = Entry(name, network_class, dict(configuration), 224, protocol)
        usual = 32 if entry.arguments.get("stem") == "cifar" else 224
        native = image_size or entry.arguments.get("image_size") or usual
        _MODELS[name] = replace(entry, image_size=native)


def _in_zoo(module: str) -> bool:
    return module.startswith(f"{_ZOO}.")


def list_models(pattern: str | None = None) -> list[str]:
    """Return the names of all networks that match a shell pattern, sorted.

    Example: `list_models("resnet*")`.
    """
    return sorted(fnmatch.filter(_MODELS, pattern or "*"))


def model_entry(name: str) -> Entry:
    """Return what is known of a variant; its configuration is a copy.

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
    entry = _MODELS[name]
    return replace(entry, configuration=dict(entry.configuration))


def create_model(
    name: str,
    num_classes: int | None = None,
    *,
    data=None,
    image_size: int | None = None,
    **changes,
) -> nn.Module:
    """Build a network of the book by name, with freshly initialized weights.

    Args:
        name: one of `list_models()`, for example "resnet50".
        num_classes: number of outputs of the classifier; by default the variant's own,
            mostly 1,000.
        data: what `load_data` returned; the network gets its classes, channels and
            image size, except those that are given here.
        image_size: side of the images, in pixels, where it is not the native one. A
            network whose weights depend on it is built for it, and one that has a stem
            for small images gets it up to 64 pixels.
        **changes: arguments of the network's class that override the variant's.

    Raises:
        ValueError: no network has this name, the number of classes is not positive,
            or the network does not take one of the changes; the message says what
            there is.
    """
    entry = model_entry(name)
    if data is not None:
        num_classes = data.num_classes if num_classes is None else num_classes
        image_size = data.image_size if image_size is None else image_size
        if data.channels != entry.arguments.get("in_channels", 3):
            changes.setdefault("in_channels", data.channels)
    if num_classes is None:
        num_classes = entry.arguments.get("num_classes", 1000)
    if not isinstance(num_classes, int) or num_classes < 1:
        raise ValueError(
            f"num_classes is {num_classes!r}; it must be a whole number of at least 1."
        )
    if image_size is not None:
        changes = entry.for_images(image_size) | changes
    _require_arguments(entry.network_class, name, changes)
    given = entry.configuration | changes | {"num_classes": num_classes}
    try:
        return note(entry.network_class(**given), name, given)
    except TypeError as error:
        # A class may pass arguments on to its blocks, which take only their own.
        if not changes:
            raise
        said = ", ".join(f"{key}={value!r}" for key, value in changes.items())
        raise ValueError(f"'{name}' cannot be built with {said}: {error}.") from error


def note(network: nn.Module, name: str, given: dict) -> nn.Module:
    """Write down on a network how it was built; a checkpoint takes it from there.

    Args:
        given: the arguments of its class. Only plain values are kept: the others, such
            as the class of a block, belong to the variant of this name.
    """
    network.built_as = {
        "name": name,
        "arguments": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in given.items()
            if _plain(value)
        },
    }
    return network


def _plain(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


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
