"""ShuffleNet v1: the counts of the paper and the reference, the shuffle, isolation."""

import copy
import itertools

import pytest
import torch
from einops import rearrange
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import enliven
from nbs_utils.zoo import create_model, list_models, model_entry
from nbs_utils.zoo.shufflenet_v1 import ShuffleNet, ShuffleUnit, channel_shuffle

NAMES = sorted(name for name in list_models() if name.startswith("shufflenet_v1_"))


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def theirs(name):
    """Build pytorchcv's network with the sizes of one of ours, seeded and alive."""
    from pytorchcv.models.shufflenet import ShuffleNet as Reference

    options = model_entry(name).configuration
    sizes = [[options["channels"] * 2**i] * n for i, n in enumerate((4, 8, 4))]
    torch.manual_seed(0)
    stem = options.get("stem_channels", 24)
    network = Reference(sizes, stem, options["groups"])
    enliven(network)
    return network.eval()


# --- the reference


@pytest.mark.parametrize("groups", [1, 2, 3, 4, 8])
def test_same_tensors_as_pytorchcv(groups):
    reference = nbs.reference_network(f"ptcv/shufflenet_g{groups}_w1", device="meta")
    ours = on_meta(f"shufflenet_v1_x1_0_g{groups}")
    shapes = [[tuple(p.shape) for p in net.parameters()] for net in (ours, reference)]
    assert shapes[0] == shapes[1]


@pytest.mark.parametrize("groups", [1, 3])
def test_half_as_wide_as_pytorchcv(groups):
    reference = nbs.reference_network(f"ptcv/shufflenet_g{groups}_wd2", device="meta")
    ours = on_meta(f"shufflenet_v1_x0_5_g{groups}")
    shapes = [[tuple(p.shape) for p in net.parameters()] for net in (ours, reference)]
    assert shapes[0] == shapes[1]


FAST = ("shufflenet_v1_x0_5_g8", "shufflenet_v1_x1_0_g4")


@pytest.mark.parametrize(
    "name",
    [n if n in FAST else pytest.param(n, marks=pytest.mark.slow) for n in NAMES],
)
def test_same_logits_as_pytorchcv(name):
    # its last pooling is fixed at 7x7, so that it takes 193 to 224 pixels only
    reference, ours = theirs(name), create_model(name).eval()
    assert nbs.transplant(reference, ours, (3, 193, 193)).complete
    comparison = nbs.compare(ours, reference, input_size=(3, 193, 193))
    assert comparison.agrees, comparison


# --- counts


@pytest.mark.parametrize(
    ("name", "printed", "with_classifier"),
    [
        *((f"x1_0_g{g}", n, False) for g, n in zip((1, 2, 4, 8), (143, 140, 133, 137))),
        *(("x1_0_g3", 137, False), ("x1_0_g3", 137, True)),
        *(("x1_5_g3", 292, True), ("x2_0_g3", 524, True), ("x0_5_g1", 38, False)),
        *(("x0_5_g8", 40, False), ("x0_5_g3", 38, True)),
    ],
)
def test_multiply_adds_are_the_printed_ones(name, printed, with_classifier):
    network = on_meta(f"shufflenet_v1_{name}")
    head = 0 if with_classifier else network.fc.weight.numel()
    assert round((nbs.count_macs(network) - head) / 1e6) == printed


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("x1_0_g3", 1.9), ("x1_0_g8", 2.4), ("x0_5_g8", 1.0), ("x2_0_g3", 5.4)],
)
def test_parameters_of_the_authors_code(name, parameters):
    # it has no biases in the classifier
    count = nbs.count_parameters(on_meta(f"shufflenet_v1_{name}")) - 1000
    assert round(count / 1e6, 1) == parameters


@pytest.mark.parametrize(("stride", "added"), [(1, 240), (2, 120)])
def test_the_unit_costs_what_the_formula_says(stride, added):
    c_in = 240 if stride == 1 else 120
    unit = ShuffleUnit(c_in, 240, 3, stride)
    small = (28 // stride) ** 2
    expected = 28**2 * c_in * 60 // 3 + small * (9 * 60 + 60 * added // 3)
    assert nbs.count_macs(unit, (c_in, 28, 28)) == expected


def test_only_the_first_pointwise_convolution_is_dense():
    network = on_meta("shufflenet_v1_x1_0_g3")
    units = [*network.stage2, *network.stage3, *network.stage4]
    assert [unit.compress.conv.groups for unit in units] == [1] + [3] * 15
    assert {unit.expand.conv.groups for unit in units} == {3}
    assert all(not hasattr(unit.depthwise, "act") for unit in units)
    assert all(not hasattr(unit.expand, "act") for unit in units)


def test_channels_that_make_no_groups_are_named():
    with pytest.raises(ValueError, match="neck of 25 and computes 88"):
        ShuffleNet(2, 100, stem_channels=12)
    with pytest.raises(ValueError, match="computes 180, and these do not make 8"):
        create_model("shufflenet_v1_x0_5_g8", stem_channels=12)


# --- the shuffle


@pytest.mark.parametrize(("groups", "channels"), [(1, 6), (2, 6), (3, 12), (8, 96)])
def test_all_ways_to_shuffle_agree(groups, channels):
    torch.manual_seed(0)
    x = torch.randn(2, channels, 3, 5)
    n = channels // groups
    expected = torch.empty_like(x)
    for i, a in itertools.product(range(groups), range(n)):
        expected[:, a * groups + i] = x[:, i * n + a]
    for layout in (torch.contiguous_format, torch.channels_last):
        y = channel_shuffle(x.contiguous(memory_format=layout), groups)
        assert torch.equal(y, expected)
    assert torch.equal(F.channel_shuffle(x, groups), expected)
    assert torch.equal(rearrange(x, "b (g n) h w -> b (n g) h w", g=groups), expected)
    assert torch.equal(channel_shuffle(expected, n), x)


def reached(module, channels):
    """Return by gradients on positive weights which inputs reach which outputs."""
    module = copy.deepcopy(module).double().eval()
    for weight in module.parameters():
        weight.data.abs_()
    x = torch.ones(1, channels, 1, 1, dtype=torch.float64, requires_grad=True)
    y = module(x).flatten()
    rows = [torch.autograd.grad(v, x, retain_graph=True)[0].flatten() for v in y]
    return torch.stack(rows) > 0


@pytest.mark.parametrize("groups", [2, 4, 8])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_without_a_shuffle_an_output_sees_a_share_of_the_inputs(groups, depth):
    torch.manual_seed(0)
    c = 4 * groups * groups  # as many channels in a group of the neck as groups
    units = [ShuffleUnit(c, c, groups, shuffle=False) for _ in range(depth)]
    seen = reached(nn.Sequential(*units), c)
    blocks = torch.block_diag(*[torch.ones(c // groups, c // groups)] * groups)
    assert torch.equal(seen, blocks.bool())
    shuffled = [ShuffleUnit(c, c, groups) for _ in range(depth)]
    assert reached(nn.Sequential(*shuffled), c).all()


def test_gradients_of_an_isolated_network_are_exactly_zero():
    # also with ordinary weights, on images, while training: batch norm keeps channels
    torch.manual_seed(0)
    units = nn.Sequential(*(ShuffleUnit(24, 24, 3, shuffle=False) for _ in range(3)))
    x = torch.randn(4, 24, 6, 6, requires_grad=True)
    units(x)[:, :8].square().sum().backward()
    assert (x.grad[:, 8:] == 0).all()
    assert (x.grad[:, :8] != 0).any(dim=3).any(dim=2).all()


def test_with_few_channels_in_a_group_some_groups_are_not_heard():
    unit = ShuffleUnit(192, 192, 8)  # 0.5x: a neck of 48, six channels in each group
    seen = reached(unit, 192).unflatten(1, (8, 24)).any(2).unflatten(0, (8, 24)).any(1)
    for j in range(8):
        heard = {(6 * j + k) % 8 for k in range(6)} | {j}
        assert set(seen[j].nonzero().flatten().tolist()) == heard


@pytest.mark.parametrize(
    ("groups", "share"), [(2, 1), (3, 2 / 3), (4, 1 / 2), (8, 1 / 4)]
)
def test_a_concatenation_joins_two_groups(groups, share):
    c = 8 * groups
    stage = nn.Sequential(
        ShuffleUnit(c, 2 * c, groups, 2, shuffle=False),
        ShuffleUnit(2 * c, 2 * c, groups, shuffle=False),
    )
    seen = reached(stage, c).double().mean(dim=1)
    torch.testing.assert_close(seen, torch.full_like(seen, share))


# --- the unit against a plain formula


@pytest.mark.parametrize("stride", [1, 2])
def test_the_unit_is_what_the_paper_draws(stride):
    torch.manual_seed(0)
    c_in = 24 if stride == 1 else 12
    unit = ShuffleUnit(c_in, 24, 3, stride).double().eval()
    enliven(unit)
    x = torch.randn(2, c_in, 7, 9, dtype=torch.float64)

    def layer(block, x, **options):
        y = F.conv2d(x, block.conv.weight, **options)
        norm = block.norm
        y = (y - norm.running_mean[:, None, None]) / (
            norm.running_var[:, None, None] + norm.eps
        ).sqrt()
        return y * norm.weight[:, None, None] + norm.bias[:, None, None]

    y = layer(unit.compress, x, groups=3).clamp_min(0)
    y = y[:, [0, 2, 4, 1, 3, 5]]  # three groups of two channels, dealt out in turn
    y = layer(unit.depthwise, y, stride=stride, padding=1, groups=6)
    y = layer(unit.expand, y, groups=3)
    if stride == 1:
        expected = (x + y).clamp_min(0)
    else:
        expected = torch.cat((y, F.avg_pool2d(x, 3, 2, 1)), dim=1).clamp_min(0)
    torch.testing.assert_close(unit(x), expected, rtol=0, atol=1e-10)


def test_a_relu_behind_the_average_changes_nothing():
    # the authors' code puts the ReLU on the branch alone
    network = create_model("shufflenet_v1_x0_5_g3").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        u = network.maxpool(network.conv1(x))
        for stage in (network.stage2, network.stage3, network.stage4):
            pooled = stage[0].pool(u)
            assert (pooled >= 0).all()
            u = stage(u)


def test_a_cifar_stem_keeps_the_size():
    network = ShuffleNet(3, 24, 12, (1, 1), stem="cifar", num_classes=5)
    with torch.no_grad():
        assert network.conv1(torch.zeros(1, 3, 32, 32)).shape[2:] == (32, 32)
        assert network(torch.zeros(2, 3, 33, 31)).shape == (2, 5)
    assert not hasattr(network, "maxpool")
