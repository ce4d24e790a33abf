"""How to train on a few hundred images, and when to say so."""

from .recipe import Recipe

SMALL = 2000  # training images; up to here the recipe "small" is taken
STEPS = 600  # that it aims at, within the epochs below
EPOCHS = (10, 40)
_FEW = 8  # steps in an epoch; a schedule for batches of 128 has little to work with


def small_recipe(count: int, name: str = "small") -> Recipe:
    """Return the recipe for a small number of training images.

    Its batches are small, so that an epoch has enough steps, and its epochs are as
    many as make about 600 steps, between 10 and 40.

    Args:
        count: training images.
        name: of a recipe with a batch size of its own: "small" or "fine-tune".
    """
    recipe = Recipe.load(name)
    steps = max(1, count // recipe.batch_size)
    low, high = EPOCHS
    return recipe.stretched(min(high, max(low, round(STEPS / steps))))


def why_small(count: int, recipe: Recipe) -> str:
    """Say in a sentence what was chosen for so many images, and why."""
    steps = max(1, count // recipe.batch_size)
    return (
        f"{count:,} training images are few: the recipe '{recipe.name}' takes batches "
        f"of {recipe.batch_size} and {recipe.epochs} epoch{'s' * (recipe.epochs > 1)}, "
        f"{steps * recipe.epochs:,} steps in all."
    )


def advice(count: int, batch_size: int, recipe: Recipe) -> str:
    """Return what is better for a small data set; empty where nothing is amiss.

    Args:
        count: training images.
        batch_size: that the run would take.
        recipe: that the run would take.
    """
    steps = max(1, count // batch_size)
    if steps >= _FEW or recipe.name == "small":
        return ""
    better = small_recipe(count)
    return (
        f"{count:,} training images in batches of {batch_size} are {steps} steps an "
        f"epoch, which is very few: the recipe 'small', for {better.epochs} epochs, "
        f"takes batches of {better.batch_size}."
    )
