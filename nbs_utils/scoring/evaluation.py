"""Scores of a network on a split: top-1, top-5, loss, each class, confusions."""

import math
import sys
import time
from dataclasses import dataclass, field
from itertools import chain

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional as F

from ..data.adapting import as_split
from ..data.protocols import Protocol
from ..distributed import world
from .prediction import Runner


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
        outputs: of the network. Where they are more than the classes of the split (a
            network of ImageNet on Imagenette), everything above is over the classes of
            the split alone.
        top1_all, top5_all: over all outputs of the network; otherwise top1 and top5.
        notes: sentences about images that were unusual or could not be read.
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
    outputs: int = 0
    top1_all: float = math.nan
    top5_all: float = math.nan
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        where = f" on {self.n:,} {self.split + ' ' if self.split else ''}images"
        five = f", top-5 {100 * self.top5:.1f} %" if len(self.confusion) > 5 else ""
        how = f", {self.protocol}" if self.protocol != "center" else ""
        line = (
            f"top-1 {100 * self.top1:.1f} %{five}, loss {self.loss:.3f}{where} "
            f"({self.images_per_second:,.0f} images/s, {self.precision}{how})"
        )
        k = len(self.confusion)
        if self.outputs > k:
            line += (
                f"\nThat is over the split's {k} classes; over all {self.outputs:,} of "
                f"the network: top-1 {100 * self.top1_all:.1f} %, top-5 "
                f"{100 * self.top5_all:.1f} %"
            )
        return "\n".join([line, *self.notes])


def evaluate(
    network: nn.Module,
    split,
    *,
    protocol: str | Protocol = "center",
    batch_size: int | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
    progress: bool = False,
) -> Scores:
    """Run a network over a split, in order and without augmentation.

    Args:
        network: maps (B, C, H, W) to logits (B, K). It is moved to the device; each
            of its modules is left in the mode, training or not, that it was in.
        split: `data.val` or `data.test`, or photographs (`load_photographs`), which
            keep their own shape; or a `Dataset` or `DataLoader` of (image, label). Of a
            split of `load_data` the stored squares are cut.
        protocol: how each image is cut: "center" (one crop), "ten_crop", "dense",
            "multi_crop", "dense+multi_crop", "googlenet_144", "multi_scale_dense";
            see `protocols.views`. Crop protocols average the probabilities of all
            crops. Dense ones average the class map over space, "dense" then the
            probabilities of an image and its mirror image, "multi_scale_dense" the
            class scores of its scales.
        batch_size: pictures that go through the network at a time; by default the
            data's own. It bounds the memory, whatever the number of crops.
        precision: "auto" (see `runtime.precision`), or a type by name. Images whose
            logits tie in 16 bits are computed once more in float32; a tie that
            remains goes to the class with the smaller number.
        device: by default the split's.
        progress: show on stderr, where that is a terminal, how many images are done.

    Raises:
        TypeError: a whole data set was given instead of one of its splits.
        ValueError: empty split, unknown protocol, outputs that do not fit the
            classes, labels out of range, or logits that are not finite.
        NotDense: a dense protocol, and a classifier that cannot be convolutional.
    """
    split = as_split(split)
    mine = world().share(split)  # of several processes, each scores a part
    run = Runner(network, mine, protocol, batch_size, precision, device)
    started = time.perf_counter()
    with run:
        totals = _count(run, len(split.classes), progress and sys.stderr.isatty())
    seconds = time.perf_counter() - started
    return _scores(*totals, split, seconds, run)


def _count(run: Runner, k: int, show: bool = False):
    """Count on the device, and fetch it once.

    Returns:
        confusion, correct among five by class, mean loss, the number of outputs, and
        the shares correct at once and among five over all outputs.
    """
    device = run.device
    confusion = torch.zeros(k, k, dtype=torch.int64, device=device)
    within5 = torch.zeros(k, dtype=torch.int64, device=device)
    among_all = torch.zeros(2, dtype=torch.int64, device=device)
    losses, seen, outputs = [], 0, k
    for logits, y in run:
        outputs = logits.shape[1]
        target = run.target(logits, y)
        if outputs != k:
            rank = _rank(logits, target)
            among_all += torch.stack([(rank < 1).sum(), (rank < 5).sum()])
            logits = logits[:, run.columns]
        rank = _rank(logits, y)
        confusion.view(-1).index_add_(0, y * k + logits.argmax(1), torch.ones_like(y))
        within5.index_add_(0, y, (rank < 5).long())
        losses.append(F.cross_entropy(logits, y, reduction="sum"))
        seen += len(y)
        if show:
            print(f"\r{seen:,} of {len(run.split):,} images", end="", file=sys.stderr)
    if show:
        print("\r\033[K", end="", file=sys.stderr)
    # by Python, in double precision; then over all processes
    loss = sum(torch.stack(losses).tolist()) if losses else 0.0
    confusion, within5, among_all, sums = world().sum(
        confusion, within5, among_all, torch.tensor([loss, seen], dtype=torch.float64)
    )
    loss, seen = sums.tolist()
    if not seen:
        raise ValueError(
            "None of the images could be read, so nothing was scored. "
            + " ".join(_notes(run.split)[:1])
        )
    if not math.isfinite(loss):
        raise ValueError(
            "The network's outputs hold NaN or infinity, so they cannot be ranked. "
            "Training has diverged, or the weights are damaged: load the last good "
            "checkpoint."
        )
    shares = [count / seen for count in among_all.tolist()]
    return confusion.cpu().numpy(), within5.cpu().numpy(), loss / seen, outputs, shares


def _rank(logits: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Return how many classes come before the true one; ties go to the smaller."""
    own = logits.gather(1, y[:, None])
    smaller = torch.arange(logits.shape[1], device=logits.device) < y[:, None]
    return ((logits > own) | ((logits == own) & smaller)).sum(1)


def _notes(split) -> list[str]:
    if hasattr(split, "notes"):
        return split.notes()
    findings = getattr(split, "findings", None)
    return findings.sentences(split.paths) if findings is not None else []


def _scores(
    confusion, within5, loss, outputs, among_all, split, seconds, run
) -> Scores:
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
    if outputs == len(confusion):
        among_all = correct1 / n, correct5 / n
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
        protocol=run.protocol,
        split=str(getattr(split, "name", "") or ""),
        precision=str(run.precision),
        outputs=outputs,
        top1_all=among_all[0],
        top5_all=among_all[1],
        notes=tuple(chain(*world().gather(_notes(run.split)))),
    )
