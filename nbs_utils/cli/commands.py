"""What the commands of `nbs` do with networks: list, summary, train.

They only join the rooms of `nbs_utils`: a name becomes data and a network, these become
a run, the run becomes scores and a card, all of it in one folder.
"""

import argparse
import json
import re
from pathlib import Path

# Beside the checkpoints of `fit`: what was asked for, and what came out.
REQUEST, CARD = "request.json", "card.json"


class UserError(Exception):
    """Input that cannot be used; the message is one sentence that says what to do."""


# ---- Networks


def list_networks(options: argparse.Namespace) -> int:
    from ..zoo import list_models, model_entry

    names = list_models(options.pattern)
    if not names:
        model_entry(options.pattern or "")  # raises, with the nearest names
    width = max(map(len, names))
    for name in names:
        network_class = model_entry(name).network_class
        module = network_class.__module__.rpartition(".")[2]
        print(f"{name:<{width}}  {network_class.__name__}, nbs_utils/zoo/{module}.py")
    return 0


def summary(options: argparse.Namespace) -> int:
    import torch

    from ..counting.operations import stage_table
    from ..zoo import create_model, model_entry

    changes = read_pairs(options.model_set, "--model-set")
    entry = model_entry(options.model)
    native = 32 if changes.get("stem") == "cifar" else entry.image_size
    size = options.image_size
    if size is None:
        size = changes.get("image_size", native)
    if size < 1:
        raise UserError(f"--image-size is {size}; it must be at least 1 px.")
    if options.image_size is not None and "image_size" in entry.arguments:
        changes.setdefault("image_size", size)
    with torch.device("meta"):  # shapes are enough: no weights are drawn
        network = create_model(options.model, options.num_classes, **changes)
    channels = (entry.arguments | changes).get("in_channels", 3)
    require_size(network, options.model, channels, size)
    table = stage_table(network, (channels, size, size))
    print(f"{options.model}, {channels} x {size} x {size} px\n")
    print(table)
    parameters, macs = table["parameters"].iloc[-1], table["MACs"].iloc[-1]
    print(f"\n{parameters / 1e6:.2f} M parameters, {macs / 1e9:.3f} G multiply-adds")
    return 0


def require_size(network, model: str, channels: int, size: int) -> None:
    """Raise unless a network takes square images of a size; tried on shapes alone."""
    from ..counting.operations import on_meta

    if takes(on_meta(network), channels, size):
        return
    sizes = [s for s in (32, 64, 96, 128, 160, 224, 299) if s > size]
    fits = [s for s in sizes if takes(on_meta(network), channels, s)]
    hint = f"; try --image-size {fits[0]}" if fits else ""
    raise UserError(f"{model} cannot take images of {size} x {size} px{hint}.")


def takes(network, channels: int, size: int) -> bool:
    import torch

    x = torch.empty(1, channels, size, size, device="meta")
    try:
        network.eval()(x)
    except (RuntimeError, ValueError, AssertionError):
        return False
    return True


# ---- What training and evaluation begin with


def prepare(request: dict):
    """Return the data, the network and a note about it, for what a person asked.

    The network is the one that `create_model(name, data=data)` builds.
    """
    from ..data import load_data
    from ..distributed import world
    from ..runtime import seed_everything
    from ..zoo import create_model, model_entry

    entry = model_entry(request["model"])
    batch_size, channels = request.get("batch_size"), request.get("channels")
    if channels == 1 and "in_channels" not in entry.arguments:
        raise UserError(
            f"--channels is 1, and {request['model']} takes color images only; leave "
            "the option out and gray images become color images."
        )
    given = dict(request.get("arguments", {}))
    batch_size = positive("--batch-size", 128 if batch_size is None else batch_size)
    with world().in_turn():  # the first process downloads and decodes for the others
        data = load_data(
            request["data"],
            image_size=request.get("image_size"),
            batch_size=batch_size,
            limit=request.get("limit"),
            augment=request.get("augment", "auto"),  # runs before there was a choice
            seed=request.get("seed", 0),
            # Gray images become color images where a network takes nothing else.
            channels=channels if "in_channels" in entry.arguments else 3,
            val_size=request.get("val_size"),
            on_bad_image=request.get("on_bad_image", "raise"),
        )
    note, fitting = "", entry.for_images(data.image_size)
    if request.get("weights") is not None and "stem" in fitting:
        given.setdefault("stem", entry.arguments["stem"])  # the one of the weights
    if "stem" in fitting and "stem" not in given:
        note = (
            f"{request['model']} gets its stem for small images "
            f"({data.image_size} px); --model-set stem=imagenet keeps the other."
        )
    seed_everything(request.get("seed", 0))  # of the first weights
    network = create_model(request["model"], data=data, **given)
    require_size(network, request["model"], data.channels, data.image_size)
    if request.get("weights") is not None:
        from ..scoring.starting import start_from

        data, began = start_from(network, request["weights"], data)
        note = f"{note}\n{began}".strip()
    if request.get("freeze"):
        from ..training.depth import freeze

        frozen = freeze(network, *request["freeze"])
        note = (
            f"{note}\n{len(frozen)} tensors are frozen, batch norms included.".strip()
        )
    return data, network, note


def folder_name(options: argparse.Namespace, recipe: str) -> str:
    """Return a name for the run in which everything that makes it differ stands.

    Args:
        recipe: the name of the one that was chosen where a person named none.
    """
    data = options.data
    kind, colon, path = data.partition(":")
    if kind == "imagefolder" or Path(data).is_dir():
        data = Path(path if colon else data).expanduser().resolve().name
    parts = [options.model, data, Path(options.recipe or recipe).stem]
    parts += options.model_set + options.set
    if options.epochs is not None:
        parts.append(f"epochs={options.epochs}")
    for key in ("weights", "channels", "val_size"):
        if getattr(options, key) is not None:
            parts.append(f"{key.replace('_', '-')}={getattr(options, key)}")
    parts += [f"freeze={pattern}" for pattern in options.freeze]
    if options.on_bad_image != "raise":
        parts.append(f"bad={options.on_bad_image}")
    if options.image_size:
        parts.append(f"{options.image_size}px")
    if options.batch_size:
        parts.append(f"batch{options.batch_size}")
    if options.limit:
        parts.append(f"limit{options.limit}")
    if options.augment != "auto":
        parts.append(options.augment)
    if options.seed:
        parts.append(f"seed{options.seed}")
    return re.sub(r"[^\w.=-]+", "_", "-".join(parts))


def read_request(folder: Path) -> dict:
    """Return what a run's folder says it was asked for; empty where it does not."""
    path = folder / REQUEST
    if not path.exists():
        return {}
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        raise UserError(f"{path} is damaged; move it away and name --data.") from None


def require_same_request(folder: Path, request: dict) -> None:
    """Raise if a folder holds a run of another network or other data."""
    before = read_request(folder)
    if not (folder / "last.pt").exists():
        return
    for key, value in before.items():
        if request.get(key) != value:
            raise UserError(
                f"{folder} holds a run with {key} {value!r}, not {request.get(key)!r}; "
                "give another --folder, or --fresh to begin again."
            )


# ---- What a person typed


def read_pairs(pairs: list[str], option: str) -> dict:
    """Read KEY=VALUE pairs; values as in YAML, so that true is true and 3 is 3.

    Raises:
        UserError: a pair has no `=`, or its value is not valid.
    """
    import yaml

    values = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise UserError(f"{option} {pair} is no pair; write it as KEY=VALUE.")
        try:
            values[key.strip()] = yaml.safe_load(text)
        except yaml.YAMLError:
            raise UserError(
                f"{option} {pair}: '{text}' is neither a number, a word nor a list."
            ) from None
    return values


def positive(name: str, value) -> int:
    """Return a whole number of at least 1.

    Raises:
        UserError: it is not one.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(
            f"{name} is {value!r}; it must be a whole number of at least 1."
        )
    return value
