"""What every chapter shares: data, one training loop, counts, proofs, figures.

The vocabulary of a notebook is the table below: `import nbs_utils as nbs`, then
`nbs.load_data`, `nbs.fit`, `nbs.evaluate` and so on. A name is imported from its
module when it is first used, so that `import nbs_utils` itself costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"

# name -> the module that holds it
_HOME = {
    # runtime: the machine, seeds, the two ways to run
    "start": "runtime",
    "budget": "runtime",
    "is_quick": "runtime",
    "device": "runtime",
    # the way through the house: data, a recipe, a run, scores, a card
    "load_data": "data",
    "sample_photographs": "data",
    "Recipe": "recipe",
    "list_recipes": "recipe",
    "fit": "train",
    "evaluate": "evaluate",
    "predict": "predict",
    "glance": "results",
    "save_card": "results",
    # counting and proving
    "count_parameters": "measure",
    "count_macs": "measure",
    "stage_table": "measure",
    "receptive_field": "measure",
    "throughput": "measure",
    "reference_network": "reference",
    "transplant": "reference",
    "compare": "reference",
    "load_pretrained": "reference",
    # the networks of the chapters
    "register": "zoo",
    "create_model": "zoo",
    "list_models": "zoo",
}
# `nbs.figures.show_images(...)`: drawing keeps its own shelf
_MODULES = (
    "augment",
    "figures",
    "losses",
    "measure",
    "protocols",
    "results",
    "runtime",
    "zoo",
)

__all__ = [*_HOME, *_MODULES, "__version__"]  # noqa: PLE0604


def __getattr__(name: str):
    """Import a name of the vocabulary from its module on first use (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _MODULES:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(
            f"nbs_utils has no '{name}'. It offers: {', '.join(sorted(__all__))}."
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)


class _Package(ModuleType):
    """This package, in which `nbs.evaluate` stays the function.

    Python puts a submodule into its package as soon as anybody imports it, so after
    `from nbs_utils.evaluate import Scores` the module would stand in the place of the
    function of the same name.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
