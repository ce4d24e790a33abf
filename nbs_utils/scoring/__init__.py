"""Scores: how well a network classifies, how sure that is, and how sure it is.

Read in this order: `evaluation` counts what is right, `prediction` runs the network
over a split, one test protocol after another, `dense` slides it over whole images,
`reliability` has intervals and calibration; `loading` takes a network out of a run's
folder, `labels` compares its classes with a folder's by name, and `files` and
`photo_predictions` ask it about photographs; `published_weights` loads those that others
trained and `published_table` makes one table of many.
"""

from .dense import NotDense, fully_convolutional
from .evaluation import Scores, evaluate
from .labels import match_classes
from .loading import load
from .photo_predictions import Predictions
from .prediction import predict
from .published_weights import Published, list_published, load_published, published
from .reliability import Calibration, calibration, wilson
from .starting import start_from


def __getattr__(name: str):
    """Import on first use what draws or exports: the rest need not wait for that."""
    if name == "write_report":
        from .report import write_report

        return write_report
    if name == "export_model":
        from .exporting import export_model

        return export_model
    raise AttributeError(f"nbs_utils.scoring has no '{name}'.")


__all__ = [
    "Calibration",
    "NotDense",
    "Predictions",
    "Published",
    "Scores",
    "calibration",
    "evaluate",
    "export_model",
    "fully_convolutional",
    "list_published",
    "load",
    "load_published",
    "match_classes",
    "predict",
    "published",
    "start_from",
    "wilson",
    "write_report",
]
