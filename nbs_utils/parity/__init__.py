"""Proofs that a network of the book is the reference's: same weights, same outputs.

Read in this order: `references` builds the reference network and finds its published
weights, `matching` carries weights from one network to another, `comparison` says
whether two networks agree, and where they do not.
"""

from .comparison import Comparison, compare
from .matching import Report, transplant
from .references import (
    NoConnection,
    WrongWeights,
    load_pretrained,
    reference_network,
)

__all__ = [
    "Comparison",
    "NoConnection",
    "Report",
    "WrongWeights",
    "compare",
    "load_pretrained",
    "reference_network",
    "transplant",
]
