"""MobileNet v2: rounding, the references' counts and function, what a block may do."""

from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models._utils import _make_divisible

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.mobilenet_v2 import (
    WIDTHS,
    InvertedResidual,
    MobileNetV2,
    round_channels,
)
from nbs_utils.zoo.senet import SqueezeExcite


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


@pytest.mark.parametrize(
    ("value", "rounded"),
    [(11.2, 16), (22.4, 24), (33.6, 32), (12, 16), (11.9, 16), (8.8, 8), (1, 8)],
)
def test_rounding(value, rounded):
    assert round_channels(value) == rounded


@pytest.mark.parametrize("divisor", [4, 8, 16])
def test_rounding_is_torchvisions(divisor):
    for value in torch.arange(0.25, 700, 0.25).tolist():
        assert round_channels(value, divisor) == _make_divisible(value, divisor)


@pytest.mark.parametrize("name", WIDTHS)
def test_same_tensors_as_torchvision(name):
    reference = nbs.reference_network(
        "mobilenet_v2", width_mult=WIDTHS[name], device="meta"
    )
    network = on_meta(name)
    assert [p.shape for p in network.parameters()] == [
        p.shape for p in reference.parameters()
    ]


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("mobilenet_v2_x0_35", 1_677_128, 59_285_808),
        ("mobilenet_v2", 3_504_872, 300_774_272),
        ("mobilenet_v2_x1_4", 6_108_776, 582_195_824),
    ],
)
def test_counts(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize("name", ["mobilenet_v2_x0_35", "mobilenet_v2_x1_4"])
def test_same_function_as_torchvision(name):
    reference = nbs.reference_network("mobilenet_v2", width_mult=WIDTHS[name])
    network = create_model(name).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


def test_same_function_as_timm():
    reference = nbs.reference_network("timm/mobilenetv2_035")
    network = create_model("mobilenet_v2_x0_35").eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


@pytest.mark.parametrize(("width", "wide"), [(0.35, 1280), (1.0, 1280), (1.4, 1792)])
def test_the_last_convolution_is_not_thinned(width, wide):
    network = on_meta("mobilenet_v2", width=width)
    assert network.conv2.conv.out_channels == wide == network.fc.in_features


def test_seventeen_blocks_of_which_ten_add_their_input():
    blocks = [
        m for m in on_meta("mobilenet_v2").modules() if isinstance(m, InvertedResidual)
    ]
    assert len(blocks) == 17
    assert sum(block.shortcut for block in blocks) == 10
    assert all(not hasattr(block.branch.project, "act") for block in blocks)


def test_small_images_keep_their_size_longer():
    network = on_meta("mobilenet_v2", stem="cifar", num_classes=10)
    x = network.conv1(torch.empty(1, 3, 32, 32, device="meta"))
    sides = [x.shape[-1]]
    for i in range(1, 8):
        x = getattr(network, f"bottleneck{i}")(x)
        sides.append(x.shape[-1])
    assert sides == [32, 32, 32, 16, 8, 8, 4, 4]


def zeroed(block):
    nn.init.zeros_(block.branch.project.norm.weight)
    return block.eval()


@pytest.mark.parametrize(
    ("shape", "options", "adds"),
    [
        ((8, 8, 1), {}, True),
        ((8, 8, 1), {"linear": False}, True),
        ((8, 8, 1), {"shortcut": False}, False),
        ((8, 8, 2), {}, False),
        ((8, 16, 1), {}, False),
    ],
)
def test_the_input_is_added_where_shapes_agree(shape, options, adds):
    block = zeroed(InvertedResidual(*shape, **options))
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        y = block(x)
    assert torch.equal(y, x) if adds else not y.any()


@pytest.mark.parametrize(("linear", "negative"), [(True, True), (False, False)])
def test_the_end_is_linear_unless_it_is_told_otherwise(linear, negative):
    torch.manual_seed(0)
    branch = InvertedResidual(8, 8, linear=linear).branch
    with torch.no_grad():
        y = branch(torch.randn(4, 8, 6, 6))
    assert (y < 0).any() == negative


@pytest.mark.parametrize(
    ("channels", "ratio", "wide"), [(24, 88 / 24, 88), (40, 240 / 40, 240), (16, 1, 16)]
)
def test_expansions_that_are_no_whole_numbers(channels, ratio, wide):
    branch = InvertedResidual(channels, 8, expand_ratio=ratio).branch
    assert branch.depthwise.conv.groups == branch.depthwise.conv.out_channels == wide
    assert hasattr(branch, "expand") == (wide != channels)


def test_kernel_activation_and_norm_are_arguments():
    norm = partial(nn.BatchNorm2d, eps=1e-3, momentum=0.01)
    block = InvertedResidual(
        8, 8, stride=2, kernel_size=5, activation=nn.SiLU, norm=norm
    )
    assert block.branch.depthwise.conv.kernel_size == (5, 5)
    assert block(torch.randn(2, 8, 9, 9)).shape == (2, 8, 5, 5)
    kinds = [type(m) for m in block.modules()]
    assert kinds.count(nn.SiLU) == 2
    assert nn.ReLU6 not in kinds
    norms = [m for m in block.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(m.eps, m.momentum) for m in norms] == [(1e-3, 0.01)] * 3


def test_a_gate_acts_on_the_filtered_wide_middle():
    torch.manual_seed(0)
    gate = partial(SqueezeExcite, reduced=2)
    block = InvertedResidual(8, 8, gate=gate).eval()
    parts = block.branch
    x = torch.randn(2, 8, 6, 6)
    with torch.no_grad():
        wide = parts.gate(parts.depthwise(parts.expand(x)))
        assert wide.shape == (2, 48, 6, 6)
        torch.testing.assert_close(block(x), x + parts.project(wide))


def test_stochastic_depth_leaves_out_the_branch_of_some_images():
    torch.manual_seed(0)
    block = InvertedResidual(8, 8, drop_path=0.5).train()
    x = torch.randn(64, 8, 4, 4)
    with torch.no_grad():
        left_out = (block(x) == x).flatten(1).all(1)
    assert 16 < left_out.sum() < 48


def test_the_range_of_relu6_is_seen_by_the_comparison():
    reference = nbs.reference_network("mobilenet_v2", width_mult=0.35)
    network = create_model("mobilenet_v2_x0_35", activation=nn.ReLU).eval()
    assert nbs.transplant(reference, network).complete
    assert not nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


def test_stages_are_an_argument():
    network = MobileNetV2(stages=((1, 16, 1, 1), (3, 24, 2, 2)), num_classes=5)
    assert network(torch.randn(2, 3, 33, 47)).shape == (2, 5)
