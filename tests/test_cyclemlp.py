"""CycleMLP against deform_conv2d, an independent network, published counts and sums."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

import nbs_utils as nbs
from nbs_utils.parity.calibration import vary
from nbs_utils.zoo import create_model
from nbs_utils.zoo.cyclemlp import (
    VARIANTS,
    BranchWeights,
    CycleBlock,
    CycleFC,
    CycleMixer,
    CycleMLP,
)

PYRAMID = (64, 128, 320, 512)
PLANS = {  # blocks, widths and ratios by stage, as in the authors' code
    "b1": ((2, 2, 4, 2), PYRAMID, (4, 4, 4, 4)),
    "b2": ((2, 3, 10, 3), PYRAMID, (4, 4, 4, 4)),
    "b3": ((3, 4, 18, 3), PYRAMID, (8, 8, 4, 4)),
    "b4": ((3, 8, 27, 3), PYRAMID, (8, 8, 4, 4)),
    "b5": ((3, 4, 24, 3), (96, 192, 384, 768), (4, 4, 4, 4)),
}


def by_hand(depths, widths, ratios, side=224):
    """Parameters, multiply-adds and normalized numbers, summed from the description."""
    parameters = macs = normalized = 0
    inputs, kernel, positions = 3, 7, (side // 4) ** 2
    for depth, d, ratio in zip(depths, widths, ratios, strict=True):
        parameters += inputs * d * kernel**2 + d
        macs += positions * inputs * d * kernel**2
        mixing = 4 * d * d  # across, down, in place, projection
        shares = d * (d // 4) + (d // 4) * 3 * d
        mlp = 2 * ratio * d * d
        biases = 3 * d + d // 4 + 3 * d + ratio * d + d
        parameters += depth * (mixing + shares + mlp + biases + 4 * d)
        macs += depth * (positions * (mixing + mlp) + shares)
        normalized += depth * positions * 2 * d
        last, inputs, kernel, positions = positions, d, 3, positions // 4
    return parameters + 2 * d + (d + 1) * 1000, macs + d * 1000, normalized + last * d


@pytest.mark.parametrize(
    ("name", "parameters", "millions", "billions"),
    [
        ("b1", 15_155_400, 15, 2.1),  # counted in the authors' own module
        ("b2", 26_802_504, 27, 3.9),  # the same
        ("b3", None, 38, 6.9),  # printed in the authors' table, as the right columns
        ("b4", None, 52, 10.1),
        ("b5", None, 76, 12.3),
    ],
)
def test_counts(name, parameters, millions, billions):
    with torch.device("meta"):
        network = create_model(f"cyclemlp_{name}")
    counted = nbs.count_parameters(network), nbs.count_macs(network)
    *expected, normalized = by_hand(*PLANS[name])
    assert counted == tuple(expected)
    assert parameters in (None, counted[0])
    assert round(counted[0] / 1e6) == millions
    # the authors' counter adds five operations for every number that is normalized
    assert round((counted[1] + 5 * normalized) / 1e9, 1) == billions


def distances(channels, step):
    """0, 1, ..., then the negative ones, and again."""
    row = [*range(step // 2 + 1), *range(-(step // 2), 0)]
    return (row * channels)[:channels]


@pytest.mark.parametrize("axis", ["width", "height"])
@pytest.mark.parametrize("step", [1, 3, 5, 7])
def test_the_cycle_layer_is_deform_conv2d_with_fixed_offsets(step, axis):
    """In float32, outputs and gradients; the channels are no multiple of the step."""
    torch.manual_seed(step)
    layer = CycleFC(16, 11, step, axis)
    pairs = [(0, o) if axis == "width" else (o, 0) for o in distances(16, step)]
    offset = torch.tensor(pairs, dtype=torch.float32).view(1, 32, 1, 1)
    x = torch.randn(2, 5, 9, 16, requires_grad=True)  # rows and columns differ
    theirs = deform_conv2d(
        x.permute(0, 3, 1, 2),
        offset.expand(2, -1, 5, 9),
        layer.weight[:, :, None, None],
        layer.bias,
    ).permute(0, 2, 3, 1)
    ours, gradient = layer(x), torch.randn(2, 5, 9, 11)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    wanted = x, layer.weight, layer.bias
    for a, b in zip(
        torch.autograd.grad(ours, wanted, gradient),
        torch.autograd.grad(theirs, wanted, gradient),
        strict=True,
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_the_cycle_layer_by_its_definition():
    torch.manual_seed(0)
    layer = CycleFC(5, 3, 3, "height").double()
    x = torch.randn(1, 4, 2, 5, dtype=torch.float64)
    y, away = layer(x), distances(5, 3)
    for i in range(4):
        for j in range(2):
            for m in range(3):
                total = layer.bias[m]
                for c in range(5):
                    if 0 <= i + away[c] < 4:
                        total = total + layer.weight[m, c] * x[0, i + away[c], j, c]
                torch.testing.assert_close(y[0, i, j, m], total)


def test_a_step_that_has_no_middle_is_refused():
    with pytest.raises(ValueError, match="odd number"):
        CycleFC(4, 4, step=2)
    with pytest.raises(ValueError, match="'height' or 'width'"):
        CycleFC(4, 4, axis="depth")


class Reference(nn.Module):
    """CycleMLP without layers: from a plan and the list of another one's weights."""

    def __init__(self, weights, depths, ratios):
        super().__init__()
        self.weights, self.depths, self.ratios = list(weights), depths, ratios

    def forward(self, x):
        weights = iter(self.weights)

        def take():
            return next(weights)

        def norm(x):
            y = x - x.mean(dim=1, keepdim=True)
            y = y / (y.square().mean(dim=1, keepdim=True) + 1e-5).sqrt()
            return y * take()[:, None, None] + take()[:, None, None]

        def linear(x, bias=True):
            y = torch.einsum("oi,bihw->bohw", take(), x)
            return y + take()[:, None, None] if bias else y

        def cycle(x, axis):
            pairs = torch.zeros(x.shape[1], 2).to(x)
            pairs[:, axis] = torch.tensor(distances(x.shape[1], 3)).to(x)
            offset = pairs.view(1, -1, 1, 1).expand(len(x), -1, *x.shape[2:])
            return deform_conv2d(x, offset, take()[:, :, None, None], take())

        def gelu(x):
            return 0.5 * x * (1 + torch.erf(x / 2**0.5))

        for i, depth in enumerate(self.depths):
            stride, padding = (4, 2) if i == 0 else (2, 1)
            x = F.conv2d(x, take(), take(), stride, padding)
            for _ in range(depth):
                y = norm(x)
                parts = torch.stack([cycle(y, 1), cycle(y, 0), linear(y, False)])
                scores = linear(gelu(linear(parts.sum(0).mean((2, 3), keepdim=True))))
                shares = scores.view(len(x), -1, 3).softmax(2).permute(2, 0, 1)
                x = x + linear((parts * shares[..., None, None]).sum(0))
                x = x + linear(gelu(linear(norm(x))))
        return norm(x).mean(dim=(2, 3)) @ take().T + take()


@pytest.mark.parametrize("name", ["b1", "b3", "b5"])
@pytest.mark.parametrize("size", [(64, 64), (67, 93)])
def test_logits_equal_an_independent_implementation(name, size):
    torch.manual_seed(0)
    depths, widths, ratios = PLANS[name]
    depths = tuple(min(depth, 3) for depth in depths)
    network = create_model(f"cyclemlp_{name}", 10, width=0.125, depths=depths).eval()
    vary(network)
    network.double()
    reference = Reference(network.state_dict().values(), depths, ratios).eval()
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    comparison = nbs.compare(network, reference, x)
    assert comparison.agrees, comparison
    assert network.norm.normalized_shape[0] == widths[-1] // 8
    # and the comparison sees a block that looks the other way
    mixer = network.stages.stage3[1].mixer
    mixer.across.axis, mixer.down.axis = mixer.down.axis, mixer.across.axis
    assert not nbs.compare(network, reference, x).agrees


def test_variants_are_the_published_plans():
    for name, (depths, widths, ratios) in PLANS.items():
        with torch.device("meta"):
            network = create_model(f"cyclemlp_{name}")
        stages = network.stages
        assert tuple(len(stage) - 1 for stage in stages) == depths
        assert tuple(stage[0].out_channels for stage in stages) == widths
        hidden = [stage[1].mlp[0].out_features for stage in stages]
        expected = [r * d for r, d in zip(ratios, widths, strict=True)]
        assert hidden == expected
    assert set(VARIANTS) == {f"cyclemlp_{name}" for name in PLANS}


def test_shares_sum_to_one_and_begin_even():
    torch.manual_seed(0)
    weights = BranchWeights(32)
    shares = weights(torch.randn(4, 6, 6, 32))
    assert shares.shape == (4, 1, 1, 32, 3)
    torch.testing.assert_close(shares.sum(-1), torch.ones(4, 1, 1, 32))
    fresh = create_model("cyclemlp_b1", 10, width=0.25).stages.stage1[1].mixer.weights
    shares = fresh(torch.randn(4, 6, 6, 16))
    assert (shares - 1 / 3).abs().max() < 0.02


def test_without_shares_each_branch_has_a_third():
    torch.manual_seed(0)
    mixer, plain = CycleMixer(8).double(), CycleMixer(8, reweight=False).double()
    plain.load_state_dict(mixer.state_dict(), strict=False)
    for parameter in mixer.weights.parameters():
        nn.init.zeros_(parameter)
    x = torch.randn(2, 5, 6, 8, dtype=torch.float64)
    torch.testing.assert_close(mixer(x), plain(x))


@pytest.mark.parametrize(("step", "expected"), [(1, 1), (3, 13), (5, 33), (7, 61)])
def test_two_mixers_see_as_many_positions_as_the_formula_says(step, expected):
    reach = step // 2
    assert 1 + 8 * reach + 4 * reach**2 == expected
    mixers = nn.Sequential(*[CycleMixer(14, step, reweight=False) for _ in range(2)])
    for parameter in mixers.parameters():
        nn.init.constant_(parameter, 0.1)
    x = torch.zeros(1, 17, 17, 14, requires_grad=True)
    mixers(x)[0, 8, 8].sum().backward()
    assert (x.grad.abs().sum(-1) > 0).sum() == expected


def test_one_step_sees_nothing_beside_it():
    torch.manual_seed(0)
    block = CycleBlock(8, step=1, reweight=False)
    x = torch.randn(1, 5, 5, 8)
    changed = x.clone()
    changed[0, 2, 3] += torch.randn(8)
    moved = (block(x) - block(changed)).abs().amax(-1)[0] > 1e-6
    assert moved.nonzero().tolist() == [[2, 3]]


def test_any_size_and_none_that_is_too_small():
    network = create_model("cyclemlp_b1", 5, width=0.125).eval()
    for size in ((3, 3), (32, 97), (224, 61)):
        assert network(torch.zeros(1, 3, *size)).shape == (1, 5)
    with pytest.raises(ValueError, match="at least 3 x 3"):
        network(torch.zeros(1, 3, 2, 9))


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_learns_in_every_precision_of_the_loop(precision):
    """The deformable convolution has no kernel for all of them."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(64) % 2
    images = torch.randint(100, (64, 3, 16, 16), generator=generator).to(torch.uint8)
    images[labels == 1, 0, :, :8] += 120  # bright on the left
    data = nbs.data.from_arrays(
        (images, labels), (images, labels), ["even", "bright"], title="halves"
    )
    network = CycleMLP((1, 1), (16, 24), (2, 2), num_classes=2, stem="cifar")
    recipe = nbs.Recipe.load("short-adamw").replace(
        lr=3e-3, precision=precision, label_smoothing=0.0
    )
    run = nbs.fit(network, data, recipe, epochs=10, progress="off")
    assert run is not None
    assert nbs.evaluate(network, data.val).top1 > 0.9
