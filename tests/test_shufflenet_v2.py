"""ShuffleNet v2: the counts of the paper and the reference, what passes, who reads whom."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.shufflenet_v2 import VARIANTS, ShuffleNetV2, SplitUnit


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


# --- the reference


@pytest.mark.parametrize("name", VARIANTS)
def test_same_tensors_as_torchvision(name):
    reference = nbs.reference_network(name, device="meta")
    shapes = [[p.shape for p in n.parameters()] for n in (on_meta(name), reference)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize(
    "name",
    [
        "shufflenet_v2_x0_5",
        pytest.param("shufflenet_v2_x1_0", marks=pytest.mark.slow),
        pytest.param("shufflenet_v2_x1_5", marks=pytest.mark.slow),
        pytest.param("shufflenet_v2_x2_0", marks=pytest.mark.slow),
    ],
)
def test_same_logits_as_torchvision(name):
    reference, ours = nbs.reference_network(name), create_model(name).eval()
    assert nbs.transplant(reference, ours).complete
    comparison = nbs.compare(ours, reference, input_size=(3, 96, 96))
    assert comparison.agrees, comparison


# --- counts


@pytest.mark.parametrize(
    ("name", "flops", "weights"),  # millions, Table 5 of the paper
    [
        ("shufflenet_v2_x0_5", 41, 1.4),
        ("shufflenet_v2_x1_0", 146, 2.3),
        ("shufflenet_v2_x1_5", 299, 3.5),
        ("shufflenet_v2_x2_0", 591, 7.4),
    ],
)
def test_counts_of_the_paper(name, flops, weights):
    network = on_meta(name)
    assert round(nbs.count_parameters(network) / 1e6, 1) == weights
    assert 1.007 < flops * 1e6 / nbs.count_macs(network) < 1.014


def test_a_unit_counted_by_hand():
    half, area = 58, 28 * 28
    unit = SplitUnit(2 * half, 2 * half)
    assert nbs.count_parameters(unit) == 2 * half**2 + 9 * half + 3 * 2 * half
    macs = nbs.count_macs(unit, (2 * half, 28, 28))
    assert macs == area * (2 * half**2 + 9 * half)


# --- the unit


def reads(unit, channels):
    """Tell which output channels depend on which input channels, by gradients."""
    x = torch.randn(1, channels, 5, 5, requires_grad=True)
    y = unit.eval()(x)
    rows = []
    for c in range(y.shape[1]):
        (gradient,) = torch.autograd.grad(y[0, c].sum(), x, retain_graph=True)
        rows.append(gradient[0].flatten(1).abs().sum(1) > 0)
    return torch.stack(rows)


def leaky(network):
    """Return the network with no dead units, so that every gradient shows."""
    for module in network.modules():
        if hasattr(module, "act"):
            module.act = nn.LeakyReLU(0.3)
    return network


def test_half_passes_and_the_other_half_is_read():
    torch.manual_seed(0)
    seen = reads(leaky(SplitUnit(8, 8)), 8)
    passed = torch.eye(8, dtype=torch.bool)[:4]
    assert torch.equal(seen[0::2], passed)
    assert seen[1::2, 4:].all() and not seen[1::2, :4].any()


@pytest.mark.parametrize("shuffle", [True, False])
def test_without_the_shuffle_two_halves_never_meet(shuffle):
    torch.manual_seed(0)
    units = [leaky(SplitUnit(16, 16, shuffle=shuffle)) for _ in range(5)]
    seen = reads(nn.Sequential(*units), 16)
    if shuffle:  # all but the first channel, which is dealt to its own place
        assert seen[1::2, 1:].all()
        assert not seen[1:, 0].any()
    else:
        assert torch.equal(seen[:8], torch.eye(16, dtype=torch.bool)[:8])
        assert not seen[8:, :8].any()


def test_of_the_old_channels_half_are_left():
    channels, unit = 64, SplitUnit(64, 64).eval()
    x = torch.arange(1.0, channels + 1).view(1, -1, 1, 1)
    for layer in unit.branch:  # what is computed is marked by zero
        nn.init.zeros_(layer.norm.weight)
    left = []
    for _ in range(6):
        with torch.no_grad():
            x = unit(x)
        left.append((x != 0).sum().item())
    assert left == [32, 16, 8, 4, 2, 1]


def test_with_a_stride_both_branches_read_all():
    torch.manual_seed(0)
    unit = leaky(SplitUnit(6, 10, stride=2))
    assert reads(unit, 6).all()
    assert unit(torch.zeros(2, 6, 7, 9)).shape == (2, 10, 4, 5)


@pytest.mark.parametrize(("channels", "out"), [(8, 9), (8, 12), (7, 7)])
def test_what_cannot_be_split_is_said(channels, out):
    with pytest.raises(ValueError, match="cannot split"):
        SplitUnit(channels, out)


# --- the network


def test_small_images_keep_their_size_in_the_stem():
    network = ShuffleNetV2((8, 16, 32, 64, 64), (1, 2, 1), stem="cifar", num_classes=10)
    maps = {}
    for name in ("conv1", "stage2", "stage4"):
        network.get_submodule(name).register_forward_hook(
            lambda m, i, out, name=name: maps.update({name: out.shape[-1]})
        )
    assert network.eval()(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert maps == {"conv1": 32, "stage2": 16, "stage4": 4}
