"""`nbs train`: what may be said of a run, and the way from there to its folder."""

import argparse
import os
import sys
from pathlib import Path

from . import commands
from .commands import (
    CARD,
    REQUEST,
    UserError,
    folder_name,
    positive,
    read_pairs,
    require_same_request,
)

MODEL = "resnet18"  # where a person names none


def add_arguments(parser: argparse.ArgumentParser, add_model_set) -> None:
    """Add what `nbs train` understands to its parser."""
    add = parser.add_argument
    add("--model", default=MODEL, help=f"a name that `nbs list` shows ({MODEL})")
    add(
        "--data",
        required=True,
        help="mnist, fashion_mnist, cifar10, cifar100, imagenette, digits or "
        "imagefolder:PATH or webdataset:SHARDS",
    )
    add(
        "--recipe",
        help="a name or a .yml file; by default short, for few photographs small, and "
        "with --weights fine-tune",
    )
    add("--epochs", type=int, metavar="N", help="the recipe's schedule is stretched")
    add(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change the recipe, as in lr=0.05 or class_weights=balanced",
    )
    add_model_set(parser)
    add("--image-size", type=int, metavar="PX")
    add("--channels", type=int, choices=(1, 3), help="1 takes gray images, 3 color")
    add("--batch-size", type=int, metavar="N")
    add("--limit", type=int, metavar="N", help="at most N images a split")
    add(
        "--val-size",
        type=float,
        metavar="N",
        help="of the validation split: a number of images, or a share below 1",
    )
    add(
        "--on-bad-image",
        choices=("raise", "skip"),
        default="raise",
        help="stop at a file that cannot be read, or leave it out",
    )
    add(
        "--augment",
        default="auto",
        metavar="NAME",
        help="none, crop-flip, randaugment, ...; an unknown name lists them (auto)",
    )
    add(
        "--weights",
        metavar="NAME|FILE|RUN",
        help="begin from published weights, a file of weights, or another run; the "
        "classifier is new",
    )
    add(
        "--freeze",
        action="append",
        default=[],
        metavar="PATTERN",
        help="keep layers as they are, batch norms included: body, or names as in "
        "'conv[12]*'",
    )
    add(
        "--folds",
        type=int,
        metavar="K",
        help="also train K times, each time without another K-th of the photographs, "
        "for an estimate in which each is tested once",
    )
    add("--seed", type=int, default=0)
    add("--device", help="cpu, cuda, cuda:1 or mps; by default the fastest there is")
    add("--folder", type=Path, help="of the run (runs/MODEL-DATA-...)")
    add("--fresh", action="store_true", help="begin again from nothing")
    add(
        "--checkpoint-every",
        type=int,
        metavar="STEPS",
        help="also keep a checkpoint inside an epoch",
    )
    add("--on-out-of-memory", choices=("raise", "halve"), default="raise")


def make_request(options: argparse.Namespace) -> dict:
    """Return what makes a run the one it is; options of newer versions only if set."""
    request = {
        "model": options.model,
        "arguments": read_pairs(options.model_set, "--model-set"),
        "data": options.data,
        "image_size": options.image_size,
        "batch_size": options.batch_size,
        "limit": options.limit,
        "augment": options.augment,
        "seed": options.seed,
    }
    for key in ("channels", "val_size", "weights"):
        if getattr(options, key) is not None:
            request[key] = getattr(options, key)
    if options.on_bad_image != "raise":
        request["on_bad_image"] = options.on_bad_image
    if options.freeze:
        request["freeze"] = options.freeze
    return request


def choose_recipe(options: argparse.Namespace, data):
    """Return the recipe of a run, and a sentence where it was chosen for few images."""
    from ..training.recipe import Recipe
    from ..training.small import SMALL, small_recipe, why_small

    changes = read_pairs(options.set, "--set")
    epochs = options.epochs
    if "epochs" in changes:
        if epochs is not None:
            raise UserError("--epochs and --set epochs=... say the same; give one.")
        epochs = changes.pop("epochs")
    count = len(data.train)
    few = count <= SMALL and own_photographs(data)
    if options.recipe is not None:
        recipe = Recipe.load(options.recipe)
    elif few:
        recipe = small_recipe(count, "fine-tune" if options.weights else "small")
    else:
        recipe = Recipe.load("fine-tune" if options.weights else "short")
    if epochs is not None:  # warm-up, milestones and patience keep their share
        recipe = recipe.stretched(positive("epochs", epochs))
    if options.batch_size is not None and recipe.batch_size is not None:
        recipe = recipe.replace(batch_size=options.batch_size)
    recipe = recipe.replace(**changes)
    chosen = few and recipe.name in ("small", "fine-tune")
    return recipe, why_small(count, recipe) if chosen else ""


def own_photographs(data) -> bool:
    """Tell whether data is a folder of one's own rather than a data set by name."""
    from ..data.datasets import SPECS

    return data.name not in SPECS


def train(options: argparse.Namespace) -> int:
    """Train a network as a person asked, and leave everything in its folder."""
    from ..distributed import restarts, world
    from ..results import make_record, write_json
    from ..scoring.evaluation import evaluate
    from ..training.loop import fit

    if options.folds is not None and options.folds < 2:
        raise UserError(f"--folds is {options.folds}; it must be at least 2.")
    use_device(options.device)
    request = make_request(options)
    data, network, note = commands.prepare(request)
    recipe, why = choose_recipe(options, data)
    folder = options.folder or Path("runs") / folder_name(options, recipe.name)
    say(f"{options.model} on {data}", f"Folder: {folder}", note, why)
    fresh = options.fresh and not restarts()  # what torchrun restarts goes on
    if not fresh:
        require_same_request(folder, request)
    me = world()  # among the processes that torchrun started, if it did
    me.wait()  # all have read what the folder holds
    if me.first:
        write_json(request, folder / REQUEST)
    run = fit(
        network,
        data,
        recipe,
        folder=folder,
        resume=not fresh,
        seed=options.seed,
        checkpoint_every=options.checkpoint_every,
        on_out_of_memory=options.on_out_of_memory,
    )
    if run.status == "interrupted":
        say("Stopped. The same command goes on from here.")
        return 130
    from ..training.checkpoints import FINAL, write_checkpoint
    from ..training.description import KEY
    from ..training.identity import data_identity

    if me.first:
        state = {
            "network": network.state_dict(),
            "identity": data_identity(data),
            KEY: network.description.as_dict(),
        }
        write_checkpoint(state, folder / FINAL)
    scores = evaluate(network, data.test)
    if not me.first:
        return 0
    record = make_record(
        options.model, run=run, scores=scores, network=network, data=data
    )
    write_json(record, folder / CARD)
    print(f"Test: {scores}", f"Card: {folder / CARD}", sep="\n")
    if own_photographs(data):
        from ..scoring.report import write_report

        page = write_report(folder, network, data.test, history=run.history)
        print(f"Report: {page}")
    if options.folds:
        from .folding import estimate

        print(estimate(options, request, recipe, data, folder))
    return 0


def use_device(name: str | None) -> None:
    """Compute on a device from here on, in every room.

    Raises:
        ValueError: PyTorch does not know it, or the machine does not have it.
    """
    from .. import runtime

    if name is not None:
        os.environ["NBS_DEVICE"] = name
    runtime.device()


def say(*lines: str) -> None:
    """Print lines for a person beside the results; empty ones are left out."""
    for line in filter(None, lines):
        print(line, file=sys.stderr)
