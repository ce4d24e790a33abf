"""Stand beside the reference implementation: same weights, same outputs, or where not.

A network of the book is right when weights carried over from torchvision or timm give
the same logits. `transplant` carries them, `compare` names the first layer that
disagrees, `load_pretrained` fetches the published weights.
"""

import difflib
import hashlib
from pathlib import Path
from urllib.error import URLError

import torch
from torch import nn

from ..counting.operations import on_meta
from .comparison import Comparison, compare
from .matching import Report, transplant

__all__ = [
    "Comparison",
    "NoConnection",
    "Report",
    "WrongWeights",
    "compare",
    "load_pretrained",
    "reference_network",
    "transplant",
]


class NoConnection(RuntimeError):
    """Published weights are not on this machine and cannot be fetched now."""


class WrongWeights(ValueError):
    """A file of weights is damaged, is another file, or fits another network."""


def reference_network(name: str, *, vary: bool = True, **options) -> nn.Module:
    """Build the reference implementation of a network, with fresh weights.

    Args:
        name: a classification network of torchvision, or "timm/NAME" for one of timm.
        vary: give tensors that start as one repeated number (scales of ones, biases
            and heads of zeros) a little seeded noise. Without it a comparison cannot
            see two exchanged normalization layers, nor anything before a zero head.
        **options: passed on, for example num_classes=10, or device="meta" for counts.

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: the reference implementation has no network of this name.
        ImportError: timm is asked for and not installed.
    """
    device = torch.device(options.pop("device", "cpu"))
    build = _timm if name.startswith("timm/") else _torchvision
    try:
        with device:
            network = build(name.removeprefix("timm/"), options)
    except NotImplementedError:  # some constructors compute with numbers
        network = on_meta(build(name.removeprefix("timm/"), options)).to(device)
    if vary and device.type != "meta":
        _vary(network)
    return network.eval()


def _torchvision(name: str, options: dict) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(_unknown(name, "torchvision", models.list_models(models)))
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False} | options  # the other way takes a minute
    return models.get_model(name, weights=None, **options)


def _timm(name: str, options: dict) -> nn.Module:
    try:
        import timm
    except ImportError as error:
        raise ImportError(
            f"timm/{name} is a network of timm, which is not installed: pip install "
            "timm."
        ) from error
    if not timm.is_model(name):
        raise ValueError(_unknown(name, "timm", timm.list_models()))
    return timm.create_model(name, pretrained=False, **options)


def _unknown(name: str, library: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{library} has no classification network called '{name}'.{hint}"


def _vary(network: nn.Module) -> None:
    """Add noise to every tensor of several numbers that are all the same."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for tensor in [*network.parameters(), *network.buffers()]:
            if not tensor.is_floating_point() or tensor.numel() < 2:
                continue
            if tensor.min() == tensor.max():
                noise = torch.rand(tensor.shape, generator=generator) - 0.5
                tensor += 0.1 * noise.to(tensor)


def load_pretrained(
    network: nn.Module,
    name: str,
    weights: str = "DEFAULT",
    path: str | Path | None = None,
    input_size: tuple[int, ...] = (3, 224, 224),
) -> Report:
    """Load torchvision's published weights into a network of the book.

    The file is taken from PyTorch's cache or fetched once into it; the hash that
    torchvision publishes in the file's name is checked either way.

    Args:
        network: changed in place.
        name: torchvision's name of the architecture, for example "resnet50".
        weights: which of its weights, for example "IMAGENET1K_V1".
        path: a file to take instead, as torchvision publishes it.

    Returns:
        The report of the transplantation.

    Raises:
        NoConnection: the weights are not on this machine and cannot be fetched.
        WrongWeights: the file is damaged or holds the weights of another network.
        ValueError: torchvision knows no such network or weights.
    """
    from torchvision import models

    source = reference_network(name, vary=False)
    choices = models.get_model_weights(name)
    if weights not in choices.__members__:
        raise ValueError(
            f"torchvision has no weights '{weights}' for {name}. It has "
            f"{', '.join(choices.__members__)}."
        )
    state = _read_weights(choices[weights].url, path)
    fill(source, state, name, path or choices[weights].url)
    return transplant(source, network, input_size)


def fill(source: nn.Module, state: dict, name: str, where: str | Path) -> None:
    """Give a reference network its published weights.

    Args:
        state: what the file held.
        name, where: of the network and of the file, for the error.

    Raises:
        WrongWeights: the weights are those of another network.
    """
    try:
        source.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise WrongWeights(
            f"The weights in {where} are not those of {name}. Pass the name of the "
            "network that they belong to."
        ) from error


def read_published(url: str, path: str | Path | None = None) -> dict:
    """Return the tensors of a published file; see `load_pretrained`."""
    return _read_weights(url, path)


def _read_weights(url: str, path: str | Path | None) -> dict:
    """Return the state dictionary of a file, fetched if need be and checked."""
    file_name = url.rsplit("/", 1)[-1]
    wanted = file_name.rsplit("-", 1)[-1].split(".")[0]
    file = Path(path) if path else Path(torch.hub.get_dir(), "checkpoints", file_name)
    if path and not file.is_file():
        raise WrongWeights(f"There is no file {file}. Pass path= as it was downloaded.")
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), progress=False)
        except (URLError, OSError) as error:
            raise NoConnection(
                f"{file_name} is not on this machine and {url.split('/')[2]} cannot be "
                "reached; connect once, or pass path= to a copy."
            ) from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(wanted):
        advice = (
            "Weights of your own are begun from with nbs.scoring.start_from(network, "
            "path); it was left as it is."
            if path
            else "It was left as it is; load again after moving it away."
        )
        raise WrongWeights(
            f"{file} is damaged or not the published file: its SHA-256 begins with "
            f"{digest[: len(wanted)]}, torchvision's with {wanted}. {advice}"
        )
    return torch.load(file, map_location="cpu", weights_only=True)
