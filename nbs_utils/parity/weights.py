"""Published weights: found, fetched, checked, and carried into a network of the book."""

import hashlib
import pickle
import re
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from urllib.error import URLError
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from torch import nn

from .calibration import native_size
from .matching import Report, transplant
from .references import import_timm, reference_network

# torchvision's files of DenseNet say "norm.1" where its network says "norm1": they are
# older than the rule that a module's name holds no dot. torchvision renames them, too.
_OLD_NAME = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


class NoConnection(RuntimeError):
    """Published weights are not on this machine and cannot be fetched now."""


class WrongWeights(ValueError):
    """A file of weights is damaged, is another file, or fits another network."""


def load_pretrained(
    network: nn.Module,
    name: str,
    weights: str = "DEFAULT",
    path: str | Path | None = None,
    input_size: tuple[int, ...] | None = None,
) -> Report:
    """Load published weights of torchvision or timm into a network of the book.

    The file is taken from the library's cache or fetched once into it; the hash that
    torchvision publishes in the file's name is checked either way.

    Args:
        network: changed in place, and left as it was when anything does not fit.
        name: torchvision's name of the architecture, for example "resnet50", or
            "timm/NAME".
        weights: which of its weights, for example "IMAGENET1K_V1" of torchvision or
            the tag "a1_in1k" of timm.
        path: a file to take instead, as it is published.
        input_size: shape of one image; by default what the reference was made for.

    Returns:
        The report of the transplantation.

    Raises:
        NoConnection: the weights are not on this machine and cannot be fetched.
        WrongWeights: the file is damaged or holds the weights of another network.
        ValueError: the library knows no such network or weights.
        ImportError: timm is asked for and not installed.
    """
    if name.startswith("timm/"):
        source = _from_timm(name.removeprefix("timm/"), weights, path)
        where = path or f"timm's {weights} weights"
    else:
        source, where = _from_torchvision(name, weights, path)
    return carry(source, network, name, where, input_size)


def carry(
    source: nn.Module,
    network: nn.Module,
    name: str,
    where: str | Path,
    input_size: tuple[int, ...] | None = None,
) -> Report:
    """Transplant weights only if everything fits.

    Args:
        source: the reference network with the published weights.
        network: changed in place, and left as it was when anything does not fit.
        name, where: of the source and of its file, for the error.
        input_size: shape of one image; by default what the source was made for.

    Raises:
        WrongWeights: tensors are left over on one of the sides, or it is not certain
            which belong together.
    """
    before = {n: t.detach().clone() for n, t in network.state_dict().items()}
    report = transplant(source, network, input_size or native_size(source))
    trouble = ""
    if report.unfilled:
        trouble = f"nothing was found for {', '.join(list(report.unfilled)[:3])}."
    elif report.unused:
        trouble = f"it has no place for {', '.join(list(report.unused)[:3])}."
    elif report.doubt:
        trouble = report.doubt
    if trouble:
        network.load_state_dict(before)
        raise WrongWeights(
            f"The weights of {name} in {where} do not fit "
            f"{type(network).__name__}: {trouble} It was left as it was."
        )
    return report


def _from_torchvision(
    name: str, weights: str, path: str | Path | None
) -> tuple[nn.Module, str | Path]:
    from torchvision import models

    source = reference_network(name, vary=False)
    choices = models.get_model_weights(name)
    if weights not in choices.__members__:
        raise ValueError(
            f"torchvision has no weights '{weights}' for {name}. It has "
            f"{', '.join(choices.__members__)}."
        )
    url = choices[weights].url
    where = path or url
    fill(source, read_published(url, path), name, where)
    return source, where


def _from_timm(name: str, tag: str, path: str | Path | None) -> nn.Module:
    """Build a network of timm with published weights; timm fetches and renames."""
    timm = import_timm(name)
    full = name if tag == "DEFAULT" else f"{name}.{tag}"
    reference_network(f"timm/{name}", device="meta")  # raises for an unknown name
    options = {}
    if path:
        if not Path(path).is_file():
            raise WrongWeights(_no_file(path))
        options["pretrained_cfg_overlay"] = {"file": str(path)}
    elif full != name and full not in timm.list_models(f"{name}.*", pretrained=True):
        here = timm.list_models(f"{name}.*", pretrained=True)
        tags = ", ".join(n.rpartition(".")[2] for n in here)
        raise ValueError(f"timm has no weights '{tag}' for {name}. It has {tags}.")
    try:
        with _hub_not_retrying(), _no_path_printed():
            return timm.create_model(full, pretrained=True, **options).eval()
    except (pickle.UnpicklingError, EOFError, KeyError) as error:
        raise WrongWeights(f"{path} is damaged or no file of weights.") from error
    except RuntimeError as error:
        said = str(error)
        if path and ("size mismatch" in said or "state_dict" in said):
            raise WrongWeights(_foreign(path, f"timm/{name}")) from error
        if path:
            raise WrongWeights(f"{path} is damaged or no file of weights.") from error
        raise NoConnection(_offline(full, "timm's server")) from error
    except OSError as error:  # what requests, urllib and the hub raise
        raise NoConnection(_offline(full, "timm's server")) from error


@contextmanager
def _no_path_printed() -> Iterator[None]:
    """Leave out the line in which torch.hub names the folder of its cache.

    A notebook would keep it among its outputs. The bar of progress stays.
    """

    class WithoutThatLine:
        def __init__(self, stream):
            self.stream = stream

        def write(self, text: str) -> int:
            hidden = text.startswith("Downloading: ")
            return len(text) if hidden else self.stream.write(text)

        def __getattr__(self, name: str):
            return getattr(self.stream, name)

    out, errors = WithoutThatLine(sys.stdout), WithoutThatLine(sys.stderr)
    with redirect_stdout(out), redirect_stderr(errors):  # versions differ
        yield


@contextmanager
def _hub_not_retrying() -> Iterator[None]:
    """Take timm's weights from the cache alone while its hub cannot be reached.

    The hub would try for most of a minute, and print a line each time.
    """
    try:
        from huggingface_hub import constants
    except ImportError:
        yield
        return
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _reachable(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _reachable(address: str) -> bool:
    """Say whether a server answers; with a proxy between, take it that it does."""
    parts = urlsplit(address)
    if parts.scheme in getproxies():
        return True
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        socket.create_connection((parts.hostname, port), timeout=5).close()
    except OSError:
        return False
    return True


def fill(source: nn.Module, state: dict, name: str, where: str | Path) -> None:
    """Give a reference network its published weights.

    Args:
        state: what the file held.
        name, where: of the network and of the file, for the error.

    Raises:
        WrongWeights: the weights are those of another network.
    """
    try:
        state = {_OLD_NAME.sub(r"\1\2", key): value for key, value in state.items()}
        source.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise WrongWeights(_foreign(where, name)) from error


def read_published(url: str, path: str | Path | None = None) -> dict:
    """Return the state dictionary of a file, fetched if need be and checked.

    Args:
        url: where torchvision publishes it; the name ends with a part of its SHA-256.
        path: a copy to take instead.

    Raises:
        NoConnection, WrongWeights: see `load_pretrained`.
    """
    file_name = url.rsplit("/", 1)[-1]
    wanted = file_name.rsplit("-", 1)[-1].split(".")[0]
    file = Path(path) if path else Path(torch.hub.get_dir(), "checkpoints", file_name)
    if path and not file.is_file():
        raise WrongWeights(_no_file(path))
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        try:
            torch.hub.download_url_to_file(url, str(file), progress=False)
        except (URLError, OSError) as error:
            raise NoConnection(_offline(file_name, url.split("/")[2])) from error
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    if not digest.startswith(wanted):
        advice = (
            "Weights of your own are begun from with nbs.scoring.start_from(network, "
            "path); it was left as it is."
            if path
            else "It was left as it is; load again after moving it away."
        )
        raise WrongWeights(
            f"{file} is damaged or another file: its SHA-256 begins with "
            f"{digest[: len(wanted)]}, torchvision's with {wanted}. {advice}"
        )
    return torch.load(file, map_location="cpu", weights_only=True)


def _no_file(path: str | Path) -> str:
    return f"There is no file {path}. Pass path= as it was downloaded."


def _offline(file: str, host: str) -> str:
    return (
        f"{file} is not on this machine and {host} cannot be reached; connect once, or "
        "pass path= to a copy."
    )


def _foreign(where: str | Path, name: str) -> str:
    return (
        f"The weights in {where} are not those of {name}. Pass the name of the network "
        "that they belong to."
    )
