"""Where a data set lies and how its files are read, by name."""

import difflib
import os
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .decoding import square
from .folders import read_folder, subfolder
from .parts import Part, Source, stratified

_FASHION = "T-shirt/top,trouser,pullover,dress,coat,sandal,shirt,sneaker,bag,ankle boot"


@dataclass(frozen=True)
class Spec:
    """What is known of a data set before it is found.

    Attributes:
        title: its name for people.
        channels: 1 (gray) or 3 (color).
        image_size: side of its images in pixels when none is asked for.
        torchvision: name of the class that reads and downloads it, if any.
        folders: names under which a copy as class folders is looked for.
        augment: what "auto" means where flips are not harmless.
    """

    title: str
    channels: int
    image_size: int | None
    torchvision: str | None = None
    folders: tuple[str, ...] = ()
    augment: str | None = None


SPECS = {
    "mnist": Spec("MNIST", 1, 28, "MNIST", ("mnist",), "none"),
    "fashion_mnist": Spec(
        "Fashion-MNIST", 1, 28, "FashionMNIST", ("fashion_mnist", "fashion-mnist")
    ),
    "cifar10": Spec("CIFAR-10", 3, 32, "CIFAR10", ("cifar10", "cifar-10")),
    "cifar100": Spec("CIFAR-100", 3, 32, "CIFAR100", ("cifar100", "cifar-100")),
    "imagenette": Spec("Imagenette", 3, 128, "Imagenette"),
    "digits": Spec("scikit-learn digits", 1, 32, augment="none"),
}


class DataNotFound(RuntimeError):
    """No copy of the data set was found and none could be downloaded."""


def nearest(name: str, names: list[str]) -> str:
    """Return " Did you mean ...?" for a misspelled name, or nothing."""
    near = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f" Did you mean {' or '.join(near)}?" if near else ""


def home_folder() -> Path:
    """Return the folder that downloads go to when no other is named."""
    return Path.home() / ".cache" / "nbs_utils" / "data"


def roots(root: str | os.PathLike | None = None) -> list[Path]:
    """Return the folders in which data sets are looked for, in this order.

    An explicit `root` is the only one. Otherwise: the environment variable NBS_DATA,
    `.data` here and in every folder above, `~/.cache/nbs_utils/data`.
    """
    if root is not None:
        return [Path(root).expanduser()]
    here = Path.cwd()
    places = [folder / ".data" for folder in (here, *here.parents)]
    if os.environ.get("NBS_DATA"):
        places.insert(0, Path(os.environ["NBS_DATA"]).expanduser())
    return [place for place in places if place.is_dir()] + [home_folder()]


def read_digits() -> Source:
    """Return scikit-learn's 1,797 handwritten digits (8x8), a fifth of them test."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    gray = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # 0..16 -> 0..255
    whole = Part(
        torch.from_numpy(digits.target.astype(np.int64)),
        torch.from_numpy(gray)[:, None],
    )
    # No official test split exists; this one never changes.
    test, train = stratified(whole.labels, 360, seed=0)
    return Source(
        SPECS["digits"].title,
        [str(k) for k in range(10)],
        replace(whole.take(train), name="train"),
        replace(whole.take(test), name="test"),
    )


def sample_photographs(size: int | None = None) -> Tensor:
    """Return the two photographs that ship with scikit-learn: a temple, a flower.

    Args:
        size: side of the central squares in pixels; None keeps the 427x640 originals.

    Returns:
        uint8 (2, 3, H, W). By danielbuechele and vultilion on Flickr (CC BY 2.0).
    """
    from sklearn.datasets import load_sample_image

    names = ("china.jpg", "flower.jpg")
    images = [torch.tensor(load_sample_image(name)).permute(2, 0, 1) for name in names]
    if size is not None:
        images = [square(image, size) for image in images]
    return torch.stack(images)


def _read_torchvision(
    name: str, root: Path, download: bool = False
) -> tuple[Part, Part, list[str]]:
    """Read MNIST, Fashion-MNIST or CIFAR in torchvision's own format."""
    import torchvision

    dataset = getattr(torchvision.datasets, SPECS[name].torchvision)
    parts = []
    for train in (True, False):
        found = dataset(root=str(root), train=train, download=download)
        images = torch.as_tensor(found.data)
        images = images[:, None] if images.ndim == 3 else images.permute(0, 3, 1, 2)
        labels = torch.as_tensor(found.targets, dtype=torch.int64)
        parts.append(
            Part(labels, images.contiguous(), name="train" if train else "test")
        )
    if name == "fashion_mnist":
        classes = _FASHION.split(",")
    elif name == "mnist":
        classes = [str(k) for k in range(10)]
    else:
        classes = [c.replace("_", " ") for c in found.classes]
    return parts[0], parts[1], classes


def _imagenette_folders(image_size: int) -> list[str]:
    """Return the editions by preference: the smallest that is large enough."""
    editions = ["imagenette2-160", "imagenette2-320", "imagenette2"]
    first = 0 if image_size <= 160 else 1 if image_size <= 320 else 2
    return editions[first:] + editions[:first][::-1]


def _download(name: str, root: Path, image_size: int) -> None:
    import torchvision

    root.mkdir(parents=True, exist_ok=True)
    dataset = getattr(torchvision.datasets, SPECS[name].torchvision)
    if name == "imagenette":
        edition = _imagenette_folders(image_size)[0]
        size = {"imagenette2-160": "160px", "imagenette2-320": "320px"}
        # One archive holds both splits.
        dataset(str(root), "train", size=size.get(edition, "full"), download=True)
    else:
        dataset(str(root), train=True, download=True)
        if SPECS[name].channels == 1:
            dataset(str(root), train=False, download=True)


def _find_local(name: str, places: list[Path], image_size: int) -> Source | None:
    spec = SPECS[name]
    folders = spec.folders
    if name == "imagenette":
        folders = (*_imagenette_folders(image_size), "imagenette")
    for place in places:
        if name != "imagenette":
            try:
                train, test, classes = _read_torchvision(name, place)
                return Source(spec.title, classes, train, test, folder=place, name=name)
            except RuntimeError:
                pass  # not there in torchvision's format
        folder = subfolder(place, folders)
        if folder and subfolder(folder, ("train",)):
            return replace(read_folder(folder, spec.title), name=name)
    return None


def full_name(name: str | os.PathLike) -> str:
    """Return the name of a data set; a folder becomes "imagefolder:<path>".

    A data set that is known by name comes first: a folder `mnist` is `./mnist`.
    """
    if not isinstance(name, str):
        return f"imagefolder:{os.fspath(name)}"
    if name in SPECS or name.startswith(("imagefolder:", "webdataset:")):
        return name
    path_like = name.startswith("~") or any(s in name for s in "/\\")
    if path_like or Path(name).is_dir():
        return f"imagefolder:{name}"
    return name


def find(name: str, root: str | os.PathLike | None, image_size: int) -> Source:
    """Find a data set by name: a local copy first, else by download.

    Raises:
        ValueError: no data set has this name; the message lists the nearest.
        DataNotFound: no copy was found and the download failed.
    """
    kind, _, path = name.partition(":")
    if kind == "imagefolder":
        folder = Path(path).expanduser()
        return replace(read_folder(folder, folder.resolve().name), own=True)
    if kind == "webdataset":
        from .shards import unpack_shards

        place = roots(root)[0] if root is not None else home_folder()
        return read_folder(unpack_shards(path, place), path)
    if name not in SPECS:
        raise ValueError(
            f"No data set is called '{name}'.{nearest(name, list(SPECS))} "
            f"There are {', '.join(SPECS)}, imagefolder:<path> and "
            "webdataset:<shards>; there is no folder of that name here either."
        )
    if name == "digits":
        return read_digits()
    places = roots(root)
    source = _find_local(name, places, image_size)
    if source is None:
        target = places[0] if root is not None else home_folder()
        try:
            _download(name, target, image_size)
        except Exception as error:
            raise DataNotFound(
                f"{SPECS[name].title} was not found in "
                f"{', '.join(str(p) for p in places)}, and downloading it to {target} "
                f"failed ({error}). Connect once, set NBS_DATA to a folder that has a "
                "copy in torchvision's format or as class folders, or use 'digits', "
                "which comes with scikit-learn."
            ) from error
        source = _find_local(name, [target], image_size)
    return source
