"""`nbs evaluate`: a trained run, published weights, or the table of all of them."""

import argparse
import dataclasses
import sys
from pathlib import Path

from .commands import UserError, prepare, read_pairs, read_request
from .own_weights import evaluate_own, outputs_of, score, show_scores
from .training import use_device


def add_arguments(parser: argparse.ArgumentParser, add_model_set) -> None:
    """Add what `nbs evaluate` understands to its parser."""
    parser.add_argument(
        "run_folder", nargs="?", type=Path, metavar="RUN", help="the folder of a run"
    )
    parser.add_argument(
        "--checkpoint", type=Path, help="the run in another way, or one of its files"
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
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps")
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
    if options.run_folder is not None:
        if options.checkpoint is not None:
            raise UserError("RUN and --checkpoint name the same thing; give one.")
        options.checkpoint = options.run_folder
    use_device(options.device)
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
            "Give one of RUN or --checkpoint (a run), --weights (published, with "
            f"--model and --data) and --all (the table); {len(given)} were given."
        )
    if options.all:
        return table(options)
    return published_weights(options) if options.weights else trained_run(options)


def trained_run(options: argparse.Namespace) -> int:
    """Score the network of a run on its own test split, or on other photographs."""
    from ..scoring.loading import give

    if options.upright:
        raise UserError(
            "--upright is for published weights, whose figures were measured without. "
            "Photographs of one's own are turned upright in training and evaluation."
        )
    saved, request = read_run(options.checkpoint)
    if options.model or options.model_set or saved.description is None:
        return another_network(options, saved, request)
    network = give(saved)
    size = options.image_size
    split, note = split_for(
        saved, request, options.data, options.split, options.limit, size
    )
    name = saved.description.model or saved.description.network_class
    return show_scores(options, network, split, f"{name} from {saved.file}", note)


def another_network(options: argparse.Namespace, saved, request: dict) -> int:
    """Score weights that do not say what they are, or in a network that is named."""
    from ..scoring.labels import as_network_sees
    from ..training.checkpoints import load_weights

    if options.data is None:
        require_harmless(request, saved.file.parent)
    for key in ("model", "data", "image_size", "limit"):
        if getattr(options, key) is not None:
            request[key] = getattr(options, key)
    if options.model_set:
        request["arguments"] = read_pairs(options.model_set, "--model-set")
    for key in ("model", "data"):
        if key not in request:
            raise UserError(
                f"{saved.file} does not say which {key} it was trained with; add "
                f"--{key}."
            )
    for key in ("weights", "freeze"):
        request.pop(key, None)
    request["on_bad_image"] = "skip"  # named, and left out
    data, network, _ = prepare(request)
    load_weights(network, saved.file)
    split = getattr(data, options.split)
    if saved.description is not None:
        split = as_network_sees(split, saved.description)
    return show_scores(options, network, split, f"{request['model']} from {saved.file}")


def read_run(place: Path):
    """Return what a run's checkpoint holds, and what its folder was asked for."""
    from ..scoring.loading import read_saved

    request = read_request(place if place.is_dir() else place.parent)
    return read_saved(place), request


def split_for(
    saved,
    request: dict,
    data: str | None,
    word: str,
    limit: int | None = None,
    image_size: int | None = None,
):
    """Return what a run is scored on, as its network sees it, and a note about it.

    Its own data is split as it was for training. Of another folder of photographs all
    are taken, unless it has splits of its own.

    Args:
        saved: the run's checkpoint.
        request: of `nbs train`; empty for a run of Python.
        data: what a person named instead of the run's own, or None.
        word: "val" or "test".
        limit: at most so many images.
        image_size: another size than that of training, in pixels.
    """
    from ..scoring.labels import as_network_sees, note_on_classes

    description = saved.description
    if image_size is not None:
        ratio = image_size / description.image_size
        description = dataclasses.replace(
            description,
            image_size=image_size,
            stored=round(description.stored * ratio),
        )
    own = request.get("data") or description.data
    if data is None:
        require_harmless({"data": own}, saved.file.parent)
    folder = own_folder(data) if data is not None else None
    if folder is not None and not same_folder(folder, own_folder(own)):
        split = other_photographs(folder, description, word, limit)
    else:
        split = own_split(data or own, request, saved, description, word, limit)
    split = as_network_sees(split, description)
    return split, note_on_classes(split, description)


def own_split(
    name: str, request: dict, saved, description, word: str, limit: int | None
):
    """Load a split of data by name, in the size and channels of a trained network.

    Raises:
        UserError: the photographs are gone, or others than at the time of training.
    """
    from ..data import load_data

    folder = own_folder(name)
    if folder is not None and not folder.is_dir():
        raise UserError(
            f"The photographs that the run was trained on are not in {folder} any more. "
            "Name others with --data imagefolder:PATH."
        )
    data = load_data(
        name,
        image_size=description.image_size,
        channels=description.channels,
        limit=limit or request.get("limit"),
        seed=request.get("seed", 0),
        val_size=request.get("val_size"),
        on_bad_image="skip",  # as of other photographs: named, and left out
    )
    if folder is not None:
        require_same_photographs(data, saved, word, folder, limit)
    return getattr(data, word)


def require_same_photographs(
    data, saved, word: str, folder: Path, limit: int | None
) -> None:
    """Raise if a split may hold photographs that the network was trained on.

    It may where files came or went since, for splits are drawn from all of them, and
    where Python drew the validation split with a size or a seed of its own.

    Args:
        data: as it is now.
        saved: the run's checkpoint, which knows what it was trained on.
        word: "val" or "test".
        folder: of the photographs.
        limit: of the split, if a person gave one.
    """
    from ..scoring.labels import match_classes
    from ..training.identity import data_identity

    match_classes(data.classes, saved.description.classes)  # a renamed one is named
    if saved.description.files and saved.description.files != data.files:
        raise UserError(
            f"The photographs in {folder} are not those that {saved.file} was trained "
            "on: some came, went or have another name. Splits are drawn from all of "
            "them, so that one drawn now may hold photographs that it was trained on. "
            "Name a folder of others with --data."
        )
    key = "choice of validation images (hash)"
    before, now = saved.state.get("identity", {}).get(key), data_identity(data)[key]
    if word == "val" and limit is None and before not in (None, now):
        raise UserError(
            f"{saved.file} was validated on other photographs of {folder} than would be "
            "drawn here: it was trained in Python with a val_size or seed of its own. "
            "Score it there, or take --split test."
        )


def other_photographs(folder: Path, description, word: str, limit: int | None):
    """Open the photographs of a folder of class folders, all or one split of them."""
    import torch

    from ..data.folders import read_folder
    from ..data.parts import stratified
    from ..scoring.files import PhotoFiles

    source = read_folder(folder, folder.resolve().name)
    splits = any((folder / name).is_dir() for name in ("train", "training"))
    if splits:
        part = source.val_part if word == "val" else source.test
        paths, labels = part.paths, part.labels
    else:
        paths = source.train.paths + source.test.paths
        labels = torch.cat([source.train.labels, source.test.labels])
    if limit is not None and limit < len(paths):
        where = stratified(labels, limit, seed=0)[0]
        paths, labels = [paths[i] for i in where.tolist()], labels[where]
    return PhotoFiles(paths, description, labels, source.classes, title=source.title)


def own_folder(name: str) -> Path | None:
    """Return the folder that a name of data means; None for a data set by name."""
    from ..data.datasets import full_name

    kind, _, path = full_name(name).partition(":")
    return Path(path).expanduser() if kind == "imagefolder" else None


def same_folder(a: Path | None, b: Path | None) -> bool:
    return a is not None and b is not None and a.resolve() == b.resolve()


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
    from ..scoring.published_weights import load_published, photographs_for
    from ..tables import Table

    for key in ("model", "data"):
        if getattr(options, key) is None:
            raise UserError(f"--weights needs --{key} as well.")
    path = Path(options.weights)
    path = path if path.is_file() or path.suffix in (".pth", ".pt") else None
    if path is not None and path.is_file():
        outputs = outputs_of(path)
        if outputs is None:
            options.checkpoint, options.model = path, None
            return trained_run(options)
        if outputs != 1000:
            return evaluate_own(options, path, outputs)
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
    title = (
        f"{options.model} with {options.weights} on {photographs}, {options.protocol} "
        f"at {photographs.image_size} px"
    )
    scores = score(options, network, photographs, title, "float32")
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
