"""The learning rate of every step, and the optimizer that uses it.

A schedule is a formula: it takes the number of the step and returns the learning
rate. Nothing has to be remembered, so a resumed run need not restore anything. The one
exception is "plateau", which watches validation; its memory is a `Plateau`.
"""

import math

import torch
from torch import nn

from .depth import by_depth
from .recipe import Recipe

# torch.optim.lr_scheduler.OneCycleLR has the same proportions by default.
ONECYCLE_START = 1 / 25  # of the largest learning rate, at the first step
ONECYCLE_END = 1e-4 / 25  # of the largest learning rate, at the last step
ONECYCLE_WARMUP = 0.3  # share of the steps, where a recipe sets no warmup_epochs


def _cosine(start: float, end: float, share: float) -> float:
    """Go from start (share 0) to end (share 1) along half a cosine."""
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


def learning_rate(
    recipe: Recipe, step: int, steps_per_epoch: int, plateau_factor: float = 1.0
) -> float:
    """Return the learning rate of a step.

    Args:
        recipe: its `schedule` and the keys that belong to it.
        step: number of the step, from 0, counted over the whole run.
        steps_per_epoch: how many steps an epoch has.
        plateau_factor: what "plateau" has come down to so far; `Plateau.factor`.

    One-cycle is from Smith, "Super-Convergence", 2018, in the form of two half
    cosines; the cosine decay is from Loshchilov and Hutter, "SGDR", 2017, without
    restarts.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = recipe.warmup_epochs * steps_per_epoch

    if recipe.schedule == "onecycle":
        top = (warmup or ONECYCLE_WARMUP * total) - 1  # the step of the largest rate
        last = total - 1
        if step < top:
            return recipe.lr * _cosine(ONECYCLE_START, 1, step / top)
        share = (step - top) / max(last - top, 1e-9)
        return recipe.lr * _cosine(1, ONECYCLE_END, min(share, 1))

    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)

    epoch = step / steps_per_epoch
    if recipe.schedule == "cosine":
        return recipe.lr * _cosine(1, 0, (step - warmup) / (total - warmup))
    if recipe.schedule == "linear":
        return recipe.lr * (1 - (step - warmup) / (total - warmup))
    if recipe.schedule == "step":
        return recipe.lr * recipe.gamma ** math.floor(epoch / recipe.step_epochs)
    if recipe.schedule == "multistep":
        return recipe.lr * recipe.gamma ** sum(epoch >= m for m in recipe.milestones)
    if recipe.schedule == "plateau":
        return recipe.lr * plateau_factor
    return recipe.lr  # constant


class Plateau:
    """The memory of the "plateau" schedule.

    After more than `patience` epochs in a row without a new best score, the learning
    rate is multiplied by gamma, as `torch.optim.lr_scheduler.ReduceLROnPlateau` does
    with `mode="max"`, `threshold=0` and `eps=0`.
    """

    def __init__(self, recipe: Recipe):
        self.gamma, self.patience = recipe.gamma, recipe.patience
        self.factor, self.best, self.bad_epochs = 1.0, -math.inf, 0

    def update(self, score: float) -> None:
        """Take note of an epoch's validation top-1."""
        if score > self.best:
            self.best, self.bad_epochs = score, 0
        else:
            self.bad_epochs += 1
        if self.bad_epochs > self.patience:
            self.factor, self.bad_epochs = self.factor * self.gamma, 0

    def state_dict(self) -> dict[str, float]:
        """Return what a checkpoint must hold."""
        return {k: getattr(self, k) for k in ("factor", "best", "bad_epochs")}

    def load_state_dict(self, state: dict[str, float]) -> None:
        """Go on from what a checkpoint held."""
        for key, value in state.items():
            setattr(self, key, value)


def parameter_groups(network: nn.Module, recipe: Recipe) -> list[dict]:
    """Split the trainable parameters into those that decay and those that do not.

    Biases, the scales and shifts of norms and the scales of whole channels, as in
    ConvNeXt's (C, 1, 1), vary along one dimension at most; shrinking them does not make
    the function simpler, so by default they are left out. Left out in any case is what
    a network, or a module in it, names in `no_weight_decay`: a set of the names of its
    parameters, or a method that returns one, as in timm. Positions and class tokens
    belong there.

    Raises:
        ValueError: no parameter is trained.
    """
    spared = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in network.named_modules()
        for name in _spared_by(module)
    }
    trainable = {n: p for n, p in network.named_parameters() if p.requires_grad}
    if not trainable:
        raise ValueError(
            "The network has no parameter to train: all have requires_grad=False."
        )
    decay, rest = [], []
    for name, parameter in trainable.items():
        scale = sum(length > 1 for length in parameter.shape) <= 1
        kept = name in spared or (scale and not recipe.decay_norm_and_bias)
        (rest if kept else decay).append(parameter)
    groups = [
        {"params": decay, "weight_decay": recipe.weight_decay},
        {"params": rest, "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    return by_depth(groups, network, recipe.layer_decay)


def _spared_by(module: nn.Module) -> set[str]:
    names = getattr(module, "no_weight_decay", ())
    return set(names() if callable(names) else names)


def make_optimizer(network: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the optimizer of a recipe for the parameters of a network.

    `fused` updates all parameters in one kernel: on two CPU cores this halves the
    time of an SGD step and divides that of AdamW by five.
    """
    groups = parameter_groups(network, recipe)
    fused = all(p.device.type in ("cpu", "cuda") for p in network.parameters())
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(
            groups, lr=recipe.lr, betas=recipe.betas, eps=recipe.eps, fused=fused
        )
    if recipe.optimizer == "rmsprop":  # there is no fused one
        return torch.optim.RMSprop(
            groups,
            lr=recipe.lr,
            alpha=recipe.alpha,
            eps=recipe.eps,
            momentum=recipe.momentum,
            foreach=fused,
        )
    return torch.optim.SGD(
        groups,
        lr=recipe.lr,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        fused=fused,
    )
