"""`nbs evaluate`: a trained run, published weights, or the table of all of them."""

import argparse
import sys
from pathlib import Path

from .commands import FINAL, UserError, prepare, read_pairs, read_request


def add_arguments(parser: argparse.ArgumentParser, add_model_set) -> None:
    """Add what `nbs evaluate` understands to its parser."""
    parser.add_argument(
        "--checkpoint", type=Path, help="the folder of a run, or a file"
    )
    parser.add_argument("--model", help="by default the run's own")
    parser.add_argument(
        "--weights",
        metavar="NAME|FILE",
        help="published weights in the place of a checkpoint, as in IMAGENET1K_V1",
    )
    parser.add_argument(
        "--data",
        help="by default the run's own; imagefolder:PATH for published weights",
    )
    parser.add_argument(
        "--protocol",
        default="center",
        help="center, ten_crop, dense, multi_crop, dense+multi_crop, googlenet_144 or "
        "multi_scale_dense",
    )
    parser.add_argument("--image-size", type=int, metavar="PX")
    add_model_set(parser)
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--batch-size", type=int, metavar="N")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images")
    parser.add_argument(
        "--precision",
        help="float32 (of published weights), auto (of a run), bfloat16 or float16",
    )
    parser.add_argument(
        "--upright", action="store_true", help="apply the EXIF orientation"
    )
    parser.add_argument(
        "--all", action="store_true", help="a table of all published networks"
    )
    parser.add_argument("--models", metavar="PATTERN", help="of the table: 'resnet*'")
    parser.add_argument(
        "--weights-folder", type=Path, help="of the table: where files of weights lie"
    )
    parser.add_argument(
        "--folder", type=Path, help="of the table: where it is kept (evaluations/...)"
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    for key in ("batch_size", "limit", "image_size"):
        value = getattr(options, key)
        if value is not None and value < 1:
            name = key.replace("_", "-")
            raise UserError(f"--{name} is {value}; it must be at least 1.")
    given = [
        name
        for name in ("--checkpoint", "--weights", "--all")
        if getattr(options, name.strip("-"))
    ]
    if len(given) != 1:
        raise UserError(
            "Give one of --checkpoint (a run of nbs train), --weights (published, with "
            f"--model and --data) and --all (the table); {len(given)} were given."
        )
    if options.all:
        return table(options)
    return published_weights(options) if options.weights else trained_run(options)


def trained_run(options: argparse.Namespace) -> int:
    from ..scoring.evaluation import evaluate
    from ..training.checkpoints import CheckpointError, load_weights

    place = options.checkpoint
    if not place.exists():
        raise CheckpointError(
            f"There is nothing at {place}; give the folder of a run of `nbs train` "
            "(it said which), or a file of weights."
        )
    folder = place if place.is_dir() else place.parent
    request = read_request(folder)
    if options.data is None:
        require_harmless(request, folder)
    for key in ("model", "data", "image_size", "limit"):
        if getattr(options, key) is not None:
            request[key] = getattr(options, key)
    if options.model_set:
        request["arguments"] = read_pairs(options.model_set, "--model-set")
    for key in ("model", "data"):
        if key not in request:
            raise UserError(
                f"{folder} does not say which {key} it was trained with; add --{key}."
            )
    file = place
    if place.is_dir():
        # What the network held when training ended, or else the best so far.
        files = [place / name for name in (FINAL, "best.pt", "last.pt")]
        file = next((f for f in files if f.exists()), None)
        if file is None:
            raise CheckpointError(
                f"There is no checkpoint in {place}; give the folder of a run of `nbs "
                "train`, or a file."
            )
    data, network, _ = prepare(request)
    load_weights(network, file)
    split = getattr(data, options.split)
    print(f"{request['model']} from {file} on {split}", file=sys.stderr)
    scores = evaluate(
        network,
        split,
        protocol=options.protocol,
        batch_size=options.batch_size,
        precision=options.precision or "auto",
    )
    print(scores)
    return 0


def require_harmless(request: dict, folder: Path) -> None:
    """Raise if evaluating a run would execute what its folder says.

    The folder may be somebody else's, and shards may come out of a command.

    Raises:
        UserError: the run's data are shards that are not files of this machine.
    """
    from ..data.shards import are_local_files

    data = str(request.get("data", ""))
    kind, _, patterns = data.partition(":")
    if kind == "webdataset" and not are_local_files(patterns):
        raise UserError(
            f"{folder} was trained on {data!r}, which a command or a server delivers; "
            "if you trust it, name it yourself with --data."
        )


def published_weights(options: argparse.Namespace) -> int:
    from ..scoring.evaluation import evaluate
    from ..scoring.published_weights import load_published, photographs_for
    from ..tables import Table

    for key in ("model", "data"):
        if getattr(options, key) is None:
            raise UserError(f"--weights needs --{key} as well.")
    path = Path(options.weights)
    path = path if path.is_file() or path.suffix in (".pth", ".pt") else None
    network, entry = load_published(
        options.model, None if path else options.weights, path
    )
    photographs = photographs_for(
        entry,
        options.data,
        options.image_size,
        options.limit,
        upright=options.upright,
    )
    print(
        f"{options.model} with {options.weights} on {photographs}, {options.protocol} "
        f"at {photographs.image_size} px",
        file=sys.stderr,
    )
    scores = evaluate(
        network,
        photographs,
        protocol=options.protocol,
        batch_size=options.batch_size,
        precision=options.precision or "float32",
        progress=True,
    )
    k = len(photographs.classes)
    rows = [("over all 1,000 classes", scores.top1_all, scores.top5_all)]
    if k < scores.outputs:
        rows.append((f"over the {k} of the folder", scores.top1, scores.top5))
    how = f"published (ImageNet's 50,000, center: {entry.shorter} to {entry.crop} px)"
    rows.append((how, entry.top1, entry.top5))
    table = Table(
        [(name, f"{100 * one:.3f}", f"{100 * five:.3f}") for name, one, five in rows],
        columns=[f"{options.model}, {scores.n:,} images", "top-1 %", "top-5 %"],
    )
    print(table)
    print(f"{scores.images_per_second:,.1f} images/s, {scores.precision}")
    for note in scores.notes:
        print(note)
    return 0


def table(options: argparse.Namespace) -> int:
    from ..scoring.published_table import evaluate_all
    from ..scoring.published_weights import list_published

    if options.data is None:
        raise UserError("--all needs --data, as in --data imagefolder:PATH.")
    models = list_published(options.models)
    if not models:
        raise UserError(
            f"No network with published weights matches '{options.models}'. There are "
            f"{', '.join(list_published())}."
        )
    path = Path(options.data.partition(":")[2] or options.data).expanduser()
    name = f"{path.resolve().name}-{options.protocol}"
    folder = options.folder or Path("evaluations") / name
    print(f"Folder: {folder}", file=sys.stderr)
    made = evaluate_all(
        models,
        options.data,
        folder,
        protocol=options.protocol,
        precision=options.precision or "float32",
        image_size=options.image_size,
        batch_size=options.batch_size,
        limit=options.limit,
        weights_folder=options.weights_folder,
        upright=options.upright,
        say=lambda text: print(text, file=sys.stderr, flush=True),
    )
    print(made)
    return 0
