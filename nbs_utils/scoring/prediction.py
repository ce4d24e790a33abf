"""Run a network over a split by a protocol: one row of logits for each image.

The pictures that a protocol makes of an image go through the network as one batch,
together with those of the next images until the batch is full, and never more than a
batch at a time. Their scores are averaged on the device; nothing waits for it.
"""

import contextlib
import math
from collections import defaultdict
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from ..data.imagenet import imagenet_columns
from ..data.protocols import Protocol, cut, parse, views
from ..runtime import keep_freed_memory
from ..runtime import precision as choose_precision
from .dense import fully_convolutional
from .files import PhotoFiles

WAITING = 2**29  # bytes of pictures that threads may have cut ahead of the network


def predict(
    network: nn.Module,
    split,
    *,
    protocol: str | Protocol = "center",
    batch_size: int | None = None,
    precision: str = "auto",
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the probabilities that a network gives to photographs, or to a split.

    Args: as those of `evaluate`, and in the place of a split:
        split: the path of an image file, a folder, or a pattern such as "trip/*.jpg";
            a PIL image; a tensor (C, H, W) or (B, C, H, W) of any size, uint8 or float
            in 0..1, not normalized; or a list of these. The network must know its
            classes: one that `fit` has trained or `load` has loaded.

    Returns:
        Of photographs, `Predictions`: names and probabilities. Of a split,
        probabilities float32 (N, K) and labels int64 (N,), on the CPU; N counts the
        images that could be read.

    Raises:
        ValueError: see `evaluate`; or the network does not know its classes, or none
            of the files can be read.
    """
    if not (hasattr(split, "labels") or hasattr(split, "val")):  # no split, no data set
        from .photo_predictions import predict_photographs

        return predict_photographs(
            network, split, protocol, batch_size, precision, device
        )
    run = Runner(network, split, protocol, batch_size, precision, device)
    logits, labels = [], []
    with run:
        for scores, y in run:
            logits.append(scores)
            labels.append(y)
    if not logits:
        raise ValueError("None of the images could be read, so nothing was predicted.")
    return torch.cat(logits).softmax(1).cpu(), torch.cat(labels).cpu()


class Runner:
    """What `evaluate` and `predict` share: iterate over (logits, labels).

    Inside `with`, the network is in evaluation mode; afterwards each of its modules
    is in the mode that it was in.

    Args: as those of `evaluate`.

    Yields:
        logits float32 (B, outputs) and labels int64 (B,), on the device. For protocols
        that average probabilities, logits are the logarithm of the average.
    """

    def __init__(self, network, split, protocol, batch_size, precision, device):
        check_split(split)
        self.parts = parse(protocol)
        self.protocol = "+".join(part.name for part in self.parts)
        self.network, self.split = network, split
        own = next((p.device for p in network.parameters()), torch.device("cpu"))
        self.device = torch.device(device or getattr(split, "device", None) or own)
        self.precision = choose_precision(precision, self.device)
        self.batch_size = batch_size or getattr(split, "batch_size", None)
        self.columns: Tensor | None = None
        self.center = self.protocol == "center"
        # A split's center crops are computed in the layout that the network has: a
        # recorded result stays what it was. Photographs take the faster one.
        photographs = hasattr(split, "stream") or isinstance(split, PhotoFiles)
        self.relayout = photographs or not self.center
        if not (self.center or hasattr(split, "originals") or hasattr(split, "stream")):
            raise ValueError(
                f"The protocol '{self.protocol}' cuts images anew, and this split only "
                "hands out finished batches; use a split of load_data, or "
                "load_photographs."
            )

    def __enter__(self):
        network = self.network.to(self.device)
        modes = [(module, module.training) for module in network.modules()]
        self._stack = contextlib.ExitStack()
        self._stack.callback(_set_modes, modes)
        network.eval()
        try:
            self.networks = self._networks(network)
        except BaseException:
            self._stack.close()
            raise
        self._stack.enter_context(torch.inference_mode())
        if self.device.type == "cpu":
            keep_freed_memory()
        return self

    def _networks(self, network: nn.Module) -> list[nn.Module]:
        """Return what each part applies to its pictures."""
        if not any(part.dense for part in self.parts):
            return [network] * len(self.parts)
        size = self.split.image_size
        dense = fully_convolutional(network, (len(self.split.mean), size, size))
        return [dense if part.dense else network for part in self.parts]

    def __exit__(self, *error) -> None:
        self._stack.close()

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        if not self.center:
            rows = self._views()
        elif self.precision.dtype == torch.float32:
            rows = ((logits, y) for _, logits, y in self._center())
        else:
            rows = self._without_ties()
        return rows

    def target(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the output that belongs to each label; mostly the label itself."""
        if logits.shape[1] == len(self.split.classes):
            return y
        return self.columns_for(logits.shape[1])[y]

    def columns_for(self, outputs: int) -> Tensor:
        """Return which of a larger number of outputs belong to the classes."""
        if self.columns is None:
            found = getattr(self.split, "columns", None)
            if found is None and outputs == 1000:
                found = imagenet_columns(self.split.classes)
            if found is None or outputs <= int(found.max()):
                k = len(self.split.classes)
                raise ValueError(
                    f"The network returned {outputs} scores for each image, but there "
                    f"are {k} classes; expected {k}. Build it with num_classes={k}."
                )
            self.columns = found.to(self.device)
        return self.columns

    # ---- One center crop

    def _center(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield images, logits and labels."""
        for x, y in self.split.batches(self.batch_size, device=self.device):
            logits = self._forward(x)
            if logits.ndim != 2 or len(logits) != len(y):
                k = len(self.split.classes)
                raise ValueError(
                    f"The network returned {tuple(logits.shape)} for {len(y)} images "
                    f"of {k} classes; expected ({len(y)}, {k}). Build it with "
                    f"num_classes={k}."
                )
            yield x, logits, y

    def _without_ties(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Compute images whose logits tie in 16 bits once more, one batch behind.

        The next batch is under way when this one's flags are looked at, so that a GPU
        does not stand still for them.
        """
        waiting = None
        for x, logits, y in self._center():
            flags = _fetch(tied(logits, self.target(logits, y)))
            if waiting is not None:
                yield self._settle(*waiting)
            waiting = x, logits, y, flags
        if waiting is not None:
            yield self._settle(*waiting)

    def _settle(self, x, logits, y, flags) -> tuple[Tensor, Tensor]:
        host, event = flags
        if event is not None:
            event.synchronize()
        where = host.nonzero().squeeze(1)
        if len(where):
            where = _send(where, self.device)
            logits[where] = self.network(self._lay_out(x[where])).float()
        return logits, y

    def _forward(self, x: Tensor, network: nn.Module | None = None) -> Tensor:
        dtype = self.precision.dtype
        x = self._lay_out(x)
        with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            logits = (self.network if network is None else network)(x)
        if not isinstance(logits, Tensor):
            raise TypeError(
                f"The network returned a {type(logits).__name__} in evaluation mode; "
                "expected one tensor of logits (B, K)."
            )
        return logits.float()

    def _lay_out(self, x: Tensor) -> Tensor:
        if self.relayout and x.ndim == 4:
            return x.contiguous(memory_format=torch.channels_last)
        return x

    # ---- Several pictures of an image

    def _views(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Collect images until their pictures fill a batch, then score them."""
        waiting: list = []
        for pictures, y in self._pictures():
            waiting.append((pictures, y))
            most = max(len(part) for part in pictures)
            if sum(len(y) for _, y in waiting) * most >= self.batch_size:
                yield self._score(waiting)
                waiting = []
        if waiting:
            yield self._score(waiting)

    def _pictures(self) -> Iterator[tuple[list[list[Tensor]], Tensor]]:
        """Yield for some images the pictures of each part, uint8, and the labels."""
        split = self.split
        if hasattr(split, "stream"):  # photographs, each of its own shape

            def work(image: Tensor) -> list[list[Tensor]]:
                return [split.cut(image, part) for part in self.parts]

            size = split.image_size
            each = sum(
                3 * v.size[0] * v.size[1]
                for part in self.parts
                for v in views(part, size, 2 * size, size)
            )
            fit = max(split.workers, min(4 * split.workers, WAITING // each))
            for i, pictures in split.stream(work, ahead=fit):
                yield pictures, split.labels[i : i + 1]
            return
        size = split.image_size
        most = max(len(views(part, size, size, size)) for part in self.parts)
        for x, y in split.originals(max(1, self.batch_size // most)):
            side = x.shape[-1]
            yield [cut(x, views(p, side, side, size)) for p in self.parts], y

    def _score(self, waiting: list) -> tuple[Tensor, Tensor]:
        """Return the logits and labels of some images with all their pictures."""
        means = []
        for p, part in enumerate(self.parts):
            scores = self._scores([pictures[p] for pictures, _ in waiting], p)
            means.append(average(scores, part.average))
        labels = torch.cat([y for _, y in waiting])
        if len(means) > 1:  # the mean of probabilities
            means = [average(torch.stack(means, 1), "softmax")]
        return means[0], _send(labels, self.device)

    def _scores(self, items: list[list[Tensor]], p: int) -> Tensor:
        """Return the scores (B, V, K) of V pictures of each of B images.

        Pictures of one size go through the network together, whosever they are.
        """
        by_size = defaultdict(list)
        starts, rows = [], 0
        for pictures in items:
            starts.append(rows)
            rows += len(pictures[0])
            for v, x in enumerate(pictures):
                by_size[x.shape[-2:]].append((starts[-1], v, x))
        scores: Tensor | None = None
        crop = self.split.image_size
        for (height, width), group in by_size.items():
            # as many pixels at a time as a batch of crops has
            count = max(1, self.batch_size * crop * crop // (height * width))
            x = torch.cat([picture for _, _, picture in group])
            out = [self._run(part, self.networks[p]) for part in x.split(count)]
            out = torch.cat(out)
            if scores is None:
                scores = out.new_empty(rows, len(items[0]), out.shape[1])
            at = 0
            for row, v, picture in group:
                scores[row : row + len(picture), v] = out[at : at + len(picture)]
                at += len(picture)
        return scores

    def _run(self, x: Tensor, network: nn.Module) -> Tensor:
        x = _send(x, self.device)
        return self._forward(self.split.normalize(x), network)


def check_split(split) -> None:
    """Refuse what is no split, or one that cannot be scored."""
    if hasattr(split, "test") and hasattr(split, "val"):
        raise TypeError(
            "One split is scored at a time, and this is a whole data set. Pass data.val "
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


def average(scores: Tensor, how: str) -> Tensor:
    """Average the scores of several pictures.

    Args:
        scores: (B, V, K), class scores before the softmax.
        how: "softmax" returns the logarithm of the mean probability, "scores" the
            mean of the scores.

    Returns:
        (B, K); its softmax are the averaged probabilities.
    """
    if how == "scores":
        return scores.mean(1)
    return scores.log_softmax(2).logsumexp(1) - math.log(scores.shape[1])


def _set_modes(modes: list) -> None:
    for module, training in modes:
        module.training = training


def _send(x: Tensor, device: torch.device) -> Tensor:
    """Copy to the device without waiting for it."""
    if x.device == device:
        return x
    if device.type == "cuda":
        x = x.pin_memory()
    return x.to(device, non_blocking=True)


def _fetch(x: Tensor) -> tuple[Tensor, "torch.cuda.Event | None"]:
    """Begin to copy from the device; the copy is there after the event, if any."""
    if x.device.type != "cuda":
        return x.cpu(), None
    host = torch.empty(x.shape, dtype=x.dtype, pin_memory=True)
    host.copy_(x, non_blocking=True)
    event = torch.cuda.Event()
    event.record()
    return host, event


def tied(logits: Tensor, target: Tensor) -> Tensor:
    """Tell which rows leave the predicted class, or the true one's rank, to chance."""
    top = logits.topk(min(2, logits.shape[1])).values
    own = (logits == logits.gather(1, target[:, None])).sum(1) > 1
    return own | (top[:, 0] == top[:, -1])
