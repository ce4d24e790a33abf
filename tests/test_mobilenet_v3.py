"""MobileNet v3: the tables, the hard functions, the references' counts and function."""

import math

import pytest
import torch
from torch import nn
from torchvision.models.mobilenetv3 import _mobilenet_v3_conf

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.mobilenet_v2 import InvertedResidual
from nbs_utils.zoo.mobilenet_v3 import (
    LARGE,
    SMALL,
    VARIANTS,
    MobileNetV3,
    hard_gate,
)
from nbs_utils.zoo.senet import SqueezeExcite

FULL = ("mobilenet_v3_large", "mobilenet_v3_small")
TIMM = {
    "mobilenet_v3_large": "timm/mobilenetv3_large_100",
    "mobilenet_v3_large_x0_75": "timm/tf_mobilenetv3_large_075",
    "mobilenet_v3_small": "timm/mobilenetv3_small_100",
    "mobilenet_v3_small_x0_75": "timm/mobilenetv3_small_075",
    "mobilenet_v3_small_x0_5": "timm/mobilenetv3_small_050",
}


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def blocks_of(network):
    return [m for m in network.modules() if isinstance(m, InvertedResidual)]


@pytest.mark.parametrize(
    ("name", "rows", "head"),
    [("mobilenet_v3_large", LARGE, 1280), ("mobilenet_v3_small", SMALL, 1024)],
)
def test_the_table_is_torchvisions(name, rows, head):
    settings, last_channel = _mobilenet_v3_conf(name)
    theirs = [
        (
            s.kernel,
            s.expanded_channels,
            s.out_channels,
            s.use_se,
            "HS" if s.use_hs else "RE",
            s.stride,
        )
        for s in settings
    ]
    assert list(rows) == theirs
    assert head == last_channel == VARIANTS[name]["head"]


@pytest.mark.parametrize("name", FULL)
def test_same_tensors_as_torchvision(name):
    reference = nbs.reference_network(name, device="meta")
    assert [p.shape for p in on_meta(name).parameters()] == [
        p.shape for p in reference.parameters()
    ]


@pytest.mark.parametrize("name", VARIANTS)
def test_as_many_parameters_as_timm(name):
    reference = nbs.reference_network(TIMM[name], device="meta")
    assert nbs.count_parameters(on_meta(name)) == nbs.count_parameters(reference)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("mobilenet_v3_large", 5_483_032, 216_589_760),
        ("mobilenet_v3_large_x0_75", 3_993_528, 154_560_624),
        ("mobilenet_v3_small", 2_542_856, 56_510_400),
        ("mobilenet_v3_small_x0_75", 2_041_872, 43_399_344),
        ("mobilenet_v3_small_x0_5", 1_593_224, 24_188_688),
    ],
)
def test_counts(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize("name", FULL)
def test_same_function_as_torchvision(name):
    reference = nbs.reference_network(name)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


@pytest.mark.parametrize(
    "name", ["mobilenet_v3_small_x0_75", "mobilenet_v3_small_x0_5"]
)
def test_same_function_as_timm(name):
    reference = nbs.reference_network(TIMM[name])
    network = create_model(name, eps=1e-5).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


def test_epsilon_and_gate_are_seen_by_the_comparison():
    reference = nbs.reference_network("mobilenet_v3_small")
    for change in (
        {"eps": 1e-5},
        {"gate": lambda wide: SqueezeExcite(wide, hard_gate(wide).reduce.out_channels)},
    ):
        network = create_model("mobilenet_v3_small", **change).eval()
        assert nbs.transplant(reference, network).complete
        assert not nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


@pytest.mark.parametrize(
    ("wide", "hidden"), [(16, 8), (72, 24), (88, 24), (96, 24), (120, 32), (672, 168)]
)
def test_hidden_channels_of_a_gate(wide, hidden):
    gate = hard_gate(wide)
    assert gate.reduce.out_channels == hidden
    assert isinstance(gate.gate, nn.Hardsigmoid)
    assert isinstance(gate.activation, nn.ReLU)


@pytest.mark.parametrize(("name", "gates"), [(FULL[0], 8), (FULL[1], 9)])
def test_gates_and_activations_stand_where_the_table_says(name, gates):
    rows = VARIANTS[name]["blocks"]
    network = on_meta(name)
    blocks = blocks_of(network)
    assert len(blocks) == len(rows)
    for block, (kernel, wide, out, se, act, stride) in zip(blocks, rows, strict=True):
        depthwise = block.branch.depthwise
        assert depthwise.conv.kernel_size == (kernel, kernel)
        assert depthwise.conv.stride == (stride, stride)
        assert depthwise.conv.out_channels == depthwise.conv.groups == wide
        assert type(depthwise.act) is {"RE": nn.ReLU, "HS": nn.Hardswish}[act]
        assert hasattr(block.branch, "gate") == se
        assert block.branch.project.conv.out_channels == out
        assert not hasattr(block.branch.project, "act")
    assert sum(isinstance(m, nn.Hardsigmoid) for m in network.modules()) == gates


def test_every_norm_has_the_published_constants():
    norms = [m for m in on_meta(FULL[0]).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 46
    assert {(m.eps, m.momentum) for m in norms} == {(1e-3, 0.01)}


@pytest.mark.parametrize(
    ("width", "stem", "head"), [(0.5, 16, 1280), (1.0, 16, 1280), (1.5, 24, 1920)]
)
def test_stem_and_head_are_not_thinned(width, stem, head):
    network = on_meta(FULL[0], width=width)
    assert network.conv1.conv.out_channels == stem
    assert network.wide[0].out_features == network.fc.in_features == head


def test_wide_middles_are_rounded_from_the_rounded_ends():
    network = on_meta("mobilenet_v3_large_x0_75")
    ends = [block.branch.project.conv.out_channels for block in blocks_of(network)]
    assert ends[10:12] == [88, 88]  # of 84
    # 672 channels are 6 times 112: 6 times 88, not three quarters of 672
    assert network.bneck12.branch.depthwise.conv.out_channels == 528


def test_no_norm_behind_the_pooling():
    network = on_meta(FULL[1])
    assert [type(m) for m in network.wide] == [nn.Linear, nn.Hardswish]
    assert network.wide[0].bias is not None


@pytest.mark.parametrize(
    ("name", "sides"),
    [
        (FULL[0], [32, 32, 32, 32, 16, 16, 16, 8, 8, 8, 8, 8, 8, 4, 4, 4, 4]),
        (FULL[1], [32, 32, 16, 16, 8, 8, 8, 8, 8, 4, 4, 4, 4]),
    ],
)
def test_small_images_keep_their_size_longer(name, sides):
    network = on_meta(name, stem="cifar", num_classes=10)
    x, found = torch.empty(1, 3, 32, 32, device="meta"), []
    for stage, layer in network.named_children():
        if stage == "pool":
            break
        x = layer(x)
        found.append(x.shape[-1])
    assert found == sides


def test_pooling_before_h_swish_loses_a_sixth_of_the_variance():
    torch.manual_seed(0)
    z = torch.randn(4, 8, 5, 5, dtype=torch.float64).clamp(-3, 3)
    act = nn.Hardswish()
    gap = act(z).mean((2, 3)) - act(z.mean((2, 3)))
    torch.testing.assert_close(gap, z.var((2, 3), unbiased=False) / 6)


def test_the_largest_difference_of_h_swish_and_swish():
    z = torch.linspace(-6, 6, 120_001, dtype=torch.float64)
    gap = nn.Hardswish()(z) - nn.SiLU()(z)
    assert gap.max().item() == pytest.approx(3 / (1 + math.exp(3)), abs=1e-9)
    torch.testing.assert_close(gap, gap.flip(0))


def test_blocks_are_an_argument():
    network = MobileNetV3(((5, 24, 16, True, "HS", 2),), head=32, num_classes=5)
    assert network(torch.randn(2, 3, 33, 47)).shape == (2, 5)
