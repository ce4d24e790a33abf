"""ConvNeXt: the counts and function of torchvision, its rates, its layer scale."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.convnext import ConvNeXt, ConvNeXtBlock, LayerNorm2d
from nbs_utils.zoo.swin import StochasticDepth

VARIANTS = ["convnext_tiny", "convnext_small", "convnext_base", "convnext_large"]


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def small(**changes):
    torch.manual_seed(0)
    options = {"depths": (1, 2), "widths": (8, 16), "num_classes": 5} | changes
    return ConvNeXt(**options).double().eval()


def blocks_of(network):
    return [m for m in network.modules() if isinstance(m, ConvNeXtBlock)]


@pytest.mark.parametrize(
    ("name", "parameters", "billions"),
    [
        ("convnext_tiny", 28_589_128, 4.456),
        ("convnext_small", 50_223_688, 8.684),
        ("convnext_base", 88_591_464, 15.355),
        ("convnext_large", 197_767_336, 34.361),
    ],
)
def test_counts(name, parameters, billions):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert round(nbs.count_macs(network) / 1e9, 3) == billions


@pytest.mark.parametrize("name", VARIANTS)
def test_same_tensors_as_torchvision(name):
    theirs = nbs.reference_network(name, device="meta")
    ours = [p.numel() for p in on_meta(name).parameters()]
    assert ours == [p.numel() for p in theirs.parameters()]


@pytest.mark.parametrize(
    "name",
    [
        "convnext_tiny",
        *(pytest.param(n, marks=pytest.mark.slow) for n in VARIANTS[1:]),
    ],
)
def test_same_logits_as_torchvision(name):
    reference = nbs.reference_network(name)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network, (3, 64, 64)).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


@pytest.mark.parametrize("name", VARIANTS)
def test_rates_of_stochastic_depth_are_torchvisions(name):
    theirs = nbs.reference_network(name, device="meta")
    expected = [m.p for m in theirs.modules() if type(m).__name__ == "StochasticDepth"]
    ours = [m.p for m in on_meta(name).modules() if isinstance(m, StochasticDepth)]
    assert ours == pytest.approx(expected)
    assert ours[0] == 0


def test_one_block_alone_has_no_rate():
    network = ConvNeXt((1,), (8,), drop_path=0.3, num_classes=2)
    assert [m.p for m in network.modules() if isinstance(m, StochasticDepth)] == [0]


def test_the_norm_is_that_of_each_position():
    torch.manual_seed(0)
    norm = LayerNorm2d(6).double()
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    x = torch.randn(2, 6, 4, 5, dtype=torch.float64)
    one = F.layer_norm(x[1, :, 2, 3], (6,), norm.weight, norm.bias, 1e-6)
    torch.testing.assert_close(norm(x)[1, :, 2, 3], one)


def test_the_block_is_the_formula():
    torch.manual_seed(0)
    block = ConvNeXtBlock(6, layer_scale=0.5, kernel_size=5).double()
    nn.init.normal_(block.layer_scale)
    x = torch.randn(2, 6, 7, 9, dtype=torch.float64)
    y = F.conv2d(x, block.depthwise.weight, block.depthwise.bias, padding=2, groups=6)
    y = (y - y.mean(1, keepdim=True)) / (y.var(1, False, keepdim=True) + 1e-6).sqrt()
    wide, narrow = block.mlp[0], block.mlp[3]
    y = F.gelu(torch.einsum("bchw,dc->bdhw", y, wide.weight) + wide.bias[:, None, None])
    y = torch.einsum("bdhw,cd->bchw", y, narrow.weight) + narrow.bias[:, None, None]
    expected = x + block.layer_scale[:, None, None] * y
    torch.testing.assert_close(block(x), expected)


def test_fresh_blocks_are_nearly_the_identity():
    network = small()
    for block in blocks_of(network):
        assert block.layer_scale.tolist() == pytest.approx(
            [1e-6] * len(block.layer_scale)
        )
    x = torch.randn(2, 8, 9, 9, dtype=torch.float64)
    change = (blocks_of(network)[0](x) - x).norm() / x.norm()
    assert 0 < change < 1e-5


def test_layer_scale_is_applied_before_the_sum():
    network = small()
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    for block in blocks_of(network):
        nn.init.zeros_(block.layer_scale)
    without = network(x)
    for stage in (network.res2, network.res3):
        for i, module in enumerate(stage):
            if isinstance(module, ConvNeXtBlock):
                stage[i] = nn.Identity()
    torch.testing.assert_close(network(x), without)


def test_scales_do_not_decay():
    from nbs_utils.training import Recipe
    from nbs_utils.training.schedule import parameter_groups

    network = small()
    groups = parameter_groups(network, Recipe.load("short-adamw"))
    decayed = {id(p) for g in groups if g["weight_decay"] for p in g["params"]}
    assert decayed
    assert not any(id(b.layer_scale) in decayed for b in blocks_of(network))


@pytest.mark.parametrize(("stem", "least"), [("imagenet", 8), ("cifar", 4)])
def test_the_smallest_image(stem, least):
    network = small(stem=stem)
    side = least
    assert network(torch.zeros(1, 3, side, side).double()).shape == (1, 5)
    with pytest.raises(ValueError, match="this network needs at least"):
        network(torch.zeros(1, 3, side - 1, side - 1).double())


def test_pixels_beyond_the_last_patch_are_not_read():
    network = small()
    x = torch.randn(1, 3, 35, 33, dtype=torch.float64)
    torch.testing.assert_close(network(x), network(x[:, :, :32, :32]))


def test_a_position_of_the_last_map_reads_through_the_blocks():
    network = ConvNeXt((1, 1), (4, 8), kernel_size=7, num_classes=2)
    field = nbs.counting.receptive_field(network, (3, 96, 96), layer="res3")
    # patches of 4: one 7x7 at stride 4, a 2x2, one 7x7 at stride 8
    assert field.size == (4 + 6 * 4 + 4 + 6 * 8,) * 2
