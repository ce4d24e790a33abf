"""Checkpoints: written whole or not at all, safe to load, checked before use."""

import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

LAST, BEST, OLD = "last.pt", "best.pt", "previous-"
FINAL = "final.pt"  # what `nbs train` leaves when training has ended
ALL = (LAST, BEST, FINAL)


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, read, or used for this run."""


def write_checkpoint(state: dict[str, Any], path: str | Path) -> Path:
    """Write a checkpoint so that `path` holds the old one or the new one, never half.

    The new one is written beside it, forced to the disk, and only then given its
    name, which the file system does in one step. A process killed at any moment
    leaves at most a file that ends in .tmp.

    Args:
        state: tensors, numbers, words, lists and dictionaries of these.
        path: the file.

    Raises:
        CheckpointError: the disk is full or read-only. What was there is untouched.
    """
    path = Path(path)
    beside = path.with_name(path.name + ".tmp")
    try:
        with open(beside, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
        _sync_folder(path.parent)
    except (OSError, RuntimeError) as error:
        _remove(beside)
        # torch wraps what the disk said in an error of its own
        inner = error
        while inner is not None and not isinstance(inner, OSError):
            inner = inner.__context__
        reason = getattr(inner, "strerror", None) or error
        raise CheckpointError(f"{path} could not be written: {reason}.") from error
    return path


def _sync_folder(folder: Path) -> None:
    """Force the new name to the disk, where the system offers that."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:
            pass  # some mounted drives refuse; the file itself is safe
        finally:
            os.close(handle)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        pass


def read_checkpoint(path: str | Path, device: str | torch.device = "cpu") -> dict:
    """Read a checkpoint. Nothing in the file is executed (`weights_only`).

    Args:
        path: the file.
        device: where its tensors go.

    Raises:
        CheckpointError: there is no such file, it is cut off, or it is no checkpoint.
    """
    path = Path(path)
    if not path.is_file():
        raise CheckpointError(f"There is no checkpoint {path}.")
    damaged = (RuntimeError, EOFError, OSError, ValueError, KeyError)
    try:
        # torch.load does not compare checksums, so a flipped bit would go unseen
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
        if broken:
            raise ValueError(f"the part {broken} does not match its checksum")
        state = torch.load(path, map_location=device, weights_only=True)
    except (*damaged, zipfile.BadZipFile, pickle.UnpicklingError) as error:
        size = path.stat().st_size
        reason = str(error).split("\n")[0].rstrip(".")
        raise CheckpointError(
            f"{path} ({size:,} bytes) is cut off, damaged, or no checkpoint: {reason}. "
            "It was left as it is. Put a whole copy in its place, or pass "
            "resume=False to start again."
        ) from error
    if not isinstance(state, dict) or "network" not in state:
        raise CheckpointError(
            f"{path} holds no checkpoint of this book: 'network' is missing in it. "
            "Give another folder, or pass resume=False to start again."
        )
    return state


def load_weights(network: nn.Module, path: str | Path) -> dict:
    """Give a network the weights of a checkpoint, and return the checkpoint.

    Args:
        network: of the same architecture as the one that was saved.
        path: `best.pt` or `last.pt` in the folder of a run.

    Raises:
        CheckpointError: the file is damaged or of another network.
    """
    state = read_checkpoint(path)
    check_network(state["network"], network, path)
    network.load_state_dict(state["network"])
    return state


def check_network(weights: dict, network: nn.Module, path: str | Path) -> None:
    """Refuse weights of another network, naming the first difference.

    Raises:
        CheckpointError: a tensor is missing, left over, or of another shape.
    """
    own = network.state_dict()
    problem = None
    for name, tensor in own.items():
        if name not in weights:
            problem = f"this network has '{name}', the checkpoint does not"
        elif not isinstance(tensor, torch.Tensor):
            continue  # extra state that a module keeps in its own form
        elif tensor.shape != weights[name].shape:
            there, here = tuple(weights[name].shape), tuple(tensor.shape)
            problem = f"'{name}' is {there} in the checkpoint and {here} here"
        if problem:
            break
    else:
        left = [name for name in weights if name not in own]
        if left:
            problem = f"the checkpoint has '{left[0]}', this network does not"
    if problem:
        raise CheckpointError(
            f"{path} is of another network: {problem}. Nothing was changed. Give "
            "another folder, or pass resume=False to start again."
        )


def check_identity(saved: dict, own: dict, path: str | Path) -> None:
    """Refuse to go on with another recipe, seed or data set than the run began with.

    Raises:
        CheckpointError: it names what differs, with both values.
    """
    if "augmentation" in own and "augmentation" not in saved:
        raise CheckpointError(
            f"{path} was written before checkpoints noted the split and the "
            "augmentation of the data, so nobody can tell whether this is the same "
            "data. Nothing was changed. Give another folder, or pass resume=False to "
            "start again; load_weights reads its weights."
        )
    problems = [
        f"{key} is {saved.get(key)!r} there and {value!r} here"
        for key, value in own.items()
        if saved.get(key) != value
    ]
    if problems:
        raise CheckpointError(
            f"{path} was written by another run: {'; '.join(problems)}. Nothing was "
            "changed. Give another folder, go back to those values, or pass "
            "resume=False to start again."
        )


def generator_states() -> dict[str, Any]:
    """Return where the random generators of Python, NumPy and PyTorch stand."""
    version, words, spare = random.getstate()
    _, keys, position, has_gauss, gauss = np.random.get_state()
    state = {
        "python": [version, list(words), spare],
        "numpy": [keys.tolist(), int(position), int(has_gauss), float(gauss)],
        "cpu": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state_all()
    if torch.backends.mps.is_available():
        state["mps"] = torch.mps.get_rng_state()
    return state


def set_generator_states(state: dict[str, Any]) -> None:
    """Set the random generators to where `generator_states` found them."""
    version, words, spare = state["python"]
    random.setstate((version, tuple(words), spare))
    keys, position, has_gauss, gauss = state["numpy"]
    keys = np.array(keys, dtype=np.uint32)
    np.random.set_state(("MT19937", keys, position, has_gauss, gauss))
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])
    if "mps" in state and torch.backends.mps.is_available():
        torch.mps.set_rng_state(state["mps"].cpu())
