"""What a checkpoint says about its network, so that nothing else is needed to use it.

A description is a table of plain values: how the network is built, the names of its
classes, and how an image becomes what it sees. It lies in every checkpoint, under the
key "description", and beside it in the run's folder as `description.json`.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

FILE = "description.json"
KEY = "description"


@dataclass(frozen=True)
class Description:
    """How a trained network is built and used.

    Attributes:
        model: its name in `list_models()`, or "" for a network of one's own.
        arguments: what `model` was built with, as far as they are plain values.
        network_class: the name of its class.
        classes: their names, in the order of the outputs.
        channels: 1 (gray) or 3 (color).
        image_size: side of the images that the network sees, in pixels.
        mean, std: what images in 0..1 are normalized with; empty where the images
            came from a data set that was normalized already.
        stored: side in pixels of the square that is cut out of a photograph: its
            shorter side is resized to it. The network sees its center.
        center: share of that square which the network sees; None is the whole.
        interpolation: "bilinear", or "bicubic" for some published networks.
        data: the name of the data set it was trained on.
        files: of a folder of one's own, a hash of the names of its files.
    """

    model: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    network_class: str = ""
    classes: tuple[str, ...] = ()
    channels: int = 3
    image_size: int = 0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    stored: int = 0
    center: float | None = None
    interpolation: str = "bilinear"
    data: str = ""
    files: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return plain values that a checkpoint and JSON can hold."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Description":
        """Read what `as_dict` returned; keys of a newer version are left out."""
        known = {key.name for key in fields(cls)}
        return cls(
            **{
                k: tuple(v) if isinstance(v, list) else v
                for k, v in values.items()
                if k in known
            }
        )

    def save(self, folder: str | Path) -> Path:
        """Write `description.json` into a folder, for people; return its path."""
        path = Path(folder) / FILE
        text = json.dumps(self.as_dict(), indent=2, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")
        return path


def describe(network: nn.Module, data) -> Description:
    """Return how a network that is trained on some data is built and used.

    Args:
        network: built by `create_model`, which notes how; of any other, the class is
            named, and whoever loads the weights builds it.
        data: what `load_data` returned, or `fit` made of a `Dataset`.
    """
    built = getattr(network, "built_as", None) or {}
    split = getattr(data, "test", None) or data.val
    return Description(
        model=built.get("name", ""),
        arguments=built.get("arguments", {}),
        network_class=type(network).__name__,
        classes=tuple(str(name) for name in data.classes),
        channels=data.channels,
        image_size=data.image_size,
        mean=_numbers(getattr(data, "mean", None)),
        std=_numbers(getattr(data, "std", None)),
        stored=stored_side(split) or data.image_size,
        center=getattr(split, "center", None),
        data=str(data.name),
        files=getattr(data, "files", ""),
    )


def _numbers(values: Tensor | None) -> tuple[float, ...]:
    return () if values is None else tuple(values.flatten().tolist())


def stored_side(split) -> int:
    """Return the side of a split's stored squares in pixels; 0 where it has none."""
    store = getattr(split, "store", None)
    if hasattr(store, "rows"):  # (N, H, W, C) or (N, C, H, W), always square
        return store.rows.shape[2]
    return getattr(getattr(store, "files", store), "size", 0)


def build_described(description: Description) -> nn.Module:
    """Build the network of a description, with fresh weights.

    Raises:
        ValueError: it names no network, or one that is not registered here.
    """
    from ..zoo import model_entry
    from ..zoo.registry import note

    if not description.model:
        raise ValueError(
            f"It holds the weights of a {description.network_class or 'network'} that "
            "was not built by create_model, so its name is not known. Build the "
            "network yourself and pass it: nbs.load(folder, network=...)."
        )
    entry = model_entry(description.model)
    given = entry.configuration | {
        key: tuple(value) if isinstance(value, list) else value
        for key, value in description.arguments.items()
    }
    # The class itself: no rule of `create_model` may choose anew what was chosen.
    return note(entry.network_class(**given), description.model, given)


def different_classes(
    before: tuple[str, ...] | list[str], now: tuple[str, ...] | list[str]
) -> str:
    """Say how the names of classes differ; empty where they are the same in order."""
    before, now = [str(n) for n in before], [str(n) for n in now]
    if before == now:
        return ""
    gone = [name for name in before if name not in now]
    new = [name for name in now if name not in before]
    said = []
    if gone:
        said.append(f"{some(gone)} {'is' if len(gone) == 1 else 'are'} not there now")
    if new:
        said.append(f"{some(new)} {'is' if len(new) == 1 else 'are'} new")
    return " and ".join(said) or (
        f"their order is another: {some(before)} there, {some(now)} here"
    )


def some(names: list[str], most: int = 5) -> str:
    """Return some names for a sentence, in quotation marks."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(f"'{name}'" for name in names[:most]) + more


def check_classes(saved: dict, classes: list[str], path: str | Path) -> None:
    """Refuse to go on with other classes than the run began with.

    Args:
        saved: a checkpoint; one without a description is not refused.
        classes: those of the data, in the order of the labels.

    Raises:
        CheckpointError: it names the classes that differ.
    """
    from .checkpoints import CheckpointError

    before = saved.get(KEY, {}).get("classes")
    problem = different_classes(before, classes) if before else ""
    if problem:
        raise CheckpointError(
            f"{path} was written by a run with other classes: {problem}. A class "
            "is known by the name of its folder, and the outputs of the network belong "
            "to the old names. Nothing was changed. Give the folders their names "
            "back, give another folder for the run, or pass resume=False to start "
            "again."
        )


def check_files(saved: dict, files: str, path: str | Path) -> None:
    """Refuse to go on with other photographs than the run began with.

    Args:
        saved: a checkpoint; one that does not know its files is not refused.
        files: of the data; see `ImageData`.

    Raises:
        CheckpointError: files came, went, or were renamed.
    """
    from .checkpoints import CheckpointError

    before = saved.get(KEY, {}).get("files")
    if before and files and before != files:
        raise CheckpointError(
            f"{path} was written by a run on other photographs: since then, some came "
            "into its folder, went, or were given another name. Nothing was changed. "
            "Bring the folder back to what it was, give another folder for the run, or "
            "pass resume=False to start again."
        )


def normalizes(description: Description, x: Tensor) -> Tensor:
    """Turn images (uint8, or float in 0..1) into what the network sees.

    Args:
        x: (B, C, H, W).
    """
    x = x.float() / 255 if x.dtype == torch.uint8 else x
    if not description.mean:
        return x
    mean, std = (
        torch.tensor(values, device=x.device)[:, None, None]
        for values in (description.mean, description.std)
    )
    return (x - mean) / std
