"""ResNet: the counts of torchvision and of the paper, the same function, the options."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.resnet import (
    BasicBlock,
    Bottleneck,
    ResidualBlock,
    ResNet,
    ZeroPadShortcut,
    make_shortcut,
)


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


@pytest.mark.parametrize(
    "name", ["resnet18", "resnet34", "resnet50", "resnet101", "resnet152"]
)
def test_same_tensors_as_torchvision(name):
    ours, theirs = on_meta(name), nbs.reference_network(name, device="meta")
    shapes = [tuple(p.shape) for p in ours.parameters()]
    assert shapes == [tuple(p.shape) for p in theirs.parameters()]


@pytest.mark.parametrize(("name", "side"), [("resnet18", 96), ("resnet50", 64)])
def test_same_logits_as_torchvision(name, side):
    reference = nbs.reference_network(name)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1  # an odd one shows how strides round


def test_papers_stride_is_another_function_of_the_same_weights():
    reference = nbs.reference_network("resnet50")
    network = create_model("resnet50_v1").eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.max_difference > 1e-2
    assert "conv3_x.0.residual.0" in comparison.first_difference


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("resnet18", 1_814_073_344),  # torchvision's documentation: 1.814, 3.664, ...
        ("resnet34", 3_663_761_408),
        ("resnet50", 4_089_184_256),
        ("resnet101", 7_801_405_440),
        ("resnet152", 11_513_626_624),
        ("resnet50_v1", 3_857_973_248),  # the paper's table 1 prints 3.8 billion
        ("resnet101_v1", 7_570_194_432),  # 7.6
        ("resnet152_v1", 11_282_415_616),  # 11.3
    ],
)
def test_multiply_adds(name, macs):
    assert nbs.count_macs(on_meta(name)) == macs


@pytest.mark.parametrize(
    ("layers", "parameters", "paper"),
    [
        (20, 269_722, 0.27),
        (32, 464_154, 0.46),
        (44, 658_586, 0.66),
        (56, 853_018, 0.85),
        (110, 1_727_962, 1.7),
        (1202, 19_421_274, 19.4),
    ],
)
def test_parameters_of_the_cifar_networks(layers, parameters, paper):
    count = nbs.count_parameters(on_meta(f"cifar_resnet{layers}", num_classes=10))
    assert count == parameters
    digits = len(str(paper).split(".")[1])
    assert round(count / 1e6, digits) == paper  # table 6 of the paper


def test_parameters_of_resnet20_by_hand():
    stem = 9 * 3 * 16 + 2 * 16
    stages = sum(
        # the first convolution sees the channels of the stage before, five see c
        9 * before * c + 5 * 9 * c * c + 6 * 2 * c
        for before, c in ((16, 16), (16, 32), (32, 64))
    )
    classifier = 64 * 10 + 10
    count = nbs.count_parameters(on_meta("cifar_resnet20", num_classes=10))
    assert count == stem + stages + classifier == 269_722


def test_layers_with_weights_give_the_name():
    for name in ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"):
        network = on_meta(name)
        weights = sum(
            isinstance(module, (nn.Conv2d, nn.Linear)) and ".shortcut" not in path
            for path, module in network.named_modules()
        )
        assert weights == int(name.removeprefix("resnet"))
    network = on_meta("cifar_resnet56", num_classes=10)
    convs = [m for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    assert len(convs) == 56  # option A has no convolution on the shortcut


def test_stages_of_resnet50():
    table = nbs.stage_table(on_meta("resnet50")).set_index("stage")
    assert table["output shape"].to_dict() == {
        "conv1": "64 x 112 x 112",
        "conv2_x": "256 x 56 x 56",
        "conv3_x": "512 x 28 x 28",
        "conv4_x": "1024 x 14 x 14",
        "conv5_x": "2048 x 7 x 7",
        "pool": "2048",
        "fc": "1000",
        "total": "1000",
    }
    assert table.loc["conv4_x", "parameters"] == 7_098_368  # torchvision's layer3


def test_cifar_network_halves_the_map_twice():
    table = nbs.stage_table(on_meta("cifar_resnet20", num_classes=10), (3, 32, 32))
    shapes = table.set_index("stage")["output shape"]
    assert list(shapes[:4]) == [
        "16 x 32 x 32",
        "16 x 32 x 32",
        "32 x 16 x 16",
        "64 x 8 x 8",
    ]


@pytest.mark.parametrize(
    ("stride_on", "strides"), [("3x3", [1, 2, 1]), ("1x1", [2, 1, 1])]
)
def test_where_the_stride_stands(stride_on, strides):
    block = Bottleneck(256, 128, stride=2, stride_on=stride_on)
    convs = [m for m in block.residual if isinstance(m, nn.Conv2d)]
    assert [conv.stride[0] for conv in convs] == strides
    assert [conv.kernel_size[0] for conv in convs] == [1, 3, 1]
    assert block(torch.randn(1, 256, 8, 8)).shape == (1, 512, 4, 4)


def test_option_a_pads_with_zeros_and_has_no_parameters():
    x = torch.randn(2, 16, 9, 9)
    shortcut = ZeroPadShortcut(16, 40, stride=2)
    y = shortcut(x)
    assert y.shape == (2, 40, 5, 5)
    assert torch.equal(y[:, :16], x[:, :, ::2, ::2])
    assert y[:, 16:].eq(0).all()
    assert nbs.count_parameters(shortcut) == 0


def test_shortcuts_by_option():
    same, change = (64, 64, 1), (64, 128, 2)
    assert isinstance(make_shortcut("A", *same), nn.Identity)
    assert isinstance(make_shortcut("B", *same), nn.Identity)
    assert isinstance(make_shortcut("A", *change), ZeroPadShortcut)
    for option, shape in (("B", change), ("C", change), ("C", same)):
        conv, norm = make_shortcut(option, *shape)
        assert conv.kernel_size == (1, 1) and conv.stride == (shape[2],) * 2
        assert isinstance(norm, nn.BatchNorm2d)
    assert make_shortcut("none", *change) is None
    # the stride alone changes the shape, too
    assert isinstance(make_shortcut("B", 64, 64, 2), nn.Sequential)


def test_plain_network_has_the_parameters_of_option_a():
    for layers in (20, 56):
        residual = on_meta(f"cifar_resnet{layers}", num_classes=10)
        plain = on_meta(f"cifar_resnet{layers}", num_classes=10, shortcut="none")
        assert [p.shape for p in plain.parameters()] == [
            p.shape for p in residual.parameters()
        ]
        assert all(
            m.shortcut is None for m in plain.modules() if isinstance(m, ResidualBlock)
        )
    plain, residual = on_meta("resnet34", shortcut="none"), on_meta("resnet34")
    # three projections with batch norm
    projections = 64 * 128 + 128 * 256 + 256 * 512 + 2 * (128 + 256 + 512)
    counts = nbs.count_parameters(residual), nbs.count_parameters(plain)
    assert counts[0] - counts[1] == projections


def test_block_adds_before_the_relu():
    block = BasicBlock(8, 8).eval()
    x = torch.randn(2, 8, 6, 6)
    y = block(x)
    assert torch.equal(y, F.relu(block.residual(x) + x))
    # the residual may be negative: some outputs are below relu(x)
    assert (y < F.relu(x)).any()
    plain = BasicBlock(8, 8, shortcut="none").eval()
    plain.load_state_dict(block.state_dict())
    assert torch.equal(plain(x), F.relu(block.residual(x)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "cifar_resnet20"])
def test_zero_gamma_makes_every_block_its_shortcut(name):
    network = create_model(name, num_classes=10, zero_init_gamma=True)
    blocks = [m for m in network.modules() if isinstance(m, ResidualBlock)]
    for block in blocks:
        channels = block.residual[0].in_channels
        x = torch.rand(2, channels, 4, 4)
        assert torch.equal(block(x), F.relu(block.shortcut(x)))
    ordinary = create_model(name, num_classes=10)
    norms = [m for m in ordinary.modules() if isinstance(m, nn.BatchNorm2d)]
    assert all(norm.weight.eq(1).all() and norm.bias.eq(0).all() for norm in norms)


def test_he_initialization_by_fan_out():
    torch.manual_seed(0)
    network = create_model("resnet18")
    conv = network.conv5_x[1].residual[0]  # 512 channels, 3x3: enough numbers
    expected = (2 / (9 * 512)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.01)
    assert abs(conv.weight.mean().item()) < 0.01 * expected
    entrance = network.conv5_x[0].residual[0]  # 256 channels in, 512 out
    assert entrance.weight.std().item() == pytest.approx(expected, rel=0.01)


def test_gradient_reaches_every_parameter():
    network = create_model("cifar_resnet20", num_classes=10)
    network(torch.randn(4, 3, 32, 32)).square().sum().backward()
    assert all(
        p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters()
    )


def test_other_channels_classes_and_sizes():
    network = create_model("resnet18", num_classes=7, in_channels=1).eval()
    assert network(torch.randn(2, 1, 50, 70)).shape == (2, 7)
    wide = on_meta("resnet18", num_classes=10, stem="cifar")
    assert nbs.count_parameters(wide) == 11_173_962  # "ResNet-18 for CIFAR" elsewhere


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: BasicBlock(8, 8, shortcut="D"), "shortcut is 'D'"),
        (lambda: Bottleneck(8, 8, stride_on="5x5"), "stride_on is '5x5'"),
        (lambda: ResNet(BasicBlock, (1,), stem="mnist"), "stem is 'mnist'"),
    ],
)
def test_wrong_options_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
