"""Losses against values worked out by hand and against PyTorch."""

import math

import pytest
import torch
import torch.nn.functional as F

from nbs_utils.training.losses import (
    FocalLoss,
    SmoothL1Loss,
    count_correct,
    make_loss,
    mixed_targets,
    soft_targets,
)
from nbs_utils.training.recipe import Recipe

# probabilities 0.5, 0.25, 0.25
LOGITS = torch.tensor([[math.log(2.0), 0.0, 0.0]])
TRUTH = torch.tensor([0])


def test_focal_loss_by_hand():
    # -(1 - 0.5)^2 log 0.5
    assert FocalLoss(2)(LOGITS, TRUTH).item() == pytest.approx(0.25 * math.log(2))
    # the second class has p = 0.25: -(0.75)^2 log 0.25
    expected = 0.75**2 * math.log(4)
    assert FocalLoss(2)(LOGITS, torch.tensor([1])).item() == pytest.approx(expected)


def test_focal_loss_with_gamma_0_is_cross_entropy():
    logits, y = torch.randn(8, 5), torch.randint(5, (8,))
    torch.testing.assert_close(FocalLoss(0)(logits, y), F.cross_entropy(logits, y))


def test_focal_loss_turns_away_from_easy_images():
    easy, hard = torch.tensor([[5.0, 0.0]]), torch.tensor([[0.0, 5.0]])
    ratio = FocalLoss(2)(easy, TRUTH) / F.cross_entropy(easy, TRUTH)
    assert ratio < 1e-4
    assert FocalLoss(2)(hard, TRUTH) / F.cross_entropy(hard, TRUTH) > 0.98


def test_smooth_l1_by_hand():
    # differences 0.5, 0.25, 0.25, all below beta 1: half their squares
    expected = (0.5**2 + 0.25**2 + 0.25**2) / 2
    assert SmoothL1Loss()(LOGITS, TRUTH).item() == pytest.approx(expected)
    # beta 0.3: 0.5 is on the straight part (0.5 - 0.15), 0.25 on the parabola
    expected = 0.35 + 2 * 0.25**2 / 0.6
    assert SmoothL1Loss(0.3)(LOGITS, TRUTH).item() == pytest.approx(expected)


@pytest.mark.parametrize("loss", [FocalLoss(2), SmoothL1Loss()])
def test_losses_average_over_images_and_take_probabilities(loss):
    logits, y = torch.randn(6, 4), torch.randint(4, (6,))
    each = torch.stack([loss(logits[i : i + 1], y[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(loss(logits, y), each.mean())
    torch.testing.assert_close(loss(logits, F.one_hot(y, 4).float()), loss(logits, y))


def test_label_smoothing_by_hand():
    loss = make_loss(Recipe(label_smoothing=0.3))
    # 0.7 + 0.1 on the truth, 0.1 on each of the others
    expected = 0.8 * math.log(2) + 0.2 * math.log(4)
    assert loss(LOGITS, TRUTH).item() == pytest.approx(expected)


def test_make_loss_follows_the_recipe():
    focal = make_loss(Recipe(loss="focal", focal_gamma=3))
    assert isinstance(focal, FocalLoss)
    assert focal.gamma == 3
    assert isinstance(make_loss(Recipe(loss="smooth_l1")), SmoothL1Loss)


def test_mixed_targets_share_the_classes():
    a, b = torch.tensor([0, 1]), torch.tensor([2, 1])
    target = mixed_targets(a, b, torch.tensor([0.75, 0.5]), 3)
    assert target.tolist() == [[0.75, 0, 0.25], [0, 1, 0]]
    assert mixed_targets(a, b, 0.25, 3).tolist() == [[0.25, 0, 0.75], [0, 1, 0]]


def test_cross_entropy_of_a_mix_is_the_mix_of_cross_entropies():
    logits, a, b = torch.randn(4, 3), torch.randint(3, (4,)), torch.randint(3, (4,))
    mixed = F.cross_entropy(logits, mixed_targets(a, b, 0.3, 3))
    both = 0.3 * F.cross_entropy(logits, a) + 0.7 * F.cross_entropy(logits, b)
    torch.testing.assert_close(mixed, both)


def test_soft_targets_leave_probabilities_alone():
    t = torch.rand(2, 3)
    assert soft_targets(t, 3) is t


def test_count_correct():
    logits = torch.tensor([[3.0, 2, 1, 0], [0, 1, 2, 3], [3, 2, 1, 0]])
    y = torch.tensor([0, 2, 3])
    assert count_correct(logits, y).item() == 1
    assert count_correct(logits, y, k=2).item() == 2
    assert count_correct(logits, y, k=9).item() == 3  # more guesses than classes
    assert count_correct(logits, soft_targets(y, 4)).item() == 1
