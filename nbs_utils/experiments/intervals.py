"""The statistics of a comparison: how sure a difference is, and what it could show.

A difference between two networks has two errors. Other seeds would give other
networks: `paired` says how far the mean difference may move. Other images would be
classified differently: `image_error` says by how much. Neither contains the other.
"""

from dataclasses import dataclass

import numpy as np
from scipy import optimize, stats


@dataclass(frozen=True)
class Interval:
    """A mean difference, and where the true one may well lie.

    Attributes:
        mean: of the differences; n is their number.
        low, high: bounds at the confidence; NaN for fewer than two differences.
        p: two-sided p-value of the paired t-test; NaN for fewer than two.
    """

    mean: float
    low: float
    high: float
    p: float
    n: int


def paired(differences, confidence: float = 0.95) -> Interval:
    """Return the t interval of the mean of paired differences.

    With mean d, standard deviation s (n - 1 in the denominator) and n pairs, it is
    d -+ t s / sqrt(n), with t the quantile (1 + confidence) / 2 of Student's t
    distribution with n - 1 degrees of freedom: 12.7 for 2 seeds, 4.30 for 3, 2.78 for
    5. It takes the differences for draws from a normal distribution.

    Args:
        differences: (n,), one for each seed; NaN are left out.

    Source: Student, The Probable Error of a Mean, Biometrika 6 (1908).
    """
    d = _finite(differences)
    mean = float(d.mean()) if len(d) else float("nan")
    if len(d) < 2:
        return Interval(mean, float("nan"), float("nan"), float("nan"), len(d))
    error = _standard_error(d)
    if error == 0:  # all alike: scipy would divide by zero
        return Interval(mean, mean, mean, 0.0 if mean else 1.0, len(d))
    half = float(stats.t.ppf((1 + confidence) / 2, len(d) - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, len(d) - 1))
    return Interval(mean, mean - half, mean + half, p, len(d))


def smallest_effect(differences, power: float = 0.8, confidence: float = 0.95) -> float:
    """Return the smallest true difference that as many seeds would mostly show.

    If the true difference were this large and the seeds spread as they did, the
    interval of `paired` would leave out zero in `power` of all repetitions. The
    t statistic then follows the noncentral t distribution with n - 1 degrees of
    freedom and noncentrality difference / (s / sqrt(n)).

    Returns:
        a positive number in the unit of the differences; NaN for fewer than two.

    Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988).
    """
    d = _finite(differences)
    if len(d) < 2:
        return float("nan")
    freedom = len(d) - 1
    t = stats.t.ppf((1 + confidence) / 2, freedom)

    def missing(shift: float) -> float:
        # scipy answers NaN far out in the other tail, where nothing is left
        other = np.nan_to_num(stats.nct.cdf(-t, freedom, shift))
        return stats.nct.sf(t, freedom, shift) + other - power

    # At noncentrality 4 t even two seeds show it nearly always.
    return float(optimize.brentq(missing, 0.0, 4 * t)) * _standard_error(d)


def image_error(scores, others=None) -> float:
    """Return the standard error of a mean score that comes from the choice of images.

    Of one network it is sd(score) / sqrt(N); for scores of 0 and 1 this is the
    binomial sqrt(p (1 - p) / N). Of two networks it is that of the differences image
    by image: where both are right or both are wrong, nothing is drawn by lot. With b
    images that only one and c that only the other has right, it is
    sqrt(b + c - (b - c)^2 / N) / N, the error on which McNemar's test rests.

    Args:
        scores: (N,) of each image, or (seeds, N), which are averaged by image.
        others: the same of the network to compare with, on the same images.

    Source: McNemar, Psychometrika 12 (1947); Dietterich, Neural Computation 10 (1998).
    """
    each = np.atleast_2d(np.asarray(scores, dtype=np.float64)).mean(0)
    if others is not None:
        each = each - np.atleast_2d(np.asarray(others, dtype=np.float64)).mean(0)
    return float(each.std() / np.sqrt(len(each)))


def holm(p_values) -> np.ndarray:
    """Return p-values adjusted for their number, by Holm's method.

    The smallest of m is multiplied by m, the next by m - 1 and so on; none becomes
    smaller than one before it, or larger than 1. The chance that any comparison of
    equals appears as a difference then stays below the level.

    Source: Holm, Scandinavian Journal of Statistics 6 (1979).
    """
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p)
    adjusted = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    result = np.empty_like(p)
    result[order] = np.minimum(adjusted, 1)
    return result


def _finite(differences) -> np.ndarray:
    d = np.asarray(differences, dtype=np.float64).reshape(-1)
    return d[np.isfinite(d)]


def _standard_error(d: np.ndarray) -> float:
    if np.ptp(d) <= 1e-12 * np.abs(d).max():  # equal but for rounding
        return 0.0
    return float(d.std(ddof=1) / np.sqrt(len(d)))
