"""Scores of a network on a split: top-1, top-5, loss, each class, confusions."""

import math
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from .distributed import world
from .runtime import precision as choose_precision


@dataclass(frozen=True)
class Scores:
    """How well a network classifies a split.

    Attributes:
        top1, top5: fractions in [0, 1]. With at most five classes top5 is 1.
        loss: mean cross entropy (natural logarithm), without label smoothing.
        n: number of images.
        correct1, correct5: the exact counts behind top1 and top5.
        per_class: table with class, images, top1, top5, and the wrong class that was
            predicted most often (confused_with, and its share of the images).
        confusion: (K, K) counts, rows are the truth, columns the prediction.
        seconds, images_per_second: of the whole pass, data included.
        protocol: how each image was cut; "center" is the split's one center crop.
        split: the name of the split, where it has one.
        precision: the arithmetic of the forward pass.
    """

    top1: float
    top5: float
    loss: float
    n: int
    correct1: int
    correct5: int
    per_class: pd.DataFrame = field(repr=False)
    confusion: np.ndarray = field(repr=False)
    seconds: float
    images_per_second: float
    protocol: str = "center"
    split: str = ""
    precision: str = "float32"

    def __repr__(self) -> str:
        where = f" on {self.n:,} {self.split + ' ' if self.split else ''}images"
        five = f", top-5 {100 * self.top5:.1f} %" if len(self.confusion) > 5 else ""
        return (
            f"top-1 {100 * self.top1:.1f} %{five}, loss {self.loss:.3f}{where} "
            f"({self.images_per_second:,.0f} images/s, {self.precision})"
        )


def evaluate(
    network: nn.Module,
    split,
    *,
    protocol: str = "center",
    batch_size: int | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
) -> Scores:
    """Run a network over a split, in order and without augmentation.

    Args:
        network: maps (B, C, H, W) to logits (B, K). It is moved to the device; each
            of its modules is left in the mode, training or not, that it was in.
        split: `data.val` or `data.test`.
        protocol: "center", one crop.
        batch_size: by default the data's own.
        precision: "auto" (see `runtime.precision`), or a type by name. Images whose
            logits tie in 16 bits are computed once more in float32; a tie that
            remains goes to the class with the smaller number.
        device: by default the split's.

    Raises:
        TypeError: a whole data set was given instead of one of its splits.
        ValueError: empty split, unknown protocol, outputs that do not fit the
            classes, labels out of range, or logits that are not finite.
    """
    _check_split(split)
    if protocol != "center":
        raise ValueError(
            f"The protocol '{protocol}' is unknown; this version knows 'center', "
            "one center crop for each image."
        )
    device = torch.device(device or getattr(split, "device", None) or _device(network))
    chosen = choose_precision(precision, device)
    network.to(device)
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    started = time.perf_counter()
    try:
        mine = world().share(split)  # of several processes, each scores a part
        totals = _count(network, mine, batch_size, chosen.dtype, device)
    finally:
        for module, training in modes:
            module.training = training
    seconds = time.perf_counter() - started
    return _scores(*totals, split, seconds, protocol, str(chosen))


def _device(network: nn.Module) -> torch.device:
    return next((p.device for p in network.parameters()), torch.device("cpu"))


def _check_split(split) -> None:
    if hasattr(split, "test") and hasattr(split, "val"):
        raise TypeError(
            "evaluate scores one split, and this is a whole data set. Pass data.val "
            "while you are choosing, and data.test once, at the end."
        )
    if len(split) == 0:
        raise ValueError("The split holds no image, so there is nothing to score.")
    low, high, k = int(split.labels.min()), int(split.labels.max()), len(split.classes)
    if low < 0 or high >= k:
        raise ValueError(
            f"Labels run from {low} to {high}, but there are {k} classes; expected 0 "
            f"to {k - 1}."
        )


@torch.inference_mode()
def _count(network, split, batch_size, dtype, device):
    """Return (confusion, correct among five by class, summed loss)."""
    k = len(split.classes)
    confusion = torch.zeros(k, k, dtype=torch.int64, device=device)
    within5 = torch.zeros(k, dtype=torch.int64, device=device)
    loss, seen = 0.0, 0  # summed by Python, in double precision
    for x, y in split.batches(batch_size, device=device):
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = network(x)
        _check_logits(logits, len(y), k)
        logits = logits.float()
        if dtype != torch.float32:
            tied = _tied(logits, y)
            if tied.any():
                logits[tied] = network(x[tied]).float()
        own = logits.gather(1, y[:, None])
        smaller = torch.arange(k, device=device) < y[:, None]
        rank = ((logits > own) | ((logits == own) & smaller)).sum(1)
        confusion.view(-1).add_(
            torch.bincount(y * k + logits.argmax(1), minlength=k * k)
        )
        within5 += torch.bincount(y[rank < 5], minlength=k)
        loss += F.cross_entropy(logits, y, reduction="sum").item()
        seen += len(y)
    confusion, within5, sums = world().sum(
        confusion, within5, torch.tensor([loss, seen], dtype=torch.float64)
    )
    loss, seen = sums.tolist()
    if not math.isfinite(loss):
        raise ValueError(
            "The network's outputs hold NaN or infinity, so they cannot be ranked. "
            "Training has diverged, or the weights are damaged: load the last good "
            "checkpoint."
        )
    return confusion.cpu().numpy(), within5.cpu().numpy(), loss / seen


def _tied(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Tell which rows leave the predicted class, or the true one's rank, to chance."""
    top = logits.topk(min(2, logits.shape[1])).values
    own = (logits == logits.gather(1, y[:, None])).sum(1) > 1
    return own | (top[:, 0] == top[:, -1])


def _check_logits(logits, images: int, k: int) -> None:
    if not isinstance(logits, torch.Tensor):
        raise TypeError(
            f"The network returned a {type(logits).__name__} in evaluation mode; "
            f"expected one tensor of logits (B, {k})."
        )
    if logits.shape != (images, k):
        raise ValueError(
            f"The network returned {tuple(logits.shape)} for {images} images of {k} "
            f"classes; expected ({images}, {k}). Build it with num_classes={k}."
        )


def _scores(confusion, within5, loss, split, seconds, protocol, precision) -> Scores:
    images = confusion.sum(1)
    n = int(images.sum())
    right = np.diag(confusion)
    wrong = confusion - np.diag(right)
    with np.errstate(invalid="ignore"):  # a class without images has no score: NaN
        per_class = pd.DataFrame(
            {
                "class": list(split.classes),
                "images": images,
                "top1": right / images,
                "top5": within5 / images,
                "confused_with": [
                    split.classes[j] if row[j] else ""
                    for row, j in zip(wrong, wrong.argmax(1), strict=True)
                ],
                "confused_share": wrong.max(1) / images,
            }
        )
    correct1, correct5 = int(right.sum()), int(within5.sum())
    return Scores(
        top1=correct1 / n,
        top5=correct5 / n,
        loss=loss,
        n=n,
        correct1=correct1,
        correct5=correct5,
        per_class=per_class,
        confusion=confusion,
        seconds=seconds,
        images_per_second=n / seconds,
        protocol=protocol,
        split=str(getattr(split, "name", "") or ""),
        precision=precision,
    )
