"""Load a trained network from the folder of its run, and nothing else."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from ..training.checkpoints import (
    BEST,
    FINAL,
    LAST,
    CheckpointError,
    check_network,
    read_checkpoint,
)
from ..training.description import KEY, Description, build_described


@dataclass(frozen=True)
class Saved:
    """What a checkpoint holds of a trained network.

    Attributes:
        file: where it was read.
        weights: tensors by name.
        description: how the network is built and used; None in a checkpoint that was
            written before there were descriptions.
        state: all of the checkpoint.
    """

    file: Path
    weights: dict
    description: Description | None
    state: dict


def load(
    place: str | Path,
    *,
    network: nn.Module | None = None,
    device: torch.device | str | None = None,
) -> nn.Module:
    """Return the network of a run, ready to be used.

    It carries what `predict` needs as `network.description`: class names, image size,
    mean and standard deviation. The photographs it was trained on are not needed.

    Args:
        place: the folder of a run of `fit` or `nbs train`, or one of its checkpoints.
        network: of the same architecture, where it was not built by `create_model`; it
            is changed in place.
        device: by default the CPU.

    Returns:
        The network in evaluation mode.

    Raises:
        CheckpointError: there is no checkpoint, it is damaged, or of another network.

    Example:
        network = nbs.load("runs/my-photos")
        print(nbs.predict(network, "photo.jpg"))
    """
    saved = read_saved(place)
    return give(saved, network).to(device or "cpu").eval()


def give(saved: Saved, network: nn.Module | None = None) -> nn.Module:
    """Build the network of a checkpoint, or take one, and give it the weights."""
    if network is None:
        if saved.description is None:
            raise CheckpointError(
                f"{saved.file} does not say which network it is of: it was written by "
                "an earlier version. Build the network and pass network=..., or train "
                "again."
            )
        try:
            network = build_described(saved.description)
        except (TypeError, ValueError) as error:
            raise CheckpointError(
                f"The network of {saved.file} cannot be built: {error}"
            ) from error
    check_network(saved.weights, network, saved.file)
    network.load_state_dict(saved.weights)
    network.description = saved.description
    return network


def read_saved(place: str | Path) -> Saved:
    """Read the checkpoint of a run that its network is to be taken from.

    Args:
        place: a run's folder or a checkpoint. Of a folder: what the network held when
            training ended, else the best epoch so far, else the last.

    Raises:
        CheckpointError: there is none, or it is damaged.
    """
    file = find_checkpoint(Path(place).expanduser())
    state = read_checkpoint(file)
    # with a moving average of the weights, the average is what was validated
    weights = state.get("average") or state["network"]
    values = state.get(KEY)
    return Saved(file, weights, values and Description.from_dict(values), state)


def find_checkpoint(place: Path) -> Path:
    """Return the file that holds a run's network.

    Raises:
        CheckpointError: there is none.
    """
    if place.is_file():
        return place
    if not place.is_dir():
        raise CheckpointError(
            f"There is nothing at {place}; give the folder of a run (nbs train said "
            "which), or one of its checkpoints."
        )
    for name in (FINAL, BEST, LAST):
        file = place / name
        if not file.is_file():
            continue
        if name == BEST and (place / LAST).is_file() and _keeps_last(place):
            continue
        return file
    raise CheckpointError(
        f"There is no checkpoint in {place}; give the folder of a run (nbs train, or "
        "fit(folder=...)), or a file."
    )


def _keeps_last(folder: Path) -> bool:
    """Tell whether a run was to end with its last weights instead of the best."""
    from ..training.recipe import Recipe

    path = folder / "recipe.yml"
    return path.is_file() and Recipe.load(path).keep == "last"
