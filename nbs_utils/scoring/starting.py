"""Begin from weights that were trained before: fine-tuning."""

import copy
import dataclasses
from pathlib import Path

import torch
from torch import Tensor, nn

from ..parity import WrongWeights, reference_network
from ..parity.weights import carry
from ..training.depth import classifier_names
from ..training.description import KEY, Description, some
from .loading import read_saved
from .published_weights import load_published, their_name


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weights that a network can begin from.

    Attributes:
        tensors: by the names of the book's network.
        mean, std: of the images they were trained on; empty where that is not known.
        classes: of their classifier; empty where that is not known.
        source: for people.
    """

    tensors: dict[str, Tensor]
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    source: str = ""


def start_from(network: nn.Module, weights: str | Path, data=None):
    """Give a network the weights of an earlier training, except the classifier.

    The classifier stays as it was drawn, unless the weights are of a run with the same
    classes in the same order. The images are normalized from here on as those were
    that the weights were trained on.

    Args:
        network: built by `create_model`; changed in place.
        weights: torchvision's name of published weights ("IMAGENET1K_V1"), the folder
            or a checkpoint of a run, or a file with a state dict of this network or of
            its reference in torchvision.
        data: what `load_data` returned; it is not changed.

    Returns:
        the data with the statistics of the weights, and a sentence about what was done.

    Raises:
        WrongWeights: a file is damaged, or of another network. It is left as it is.
        NoConnection: published weights are not on this machine and cannot be fetched.
    """
    found = read_weights(network, weights)
    own = network.state_dict()
    head = classifier_names(network)
    keep_head = data is not None and list(data.classes) == list(found.classes)
    wanted = [name for name in own if keep_head or name not in head]
    missing = [name for name in wanted if name not in found.tensors]
    wrong = [
        name
        for name in wanted
        if name not in missing and own[name].shape != found.tensors[name].shape
    ]
    if missing or wrong:
        name = (missing or wrong)[0]
        there = "is missing"
        if wrong and not missing:
            shapes = tuple(found.tensors[name].shape), tuple(own[name].shape)
            there = f"is {shapes[0]} in it and {shapes[1]} here"
        raise WrongWeights(
            f"The weights of {found.source} do not fit this "
            f"{type(network).__name__}: {some([name])} {there}. Where they depend on "
            "the size of the images, take the size that they were trained at "
            "(image_size=224 for most); where the stem differs, take theirs. The file "
            "was left as it is."
        )
    network.load_state_dict(own | {name: found.tensors[name] for name in wanted})
    if data is not None and found.mean:
        data = with_statistics(data, found.mean, found.std)
    said = "its classifier too" if keep_head else "the classifier is new"
    count = len(wanted)
    return data, f"Begins from {found.source}: {count} tensors, {said}."


def with_statistics(data, mean: tuple[float, ...], std: tuple[float, ...]):
    """Return data whose images are normalized with other statistics.

    Args:
        data: what `load_data` returned; it is not changed.
        mean, std: one number for each channel, of values in 0..1.
    """
    if len(mean) != data.channels:
        raise ValueError(
            f"The weights were trained on images of {len(mean)} channels, and those of "
            f"{data.title} have {data.channels}. Load the data with "
            f"channels={len(mean)}."
        )
    data = copy.copy(data)
    data.mean, data.std = torch.tensor(mean), torch.tensor(std)
    for word in ("train", "val", "test"):
        changed = {"mean": data.mean, "std": data.std, "_constants": {}}
        setattr(data, word, dataclasses.replace(getattr(data, word), **changed))
    return data


def read_weights(network: nn.Module, weights: str | Path) -> Weights:
    """Read weights for a network from wherever they are; see `start_from`."""
    path = Path(weights).expanduser()
    if path.is_dir():
        saved = read_saved(path)
        return _of_run(saved.weights, saved.description, saved.file)
    if path.is_file():
        return _of_file(network, path)
    if path.suffix or len(path.parts) > 1:
        raise WrongWeights(f"There is no file {path}.")
    name = _name_of(network, weights)
    theirs, entry = load_published(name, str(weights))
    return Weights(
        theirs.state_dict(), entry.mean, entry.std, source=f"{name} {entry.weights}"
    )


def _of_run(tensors: dict, description: Description | None, file: Path) -> Weights:
    if description is None:
        return Weights(tensors, source=str(file))
    d = description
    return Weights(tensors, d.mean, d.std, d.classes, str(file))


def _of_file(network: nn.Module, path: Path) -> Weights:
    """Read a state dict: of a run, of this network, or of its reference."""
    state = read_state(path)
    if isinstance(state.get("network"), dict):
        values = state.get(KEY)
        description = values and Description.from_dict(values)
        tensors = state.get("average") or state["network"]
        return _of_run(tensors, description, path)
    own, head = network.state_dict(), classifier_names(network)
    if all(name in state for name in own if name not in head):
        return Weights(state, source=str(path))
    return Weights(from_reference(network, state, path), source=str(path))


def read_state(path: Path) -> dict:
    """Return what a file of weights holds. Nothing in it is executed.

    Raises:
        WrongWeights: it is damaged, or no file of weights. It is left as it is.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise WrongWeights(
            f"{path} is damaged or no file of weights: {reason} It was left as it is."
        ) from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]  # as many training scripts save it
    if not isinstance(state, dict) or not state:
        raise WrongWeights(
            f"{path} holds a {type(state).__name__}, not a table of tensors by name. "
            "Save network.state_dict() instead of the network. It was left as it is."
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def from_reference(network: nn.Module, state: dict, path: Path) -> dict[str, Tensor]:
    """Carry weights of torchvision's network of the same name over to the book's.

    Raises:
        WrongWeights: they are those of another network.
    """
    from ..zoo import create_model

    name = _name_of(network, path)
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    classes = len(tensors[-1]) if tensors and tensors[-1].ndim else 0
    arguments = dict(network.built_as["arguments"]) | {"num_classes": classes}
    arguments.pop("in_channels", None)
    size = {k: v for k, v in arguments.items() if k == "image_size"}
    try:
        theirs = their_name(name) or name
        source = reference_network(theirs, vary=False, num_classes=classes, **size)
        source.load_state_dict(state)
    except (RuntimeError, ValueError, TypeError, AttributeError) as error:
        first = next(iter(state))
        raise WrongWeights(
            f"{path} holds the weights of another network than {name}: neither the "
            f"book's nor torchvision's has tensors like its first, '{first}'. Give the "
            "file of this network, or the --model that it belongs to. It was left as "
            "it is."
        ) from error
    book = create_model(name, **arguments)
    carry(source, book, name, path)
    return book.state_dict()


def _name_of(network: nn.Module, weights: str | Path) -> str:
    built = getattr(network, "built_as", None)
    if not built:
        raise WrongWeights(
            f"{weights} may be weights for this {type(network).__name__}, but it was "
            "not built by create_model, so its name is not known. Load a state dict of "
            "your own network with network.load_state_dict."
        )
    return built["name"]
