"""`nbs predict`: the names of what is on photographs, and how sure the network is."""

import argparse
import json
import sys
from pathlib import Path

from .commands import UserError, positive
from .training import use_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nbs predict` understands to its parser."""
    parser.add_argument(
        "files",
        nargs="+",
        metavar="RUN|FILE",
        help="the folder of a run (without --model), then image files, folders or "
        "patterns",
    )
    parser.add_argument("--checkpoint", type=Path, help="the run, in another way")
    parser.add_argument("--model", help="a published network in the place of a run")
    parser.add_argument(
        "--weights", metavar="NAME|FILE", help="of --model, as in IMAGENET1K_V1"
    )
    parser.add_argument("--top", type=int, default=5, metavar="N", help="classes (5)")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument("--batch-size", type=int, metavar="N")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps")


def run(options: argparse.Namespace) -> int:
    """Do what was asked for; 1 where a file could not be read."""
    from ..scoring.prediction import predict

    positive("--top", options.top)
    use_device(options.device)
    network, files = open_network(options)
    found = predict(network, files, batch_size=options.batch_size)
    for sentence in found.left_out:
        print(sentence, file=sys.stderr)
    if options.json:
        rows = [
            {
                "file": name,
                "classes": [{"name": kind, "probability": p} for kind, p in row],
            }
            for name, row in zip(found.names, found.top(options.top), strict=True)
        ]
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        print(found.table(options.top))
    return 1 if found.left_out else 0


def open_network(options: argparse.Namespace):
    """Return the network that is asked, and the files that it is asked about."""
    from ..scoring.loading import load
    from ..scoring.published_weights import load_for_use

    files = list(options.files)
    if options.model or options.weights:
        if not (options.model and options.weights):
            missing = "--weights" if options.model else "--model"
            raise UserError(
                "A published network needs --model and --weights, as in --model "
                f"resnet50 --weights IMAGENET1K_V1; {missing} is missing."
            )
        return load_for_use(options.model, options.weights), files
    place = options.checkpoint or Path(files.pop(0))
    if not files:
        raise UserError(
            f"No photograph was named: nbs predict {place} photo.jpg, or a folder of "
            "photographs."
        )
    return load(place), files
