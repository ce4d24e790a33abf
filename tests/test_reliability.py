"""Intervals and calibration against numbers computed by hand."""

import math

import pytest
import torch

from nbs_utils.scoring.reliability import calibration, wilson


def test_wilson_by_hand():
    # p = 0.5, z = 1: (0.5 + 1/8 -+ sqrt(0.25/4 + 1/64)) / (1 + 1/4)
    one_sigma = math.erf(1 / math.sqrt(2))
    half = math.sqrt(0.0625 + 1 / 64)
    low, high = wilson(2, 4, one_sigma)
    assert low == pytest.approx((0.625 - half) / 1.25)
    assert high == pytest.approx((0.625 + half) / 1.25)
    # the textbook's example of 10 successes in 10: [0.7225, 1]
    assert wilson(10, 10) == pytest.approx((0.72246, 1.0), abs=1e-5)
    assert wilson(0, 10)[0] == 0.0


def test_calibration_by_hand():
    # confidences 0.9, 0.9, 0.6 and 0.55; right, wrong, right, right
    p = torch.tensor(
        [[0.9, 0.1], [0.1, 0.9], [0.6, 0.4], [0.45, 0.55]], dtype=torch.float64
    )
    found = calibration(p, torch.tensor([0, 0, 0, 1]), bins=5)
    # bins (0.4, 0.6] and (0.8, 1]: |1 - 0.575| and |0.5 - 0.9|, two images in each
    assert found.table["images"].tolist() == [2, 2]
    assert found.table["from"].tolist() == pytest.approx([0.4, 0.8])
    assert found.table["accuracy"].tolist() == [1.0, 0.5]
    assert found.ece == pytest.approx((0.425 + 0.4) / 2, abs=1e-6)
    assert found.accuracy == 0.75
    assert found.confidence == pytest.approx(0.7375)


def test_a_network_that_is_as_right_as_it_is_sure():
    p = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert calibration(p, torch.tensor([0, 1])).ece == 0


def test_bad_input_is_told_what_to_do():
    with pytest.raises(ValueError, match="3 of 2 images"):
        wilson(3, 2)
    with pytest.raises(ValueError, match="between 0 and 1"):
        wilson(1, 2, confidence=95)
    with pytest.raises(ValueError, match="apply the softmax"):
        calibration(torch.randn(3, 4), torch.zeros(3))
    with pytest.raises(ValueError, match="expected"):
        calibration(torch.ones(3, 4) / 4, torch.zeros(2))
