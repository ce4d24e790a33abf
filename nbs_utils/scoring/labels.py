"""Classes are compared by their names, never by their number alone."""

import copy

import torch

from ..training.description import Description, different_classes, some


def match_classes(classes: list[str], known: list[str] | tuple[str, ...]) -> list[int]:
    """Return which output of a network belongs to each class of a folder.

    Args:
        classes: names of the folder's classes, in the order of its labels.
        known: names of the network's classes, in the order of its outputs.

    Raises:
        ValueError: the folder has a class that the network does not know. The message
            names it, and the classes of the network that the folder lacks.
    """
    known = list(known)
    strangers = [name for name in classes if name not in known]
    if strangers:
        lacking = [name for name in known if name not in classes]
        renamed = (
            f" It lacks {some(lacking)}: was a folder renamed? Give it its old name."
            if lacking
            else " Take its folder out."
        )
        raise ValueError(
            f"The photographs have the class{'es' * (len(strangers) > 1)} "
            f"{some(strangers)}, which the network was not trained on; it knows "
            f"{some(known, 10)}.{renamed}"
        )
    return [known.index(name) for name in classes]


def as_network_sees(split, description: Description):
    """Return a split with the labels and the statistics of a trained network.

    A split with the network's classes in another order gets its order; one with some
    of them keeps these, in the network's order, and knows which outputs are theirs.

    Args:
        split: of `load_data`, or `PhotoFiles`; it is not changed.
        description: of the network.

    Raises:
        ValueError: the split has a class that the network does not know, or images of
            another number of channels.
    """
    split = copy.copy(split)
    if description.mean:
        split.mean = torch.tensor(description.mean)
        split.std = torch.tensor(description.std)
        split._constants = {}  # what was computed from the split's own
    if not different_classes(description.classes, split.classes):
        return split
    outputs = torch.tensor(match_classes(split.classes, description.classes))
    order = outputs.argsort()
    split.labels = order.argsort()[split.labels]
    split.classes = [split.classes[i] for i in order.tolist()]
    if len(order) < len(description.classes):
        split.columns = outputs[order]
    return split


def note_on_classes(split, description: Description) -> str:
    """Say that a split has some of a network's classes only; empty where it has all."""
    lacking = [name for name in description.classes if name not in split.classes]
    if not lacking:
        return ""
    return (
        f"Scored on {len(split.classes)} of the network's {len(description.classes)} "
        f"classes: there are no photographs of {some(lacking)}."
    )
