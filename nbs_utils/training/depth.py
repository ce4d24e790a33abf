"""Fine-tuning: which layers learn, and how fast, by their distance from the output."""

import fnmatch
from collections.abc import Iterable

from torch import nn


def stages(network: nn.Module) -> list[list[str]]:
    """Return the names of a network's parameters, in groups from input to output.

    A group is a child of the network that has parameters; a child that only lists
    others (`nn.Sequential`, `nn.ModuleList`, or a module with nothing of its own but
    one such list) counts as these. The classifier is the last group.
    """
    groups: list[list[str]] = []
    own = [name for name, _ in network.named_parameters(recurse=False)]
    if own:
        groups.append(own)
    for name, child in network.named_children():
        inner = [f"{name}.{rest}" for rest, _ in child.named_parameters()]
        if not inner:
            continue
        if _lists_others(child):
            groups += [[f"{name}.{n}" for n in group] for group in stages(child)]
        else:
            groups.append(inner)
    return groups


def _lists_others(module: nn.Module) -> bool:
    """Tell whether a module is a row of blocks rather than a block."""
    if not isinstance(module, (nn.Sequential, nn.ModuleList)):
        return False
    blocks = [m for m in module if any(True for _ in m.parameters())]
    # a block has layers of its own; a convolution with its norm is no row of blocks
    return len(blocks) > 1 and all(any(True for _ in m.children()) for m in blocks)


def by_depth(groups: list[dict], network: nn.Module, decay: float) -> list[dict]:
    """Split an optimizer's groups so that the rate falls from output to input.

    Args:
        groups: of parameters, as optimizers take them.
        network: that they belong to.
        decay: factor from a stage to the one before it; 1 changes nothing.

    Returns:
        groups with `lr_scale`, which the loop multiplies the schedule's rate by.

    Source: discriminative fine-tuning, Howard and Ruder, "Universal Language Model
    Fine-tuning for Text Classification", 2018; for images Clark et al., "ELECTRA",
    2020, and Bao et al., "BEiT", 2022.
    """
    if decay == 1:
        return groups
    rows = stages(network)
    names = {id(p): name for name, p in network.named_parameters()}
    depth = {n: len(rows) - 1 - i for i, row in enumerate(rows) for n in row}
    made: dict[tuple[int, int], dict] = {}
    for i, group in enumerate(groups):
        for parameter in group["params"]:
            away = depth[names[id(parameter)]]
            key = (away, i)
            if key not in made:
                made[key] = {**group, "params": [], "lr_scale": decay**away}
            made[key]["params"].append(parameter)
    return [made[key] for key in sorted(made)]


def freeze(network: nn.Module, *patterns: str) -> list[str]:
    """Keep some layers as they are: no gradient, and batch norms that do not move.

    Args:
        network: changed in place.
        *patterns: of the names of parameters or modules, as in "conv1" or "conv[123]*";
            "body" is all but the classifier.

    Returns:
        the names of the parameters that are frozen now.

    Raises:
        ValueError: a pattern matches nothing, or all is frozen.
    """
    frozen: list[str] = []
    for pattern in patterns:
        found = [name for name, _ in network.named_parameters()]
        if pattern == "body":
            head = classifier_names(network)
            found = [name for name in found if name not in head]
        else:
            found = [name for name in found if _matches(name, pattern)]
        if not found:
            parts = ", ".join(name for name, _ in network.named_children())
            raise ValueError(
                f"No layer of this {type(network).__name__} matches '{pattern}'. It "
                f"consists of {parts}; 'body' is all but the classifier."
            )
        frozen += found
    for name, parameter in network.named_parameters():
        if name in frozen:
            parameter.requires_grad = False
    if not any(p.requires_grad for p in network.parameters()):
        raise ValueError(
            f"The patterns {', '.join(patterns)} freeze every layer, so nothing could "
            "be trained; leave at least the classifier."
        )
    return sorted(set(frozen))


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a parameter, or a module that it lies in, matches a pattern."""
    parts = name.split(".")
    above = (".".join(parts[: i + 1]) for i in range(len(parts)))
    return any(fnmatch.fnmatch(part, pattern) for part in above)


def classifier_names(network: nn.Module) -> set[str]:
    """Return the names of the parameters of the last layer, the classifier."""
    last = next(reversed(dict(network.named_parameters())))
    head = last.rpartition(".")[0]
    inside = dict(network.named_parameters())
    return {name for name in inside if name.rpartition(".")[0] == head}


def training_mode(network: nn.Module) -> None:
    """Set a network to training mode, but leave frozen batch norms in evaluation mode.

    A batch norm whose parameters are frozen, or that has none and lies in a frozen
    module, keeps the statistics that its frozen layers were trained with.
    """
    network.train()
    for module in network.modules():
        for child in module.children():
            if _has_statistics(child) and _is_frozen(child, module):
                child.eval()
    if _has_statistics(network) and _is_frozen(network, network):
        network.eval()


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, nn.modules.batchnorm._NormBase) and (
        module.running_mean is not None
    )


def _is_frozen(norm: nn.Module, around: nn.Module) -> bool:
    own: Iterable = list(norm.parameters()) or list(around.parameters())
    own = list(own)
    return bool(own) and not any(p.requires_grad for p in own)
