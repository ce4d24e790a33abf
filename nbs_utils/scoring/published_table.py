"""The table of published networks on one validation folder, one row at a time.

Each finished row is a line of `rows.jsonl`, which is written as a whole and renamed:
whoever is killed keeps all finished rows, and the same command goes on after them. The
table is made of it as text, CSV and Markdown.
"""

import hashlib
import json
import math
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import torch

from ..counting.operations import count_macs, count_parameters
from ..data import Photographs, load_photographs
from ..data.protocols import Protocol, parse
from ..parity import NoConnection, WrongWeights
from ..results import write_text
from ..tables import Table
from .dense import NotDense
from .evaluation import evaluate
from .published_weights import load_published, photographs_for, published

ROWS = "rows.jsonl"
# What must agree for a row to be that of a request.
_KEY = ("model", "weights", "data", "image_size", "protocol", "precision")
_COLUMNS = {
    "model": "model",
    "weights": "weights",
    "parameters": "parameters",
    "macs": "multiply-adds",
    "top1": "top-1 %",
    "top5": "top-5 %",
    "published_top1": "published top-1 %",
    "published_top5": "published top-5 %",
    "seconds": "seconds",
}


def fingerprint(photographs: Photographs) -> str:
    """Return a hash of a folder's file names and labels."""
    digest = hashlib.blake2b(digest_size=8)
    for path, label in zip(photographs.paths, photographs.labels.tolist(), strict=True):
        digest.update(f"{path.parent.name}/{path.name} {label}\n".encode())
    return digest.hexdigest()


def read_rows(folder: Path) -> list[dict]:
    """Return the finished rows of a folder, oldest first."""
    try:
        lines = (Path(folder) / ROWS).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    rows = []
    for line in lines:
        try:
            rows.append(dict(json.loads(line)))
        except ValueError:  # a line that something else has cut off
            continue
    return rows


def keep_row(folder: Path, row: dict) -> None:
    """Add a finished row, or put it in the place of the one with its key."""
    key = [row[k] for k in _KEY]
    rows = [r for r in read_rows(folder) if [r.get(k) for k in _KEY] != key]
    text = "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in [*rows, row])
    write_text(text, Path(folder) / ROWS)


def evaluate_all(
    models: list[str],
    data: str | Path,
    folder: Path,
    *,
    protocol: str | Protocol = "center",
    precision: str = "float32",
    image_size: int | None = None,
    batch_size: int | None = None,
    limit: int | None = None,
    weights_folder: Path | None = None,
    upright: bool = False,
    say: Callable[[str], None] = print,
) -> Table:
    """Score networks with published weights on one folder; go on after a stop.

    A network whose weights cannot be had, or that cannot do the protocol, gets a row
    with the reason and is tried again by the next call; the others go on.

    Args:
        models: names of `list_published()`.
        data: see `load_photographs`.
        folder: where the rows are kept, and table.txt, table.csv and table.md.
        protocol, precision, batch_size: see `evaluate`.
        image_size: another crop than those of the presets.
        limit: at most this many images.
        weights_folder: where files of weights lie, under their published names or as
            MODEL.pth; without it they come from PyTorch's cache or are fetched.
        upright: apply the EXIF orientation.
        say: told one sentence at a time what happens.

    Returns:
        the table, a row for each model.
    """
    name = "+".join(part.name for part in parse(protocol))
    found = fingerprint(load_photographs(data, limit=limit))
    found += "-upright" if upright else ""
    table = Table()
    for model in models:
        entry = published(model)
        path = weights_file(weights_folder, entry)
        row = {
            "model": model,
            "weights": entry.weights if path is None else path.name,
            "data": found,
            "image_size": image_size or entry.crop,
            "protocol": name,
            "precision": precision,
        }
        done = next((r for r in read_rows(folder) if row.items() <= r.items()), None)
        if done is not None:
            say(f"{model}: finished before, top-1 {100 * done['top1']:.2f} %")
        else:
            try:
                network, _ = load_published(model, path=path)
                split = photographs_for(entry, data, image_size, limit, upright=upright)
                row |= _score(network, entry, split, protocol, precision, batch_size)
            except (NoConnection, WrongWeights, NotDense, ValueError) as error:
                row["note"] = str(error)
                say(f"{model}: {error}")
            else:
                keep_row(folder, row)
                say(
                    f"{model}: top-1 {100 * row['top1']:.2f} %, top-5 "
                    f"{100 * row['top5']:.2f} % in {row['seconds']:.0f} s"
                )
            done = row
        table = write_table(folder, [*_rows_of(table), done])
    return table


def _score(network, entry, split, protocol, precision, batch_size) -> dict:
    """Return the numbers of one row."""
    if torch.device(split.device).type == "cpu" or precision != "float32":
        network.to(memory_format=torch.channels_last)
    started = time.perf_counter()
    scores = evaluate(
        network,
        split,
        protocol=protocol,
        precision=precision,
        batch_size=batch_size,
        progress=True,
    )
    return {
        "parameters": count_parameters(network),
        "macs": count_macs(network, (3, split.image_size, split.image_size)),
        "top1": scores.top1_all,
        "top5": scores.top5_all,
        "top1_own": scores.top1,
        "top5_own": scores.top5,
        "classes": len(split.classes),
        "published_top1": entry.top1,
        "published_top5": entry.top5,
        "images": scores.n,
        "seconds": time.perf_counter() - started,
        "notes": list(scores.notes),
    }


def weights_file(folder: Path | None, entry) -> Path | None:
    """Return a network's file of weights in a folder, if there is one."""
    if folder is None:
        return None
    names = (entry.file_name, f"{entry.model}.pth", f"{entry.model}.pt")
    return next((p for n in names if (p := Path(folder) / n).is_file()), None)


def _rows_of(table: Table) -> list[dict]:
    return table.attrs.get("rows", [])


def write_table(folder: Path, rows: list[dict]) -> Table:
    """Write rows as text, CSV and Markdown; return them as a table."""
    first = next((r for r in rows if "images" in r), None)
    columns, title = dict(_COLUMNS), ""
    if first:
        title = f"{first['images']:,} images, {first['protocol']}, {first['precision']}"
        if first["classes"] < 1000:
            title += (
                "; top-1 and top-5 over all 1,000 classes, and over the "
                f"{first['classes']} of the folder"
            )
            columns |= {
                "top1_own": "top-1 % of these",
                "top5_own": "top-5 % of these",
            }
    table = Table(
        [[_cell(row, key) for key in columns] for row in rows],
        columns=list(columns.values()),
    )
    notes = [f"{r['model']}: {r['note']}" for r in rows if r.get("note")]
    text = "\n".join([title, "", repr(table), *([""] if notes else []), *notes])
    write_text(text + "\n", Path(folder) / "table.txt")
    write_text(table.to_csv(index=False), Path(folder) / "table.csv")
    write_text(markdown(table, title, notes), Path(folder) / "table.md")
    table.attrs["rows"] = rows
    return table


def _cell(row: dict, key: str):
    value = row.get(key)
    if value is None:
        return math.nan
    if "top" in key:
        return round(100 * value, 3)
    return round(value, 1) if key == "seconds" else value


def markdown(table: pd.DataFrame, title: str = "", notes: list[str] = ()) -> str:
    """Write a table in Markdown, numbers to the right."""
    right = [pd.api.types.is_numeric_dtype(kind) for kind in table.dtypes]
    head, *body = Table(table).cells()
    lines = [f"{title}\n"] if title else []
    lines.append(f"| {' | '.join(head)} |")
    lines.append(f"|{'|'.join('---:' if r else '---' for r in right)}|")
    lines += [f"| {' | '.join(cells)} |" for cells in body]
    return "\n".join([*lines, *([""] if notes else []), *notes]) + "\n"
