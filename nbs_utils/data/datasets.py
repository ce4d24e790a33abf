"""Where a data set lies and how its files are read, by name."""

import difflib
import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..runtime import derive_seed
from .decoding import EXTENSIONS, square

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


@dataclass
class Part:
    """The images of one official split, as files or already as an array.

    Attributes:
        labels: int64 (N,).
        images: uint8 (N, C, H, W), or None where `paths` are given.
        paths: the image files, in the order of the labels.
        name: tells the parts of one data set apart in the cache.
    """

    labels: Tensor
    images: Tensor | None = None
    paths: list[Path] = field(default_factory=list)
    name: str = ""

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: Tensor) -> "Part":
        """Return the images at these positions as a part of its own."""
        images = None if self.images is None else self.images[indices]
        paths = [self.paths[i] for i in indices.tolist()] if self.paths else []
        return replace(self, labels=self.labels[indices], images=images, paths=paths)


@dataclass
class Source:
    """A data set that was found: its parts, its classes, where it lies."""

    title: str
    classes: list[str]
    train: Part
    test: Part
    val: Part | None = None
    folder: Path = Path()
    name: str = ""  # of a data set that is known by name

    @property
    def val_part(self) -> Part:
        """The part that the validation split is taken from."""
        return self.train if self.val is None else self.val


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


def stratified(labels: Tensor, count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Choose `count` positions with the classes in proportion, and the others.

    Args:
        labels: int64 (N,).
        count: how many to choose, at most N.
        seed: fixes the choice.

    Returns:
        the chosen positions and the rest, both sorted.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, 1009))
    sizes = labels.unique(return_counts=True)[1]
    members = labels.argsort(stable=True).split(sizes.tolist())  # one set per class
    exact = sizes.double() * count / max(1, len(labels))
    take = exact.floor().long()
    # What rounding down left over goes to the largest fractions.
    order = (exact - take).argsort(descending=True, stable=True)
    take[order[: count - int(take.sum())]] += 1
    chosen = torch.zeros(len(labels), dtype=torch.bool)
    for places, n in zip(members, take.tolist()):
        chosen[places[torch.randperm(len(places), generator=generator)[:n]]] = True
    return chosen.nonzero().squeeze(1), (~chosen).nonzero().squeeze(1)


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


def _subfolder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / n for n in names if (folder / n).is_dir()), None)


def _class_folders(folder: Path) -> list[str]:
    """Return the names of the folders that can be classes, sorted."""
    with os.scandir(folder) as entries:
        return sorted(
            e.name for e in entries if e.is_dir() and not e.name.startswith(".")
        )


def _list_files(folder: Path, classes: list[str], name: str) -> Part:
    """List the image files of class folders, sorted."""
    paths, labels = [], []
    unknown = [c for c in _class_folders(folder) if c not in classes]
    if unknown:
        raise ValueError(
            f"The folder {folder} has the class folder '{unknown[0]}', which the "
            f"training split has not; its {len(classes)} classes are "
            f"{', '.join(classes[:10])}{', ...' if len(classes) > 10 else ''}."
        )
    for label, kind in enumerate(classes):
        if not (folder / kind).is_dir():
            continue
        files = sorted(
            Path(parent) / file
            for parent, _, names in os.walk(folder / kind)
            for file in names
            if file.lower().endswith(EXTENSIONS) and not file.startswith(".")
        )
        paths += files
        labels += [label] * len(files)
    return Part(torch.tensor(labels, dtype=torch.int64), paths=paths, name=name)


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
    train = _subfolder(folder, ("train", "training"))
    test = _subfolder(folder, ("test", "testing"))
    val = _subfolder(folder, ("val", "valid", "validation"))
    if train is None:
        test = val = None
    classes = _class_folders(train or folder)
    if not classes:
        raise ValueError(
            f"The folder {train or folder} has no class folders: it must hold one "
            "folder per class with the images of that class in it, as in "
            f"{train or folder}/cat/1.jpg."
        )
    whole = _list_files(train or folder, classes, "train")
    if not len(whole):
        raise ValueError(
            f"The folder {train or folder} has {len(classes)} class folders but no "
            f"images in them; files that end in {', '.join(EXTENSIONS)} are read."
        )
    empty = [c for k, c in enumerate(classes) if not (whole.labels == k).any()]
    if empty:
        raise ValueError(
            f"The class folder {(train or folder) / empty[0]} has no images; add "
            "some or remove the folder."
        )
    if test is None:
        test, val = val, None
    if test is None:
        keep, rest = stratified(whole.labels, max(1, len(whole) // 10), seed=0)
        parts = replace(whole.take(rest)), replace(whole.take(keep), name="test")
    else:
        parts = whole, _list_files(test, classes, "test")
    return Source(
        title,
        _readable(classes),
        *parts,
        val=_list_files(val, classes, "val") if val else None,
        folder=folder,
    )


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
        folder = _subfolder(place, folders)
        if folder and _subfolder(folder, ("train",)):
            return replace(read_folder(folder, spec.title), name=name)
    return None


def find(name: str, root: str | os.PathLike | None, image_size: int) -> Source:
    """Find a data set by name: a local copy first, else by download.

    Raises:
        ValueError: no data set has this name; the message lists the nearest.
        DataNotFound: no copy was found and the download failed.
    """
    kind, _, path = name.partition(":")
    if kind == "imagefolder":
        folder = Path(path).expanduser()
        return read_folder(folder, folder.resolve().name)
    if kind == "webdataset":
        from .shards import unpack_shards

        place = roots(root)[0] if root is not None else home_folder()
        return read_folder(unpack_shards(path, place), path)
    if name not in SPECS:
        raise ValueError(
            f"No data set is called '{name}'.{nearest(name, list(SPECS))} "
            f"There are {', '.join(SPECS)}, imagefolder:<path> and "
            "webdataset:<shards>."
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
