"""How sure a score is, and how sure a network is: intervals and calibration."""

from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np

from ..tables import Table


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Return Wilson's interval for a share: where the true share may well lie.

    With p = correct / n and z the normal quantile of the confidence, its bounds are
    (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n). Unlike
    p -+ z sqrt(p (1 - p) / n) it never leaves [0, 1] and holds for few images too.

    Args:
        correct: images classified correctly.
        n: images in all.
        confidence: of the interval, between 0 and 1.

    Returns:
        lower and upper bound, in [0, 1].

    Raises:
        ValueError: no image, more correct ones than images, or a confidence outside
            (0, 1).

    Source: Wilson, Journal of the American Statistical Association 22 (1927).
    """
    if n < 1 or not 0 <= correct <= n:
        raise ValueError(
            f"{correct} of {n} images are said to be correct; give a number of images "
            "of at least 1, and between 0 and that many correct ones."
        )
    if not 0 < confidence < 1:
        raise ValueError(
            f"confidence is {confidence}; it must lie between 0 and 1, as in 0.95."
        )
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    p = correct / n
    middle = p + z * z / (2 * n)
    half = z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    scale = 1 + z * z / n
    low, high = (middle - half) / scale, (middle + half) / scale
    # What rounding leaves at the ends: none or all of the images are correct.
    return low if correct else 0.0, high if correct < n else 1.0


@dataclass(frozen=True)
class Calibration:
    """How often a network is right when it says that it is sure.

    Attributes:
        table: one row for each bin of confidence that holds images: its bounds from
            and to, the number of images, their mean confidence, their accuracy.
        ece: expected calibration error: the mean of |accuracy - confidence| over the
            bins, weighted by their images; in [0, 1].
        confidence, accuracy: means over all images.
    """

    table: Table = field(repr=False)
    ece: float
    confidence: float
    accuracy: float


def calibration(probabilities, labels, bins: int = 15) -> Calibration:
    """Hold a network's confidence against its accuracy.

    The confidence of an image is its largest probability. The bins are of equal
    width: the first is [0, 1/bins], the others (i/bins, (i+1)/bins].

    Args:
        probabilities: (N, K), rows that sum to 1, as `predict` returns them.
        labels: (N,) whole numbers in 0..K-1.
        bins: how many.

    Raises:
        ValueError: shapes that do not fit, rows that are no probabilities, no bin.

    Source: Guo et al., On Calibration of Modern Neural Networks (2017), section 2.
    """
    p, y = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    if p.ndim != 2 or y.shape != p.shape[:1] or not len(y):
        raise ValueError(
            f"probabilities have shape {p.shape} and labels {y.shape}; expected (N, K) "
            "and (N,), with at least one image."
        )
    if bins < 1:
        raise ValueError(f"bins is {bins}; it must be at least 1.")
    if not np.allclose(p.sum(1), 1, atol=1e-3) or p.min() < -1e-6:
        raise ValueError(
            "The rows of probabilities must be positive and sum to 1; apply the "
            "softmax to logits first."
        )
    sure, right = p.max(1), p.argmax(1) == y
    which = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    rows, ece = [], 0.0
    for i in range(bins):
        inside = which == i
        count = int(inside.sum())
        if count:
            mean, accuracy = sure[inside].mean(), right[inside].mean()
            ece += count / len(y) * abs(accuracy - mean)
            rows.append((i / bins, (i + 1) / bins, count, mean, accuracy))
    columns = ["from", "to", "images", "confidence", "accuracy"]
    return Calibration(
        Table(rows, columns=columns),
        float(ece),
        float(sure.mean()),
        float(right.mean()),
    )
