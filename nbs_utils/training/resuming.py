"""Keeping a run on disk, and going on with it exactly where it stopped."""

import math
from pathlib import Path

from . import checkpoints
from .checks import fetch_scores
from .description import KEY, check_classes, check_files, describe
from .identity import recipe_identity
from .recipe import Recipe
from .shared_folder import check_folder
from .state import Setup, State


def save(state: State, setup: Setup) -> None:
    """Write `last.pt`, from which the run can go on exactly."""
    if setup.folder is None:
        return
    scores = setup.world.of_all(state.scores)
    if state.step:
        fetch_scores(state, setup, scores)  # a bad one does not overwrite a good one
    if not setup.world.first:
        return
    path = setup.folder / checkpoints.LAST
    try:
        checkpoints.write_checkpoint(
            {
                **state.state_dict(),
                "scores": scores,
                "identity": setup.identity,
                KEY: describe(state.network, setup.data).as_dict(),
            },
            path,
        )
        setup.kept = path
    except checkpoints.CheckpointError as error:
        kept = "The one before it is whole." if setup.kept else "There is none yet."
        setup.progress.say(f"{error} {kept} Training goes on and will try again.")


def save_best(state: State, setup: Setup) -> None:
    """Write `best.pt`: the weights of the best epoch so far."""
    if setup.folder is None or not setup.world.first:
        return
    try:
        checkpoints.write_checkpoint(
            {
                "network": state.best_weights,
                "epoch": state.best_epoch,
                "top1": state.best_top1,
                "identity": setup.identity,
                KEY: describe(state.network, setup.data).as_dict(),
            },
            setup.folder / checkpoints.BEST,
        )
    except checkpoints.CheckpointError as error:
        setup.progress.say(f"{error} The best weights are still held in memory.")


def open_folder(state: State, setup: Setup, resume: bool) -> None:
    """Make the run's folder, and go on from the checkpoint in it.

    Raises:
        CheckpointError: the folder cannot be written to; the checkpoint is damaged or
            belongs to another network, recipe, seed or data set.
    """
    folder = setup.folder
    check_folder(folder)
    last = folder / checkpoints.LAST
    saved = None
    if resume and last.is_file():
        saved = checkpoints.read_checkpoint(last, setup.device)
        check_classes(saved, setup.data.classes, last)
        check_files(saved, getattr(setup.data, "files", ""), last)
        checkpoints.check_network(saved["network"], state.network, last)
        # a key that is newer than the checkpoint had its default value then
        before = {**recipe_identity(Recipe()), **saved.get("identity", {})}
        checkpoints.check_identity(before, setup.identity, last)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if setup.world.first:
            put_away(folder, () if saved else checkpoints.ALL)
            setup.recipe.save(folder / "recipe.yml")
            describe(state.network, setup.data).save(folder)
    except OSError as error:
        raise checkpoints.CheckpointError(
            f"The folder {folder} cannot be written to ({error.strerror}). Nothing was "
            "trained. Give another folder, or folder=None to keep nothing on disk."
        ) from error
    if saved is None:
        return
    state.load_state_dict(saved)
    state.scores = setup.world.of_one(state.scores)
    setup.kept = last
    recover_best(state, setup)
    if state.epoch == setup.recipe.epochs:
        setup.progress.say(f"{folder} holds this run, finished: nothing to train.")
        return
    setup.progress.say(
        f"{folder}: going on after {state.epoch} of {setup.recipe.epochs} epochs"
        + (f" and {state.step} of {setup.steps} steps." if state.step else ".")
    )


def put_away(folder: Path, names: tuple[str, ...]) -> None:
    """Rename what an earlier run has left, so that a new start loses nothing."""
    for name in names:
        if (folder / name).is_file():
            (folder / name).replace(folder / f"{checkpoints.OLD}{name}")


def recover_best(state: State, setup: Setup) -> None:
    """Find the weights of the best epoch again after a resume."""
    if not state.best_epoch:
        return
    path = setup.folder / checkpoints.BEST
    try:
        best = checkpoints.read_checkpoint(path)
    except checkpoints.CheckpointError as error:
        best, problem = {}, error
    else:
        problem = f"{path} is of epoch {best.get('epoch')}, not {state.best_epoch}."
    if best.get("epoch") == state.best_epoch:
        state.best_weights = best["network"]
    elif state.best_epoch == state.epoch and state.step == 0:
        # Killed after last.pt and before best.pt: they hold the same weights.
        state.best_weights = state.weights()
        save_best(state, setup)
    else:
        setup.progress.say(
            f"{problem} The best weights of the epochs so far are lost; from here on "
            "the best is sought anew."
        )
        state.best_epoch, state.best_top1 = 0, -math.inf
