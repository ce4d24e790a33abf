"""The training loop: a network and data become a `Run`.

Read in this order: `loop` takes the steps, once `preparing` has made what it needs;
`recipe` says how, `schedule` with which learning rate and `losses` against what; `state`
holds what changes; `resuming` and `checkpoints` keep it, so that a stopped run goes on
exactly, on the data that `identity` recognizes, and `description` is what a checkpoint
says of its network; `depth` is for fine-tuning and `small` for few images; `checks` and
`errors` say what is wrong before and while it happens; `run` is what comes out.
"""

from .depth import freeze
from .description import Description
from .errors import OutOfMemory, TrainingDiverged
from .loop import fit, train_step
from .losses import FocalLoss, SmoothL1Loss, count_correct, make_loss, mixed_targets
from .recipe import Recipe, list_recipes
from .run import Run
from .schedule import learning_rate, make_optimizer, parameter_groups

__all__ = [
    "Description",
    "FocalLoss",
    "OutOfMemory",
    "Recipe",
    "Run",
    "SmoothL1Loss",
    "TrainingDiverged",
    "count_correct",
    "fit",
    "freeze",
    "learning_rate",
    "list_recipes",
    "make_loss",
    "make_optimizer",
    "mixed_targets",
    "parameter_groups",
    "train_step",
]
