"""Stand beside the reference implementation: same weights, same outputs, or where not.

A network of the book is right when weights carried over from torchvision or timm give
the same logits. `transplant` carries them, `compare` names the first layer that
disagrees, `load_pretrained` fetches the published weights.
"""

import difflib
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import nn

from .matching import Report, transplant
from .tables import Table

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
    device = options.pop("device", "cpu")
    with torch.device(device):
        if name.startswith("timm/"):
            network = _timm(name.removeprefix("timm/"), options)
        else:
            network = _torchvision(name, options)
    if vary and torch.device(device).type != "meta":
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


@dataclass
class Comparison:
    """How far two networks are apart on the same input.

    Attributes:
        max_difference: largest absolute difference between the outputs.
        first_difference: the first layer whose output differs, with its name in
            both networks; None when all compared layers agree.
        layers: one row per compared layer: its two names, output shape, difference.
        tolerance: what counted as a difference.
    """

    max_difference: float
    first_difference: str | None
    layers: Table
    tolerance: float
    note: str = ""

    def __repr__(self) -> str:
        text = f"Largest difference of the outputs: {self.max_difference:.2e}. "
        if self.first_difference:
            text += f"The first layer that differs is {self.first_difference}."
        elif self.max_difference > self.tolerance:
            text += f"All {len(self.layers)} layers that could be compared agree."
        else:
            text += f"All {len(self.layers)} compared layers agree."
        return f"{text} {self.note}".strip()


@dataclass
class _Record:
    """One call of a layer: its path, what identifies it, what came out."""

    name: str
    kind: str
    weights: tuple | None
    output: torch.Tensor


@contextmanager
def _evaluating(network: nn.Module):
    """Switch to evaluation mode and put every module's own mode back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def _weights(module: nn.Module) -> torch.Tensor | None:
    """Return the tensor that tells a layer from others, if it has one."""
    if isinstance(module, nn.MultiheadAttention):
        return module.out_proj.weight  # what comes out of both is this projection
    return next((p for p in module.parameters(recurse=False)), None)


def _fingerprint(weight: torch.Tensor) -> tuple:
    """Identify a weight by its size and a sample of its numbers, whatever its shape."""
    flat = weight.detach().flatten()
    sample = flat[:: max(1, flat.numel() // 256)].float().cpu()
    return flat.numel(), sample.numpy().tobytes()


def _record(network: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, list[_Record]]:
    """Run a network and keep what each of its layers gave."""
    records: list[_Record] = []

    def keep(module, args, output):
        while isinstance(output, tuple | list):
            output = output[0]
        if isinstance(output, torch.Tensor):
            weight = _weights(module)
            print_ = None if weight is None else _fingerprint(weight)
            # cloned, since an in-place ReLU would overwrite what came before it
            kept = output.detach().float().clone()
            records.append(_Record(names[module], type(module).__name__, print_, kept))

    names, inside = {}, set()
    for name, module in network.named_modules():
        unit = isinstance(module, nn.MultiheadAttention)
        if module in inside or (next(module.children(), None) and not unit):
            continue
        inside.update(module.children())
        names[module] = name
    hooks = [module.register_forward_hook(keep) for module in names]
    try:
        with _evaluating(network):
            output = network(x)
    finally:
        for hook in hooks:
            hook.remove()
    while isinstance(output, tuple | list):
        output = output[0]
    return output.float(), records


def _alike(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor | None:
    """Bring `b` into the layout of `a`: channels first or last, grid or sequence."""
    views = [b]
    if b.dim() == 4:
        views += [b.permute(0, 2, 3, 1), b.permute(0, 3, 1, 2)]
        views += [v.flatten(1, 2) for v in views[:2]]
        views += [b.flatten(2)]
    if b.dim() == 3 and a.dim() == 4:
        views += [b.transpose(1, 2)]
        views = [v.reshape(a.shape) for v in views if v.shape[1] == a.shape[1]]
    return next((v for v in views if v.shape == a.shape), None)


def _pair(a: list[_Record], b: list[_Record]) -> list[tuple[int, int]]:
    """Find for each call in one network its counterpart in the other.

    Layers with weights are paired by their numbers, those that remain by their size
    in order; layers without weights by their place between two of those.
    """
    pairs: dict[int, int] = {}
    for key in (lambda r: r.weights, lambda r: r.weights and r.weights[0]):
        waiting: dict = defaultdict(deque)
        for j, record in enumerate(b):
            if record.weights and j not in pairs.values():
                waiting[key(record)].append(j)
        for i, record in enumerate(a):
            if record.weights and i not in pairs and waiting[key(record)]:
                pairs[i] = waiting[key(record)].popleft()
    anchors = [(-1, -1), *sorted(pairs.items()), (len(a), len(b))]
    for (i1, j1), (i2, j2) in pairwise(anchors):
        between = range(i1 + 1, i2), range(j1 + 1, j2)
        kinds = [a[i].kind for i in between[0]], [b[j].kind for j in between[1]]
        if kinds[0] == kinds[1]:
            pairs.update(zip(*between, strict=True))
    return sorted(pairs.items())


def compare(
    a: nn.Module,
    b: nn.Module,
    x: torch.Tensor | None = None,
    input_size: tuple[int, ...] = (3, 224, 224),
    *,
    tolerance: float = 1e-4,
) -> Comparison:
    """Run two networks on the same input and name the first layer that differs.

    Both run in evaluation mode and get their own mode back. Outputs are compared at
    the layers (modules without children, and `nn.MultiheadAttention`) that have a
    counterpart: the same weights, or else the same size and place.

    Args:
        a, b: the networks, on the same device.
        x: the input (B, C, H, W); by default two images of seeded noise.
        input_size: shape of one of those images.
        tolerance: a layer differs when the largest absolute difference of its output
            exceeds this, or this share of its largest output where that is above 1.

    Returns:
        A comparison that prints the verdict in a sentence.

    Raises:
        ValueError: the outputs of the two networks have different shapes.
    """
    if x is None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(2, *input_size, generator=generator)
        x = x.to(next(a.parameters(), x))
    out_a, records_a = _record(a, x)
    out_b, records_b = _record(b, x)
    if out_a.shape != out_b.shape:
        raise ValueError(
            f"The outputs cannot be compared: {type(a).__name__} gives "
            f"{tuple(out_a.shape)}, {type(b).__name__} {tuple(out_b.shape)}. Build "
            "both with the same number of classes."
        )
    rows, first = [], None
    for i, j in _pair(records_a, records_b):
        one, other = records_a[i], records_b[j]
        theirs = _alike(one.output, other.output)
        if theirs is None and one.output.shape[1:].numel() == 0:
            continue
        shape = " x ".join(str(n) for n in one.output.shape[1:])
        if theirs is None:
            difference = float("inf")
        else:
            difference = (one.output - theirs).abs().max().item()
        scale = max(1.0, one.output.abs().max().item())
        rows.append((one.name, other.name, shape, difference))
        if first is None and not difference <= tolerance * scale:
            first = _describe(one, other, theirs)
    table = Table(rows, columns=["layer", "counterpart", "output shape", "difference"])
    return Comparison((out_a - out_b).abs().max().item(), first, table, tolerance)


def _describe(one: _Record, other: _Record, theirs: torch.Tensor | None) -> str:
    """Name a layer in both networks."""
    name = one.name if one.name == other.name else f"{one.name} (there {other.name})"
    if theirs is None:
        shapes = tuple(one.output.shape[1:]), tuple(other.output.shape[1:])
        name += f", whose output is {shapes[0]} here and {shapes[1]} there"
    return name


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
    try:
        source.load_state_dict(state)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise WrongWeights(
            f"The weights in {path or choices[weights].url} are not those of {name}. "
            "Pass the name of the network that they belong to."
        ) from error
    return transplant(source, network, input_size)


def _read_weights(url: str, path: str | Path | None) -> dict:
    """Return the state dictionary of a file, fetched if need be and checked."""
    import hashlib
    from urllib.error import URLError

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
        raise WrongWeights(
            f"{file} is damaged or another file: its SHA-256 begins with "
            f"{digest[: len(wanted)]}, torchvision's with {wanted}. Delete it and load "
            "again."
        )
    return torch.load(file, map_location="cpu", weights_only=True)
