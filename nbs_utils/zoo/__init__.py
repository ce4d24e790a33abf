"""The networks of the book, exported from its chapters.

Every other module here is written by `nbs export` from the cells of a chapter that
are tagged `export`. Edit the chapter, not the module.
"""

from functools import partial

from .registry import create_model, list_models, register

__all__ = ["create_model", "list_models", "register"]


def __getattr__(name: str):
    """Let `from nbs_utils.zoo import resnet50` give the builder of that network."""
    if not name.startswith("_") and name in list_models():
        return partial(create_model, name)
    raise AttributeError(f"nbs_utils.zoo has no network called '{name}'.")
