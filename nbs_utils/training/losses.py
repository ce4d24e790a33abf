"""The losses of a recipe. All take targets as classes or as probabilities."""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from .recipe import Recipe


def soft_targets(y: Tensor, num_classes: int) -> Tensor:
    """Return targets as probabilities, float32 of shape (B, K).

    Args:
        y: classes, int64 of shape (B,); probabilities (B, K) are returned as they are.
        num_classes: K.
    """
    if y.is_floating_point():
        return y
    return F.one_hot(y, num_classes).float()


def mixed_targets(
    y_a: Tensor, y_b: Tensor, share: Tensor | float, num_classes: int
) -> Tensor:
    """Return the targets of images that were mixed of two (mixup, CutMix).

    Args:
        y_a, y_b: the classes of the two sources, int64 of shape (B,).
        share: how much of each image is of class `y_a`, in [0, 1]; a number or (B,).
        num_classes: K.

    Returns:
        Probabilities of shape (B, K): `share` on y_a and the rest on y_b.
    """
    if isinstance(share, Tensor) and share.ndim:
        share = share[:, None]
    a, b = soft_targets(y_a, num_classes), soft_targets(y_b, num_classes)
    return share * a + (1 - share) * b


class FocalLoss(nn.Module):
    """Cross entropy that counts well-classified images less.

    An image whose true class has probability p costs -(1 - p)^gamma log p instead of
    -log p. With gamma 0 it is cross entropy. From Lin et al., "Focal Loss for Dense
    Object Detection", 2017 (there in its binary form, here over K classes).

    Args:
        gamma: how fast the weight falls as p grows; the paper uses 2.
    """

    def __init__(self, gamma: float = 2.0, reduction: str = "mean"):
        super().__init__()
        self.gamma, self.reduction = gamma, reduction

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean over images of logits (B, K) and targets (B,) or (B, K).

        With reduction "none", the costs of the images, (B,).
        """
        log_p = F.log_softmax(logits.float(), dim=1)
        weight = (1 - log_p.exp()) ** self.gamma
        t = soft_targets(y, logits.shape[1])
        costs = -(t * weight * log_p).sum(1)
        return costs if self.reduction == "none" else costs.mean()


class SmoothL1Loss(nn.Module):
    """Distance of the predicted probabilities from the one-hot target.

    A difference d costs d^2 / (2 beta) below beta and |d| - beta / 2 above it
    (Girshick, "Fast R-CNN", 2015, with beta 1). Costs are summed over the classes, so
    that the gradient does not shrink as there are more of them, then averaged over
    the images.

    Args:
        beta: where the parabola becomes a straight line.
    """

    def __init__(self, beta: float = 1.0):
        super().__init__()
        self.beta = beta

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean over images of logits (B, K) and targets (B,) or (B, K)."""
        p = logits.float().softmax(dim=1)
        t = soft_targets(y, logits.shape[1])
        return F.smooth_l1_loss(p, t, reduction="sum", beta=self.beta) / len(logits)


class Weighted(nn.Module):
    """A loss in which the images of some classes count more than those of others.

    Args:
        loss: returns the cost of each image, (B,).
        weights: of the classes, (K,). A mixed image has the weight of its mixture.
    """

    def __init__(self, loss: nn.Module, weights: Tensor):
        super().__init__()
        self.loss = loss
        self.register_buffer("weights", weights)

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the weighted sum over images, divided by the number of images."""
        weights = y @ self.weights if y.is_floating_point() else self.weights[y]
        return (weights * self.loss(logits, y)).mean()


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return N / (K n) for each class: their mean over the images is 1.

    Args:
        labels: of the training split, int64 (N,).
        num_classes: K. A class without images gets the weight 0.
    """
    counts = torch.bincount(labels.cpu(), minlength=num_classes).float()
    present = int((counts > 0).sum())
    return torch.where(counts > 0, len(labels) / (present * counts.clamp_min(1)), 0.0)


def make_loss(
    recipe: "Recipe", labels: Tensor | None = None, num_classes: int = 0
) -> nn.Module:
    """Return the loss a recipe asks for, as a module of logits and targets.

    Args:
        recipe: its `loss` and the keys that belong to it.
        labels, num_classes: of the training split, for `class_weights: balanced`.

    The loss averages over the images of a batch. Targets are classes (B,) or, after
    mixup and CutMix, probabilities (B, K). Smoothing by s moves the share s of every
    target evenly over all K classes (Szegedy et al., 2016).
    """
    if recipe.class_weights == "balanced":
        if labels is None:
            raise ValueError(
                "class_weights is balanced, which needs the labels of the training "
                "split: make_loss(recipe, data.train.labels, data.num_classes)."
            )
        if recipe.loss == "focal":
            loss = FocalLoss(recipe.focal_gamma, "none")
        else:
            smooth = recipe.label_smoothing
            loss = nn.CrossEntropyLoss(label_smoothing=smooth, reduction="none")
        return Weighted(loss, balanced_weights(labels, num_classes).to(labels.device))
    if recipe.loss == "focal":
        return FocalLoss(recipe.focal_gamma)
    if recipe.loss == "smooth_l1":
        return SmoothL1Loss()
    return nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)


def all_logits(outputs: Tensor | tuple) -> tuple[Tensor, ...]:
    """Return what a network returned as a tuple: its logits, then auxiliary ones.

    Args:
        outputs: logits (B, K), or in training mode (logits, auxiliary logits, ...) as
            from GoogLeNet; heads that are switched off (None) are left out.
    """
    if not isinstance(outputs, (tuple, list)):
        return (outputs,)
    return tuple(logits for logits in outputs if logits is not None)


def count_correct(logits: Tensor, y: Tensor, k: int = 1) -> Tensor:
    """Count the images whose target is among the k largest logits.

    Args:
        logits: (B, K).
        y: classes (B,), or probabilities (B, K) of which the largest is meant.
        k: how many guesses are allowed; more than K counts as K.

    Returns:
        An int64 tensor without dimensions that stays on the device of the logits.
    """
    if y.is_floating_point():
        y = y.argmax(1)
    if k == 1:
        return (logits.argmax(1) == y).sum()
    guesses = logits.topk(min(k, logits.shape[1]), dim=1).indices
    return (guesses == y[:, None]).sum()


def own_loss(loss: nn.Module | None) -> dict:
    """Return what a run's identity says of a loss that is not the recipe's."""
    return {} if loss is None else {"loss": type(loss).__name__}
