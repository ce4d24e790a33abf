"""The Xception chapter's network against its references and against arithmetic."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.xception import SeparableConv2d, Xception, XceptionModule


def on_meta(name="xception", **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def shapes(network):
    return [tuple(p.shape) for p in network.parameters()]


def test_same_tensors_as_timm():
    theirs = nbs.reference_network("timm/legacy_xception", device="meta")
    assert shapes(on_meta()) == shapes(theirs)


@pytest.mark.parametrize(
    ("there", "side"),
    [
        ("timm/legacy_xception", 71),
        pytest.param("timm/legacy_xception", 299, marks=pytest.mark.slow),
        pytest.param("ptcv/xception", 299, marks=pytest.mark.slow),  # takes no other
    ],
)
def test_same_logits_as_the_reference(there, side):
    reference, network = nbs.reference_network(there), create_model("xception").eval()
    assert nbs.transplant(reference, network, (3, side, side)).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison


def test_counts():
    network = on_meta()
    assert nbs.count_parameters(network) == 22_855_952  # the paper's Table 3
    table = nbs.stage_table(network, (3, 299, 299)).set_index("stage")
    assert table.loc["middle_flow", "output shape"] == "728 x 19 x 19"
    assert table.loc["exit_flow", "output shape"] == "2048 x 10 x 10"


def test_layers_and_modules_of_the_paper():
    network = on_meta()
    layers = [
        (path, m)
        for path, m in network.named_modules()
        if isinstance(m, nn.Conv2d) and ".shortcut" not in path
    ]
    pointwise = [m for _, m in layers if m.kernel_size == (1, 1)]
    assert len(layers) - len(pointwise) == 36
    assert len(pointwise) == 34  # all but the two of the stem
    flows = network.entry_flow, network.middle_flow, network.exit_flow
    assert [len(flow) for flow in flows] == [4, 8, 2]
    assert sum(isinstance(m, XceptionModule) for m in network.modules()) == 12


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_separable_convolution_is_an_ordinary_one_of_low_rank(stride, multiplier):
    torch.manual_seed(0)
    layer = SeparableConv2d(4, 7, 3, stride, depth_multiplier=multiplier).double()
    x = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    k = layer.depthwise.weight.view(4, multiplier, 3, 3)
    p = layer.pointwise.weight.view(7, 4, multiplier)
    kernel = torch.einsum("ocm,cmij->ocij", p, k)
    expected = F.conv2d(x, kernel, stride=stride, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=0, atol=1e-12)
    ranks = torch.linalg.matrix_rank(kernel.movedim(1, 0).flatten(2))
    assert ranks.tolist() == [multiplier] * 4
    assert not any("bias" in name for name, _ in layer.named_parameters())


def test_an_activation_stands_between_the_parts():
    torch.manual_seed(0)
    layer = SeparableConv2d(3, 5, 5, padding=0, act=nn.Tanh)
    x = torch.randn(2, 3, 9, 9)
    between = F.conv2d(x, layer.depthwise.weight, groups=3).tanh()
    torch.testing.assert_close(layer(x), F.conv2d(between, layer.pointwise.weight))
    assert layer(x).shape == (2, 5, 5, 5)
    assert [name for name, _ in layer.named_children()] == [
        "depthwise",
        "act",
        "pointwise",
    ]


def test_the_shortcut_sees_the_input_as_it_is():
    module = XceptionModule(6, 6, 6, 6).eval()
    with torch.no_grad():
        module.residual[-1].weight.zero_()  # the last norm says nothing
    x = torch.randn(2, 6, 5, 5)
    kept = x.clone()
    assert torch.equal(module(x), kept)
    assert torch.equal(x, kept)


def test_the_first_relu_can_be_left_out():
    kinds = [
        [type(m) for m in XceptionModule(4, 8, stride=2, first_relu=first).residual]
        for first in (True, False)
    ]
    assert kinds[0] == [nn.ReLU, *kinds[1]]
    assert kinds[1] == [SeparableConv2d, nn.BatchNorm2d, nn.MaxPool2d]


def test_first_weights():
    """Nothing follows a depthwise layer: variance 1 / 9; elsewhere He's 2 / fan-in."""
    torch.manual_seed(0)
    network = Xception(middle=1, num_classes=2)
    deep, wide = network.middle_flow[0].residual[1]
    assert abs(deep.weight.std().item() * 3 - 1) < 0.03
    assert abs(wide.weight.std().item() / (2 / 728) ** 0.5 - 1) < 0.01
    stem = network.entry_flow[0][1].conv.weight
    assert abs(stem.std().item() / (2 / 288) ** 0.5 - 1) < 0.02


def test_width_depth_and_dropout_are_arguments():
    mini = on_meta("xception_mini", num_classes=10)
    assert len(mini.middle_flow) == 4
    assert mini.dropout.p == 0
    assert mini.fc.in_features == 512
    assert mini.middle_flow[0].residual[1].depthwise.in_channels == 182
    assert mini.entry_flow[0][0].conv.out_channels == 16  # not 8
    assert on_meta().dropout.p == 0.5


def test_maps_of_small_images():
    network = on_meta("xception_mini", num_classes=3, image_size=32)
    x = torch.empty(1, 3, 32, 32, device="meta")
    sides = []
    for part in (*network.entry_flow, network.middle_flow, network.exit_flow):
        x = part(x)
        sides.append(x.shape[-1])
    assert sides == [32, 16, 8, 4, 4, 2]


def test_the_smallest_image():
    network = create_model("xception_mini", 3).eval()
    assert network(torch.zeros(1, 3, 7, 7)).shape == (1, 3)
    with pytest.raises(ValueError, match="at least 7 x 7"):
        network(torch.zeros(1, 3, 6, 6))
