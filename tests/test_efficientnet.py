"""EfficientNet: the rule's roundings, the references' counts and function, padding."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.zoo import create_model, model_entry
from nbs_utils.zoo.efficientnet import (
    COEFFICIENTS,
    STAGES,
    EfficientNet,
    MBConv,
    SameConv2d,
)
from nbs_utils.zoo.senet import SqueezeExcite

PUBLISHED = [f"efficientnet_b{i}" for i in range(8)]
TINY = ((1, 3, 1, 16, 1), (6, 5, 2, 24, 2))


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def blocks_of(network):
    return [m for m in network.modules() if isinstance(m, MBConv)]


@pytest.mark.parametrize("name", PUBLISHED)
def test_same_tensors_norms_and_rates_as_torchvision(name):
    reference = nbs.reference_network(name, device="meta")
    network = on_meta(name)
    assert [p.shape for p in network.parameters()] == [
        p.shape for p in reference.parameters()
    ]
    norms = [
        [(m.eps, m.momentum) for m in n.modules() if isinstance(m, nn.BatchNorm2d)]
        for n in (network, reference)
    ]
    assert norms[0] == norms[1]
    rates = [m.p for m in reference.modules() if type(m).__name__ == "StochasticDepth"]
    assert [b.drop_path.p for b in blocks_of(network)] == pytest.approx(rates)
    drops = [m.p for m in reference.modules() if isinstance(m, nn.Dropout)]
    assert [network.dropout.p] == drops


@pytest.mark.parametrize(
    ("name", "parameters", "side", "billions"),
    [
        ("efficientnet_b0", 5_288_548, 224, 0.386),
        ("efficientnet_b2", 9_109_994, 260, 0.994),
        ("efficientnet_b4", 19_341_616, 380, 4.394),
    ],
)
def test_counts(name, parameters, side, billions):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert model_entry(name).image_size == side
    assert nbs.count_macs(network, (3, side, side)) / 1e9 == pytest.approx(
        billions, abs=6e-4
    )


def test_all_but_gates_and_classifier_are_paid_per_pixel():
    network = on_meta("efficientnet_b0")
    gates = [m for m in network.modules() if isinstance(m, SqueezeExcite)]
    once = network.fc.weight.numel()
    once += sum(g.reduce.weight.numel() + g.expand.weight.numel() for g in gates)
    small, large = (nbs.count_macs(network, (3, side, side)) for side in (128, 256))
    assert large - once == 4 * (small - once)


def test_blocks_are_rounded_up():
    depths = [math.ceil(3.1 * n) for *_, n in STAGES]
    network = on_meta("efficientnet_b7")
    assert [len(getattr(network, f"stage{i}")) for i in range(2, 9)] == depths
    assert len(blocks_of(network)) == 55


@pytest.mark.parametrize("name", ["efficientnet_b1", "efficientnet_b2"])
def test_same_function_as_torchvision(name):
    reference = nbs.reference_network(name)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


@pytest.mark.parametrize(
    ("eps", "same", "agrees"),
    [(1e-3, True, True), (1e-3, False, False), (1e-5, True, False)],
)
def test_the_authors_padding_and_eps_as_in_timm(eps, same, agrees):
    reference = nbs.reference_network("timm/tf_efficientnet_b0")
    network = create_model("efficientnet_b0", eps=eps, same=same).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees == agrees


@pytest.mark.parametrize(("side", "kernel"), [(8, 3), (9, 3), (8, 5), (9, 5)])
def test_same_padding_is_what_is_missing_the_odd_row_last(side, kernel):
    torch.manual_seed(0)
    conv = SameConv2d(2, 2, kernel, stride=2, bias=False)
    x = torch.randn(1, 2, side, side)
    missing = (math.ceil(side / 2) - 1) * 2 + kernel - side
    first, last = missing // 2, missing - missing // 2
    padded = F.pad(x, (first, last, first, last))
    torch.testing.assert_close(conv(x), F.conv2d(padded, conv.weight, stride=2))
    assert conv(x).shape[-1] == math.ceil(side / 2)


def test_the_gate_is_as_wide_as_a_quarter_of_the_input():
    for block in blocks_of(on_meta("efficientnet_b0")):
        (gate,) = (m for m in block.modules() if isinstance(m, SqueezeExcite))
        parts = block.branch
        first = parts.expand if hasattr(parts, "expand") else parts.depthwise
        assert gate.reduce.out_channels == first.conv.in_channels // 4
        assert gate.reduce.in_channels == parts.depthwise.conv.out_channels
        assert isinstance(gate.activation, nn.SiLU)
        assert isinstance(gate.gate, nn.Sigmoid)


def test_all_other_activations_are_silu():
    kinds = {type(m) for m in on_meta("efficientnet_b0").modules()}
    assert nn.SiLU in kinds
    assert not kinds & {nn.ReLU, nn.ReLU6, nn.Hardswish}


def test_the_rate_acts_in_training_only():
    torch.manual_seed(0)
    block = MBConv(8, 8, drop_path=0.5)
    x = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        left_out = (block.train()(x) == x).flatten(1).all(1).sum()
        assert 16 < left_out < 48
        assert not (block.eval()(x) == x).flatten(1).all(1).any()


def test_small_images_keep_their_size_longer():
    network = on_meta("efficientnet_b0", stem="cifar", num_classes=10)
    x, sides = torch.empty(1, 3, 32, 32, device="meta"), []
    for i in range(1, 10):
        x = getattr(network, f"stage{i}")(x)
        sides.append(x.shape[-1])
    assert sides == [32, 32, 32, 16, 8, 8, 4, 4, 4]


def test_the_mini_network_is_the_rule_at_minus_six():
    width, depth, side, *_ = COEFFICIENTS["efficientnet_mini"]
    assert (width, depth) == (1.1**-6, 1.2**-6)
    assert (
        side == 224 * 1.15**-6 // 32 * 32 == model_entry("efficientnet_mini").image_size
    )


def test_first_weights():
    torch.manual_seed(0)
    network = EfficientNet(stages=TINY, num_classes=100)
    assert network.fc.weight.abs().max() <= 0.1
    assert network.fc.weight.abs().max() > 0.09
    biases = [m.bias for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    given = [b for b in biases if b is not None]
    assert len(given) == 2 * 3 + 1
    assert not any(b.any() for b in given)


def test_stages_are_an_argument():
    network = EfficientNet(stages=TINY, num_classes=5, same=True)
    assert network(torch.randn(2, 3, 33, 47)).shape == (2, 5)
