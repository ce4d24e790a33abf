"""Comparisons: several variants over several seeds, with one table and one figure.

Read in this order: `trials` trains the variants and collects what they reached; `plan`
is what an experiment is made of, `runs` does one run and reads it back, `processes`
does several side by side; `result` is what is shown, and `intervals` holds the
statistics. `fresh` draws other training images for every seed.
"""

from .fresh import fresh_images
from .intervals import Interval, holm, image_error, paired, smallest_effect
from .result import Comparison, Difference, compare_values
from .trials import experiment

__all__ = [
    "Comparison",
    "Difference",
    "Interval",
    "compare_values",
    "experiment",
    "fresh_images",
    "holm",
    "image_error",
    "paired",
    "smallest_effect",
]
