"""Proofs that a network of the book is the reference's: same weights, same outputs.

Read in this order: `references` builds the reference network and `calibration` makes
its signals live, `matching` carries weights from one network to another (`leaves`
lists what there is to carry), `comparison` says whether two networks agree, and where
they do not (`recording` runs them). `weights` loads published files; `mutants` makes
wrong networks, on which the proofs themselves are tried.
"""

from .comparison import Comparison, compare
from .matching import Report, transplant
from .references import reference_network
from .weights import NoConnection, WrongWeights, load_pretrained

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
