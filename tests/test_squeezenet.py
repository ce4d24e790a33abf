"""SqueezeNet: the paper's table, the references' function, what a bypass adds."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import enliven
from nbs_utils.zoo import create_model, list_models
from nbs_utils.zoo.squeezenet import Fire, SqueezeNet, make_bypass


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


REFERENCES = [
    ("squeezenet1_0", "squeezenet1_0"),
    ("squeezenet1_1", "squeezenet1_1"),
    ("squeezenet1_0_simple_bypass", "ptcv/squeezeresnet_v1_0"),
    ("squeezenet1_1_simple_bypass", "ptcv/squeezeresnet_v1_1"),
]


def test_the_variants():
    assert list_models("squeezenet*") == sorted(
        f"squeezenet{version}{bypass}"
        for version in ("1_0", "1_1")
        for bypass in ("", "_simple_bypass", "_complex_bypass")
    )


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("squeezenet1_0", 1_248_424, 818_924_576),
        ("squeezenet1_1", 1_235_496, 349_151_936),
        ("squeezenet1_0_simple_bypass", 1_248_424, 818_924_576),
        ("squeezenet1_1_simple_bypass", 1_235_496, 349_151_936),
        ("squeezenet1_0_complex_bypass", 1_589_672, None),
        ("squeezenet1_1_complex_bypass", 1_572_648, None),
    ],
)
def test_counts(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert macs is None or nbs.count_macs(network) == macs


def test_parameters_of_the_papers_table():
    stages = nbs.stage_table(on_meta("squeezenet1_0")).set_index("stage")
    printed = {"conv1": 14_208, "fire2": 11_920, "fire3": 12_432, "fire4": 45_344}
    printed |= {"fire5": 49_440, "fire6": 104_880, "fire7": 111_024}
    printed |= {"fire8": 188_992, "fire9": 197_184, "conv10": 513_000}
    for stage, parameters in printed.items():
        assert stages.loc[stage, "parameters"] == parameters


def test_maps_of_the_papers_table_are_those_of_227_pixels():
    network = on_meta("squeezenet1_0")
    stages = nbs.stage_table(network, (3, 227, 227)).set_index("stage")
    sides = {"conv1": 111, "pool1": 55, "pool4": 27, "pool8": 13, "conv10": 13}
    for stage, side in sides.items():
        assert stages.loc[stage, "output shape"].endswith(f"x {side} x {side}")


@pytest.mark.parametrize(("name", "there"), REFERENCES)
def test_same_tensors_as_the_reference(name, there):
    reference = nbs.reference_network(there, device="meta")
    ours = [tuple(p.shape) for p in on_meta(name).parameters()]
    assert ours == [tuple(p.shape) for p in reference.parameters()]


@pytest.mark.parametrize(("name", "there"), REFERENCES)
def test_same_logits_as_the_reference(name, there):
    reference = nbs.reference_network(there)
    if there.startswith("ptcv/"):  # an average over 13 x 13, made for one size only
        reference.output.final_pool = nn.AdaptiveAvgPool2d(1)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network, (3, 96, 96)).complete
    comparison = nbs.compare(network, reference, input_size=(3, 96, 96))
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1  # how poolings round shows at some sizes only


def test_a_pooling_that_rounds_down_is_seen():
    reference = nbs.reference_network("squeezenet1_1")
    network = create_model("squeezenet1_1").eval()
    nbs.transplant(reference, network, (3, 96, 96))
    network.pool3.ceil_mode = False
    x = torch.randn(2, 3, 224, 224)
    assert nbs.compare(network, reference, x).agrees  # 55 pixels leave no rest
    assert not nbs.compare(network, reference, input_size=(3, 96, 96)).agrees


def test_the_fire_module_by_hand():
    torch.manual_seed(0)
    fire = Fire(12, 3, 5, 8, bypass="complex").double()
    x = torch.randn(2, 12, 6, 9, dtype=torch.float64)

    def conv(x, layer):
        return F.conv2d(x, layer.weight, layer.bias, padding=layer.kernel_size[0] // 2)

    s = conv(x, fire.squeeze.conv).clamp_min(0)
    maps = [
        conv(s, part.conv).clamp_min(0) for part in (fire.expand1x1, fire.expand3x3)
    ]
    expected = torch.cat(maps, dim=1) + conv(x, fire.bypass)
    torch.testing.assert_close(fire(x), expected, rtol=0, atol=1e-12)
    assert fire(x).min() < 0  # no ReLU behind the sum


def test_bypasses():
    assert make_bypass("none", 8, 8) is None
    assert isinstance(make_bypass("simple", 8, 8), nn.Identity)
    assert make_bypass("simple", 8, 16) is None
    assert nbs.count_parameters(make_bypass("complex", 8, 16)) == 8 * 16 + 16
    with pytest.raises(ValueError, match="bypass is 'short'"):
        make_bypass("short", 8, 8)


@pytest.mark.parametrize(
    ("kind", "bridged"), [("simple", [3, 5, 7, 9]), ("complex", list(range(2, 10)))]
)
def test_which_modules_are_bridged(kind, bridged):
    network = on_meta(f"squeezenet1_0_{kind}_bypass")
    fires = {i: getattr(network, f"fire{i}") for i in range(2, 10)}
    assert [i for i, fire in fires.items() if fire.bypass is not None] == bridged


def test_complex_bypasses_of_zeros_leave_the_simple_ones():
    torch.manual_seed(0)
    network = create_model("squeezenet1_0_complex_bypass").eval()
    enliven(network, seed=0)
    for name, layer in network.named_modules():
        if name.endswith("bypass") and isinstance(layer, nn.Conv2d):
            nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
    simple = create_model("squeezenet1_0_simple_bypass").eval()
    state = network.state_dict()
    simple.load_state_dict({key: state[key] for key in simple.state_dict()})
    x = torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        scores = simple(x)
        assert scores.std() > 0
        torch.testing.assert_close(network(x), scores)


def test_dropout_stands_in_front_of_the_last_convolution():
    network = on_meta("squeezenet1_0")
    names = [name for name, _ in network.named_children()]
    assert names[-3:] == ["drop9", "conv10", "pool10"]
    assert isinstance(network.drop9, nn.Dropout) and network.drop9.p == 0.5
    assert list(dict(network.conv10.named_children())) == ["conv", "act"]


def test_scores_are_not_negative():
    torch.manual_seed(0)
    network = create_model("squeezenet1_1", 10).eval()
    nn.init.normal_(network.conv10.conv.weight)
    with torch.no_grad():
        assert network(torch.randn(4, 3, 64, 64)).min() >= 0


@pytest.mark.parametrize(
    ("ratio", "share", "mebibytes"),
    [(0.125, 0.5, 4.8), (0.75, 0.5, 18.5)],  # the paper: 4.8 and 19 MB
)
def test_sizes_of_the_papers_design_space(ratio, share, mebibytes):
    network = on_meta("squeezenet1_0", squeeze_ratio=ratio, share_3x3=share)
    assert round(4 * nbs.count_parameters(network) / 2**20, 1) == mebibytes


@pytest.mark.parametrize(
    ("options", "least"),
    [({}, 21), ({"conv1": (64, 3)}, 17), ({"stem": "cifar"}, 8)],
)
def test_the_smallest_images(options, least):
    network = SqueezeNet(10, **options).eval()
    assert network(torch.zeros(1, 3, least, least)).shape == (1, 10)
    with pytest.raises(ValueError, match=f"least {least} x {least}"):
        network(torch.zeros(1, 3, least - 1, least))


def test_initial_weights():
    torch.manual_seed(0)
    network = create_model("squeezenet1_0_complex_bypass")
    classifier = network.conv10.conv.weight
    assert classifier.std().item() == pytest.approx(0.01, rel=0.02)
    for name, layer in network.named_modules():
        if not isinstance(layer, nn.Conv2d):
            continue
        assert not layer.bias.any()
        if layer is not network.conv10.conv:
            n = layer.weight[0].numel()
            wanted = (1 if name.endswith("bypass") else 2) / n
            assert layer.weight.var().item() == pytest.approx(wanted, rel=0.1)


def test_the_last_relu_can_be_left_off():
    torch.manual_seed(0)
    free = create_model("squeezenet1_1", 10, last_relu=False).eval()
    published = create_model("squeezenet1_1", 10).eval()
    published.load_state_dict(free.state_dict())
    x = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        last_map = nn.Sequential(*list(free)[:-1])(x)
        scores = free(x)
        assert scores.min() < 0
        torch.testing.assert_close(scores, last_map.mean(dim=(2, 3)))
        clamped = last_map.clamp_min(0).mean(dim=(2, 3))
        torch.testing.assert_close(published(x), clamped)
