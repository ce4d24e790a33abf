"""ImageNet's validation photographs in the forms in which people have them on disk."""

import re
from pathlib import Path

import torch
from torch import Tensor

from .decoding import EXTENSIONS
from .folders import IMAGENETTE, class_folders, is_image, list_files
from .parts import Part

WNID = re.compile(r"n\d{8}")
TRUTH, META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_SPLITS = ("val", "valid", "validation", "test")


def categories() -> list[str]:
    """Return ImageNet's 1000 class names in the order of published networks."""
    from torchvision.models import ResNet18_Weights

    return list(ResNet18_Weights.DEFAULT.meta["categories"])


def imagenet_columns(classes: list[str]) -> Tensor | None:
    """Return which of a published network's 1000 outputs belong to these classes.

    Args:
        classes: names for people, as in `categories()`, or WordNet ids of Imagenette.

    Returns:
        int64 (K,), or None where a name is not one of ImageNet's.
    """
    names = categories()
    if list(classes) == names:
        return torch.arange(1000)
    words = [IMAGENETTE.get(c, c) for c in classes]
    unique = [
        w for w in words if names.count(w) == 1
    ]  # "crane" is a bird and a machine
    if len(unique) < len(words) or len(set(words)) < len(words):
        return None
    return torch.tensor([names.index(w) for w in words])


def find_validation(folder: Path) -> tuple[Part, list[str], Tensor | None]:
    """Find the photographs of a folder, their labels and their classes.

    Three forms are accepted, each also inside a folder val, valid, validation or test:

    - one folder of images for each class (ImageNet sorted into its 1000 WordNet ids,
      Imagenette, or any other classes);
    - ImageNet's flat folder of 50,000 images with the devkit's labels: the devkit's
      `data/ILSVRC2012_validation_ground_truth.txt` and `data/meta.mat` in it, beside
      it, or in a folder beside it.

    Returns:
        the files with labels, names for people, and the network outputs that the
        classes belong to (see `imagenet_columns`).

    Raises:
        ValueError: there is no such folder, it is empty, or labels are missing.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise ValueError(
            f"There is no folder {folder}. Name one that holds a folder of images for "
            "each class, or ImageNet's validation images with the devkit beside them."
        )
    top = folder
    folder = next((top / s for s in _SPLITS if (top / s).is_dir()), top)
    wnids = class_folders(folder)
    if wnids and not _is_flat(folder):
        part = list_files(folder, wnids, "val")
        if not len(part):
            raise ValueError(
                f"The folder {folder} has {len(wnids)} class folders but no images in "
                f"them; files that end in {', '.join(EXTENSIONS)} are read."
            )
        return part, *_name(wnids)
    return _read_flat(folder, top)


def _name(wnids: list[str]) -> tuple[list[str], Tensor | None]:
    """Return names for people and the network outputs of class folders."""
    if len(wnids) == 1000 and all(WNID.fullmatch(w) for w in wnids):
        return categories(), torch.arange(1000)  # published networks sort by WordNet id
    names = [IMAGENETTE.get(w, w.replace("_", " ")) for w in wnids]
    return names, imagenet_columns(names)


def _images(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if is_image(p.name))


def _is_flat(folder: Path) -> bool:
    return any(is_image(p.name) for p in folder.iterdir() if p.is_file())


def _read_flat(folder: Path, top: Path) -> tuple[Part, list[str], Tensor | None]:
    paths = _images(folder)
    if not paths:
        raise ValueError(
            f"The folder {folder} is empty: it holds neither images that end in "
            f"{', '.join(EXTENSIONS)} nor folders of them, one for each class."
        )
    truth, meta = (_find_beside(folder, top, name) for name in (TRUTH, META))
    if truth is None or meta is None:
        missing = " and ".join(
            n for n, f in ((TRUTH, truth), (META, meta)) if f is None
        )
        raise ValueError(
            f"{folder} holds images but no class folders, and {missing} of ImageNet's "
            "devkit (ILSVRC2012_devkit_t12) was not found in it or beside it. Unpack "
            "the devkit there, or sort the images into a folder for each class."
        )
    ids = [int(line) for line in truth.read_text().split()]
    by_id = _read_meta(meta)
    order = {wnid: k for k, wnid in enumerate(sorted(by_id.values()))}
    labels = [order[by_id[i]] for i in _numbers(paths, ids, truth)]
    part = Part(torch.tensor(labels), paths=paths, name="val")
    if len(order) == 1000:
        return part, categories(), torch.arange(1000)
    return part, *_name(list(order))


def _numbers(paths: list[Path], ids: list[int], truth: Path) -> list[int]:
    """Return the devkit's class of each image, by the number in the file's name."""
    chosen = []
    for path in paths:
        found = re.fullmatch(r"ILSVRC2012_val_(\d{8})", path.stem)
        if not found or not 1 <= int(found[1]) <= len(ids):
            raise ValueError(
                f"{path.name} has no label: {truth} names the classes of images "
                f"ILSVRC2012_val_00000001 to ILSVRC2012_val_{len(ids):08d}. Remove the "
                "file or give it its original name."
            )
        chosen.append(ids[int(found[1]) - 1])
    return chosen


def _find_beside(folder: Path, top: Path, name: str) -> Path | None:
    for place in dict.fromkeys((folder, top, folder.parent)):
        for pattern in (name, f"data/{name}", f"*/{name}", f"*/data/{name}"):
            found = next(iter(sorted(place.glob(pattern))), None)
            if found is not None:
                return found
    return None


def _read_meta(path: Path) -> dict[int, str]:
    """Return the WordNet id of each class number of the devkit (not sorted by it)."""
    from scipy.io import loadmat

    try:
        rows = loadmat(str(path), squeeze_me=True)["synsets"]
        found = {
            int(row["ILSVRC2012_ID"]): str(row["WNID"])
            for row in rows
            if int(row["num_children"]) == 0  # the others are groups of classes
        }
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"{path} is not the table of classes of ImageNet's devkit; it must hold "
            "'synsets' with ILSVRC2012_ID, WNID and num_children."
        ) from error
    return found
