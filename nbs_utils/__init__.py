"""What every chapter shares: data, one training loop, counts, proofs, figures.

The vocabulary of a notebook is the table below: `import nbs_utils as nbs`, then
`nbs.load_data`, `nbs.fit`, `nbs.evaluate` and so on. What a chapter needs more rarely
stands in the rooms: `nbs.figures.show_images`, `nbs.training.train_step`. A name is
imported when it is first used, so that `import nbs_utils` itself costs nothing.
"""

from importlib import import_module

__version__ = "0.1.0"

# name -> the room that holds it. No module of the package has one of these names.
_HOME = {
    # the machine, seeds, the two ways to run
    "start": "runtime",
    "budget": "runtime",
    "is_quick": "runtime",
    "device": "runtime",
    "Table": "tables",
    # the way through the house: data, a recipe, a run, scores, a card
    "load_data": "data",
    "sample_photographs": "data",
    "Recipe": "training",
    "list_recipes": "training",
    "fit": "training",
    "load": "scoring",
    "evaluate": "scoring",
    "predict": "scoring",
    "experiment": "experiments",
    "glance": "results",
    "save_card": "results",
    # counting and proving
    "count_parameters": "counting",
    "count_macs": "counting",
    "stage_table": "counting",
    "receptive_field": "counting",
    "throughput": "counting",
    "reference_network": "parity",
    "transplant": "parity",
    "compare": "parity",
    "load_pretrained": "parity",
    "NoConnection": "parity",
    # the networks of the chapters
    "register": "zoo",
    "create_model": "zoo",
    "list_models": "zoo",
}
# The rooms, from the ground up; each one's docstring says what it is for.
_ROOMS = (
    "runtime",
    "zoo",
    "augment",
    "counting",
    "distributed",
    "data",
    "parity",
    "figures",
    "training",
    "results",
    "scoring",
    "experiments",
)

__all__ = [*_HOME, *_ROOMS, "__version__"]  # noqa: PLE0604


def __getattr__(name: str):
    """Import a name of the vocabulary from its room on first use (PEP 562)."""
    if name in _HOME:
        value = getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    elif name in _ROOMS:
        value = import_module(f"{__name__}.{name}")
    else:
        raise AttributeError(
            f"nbs_utils has no '{name}'. It offers: {', '.join(sorted(__all__))}."
        )
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
