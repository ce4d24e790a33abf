"""Batch norm: PyTorch's layer in both directions, and the network it was made for."""

import copy

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.batchnorm import (
    FIGURE_5,
    BatchNorm2d,
    BNInception,
    HalvingPool,
    InceptionModule,
    NormalizeBatch,
    fold_norms,
    make_stem,
)

NAMES = ["output", "to x", "to gamma", "to beta", "running mean", "running variance"]


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


# --- the layer


def twins(channels, **options):
    theirs = nn.BatchNorm2d(channels, **options).double()
    with torch.no_grad():
        theirs.weight.normal_()
        theirs.bias.normal_()
    ours = BatchNorm2d(channels, **options).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def everything(norm, x, above):
    x = x.clone().requires_grad_()
    y = norm(x)
    gradients = torch.autograd.grad((y * above).sum(), (x, norm.weight, norm.bias))
    return y, *gradients, norm.running_mean.clone(), norm.running_var.clone()


@pytest.mark.parametrize("momentum", [0.1, 0.01, 0.0, 1.0, None])
@pytest.mark.parametrize("shape", [(2, 3, 1, 1), (3, 5, 4, 2), (1, 2, 3, 3)])
def test_layer_is_pytorchs_in_training_and_evaluation(momentum, shape):
    torch.manual_seed(0)
    ours, theirs = twins(shape[1], eps=0.1, momentum=momentum)
    for step in range(5):
        if step == 3:
            ours.eval(), theirs.eval()
        x, above = 2 * torch.randn(2, *shape, dtype=torch.float64) + 3
        both = zip(NAMES, everything(ours, x, above), everything(theirs, x, above))
        for name, a, b in both:
            torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11, msg=name)
    assert ours.num_batches_tracked == theirs.num_batches_tracked == 3
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_layer_in_single_precision():
    torch.manual_seed(0)
    ours, theirs = (norm.float() for norm in twins(8))
    x, above = torch.randn(2, 16, 8, 5, 5)
    for a, b in zip(everything(ours, x, above), everything(theirs, x, above)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_backward_pass_is_the_derivative():
    torch.manual_seed(0)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(2, 3, dtype=torch.float64)
    inputs = x, weight.requires_grad_(), bias.requires_grad_()
    assert torch.autograd.gradcheck(
        lambda *inputs: NormalizeBatch.apply(*inputs, 1e-3)[0], inputs
    )


def test_one_value_for_each_channel_gets_a_sentence():
    with pytest.raises(ValueError, match="more than one value"):
        BatchNorm2d(3)(torch.zeros(1, 3, 1, 1))
    assert BatchNorm2d(3).eval()(torch.zeros(1, 3, 1, 1)).shape == (1, 3, 1, 1)


# --- the network


def count_by_hand(projection, first_layer):
    """Count the parameters of Figure 5 from its rows alone."""

    def layer(c_in, c_out, side):
        return c_in * c_out * side**2 + 2 * c_out  # weights, gamma and beta

    total, channels = first_layer + layer(64, 64, 1) + layer(64, 192, 3), 192
    for one, reduce, three, reduce_double, double, last, _ in FIGURE_5.values():
        last = projection if last is None else last
        total += layer(channels, reduce, 1) + layer(reduce, three, 3)
        total += layer(channels, reduce_double, 1) + layer(reduce_double, double, 3)
        total += layer(double, double, 3)
        if one:
            total += layer(channels, one, 1) + layer(channels, last, 1)
            channels = one + three + double + last
        else:
            channels += three + double
    return total + channels * 1000 + 1000


@pytest.mark.parametrize(
    ("name", "projection", "first_layer", "parameters", "macs"),
    [
        ("bn_inception", 96, 24 * 49 + 24 * 64 + 128, 11_188_288, 1_934_857_216),
        # 2.03 billion in Hu et al. 2018; the reference has 10,016 biases more
        ("bn_inception_caffe", 128, 3 * 64 * 49 + 128, 11_285_224, 2_032_600_064),
    ],
)
def test_counts(name, projection, first_layer, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert count_by_hand(projection, first_layer) == parameters
    assert nbs.count_macs(network) == macs


def without_biases(network):
    network = copy.deepcopy(network)
    for block in network.modules():
        if hasattr(block, "conv") and hasattr(block, "bn"):
            block.bn.running_mean -= block.conv.bias.detach()
            block.conv.bias = None
    return network


def test_same_logits_as_pytorchcv():
    reference = nbs.reference_network("ptcv/bninception").double()
    for conv in reference.modules():
        if isinstance(conv, nn.Conv2d):
            nn.init.normal_(conv.bias)
    network = create_model("bn_inception_caffe").eval().double()
    bias_free = without_biases(reference)
    x = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(bias_free(x), reference(x), rtol=1e-10, atol=1e-10)
    assert nbs.transplant(bias_free, network).complete
    comparison = nbs.compare(network, bias_free)
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1


def test_output_sizes_of_figure_5():
    table = nbs.stage_table(on_meta("bn_inception"))
    shapes = dict(zip(table["stage"], table["output shape"]))
    assert [shapes[f"inception_{name}"] for name in FIGURE_5] == [
        "256 x 28 x 28",
        "320 x 28 x 28",
        *["576 x 14 x 14"] * 5,
        *["1024 x 7 x 7"] * 3,
    ]


@pytest.mark.parametrize("side", [1, 2, 7, 8, 27])
def test_halving_fits_the_convolutions_beside_it(side):
    x = torch.randn(2, 16, side, side + 1)
    module = InceptionModule(16, (0, 16, 16, 16, 16, 0), "max").eval()
    assert module(x).shape == (2, 48, -(-side // 2), -(-(side + 1) // 2))
    if side % 2 == 0:
        even = x[..., :side]
        caffe = nn.functional.max_pool2d(even, 3, 2, ceil_mode=True)
        assert torch.equal(HalvingPool()(even), caffe)


def test_separable_stem_keeps_its_multiplier_within_its_width():
    for in_channels, width, between in (
        (3, 64, 24),
        (1, 64, 8),
        (4, 16, 16),
        (3, 16, 15),
    ):
        stem = make_stem(in_channels, width, 7, 2, True, nn.BatchNorm2d)
        assert stem.depthwise.out_channels == between
        assert stem(torch.zeros(2, in_channels, 9, 9)).shape == (2, width, 5, 5)


def test_without_norm_there_are_biases_and_no_statistics():
    network = BNInception(width=0.25, norm=None, num_classes=5)
    assert not list(network.buffers())
    assert network(torch.randn(2, 3, 32, 32)).shape == (2, 5)


def test_the_layer_trains_the_network_as_pytorchs_does():
    torch.manual_seed(0)
    theirs = BNInception(width=0.25, num_classes=5).double()
    ours = BNInception(width=0.25, num_classes=5, norm=BatchNorm2d).double()
    ours.load_state_dict(theirs.state_dict())
    x, y = torch.randn(4, 3, 64, 64, dtype=torch.float64), torch.tensor([0, 1, 2, 3])
    for _ in range(2):
        for network in (ours, theirs):
            network.zero_grad()
            nn.functional.cross_entropy(network(x), y).backward()
            with torch.no_grad():
                for p in network.parameters():
                    p -= 0.01 * p.grad
    pairs = zip(ours.state_dict().items(), theirs.state_dict().values(), strict=True)
    for (name, a), b in pairs:
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9, msg=name)


def test_folding_keeps_the_function_and_leaves_the_network_alone():
    network = BNInception(width=0.25, num_classes=5)
    network.image_size = 64
    nbs.parity.calibration.enliven(network.eval())
    network.double()  # so that folding rounds nothing that counts
    before = copy.deepcopy(network.state_dict())
    folded = fold_norms(network)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    comparison = nbs.compare(folded, network, input_size=(3, 64, 64))
    assert comparison.agrees, comparison
    assert all(torch.equal(a, before[n]) for n, a in network.state_dict().items())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 69
