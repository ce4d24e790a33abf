"""Networks to stand beside: those of torchvision, timm and pytorchcv, by name."""

import difflib
import warnings

import torch
from torch import nn

from ..counting.operations import on_meta
from .calibration import enliven


def reference_network(
    name: str, *, vary: bool = True, seed: int = 0, **options
) -> nn.Module:
    """Build the reference implementation of a network, with weights that tell.

    Fresh weights prove little: in evaluation mode the signals of many networks die on
    their way, scales are all 1 and heads all 0, so that wrong layers change nothing.
    Here norms, gates and tables get seeded numbers of their own, batch norms the
    statistics of one pass over noise, and every layer an output of ordinary size.

    Args:
        name: a classification network of torchvision, or "timm/NAME" for one of timm,
            or "ptcv/NAME" for one of pytorchcv.
        vary: False leaves the weights as the library initializes them from PyTorch's
            global seed.
        seed: the same seed gives the same numbers.
        **options: passed on, for example num_classes=10, or device="meta" for counts.

    Returns:
        The network in evaluation mode.

    Raises:
        ValueError: the reference implementation has no network of this name.
        ImportError: the library is not installed.
    """
    device = torch.device(options.pop("device", "cpu"))
    library, _, short = name.rpartition("/")
    builders = {"": _torchvision, "timm": _timm, "ptcv": _pytorchcv}
    if library not in builders:
        raise ValueError(
            f"'{name}' names no reference: write a name of torchvision, 'timm/NAME' "
            "or 'ptcv/NAME'."
        )
    build = builders[library]
    alive = vary and device.type != "meta"
    with torch.random.fork_rng(enabled=alive):
        if alive:
            torch.manual_seed(seed)
        try:
            with device:
                network = build(short, dict(options))
        except NotImplementedError:  # some constructors compute with numbers
            network = on_meta(build(short, dict(options))).to(device)
    if alive:
        enliven(network, seed)
    return network.eval()


def _torchvision(name: str, options: dict) -> nn.Module:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise ValueError(_unknown(name, "torchvision", models.list_models(models)))
    if name in ("googlenet", "inception_v3"):
        options = {"init_weights": False} | options  # the other way takes a minute
    network = models.get_model(name, weights=None, **options)
    if name == "inception_v3":
        network.image_size = 299  # torchvision says it with the weights only
    return network


def _timm(name: str, options: dict) -> nn.Module:
    timm = import_timm(name)
    if not timm.is_model(name):
        raise ValueError(_unknown(name, "timm", timm.list_models()))
    return timm.create_model(name, pretrained=False, **options)


def import_timm(name: str):
    """Return the module timm, or raise ImportError with what to do."""
    try:
        with warnings.catch_warnings():  # tqdm asks for widgets in a notebook
            warnings.filterwarnings("ignore", "IProgress not found")
            import timm
    except ImportError as error:
        raise ImportError(
            f"timm/{name} is a network of timm, which is not installed: pip install "
            "timm."
        ) from error
    return timm


def _pytorchcv(name: str, options: dict) -> nn.Module:
    try:
        from pytorchcv import model_provider
    except ImportError as error:
        raise ImportError(
            f"ptcv/{name} is a network of pytorchcv, which is not installed: pip "
            "install --no-deps pytorchcv."
        ) from error
    names = list(model_provider._models)
    if name not in names:
        raise ValueError(_unknown(name, "pytorchcv", names))
    return model_provider.get_model(name, pretrained=False, **options)


def _unknown(name: str, library: str, names: list[str]) -> str:
    near = difflib.get_close_matches(name, names, n=3)
    hint = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{library} has no classification network called '{name}'.{hint}"
