"""Networks of the book with torchvision's published weights, presets and figures."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..data import Photographs, load_photographs
from ..data.photographs import MEAN, STD
from ..parity import WrongWeights, reference_network
from ..parity.weights import carry, fill, read_published
from ..training.description import Description
from ..zoo import create_model, list_models, model_entry

# These were trained on inputs scaled to -1..1; torchvision's networks do it inside.
_HALVES = ("googlenet_tv", "inception_v3")
# What torchvision calls a network of the book, where the names differ. The book's own
# googlenet is the paper's, without batch norm, which torchvision does not have.
_THEIR_NAMES = {"googlenet_tv": "googlenet", "googlenet": None}


@dataclass(frozen=True)
class Published:
    """What torchvision says of one of its files of weights.

    Attributes:
        model: the network's name here.
        weights: the name of the weights, "IMAGENET1K_V1".
        url: where the file is.
        top1, top5: fractions on ImageNet's validation set, one center crop.
        crop, shorter: the preset: shorter side in pixels, then the central crop.
        interpolation: "bilinear" or "bicubic".
        mean, std: of the preset.
    """

    model: str
    weights: str
    url: str
    top1: float
    top5: float
    crop: int
    shorter: int
    interpolation: str
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    @property
    def file_name(self) -> str:
        """The name of the file, as it is published."""
        return self.url.rsplit("/", 1)[-1]


def list_published(pattern: str | None = None) -> list[str]:
    """Return the networks of the book for which torchvision publishes weights.

    Args:
        pattern: a shell pattern, as in "resnet*".
    """
    from torchvision import models

    theirs = set(models.list_models(module=models))
    return [name for name in list_models(pattern) if their_name(name) in theirs]


def their_name(model: str) -> str | None:
    """Return what torchvision calls a network of the book; None if it has none."""
    return _THEIR_NAMES.get(model, model)


def published(model: str, weights: str | None = None) -> Published:
    """Return what is published of a network's weights.

    Args:
        model: a name of `list_published()`.
        weights: as torchvision calls them; by default IMAGENET1K_V1, or the first.

    Raises:
        ValueError: no such network, or no such weights of it.
    """
    from torchvision import models

    model_entry(model)  # raises, with the nearest names
    if model not in list_published():
        raise ValueError(
            f"torchvision publishes no weights of {model}. It has those of "
            f"{', '.join(list_published())}. Weights of your own can be given as a "
            "checkpoint: nbs evaluate RUN."
        )
    choices = models.get_model_weights(their_name(model)).__members__
    if weights is None:
        weights = next(
            (w for w in choices if w == "IMAGENET1K_V1"), next(iter(choices))
        )
    if weights not in choices:
        raise ValueError(
            f"torchvision has no weights '{weights}' for {model}, and there is no file "
            f"of this name. It has {', '.join(choices)}."
        )
    entry = choices[weights]
    preset = entry.transforms()
    figures = entry.meta["_metrics"]["ImageNet-1K"]
    mean, std = tuple(preset.mean), tuple(preset.std)
    if model in _HALVES:
        mean = std = (0.5, 0.5, 0.5)
    return Published(
        model,
        weights,
        entry.url,
        figures["acc@1"] / 100,
        figures["acc@5"] / 100,
        preset.crop_size[0],
        preset.resize_size[0],
        preset.interpolation.value,
        mean,
        std,
    )


def load_published(
    model: str, weights: str | None = None, path: str | Path | None = None
) -> tuple[nn.Module, Published]:
    """Build a network of the book with published weights.

    Args:
        model: a name of `list_published()`.
        weights: as torchvision calls them; by default IMAGENET1K_V1, or the first.
        path: a file to take instead of torchvision's: under its published name it is
            held to its hash, under another it is taken as it is. It holds the tensors
            of torchvision's network, or of the book's.

    Returns:
        the network in evaluation mode, and what is published of the weights.

    Raises:
        NoConnection: the weights are not on this machine and cannot be fetched.
        WrongWeights: the file is damaged or of another network.
        ValueError: no such network or weights.
    """
    entry = published(model, weights)
    size = {"image_size": entry.crop} if _takes_size(model) else {}
    own = path is not None and Path(path).name != entry.file_name
    state = _read_own(Path(path)) if own else read_published(entry.url, path)
    network = create_model(model, **size)
    if own and _fits(network, state):
        network.load_state_dict(state)
        return network.eval(), entry
    where = path or entry.file_name
    source = reference_network(their_name(model), vary=False, **size)
    fill(source, state, model, where)
    carry(source, network, model, where, (3, entry.crop, entry.crop))
    return network.eval(), entry


def load_for_use(model: str, weights: str) -> nn.Module:
    """Build a network with published weights that `predict` can be asked with.

    Args:
        model: a name of `list_published()`.
        weights: as torchvision calls them, or the path of a copy of the file.

    Returns:
        The network in evaluation mode, with ImageNet's class names as `description`.
    """
    from torchvision import models

    path = Path(weights).expanduser()
    own = path if path.is_file() or path.suffix in (".pth", ".pt") else None
    network, entry = load_published(model, None if own else weights, own)
    choice = models.get_model_weights(their_name(model))[entry.weights]
    network.description = Description(
        model=model,
        network_class=type(network).__name__,
        classes=tuple(choice.meta["categories"]),
        image_size=entry.crop,
        mean=entry.mean,
        std=entry.std,
        stored=entry.shorter,
        center=entry.crop / entry.shorter,
        interpolation=entry.interpolation,
        data="ImageNet",
    )
    return network


def _takes_size(model: str) -> bool:

    return "image_size" in model_entry(model).arguments


def _read_own(path: Path) -> dict:
    """Return the tensors of a file that is not under its published name."""
    if not path.is_file():
        raise WrongWeights(f"There is no file {path}.")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise WrongWeights(
            f"{path} is damaged or no file of weights: {str(error).splitlines()[0]}"
        ) from error
    if isinstance(state, dict) and isinstance(state.get("network"), dict):
        state = state["network"]  # a checkpoint of `nbs train`
    return state


def _fits(network: nn.Module, state: dict) -> bool:
    own = network.state_dict()
    return own.keys() == state.keys() and all(
        own[name].shape == state[name].shape for name in own
    )


def photographs_for(
    entry: Published,
    data: str | Path,
    image_size: int | None = None,
    limit: int | None = None,
    **settings,
) -> Photographs:
    """Open photographs with the preset of published weights.

    Args:
        entry: what is published of the weights.
        data: see `load_photographs`.
        image_size: another crop than the preset's; the shorter side keeps its ratio.
        limit: at most this many images.
        **settings: other attributes of `Photographs`.
    """
    size = image_size or entry.crop
    return load_photographs(
        data,
        image_size=size,
        limit=limit,
        shorter=round(entry.shorter * size / entry.crop),
        interpolation=entry.interpolation,
        mean=torch.tensor(entry.mean),
        std=torch.tensor(entry.std),
        **settings,
    )
