"""`nbs evaluate --weights FILE` for a file of one's own instead of a published one."""

import argparse
import sys
from pathlib import Path

from .commands import UserError, prepare, read_pairs


def outputs_of(path: Path) -> int | None:
    """Return how many classes a file of weights was made for; None for a run's file."""
    from torch import Tensor

    from ..scoring.starting import read_state

    state = read_state(path)
    if "network" in state:
        return None
    tensors = [value for value in state.values() if isinstance(value, Tensor)]
    return len(tensors[-1]) if tensors and tensors[-1].ndim else 0


def evaluate_own(options: argparse.Namespace, path: Path, outputs: int) -> int:
    """Score a state dict without names, on a folder with as many classes.

    Raises:
        UserError: the folder has another number of classes.
    """
    from ..scoring.starting import read_weights

    request = {
        "model": options.model,
        "data": options.data,
        "image_size": options.image_size,
        "limit": options.limit,
        "on_bad_image": "skip",  # named, and left out
        "arguments": read_pairs(options.model_set, "--model-set"),
    }
    data, network, _ = prepare(request)
    if data.num_classes != outputs:
        raise UserError(
            f"{path} has {outputs} outputs and {options.data} has {data.num_classes} "
            "classes. The file holds no class names, so both must have as many, in the "
            "same order; the folder of a run (nbs evaluate RUN) knows its names."
        )
    network.load_state_dict(read_weights(network, path).tensors)
    split = getattr(data, options.split)
    note = (
        f"{path.name} names no classes and no statistics: its outputs were taken for "
        f"{', '.join(data.classes[:10])} in this order, and the images were normalized "
        "with the folder's own mean and deviation."
    )
    return show_scores(options, network, split, f"{options.model} from {path}", note)


def show_scores(
    options: argparse.Namespace, network, split, what: str, note: str = ""
) -> int:
    """Score a network of one's own, and print the scores and a note.

    Args:
        what: names the network and its file for people.
        note: is printed behind the scores.
    """
    scores = score(options, network, split, f"{what} on {split}", "auto")
    print("\n".join(filter(None, [str(scores), note])))
    return 0


def score(options: argparse.Namespace, network, split, title: str, precision: str):
    """Return the scores of a network on a split, as `nbs evaluate` was asked.

    Args:
        title: what is scored, for people.
        precision: where a person named none.
    """
    from ..scoring.evaluation import evaluate

    print(title, file=sys.stderr)
    return evaluate(
        network,
        split,
        protocol=options.protocol,
        batch_size=options.batch_size,
        precision=options.precision or precision,
        progress=True,
    )
