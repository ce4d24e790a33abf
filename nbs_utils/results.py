"""Run cards: every recorded result with all that is needed to make it again.

A card is a JSON file of one object, keys always in this order:

    schema            1, the version of this list
    name              what the leaderboard calls the network, "resnet18"
    tier              "gpu" or "cpu": which budget the run had
    date              day of the recording, "2026-11-20"
    commit            git commit of nbs_utils, "-dirty" appended where its files
                      differed from it; null outside a repository
    device            "NVIDIA A100-SXM4-40GB", "CPU, 2 cores (AMD EPYC)"
    versions          package -> version
    data              name, title, classes, channels, image_size, augment, batch_size,
                      train, val, test (the splits' numbers of images)
    recipe            every field of the Recipe
    seed, epochs, steps, best_epoch, status
    precision         arithmetic of training, "bfloat16"
    parameters        trainable parameters
    macs              multiply-adds of one image at the data's size
    val_top1          best top-1 on the validation split, fraction
    test              top1, top5, loss, images, protocol, precision
    seconds           wall time of training, images_per_second, peak_memory (bytes)
    notes             a sentence, or ""

Fractions are in [0, 1]. A value that is not known is null.
"""

import dataclasses
import datetime
import json
import math
import os
import re
import subprocess
import tempfile
import warnings
from pathlib import Path

import pandas as pd
import torch
from torch import nn

from .runtime import device_name, is_quick, tier, versions
from .tables import Table
from .training.run import describe_seconds

SCHEMA = 1
_KEYS = (
    *("schema", "name", "tier", "date", "commit", "device", "versions", "data"),
    *("recipe", "seed", "epochs", "steps", "best_epoch", "status", "precision"),
    *("parameters", "macs", "val_top1", "test", "seconds", "images_per_second"),
    *("peak_memory", "notes"),
)


def glance(
    rows: dict | None = None,
    *,
    network: nn.Module | None = None,
    input_size: tuple[int, int, int] = (3, 224, 224),
) -> Table:
    """Return the table below a chapter's title.

    Args:
        rows: name -> text, number or `(text, url)`, in the order to be shown.
        network: adds its parameters and its multiply-adds, computed here.
        input_size: (C, H, W) of the image that the multiply-adds are counted for.
    """
    rows = dict(rows or {})
    if network is not None:
        from .counting.operations import count_macs, count_parameters

        rows["Parameters"] = count_parameters(network)
        size = " × ".join(str(n) for n in input_size[1:])
        rows[f"Multiply-adds at {size}"] = count_macs(network, input_size)
    return Table.of_facts(rows, "At a glance")


@dataclasses.dataclass(frozen=True)
class Card:
    """One recorded result.

    Attributes:
        record: what the JSON file holds; the module's docstring lists the keys.
        path: the file, or None where none was written (quick mode, full disk).
    """

    record: dict
    path: Path | None = None

    def __getitem__(self, key: str):
        return self.record[key]

    def table(self) -> Table:
        """Return what a reader wants to know, as a small table."""
        r = self.record
        data, test, recipe = r["data"], r["test"], r["recipe"]
        pixels = f"{data['image_size']} px"
        splits = f"{data['train']:,} / {data['val']:,} / {data['test']:,}"
        epochs = f"{r['epochs']} epoch{'s' if r['epochs'] != 1 else ''}"
        top5 = f", top-5 {_percent(test['top5'])}" if data["classes"] > 5 else ""
        rows = {
            "Network": f"{r['name']}, {_count(r['parameters'])} parameters, "
            f"{_count(r['macs'])} multiply-adds",
            "Data": f"{data['title']} at {pixels}",
            "Images": f"{splits} (training / validation / test)",
            "Recipe": f"{recipe.get('name') or 'own'}, {epochs}, batches of "
            f"{data['batch_size']}, augmentation {data['augment']}, seed {r['seed']}",
            "Test": f"top-1 {_percent(test['top1'])}{top5}",
            "Validation": f"top-1 {_percent(r['val_top1'])}, "
            f"epoch {r['best_epoch']} of {r['epochs']}",
            "Time": f"{describe_seconds(r['seconds'])}, "
            f"{_rounded(r['images_per_second'])} images/s{_memory(r['peak_memory'])}",
            "Device": f"{r['device']}, {r['precision']}",
            "Versions": ", ".join(f"{k} {v}" for k, v in r["versions"].items()),
            "Commit": (r["commit"] or "not in a repository")[:12]
            + ("-dirty" if str(r["commit"]).endswith("-dirty") else ""),
        }
        if r["status"] != "finished":
            rows["Status"] = r["status"]
        if r["notes"]:
            rows["Notes"] = r["notes"]
        if self.path is None:
            rows["File"] = "not written: this is a quick run" if is_quick() else "none"
        return Table.of_facts(rows, f"Run card of {r['name']}")

    def __repr__(self) -> str:
        return repr(self.table())

    def _repr_html_(self) -> str:
        return self.table()._repr_html_()


def save_card(name: str, *, run, scores, network, data, notes: str = "") -> Card:
    """Write a run card and return it; as the last line of a cell it is shown.

    The file is `NAME-DATA-SIZEpx-RECIPE-seedN.json` in the folder that the
    environment variable NBS_CARDS names, else in `results`. Nothing is written in
    quick mode. A file of the same name is replaced in one step.

    Args:
        name: what the leaderboard calls the network, for example "resnet18".
        run: what `fit` returned.
        scores: what `evaluate(network, data.test)` returned.
        network: the trained network, for its parameters and multiply-adds.
        data: the `ImageData` it was trained on.
        notes: a sentence for readers of the card.
    """
    record = make_record(name, run, scores, network, data, notes)
    if is_quick():
        return Card(record)
    path = Path(os.environ.get("NBS_CARDS") or "results") / _file_name(record)
    try:
        write_json(record, path)
    except OSError as error:  # the result must still reach the reader
        warnings.warn(
            f"The run card could not be written to {path} ({error.strerror}); it is "
            "shown here only. Set NBS_CARDS to a folder that can be written to.",
            stacklevel=2,
        )
        return Card(record)
    return Card(record, path)


def make_record(name, run, scores, network, data, notes="") -> dict:
    """Return the content of a card; see the module's docstring."""
    from .counting.operations import count_macs, count_parameters

    size = (data.channels, data.image_size, data.image_size)
    values = {
        "schema": SCHEMA,
        "name": name,
        "tier": tier(),
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "device": getattr(run, "device_name", None) or device_name(),
        "versions": versions(),
        "data": {
            "name": data.name,
            "title": data.title,
            "classes": data.num_classes,
            "channels": data.channels,
            "image_size": data.image_size,
            "augment": getattr(getattr(data.train, "augment", None), "name", None),
            "batch_size": run.recipe.batch_size or data.batch_size,
            "train": len(data.train),
            "val": len(data.val),
            "test": len(data.test),
        },
        "recipe": dataclasses.asdict(run.recipe),
        "seed": run.seed,
        "epochs": run.epochs,
        "steps": run.steps,
        "best_epoch": run.best_epoch,
        "status": run.status,
        "precision": str(run.precision),
        "parameters": count_parameters(network),
        "macs": count_macs(network, size),
        "val_top1": run.best_top1,
        "test": {
            "top1": scores.top1,
            "top5": scores.top5,
            "loss": scores.loss,
            "images": scores.n,
            "protocol": scores.protocol,
            "precision": scores.precision,
        },
        "seconds": run.seconds,
        "images_per_second": run.images_per_second,
        "peak_memory": run.peak_memory,
        "notes": notes,
    }
    return _simple({key: values[key] for key in _KEYS})


def _simple(value):
    """Return a value made of what JSON knows: NaN is null, paths are texts."""
    if isinstance(value, dict):
        return {str(k): _simple(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_simple(v) for v in value]
    if isinstance(value, torch.Tensor) or hasattr(value, "item"):
        return _simple(value.item())
    if isinstance(value, float):
        return float(f"{value:.8g}") if math.isfinite(value) else None
    if value is None or isinstance(value, (str, int, bool)):
        return value
    return str(value)


def _file_name(record: dict) -> str:
    parts = [
        record["name"],
        record["data"]["name"],
        f"{record['data']['image_size']}px",
        record["recipe"].get("name") or "own",
        f"seed{record['seed']}",
    ]
    return re.sub(r"[^A-Za-z0-9.-]+", "_", "-".join(map(str, parts))) + ".json"


def write_json(record: dict, path: Path) -> None:
    """Write a JSON file in one step: a reader sees the old file or the new one."""
    text = json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(text, path)


def write_text(text: str, path: Path) -> None:
    """Write a file in one step, so that being killed leaves the old or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)  # mkstemp's 0600 would hide the card from others
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def commit(folder: Path | None = None) -> str | None:
    """Return the git commit of this package, with "-dirty" where its files differ.

    Notebooks are not looked at: while one is recorded it always differs.

    Returns:
        None where the package does not lie in a repository that tracks it.
    """
    folder = folder or Path(__file__).parent

    def git(*words: str) -> str | None:
        try:
            done = subprocess.run(
                ["git", "-C", str(folder), *words],
                check=False,
                capture_output=True,
                text=True,
                timeout=10,
            )
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An environment inside some other repository must not lend its commit.
    if not git("ls-files", "--error-unmatch", "__init__.py"):
        return None
    head = git("rev-parse", "HEAD")
    if head and git("status", "--porcelain", "--untracked-files=no", "."):
        head += "-dirty"
    return head


def load_cards(folder: str | Path = "results") -> list[Card]:
    """Read all cards of a folder, in the order of their file names.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: a file is no card; the message names it and what is missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(
            f"There is no folder {folder} with run cards. Pass the one that NBS_CARDS "
            "named when the chapters were recorded."
        )
    return [_read_card(path) for path in sorted(folder.glob("*.json"))]


def _read_card(path: Path) -> Card:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{path} is not valid JSON ({error}). Record the run again, or delete it."
        ) from error
    found = record if isinstance(record, dict) else {}
    missing = [key for key in _KEYS if key not in found]
    if missing:
        raise ValueError(
            f"{path} is no run card of this version: it lacks {', '.join(missing)}. "
            "Record the run again, or delete the file."
        )
    return Card(record, path)


def leaderboard(cards: list[Card] | str | Path = "results") -> pd.DataFrame:
    """Return one row for each network, data set, image size, recipe and tier.

    Args:
        cards: what `load_cards` returned, or a folder.

    Returns:
        A table, best first: network, data, image_size, recipe, epochs, tier, device,
        parameters, macs, seeds (how many), top1 (mean on the test split),
        top1_spread (standard deviation over the seeds, NaN for one), top5, seconds
        and images_per_second (means).
    """
    if isinstance(cards, (str, Path)):
        cards = load_cards(cards)
    rows = []
    for card in cards:
        r = card.record
        rows.append(
            {
                "network": r["name"],
                "data": r["data"]["title"],
                "image_size": r["data"]["image_size"],
                "recipe": r["recipe"].get("name") or "own",
                "epochs": r["epochs"],
                "tier": r["tier"],
                "device": r["device"],
                "parameters": r["parameters"],
                "macs": r["macs"],
                "seed": r["seed"],
                "top1": r["test"]["top1"],
                "top5": r["test"]["top5"],
                "seconds": r["seconds"],
                "images_per_second": r["images_per_second"],
            }
        )
    keys = [
        *("network", "data", "image_size", "recipe", "epochs", "tier", "device"),
        *("parameters", "macs"),
    ]
    scores = ["seeds", "top1", "top1_spread", "top5", "seconds", "images_per_second"]
    if not rows:
        return pd.DataFrame(columns=[*keys, *scores])
    groups = pd.DataFrame(rows).groupby(keys, sort=False, dropna=False)
    table = groups.agg(
        seeds=("seed", "nunique"),
        top1=("top1", "mean"),
        top1_spread=("top1", "std"),
        top5=("top5", "mean"),
        seconds=("seconds", "mean"),
        images_per_second=("images_per_second", "mean"),
    ).reset_index()
    return table.sort_values("top1", ascending=False, ignore_index=True)


def _percent(fraction) -> str:
    return "unknown" if fraction is None else f"{100 * fraction:.1f} %"


def _count(number) -> str:
    return "unknown" if number is None else f"{number:,}"


def _rounded(number) -> str:
    return "unknown" if number is None else f"{number:,.0f}"


def _memory(count) -> str:
    return f", peak {count / 2**30:.1f} GiB" if count else ""
