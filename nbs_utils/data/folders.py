"""Folders of class folders: which files are images, and which were left out."""

import os
from collections import Counter
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .decoding import EXTENSIONS
from .parts import Part, Source, stratified

FEW = 10  # a class with fewer images is named
_OF_SYSTEMS = ("thumbs.db", "desktop.ini")  # what a file manager leaves in a folder
IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}


def subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / n for n in names if (folder / n).is_dir()), None)


def class_folders(folder: Path) -> list[str]:
    """Return the names of the folders that can be classes, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name for e in entries if e.is_dir() and not e.name.startswith(".")
        )


def is_image(name: str) -> bool:
    """Tell by a file's name whether it is an image of a format that is read."""
    return name.lower().endswith(EXTENSIONS) and not name.startswith(".")


def _files_of(folder: Path) -> tuple[list[Path], Counter]:
    """Return the images at or below a folder, sorted, and the endings of the rest."""
    found = [(parent, file) for parent, _, names in os.walk(folder) for file in names]
    left_out = Counter(
        os.path.splitext(file)[1].lower()
        for _, file in found
        if not is_image(file)
        and not file.startswith(".")
        and file.lower() not in _OF_SYSTEMS
    )
    return sorted(Path(parent) / f for parent, f in found if is_image(f)), left_out


def list_files(folder: Path, classes: list[str], name: str) -> Part:
    """List the image files of class folders, sorted, and count all others.

    Raises:
        ValueError: there is a class folder that is none of `classes`.
    """
    paths, labels = [], []
    left_out: Counter = Counter()
    unknown = [c for c in class_folders(folder) if c not in classes]
    if unknown:
        raise ValueError(
            f"The folder {folder} has the class folder '{unknown[0]}', which the "
            f"training split has not; its {len(classes)} classes are "
            f"{', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}."
        )
    for label, kind in enumerate(classes):
        if not (folder / kind).is_dir():
            continue
        files, others = _files_of(folder / kind)
        paths += files
        labels += [label] * len(files)
        left_out += others
    labels = torch.tensor(labels, dtype=torch.int64)
    return Part(labels, paths=paths, name=name, left_out=dict(left_out))


def _counted(left_out: dict[str, int]) -> str:
    """Return "30 .heic, 2 .txt", the most frequent ending first."""
    order = sorted(left_out.items(), key=lambda item: (-item[1], not item[0], item[0]))
    return ", ".join(f"{n} {end or 'without an ending'}" for end, n in order)


def left_out_note(folder: Path, *parts: Part | None) -> list[str]:
    """Say in at most one sentence which files of class folders are not read."""
    parts = [part for part in parts if part is not None]
    left_out: Counter = Counter()
    for part in parts:
        left_out.update(part.left_out)
    if not left_out:
        return []
    images = sum(len(part.paths) for part in parts)
    said = (
        f"{left_out.total()} of the {images + left_out.total()} files in the class "
        f"folders of {folder} were left out, for they end otherwise than the images "
        f"that are read ({', '.join(EXTENSIONS)}): {_counted(left_out)}. "
        "Convert photographs among them to JPEG or PNG."
    )
    return [said]


def few_images_note(classes: list[str], splits: dict[str, Tensor]) -> list[str]:
    """Name in at most one sentence the classes that have very few images.

    Args:
        classes: names for people.
        splits: the labels of each split, by its name for people.
    """
    counts = {
        word: labels.bincount(minlength=len(classes)).tolist()
        for word, labels in splits.items()
        if len(labels)
    }
    few = [
        k
        for k in range(len(classes))
        if sum(count[k] for count in counts.values()) < FEW
        or any(count[k] == 0 for count in counts.values())
    ]
    if not few:
        return []
    named = [
        f"{classes[k]} ({', '.join(f'{n[k]} {word}' for word, n in counts.items())})"
        for k in few[:5]
    ]
    more = f" and {len(few) - 5} more" if len(few) > 5 else ""
    said = (
        f"{len(few)} of {len(classes)} classes have fewer than {FEW} images, or none "
        f"in one of the splits: {', '.join(named)}{more}. A class that is missing in "
        "a split is not learned, or not measured, there; add images to it, or remove "
        "it."
    )
    return [said]


def _readable(classes: list[str]) -> list[str]:
    """Return names for people: WordNet ids become words, underscores spaces."""
    if len(classes) == 1000 and all(c[0] == "n" and c[1:].isdigit() for c in classes):
        from torchvision.models import ResNet18_Weights

        return list(ResNet18_Weights.DEFAULT.meta["categories"])  # in order of ids
    return [IMAGENETTE.get(c, c.replace("_", " ")) for c in classes]


def read_folder(folder: Path, title: str) -> Source:
    """Read a folder of class folders, with or without train/val/test above them.

    `train` with `test` or `val` beside it (ImageNet's and Imagenette's layout): the
    one that is there is the test split. With both, `val` is the validation split.
    Without `train`, a tenth of the images becomes the test split, always the same.

    Raises:
        ValueError: the folder is missing, has no class folders or no images.
    """
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}. imagefolder:<path> takes a folder that "
            "holds one folder of images per class, or train and val with them."
        )
    train = subfolder(folder, ("train", "training"))
    test = subfolder(folder, ("test", "testing"))
    val = subfolder(folder, ("val", "valid", "validation"))
    if train is None:
        test = val = None
    classes = class_folders(train or folder)
    if not classes:
        raise ValueError(
            f"The folder {train or folder} has no class folders: it must hold one "
            "folder per class with the images of that class in it, as in "
            f"{train or folder}/cat/1.jpg."
        )
    whole = list_files(train or folder, classes, "train")
    others = f" Left out: {_counted(whole.left_out)}." if whole.left_out else ""
    if not len(whole):
        raise ValueError(
            f"The folder {train or folder} has {len(classes)} class folders but no "
            f"images in them; files that end in {', '.join(EXTENSIONS)} are read.{others}"
        )
    empty = [c for k, c in enumerate(classes) if not (whole.labels == k).any()]
    if empty:
        place = (train or folder) / empty[0]
        others = _files_of(place)[1]
        reason = f" that can be read, but {_counted(others)}" if others else ""
        raise ValueError(
            f"The class folder {place} has no images{reason}; add some or remove the "
            "folder."
        )
    if test is None:
        test, val = val, None
    if test is None:
        keep, rest = stratified(whole.labels, max(1, len(whole) // 10), seed=0)
        parts = replace(whole.take(rest)), replace(whole.take(keep), name="test")
    else:
        parts = whole, list_files(test, classes, "test")
    val = list_files(val, classes, "val") if val else None
    listed = whole, parts[1] if test is not None else None, val
    notes = left_out_note(folder, *listed)
    return Source(
        title,
        _readable(classes),
        *parts,
        val=val,
        folder=folder,
        pool=whole.paths,
        notes=notes,
    )
