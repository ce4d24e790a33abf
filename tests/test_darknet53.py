"""Darknet-19 and Darknet-53: equal to the references and to the authors' files."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import enliven
from nbs_utils.zoo import create_model
from nbs_utils.zoo.darknet53 import Darknet, Pair, make_head, make_stage

REFERENCES = [
    ("darknet19", "ptcv/darknet19"),
    ("darknet53", "ptcv/darknet53"),
    ("darknet53", "timm/darknet53"),
]


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def shapes(network):
    return [tuple(p.squeeze().shape) for p in network.parameters()]


@pytest.mark.parametrize(("name", "there"), REFERENCES)
def test_same_tensors_as_the_reference(name, there):
    assert shapes(on_meta(name)) == shapes(nbs.reference_network(there, device="meta"))


@pytest.mark.parametrize(
    ("name", "there", "slope", "side"),
    [
        ("darknet53", "timm/darknet53", 0.01, 64),
        ("darknet19", "ptcv/darknet19", 0.1, 224),  # the only size that it takes
        pytest.param(
            *("darknet53", "ptcv/darknet53", 0.1, 224), marks=pytest.mark.slow
        ),
    ],
)
def test_same_logits_as_the_reference(name, there, slope, side):
    reference = nbs.reference_network(there)
    network = create_model(name, slope=slope).eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison


# The authors' files, layer by layer: ("conv", filters, side, stride), ("max",) for
# 2x2 with stride 2, ("shortcut",) for the sum with the output of three layers before.
def pair(filters, shortcut):
    layers = [("conv", filters // 2, 1, 1), ("conv", filters, 3, 1)]
    return layers + [("shortcut",)] * shortcut


FILE_19 = [
    *(("conv", 32, 3, 1), ("max",), ("conv", 64, 3, 1), ("max",)),
    *(("conv", 128, 3, 1), *pair(128, False), ("max",)),
    *(("conv", 256, 3, 1), *pair(256, False), ("max",)),
    *(("conv", 512, 3, 1), *pair(512, False), *pair(512, False), ("max",)),
    *(("conv", 1024, 3, 1), *pair(1024, False), *pair(1024, False)),
]
FILE_53 = [
    *(("conv", 32, 3, 1), ("conv", 64, 3, 2), *pair(64, True)),
    *(("conv", 128, 3, 2), *2 * pair(128, True)),
    *(("conv", 256, 3, 2), *8 * pair(256, True)),
    *(("conv", 512, 3, 2), *8 * pair(512, True)),
    *(("conv", 1024, 3, 2), *4 * pair(1024, True)),
]


def run_file(layers, weights, x, scores_first):
    """Interpret a file, with weights in the order of the file."""
    outputs, channels = [], x.shape[1]
    for kind, *sizes in layers:
        if kind == "max":
            x = F.max_pool2d(x, 2, 2)
        elif kind == "shortcut":
            x = outputs[-1] + outputs[-3]
        else:
            filters, side, stride = sizes
            kernel, scale, shift, mean, variance, _ = (next(weights) for _ in range(6))
            assert kernel.shape == (filters, channels, side, side)
            x = F.conv2d(x, kernel, stride=stride, padding=side // 2)
            normal = (x - mean[:, None, None]) / (variance + 1e-5).sqrt()[:, None, None]
            x = scale[:, None, None] * normal + shift[:, None, None]
            x = torch.where(x > 0, x, 0.1 * x)
            channels = filters
        outputs.append(x)
    kernel, bias = weights
    if scores_first:
        kernel = kernel.flatten(1)
        scores = torch.einsum("kc,bchw->bkhw", kernel, x) + bias[:, None, None]
        return scores.mean(dim=(2, 3))
    return x.mean(dim=(2, 3)) @ kernel.T + bias


@pytest.mark.parametrize(
    ("name", "layers", "scores_first"),
    [("darknet19", FILE_19, True), ("darknet53", FILE_53, False)],
)
@pytest.mark.parametrize("side", [64, 75])
def test_same_logits_as_the_authors_file(name, layers, scores_first, side):
    torch.manual_seed(0)
    network = create_model(name, num_classes=5).eval()
    network.image_size = 64
    enliven(network)
    network.double()
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    weights = iter(network.state_dict().values())
    with torch.no_grad():
        expected = run_file(layers, weights, x, scores_first)
        found = network(x)
    assert not next(weights, None)
    scale = (expected[0] - expected[1]).abs().max()
    assert (found - expected).abs().max() < 1e-10 * scale


@pytest.mark.parametrize(
    ("name", "options", "parameters", "macs"),
    [
        ("darknet53", {}, 41_609_928, 9_285_115_904),
        # 18.7 billion operations in the paper: the classifier at all 64 places
        ("darknet53", {"scores_first": True}, 41_609_928, 9_349_627_904),
        ("darknet53", {"downsample": "pool"}, 41_609_928, 9_285_115_904),
        ("darknet53", {"shortcut": False}, 41_609_928, 9_285_115_904),
        ("darknet19", {}, 20_842_376, 3_645_374_464),
    ],
)
def test_counts(name, options, parameters, macs):
    network = on_meta(name, **options)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network, (3, 256, 256)) == macs


def test_the_operations_that_were_printed():
    def billions(network, side=256):
        return 2 * nbs.count_macs(network, (3, side, side)) / 1e9

    assert round(billions(on_meta("darknet19")), 2) == 7.29
    assert round(billions(on_meta("darknet19"), 224), 2) == 5.58
    assert round(billions(on_meta("darknet53")), 2) == 18.57
    assert round(billions(on_meta("darknet53", scores_first=True)), 1) == 18.7
    for name, listed in (("resnet101", 19.70), ("resnet152", 29.39)):
        late = billions(on_meta(name, shortcut="A"))
        assert round(late + 63 * 2 * 2048 * 1000 / 1e9, 2) == listed


def test_the_head_in_either_order():
    torch.manual_seed(0)
    late, early = make_head(12, 5, False).double(), make_head(12, 5, True).double()
    early.scores.weight.data = late.fc.weight.data[:, :, None, None]
    early.scores.bias.data = nn.init.normal_(late.fc.bias.data)
    x = torch.randn(2, 12, 3, 7, dtype=torch.float64)
    torch.testing.assert_close(late(x), early(x), rtol=0, atol=1e-12)


def test_maps_are_what_the_head_reads():
    torch.manual_seed(0)
    network = create_model("darknet21_mini", width=0.25, num_classes=5).eval()
    x = torch.randn(1, 3, 96, 75)
    with torch.no_grad():
        maps = network.maps(x)
        torch.testing.assert_close(network.head(maps[-1]), network(x))
    assert [tuple(m.shape[1:]) for m in maps] == [
        *((64, 12, 10), (128, 6, 5), (256, 3, 3))
    ]


@pytest.mark.parametrize("name", ["darknet19", "darknet53"])
def test_a_cifar_stem_halves_three_times(name):
    with torch.device("meta"):
        network = create_model(name, 10, stem="cifar")
        assert network.maps(torch.zeros(1, 3, 32, 32))[-1].shape == (1, 1024, 4, 4)


def test_a_pair_with_and_without_its_shortcut():
    torch.manual_seed(0)
    with_it, without = Pair(8).eval(), Pair(8, shortcut=False).eval()
    without.load_state_dict(with_it.state_dict())
    x = torch.randn(2, 8, 5, 5)
    torch.testing.assert_close(with_it(x), x + without(x))


def test_an_unknown_way_to_halve_is_named():
    with pytest.raises(ValueError, match="downsample is 'stride'"):
        make_stage(4, 8, 1, "stride")


def test_only_pooling_asks_for_32_pixels():
    with pytest.raises(ValueError, match="at least 32 x 32"):
        create_model("darknet19", 5, width=0.125)(torch.zeros(2, 3, 31, 40))
    network = create_model("darknet53", 5, width=0.125).eval()
    assert network(torch.zeros(2, 3, 1, 3)).shape == (2, 5)


@pytest.mark.parametrize("slope", [0.0, 0.1, 0.5])
def test_the_sum_drifts_as_derived(slope):
    torch.manual_seed(0)
    stage = make_stage(16, 128, 6, "none", slope=slope)
    for module in stage.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
    mean = (1 - slope) / (2 * torch.pi) ** 0.5
    variance = (1 + slope**2) / 2 - mean**2
    x = stage(torch.randn(16, 16, 16, 16))
    assert x.mean().item() == pytest.approx(7 * mean, rel=0.05)
    assert x.var().item() == pytest.approx(7 * variance, rel=0.15)


@pytest.mark.parametrize(("slope", "moves"), [(0.0, False), (0.1, True)])
def test_a_layer_far_below_zero_gets_a_gradient_only_if_it_is_leaky(slope, moves):
    torch.manual_seed(0)
    network = Darknet((1, 1), slope=slope, width=0.25, num_classes=4)
    nn.init.constant_(network.conv1.norm.bias, -10)
    F.cross_entropy(
        network(torch.randn(8, 3, 16, 16)), torch.randint(4, (8,))
    ).backward()
    grads = [p.grad for name, p in network.named_parameters() if p.dim() > 1]
    assert any(g.any() for g in grads) == moves
    assert network.conv1.conv.weight.grad.any().item() == moves
    assert network.head.fc.bias.grad.any()
