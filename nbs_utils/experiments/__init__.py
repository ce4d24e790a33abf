"""Comparisons: several variants over several seeds, with one table and one figure.

Read in this order: `trials` trains the variants and collects what they reached,
`plan` is what an experiment is made of, `runs` does one run and reads it back,
`result` is what is shown, and `intervals` holds the statistics.
"""

from .intervals import Interval, holm, image_error, paired, smallest_effect
from .result import Comparison, Difference, compare_values
from .trials import experiment

__all__ = [
    "Comparison",
    "Difference",
    "Interval",
    "compare_values",
    "experiment",
    "holm",
    "image_error",
    "paired",
    "smallest_effect",
]
