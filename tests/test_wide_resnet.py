"""Wide and pre-activation ResNets: what only they have; counts, functions, the path."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.resnet import Bottleneck, make_stage
from nbs_utils.zoo.wide_resnet import (
    PreActBasic,
    PreActBlock,
    PreActBottleneck,
    PreActResNet,
    WideBottleneck,
    wide,
)


def on_meta(name, num_classes=10, **changes):
    with torch.device("meta"):
        return create_model(name, num_classes, **changes)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("wrn_16_4", 2_748_890, 392_612_352),
        ("wrn_16_8", 10_961_370, 1_548_145_664),
        ("wrn_28_10", 36_479_194, 5_243_328_768),
        ("wrn_40_4", 8_949_210, 1_298_582_016),
        ("cifar_preact_resnet110", 1_730_522, 253_149_824),
        ("cifar_preact_resnet164", 1_703_258, 247_646_720),
        ("cifar_preact_resnet1001", 10_327_706, 1_490_995_712),
    ],
)
def test_counts(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network, (3, 32, 32)) == macs


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("wide_resnet50_2", 68_883_240, 11_398_021_120),  # torchvision's 11.398
        ("wide_resnet101_2", 126_886_696, 22_753_050_624),
        ("preact_resnet50", 25_549_352, 4_089_184_256),  # the MACs of ResNet-50
    ],
)
def test_counts_for_photographs(name, parameters, macs):
    network = on_meta(name, None)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("cifar_preact_resnet20", "preresnet20_cifar10"),
        ("cifar_preact_resnet164", "preresnet164bn_cifar10"),
        ("wrn_16_10", "wrn16_10_cifar10"),
    ],
)
def test_same_function_as_pytorchcv(name, reference):
    reference = nbs.reference_network(f"ptcv/{reference}")
    network = create_model(name, 10).eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference)
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1


def test_same_function_as_torchvision():
    reference = nbs.reference_network("wide_resnet50_2", num_classes=10)
    network = create_model("wide_resnet50_2", 10).eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


def taken_apart(module: nn.Module) -> nn.Module:
    """timm's norms hold their ReLU; put a batch norm and a ReLU in their place."""
    for name, child in module.named_children():
        if type(child).__name__ == "BatchNormAct2d":
            norm = nn.BatchNorm2d(child.num_features, eps=child.eps)
            norm.load_state_dict(child.state_dict())
            setattr(module, name, nn.Sequential(norm, nn.ReLU()))
        else:
            taken_apart(child)
    return module.eval()


@pytest.mark.parametrize("depth", [18, 50])
def test_same_function_as_timm(depth):
    reference = nbs.reference_network(f"timm/resnetv2_{depth}", num_classes=10)
    network = create_model(f"preact_resnet{depth}", 10).eval()
    source = taken_apart(copy.deepcopy(reference))
    assert nbs.transplant(source, network, (3, 64, 64)).complete
    comparison = nbs.compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison


def test_the_block_by_hand():
    torch.manual_seed(0)
    block = PreActBasic(6, 8, stride=2)
    x = torch.randn(3, 6, 9, 11)
    first, _, _, _, second = block.residual

    def activated(x, norm):
        mean, var = x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3), correction=0)
        shape = (1, -1, 1, 1)
        return ((x - mean.view(shape)) / (var.view(shape) + norm.eps).sqrt()).relu()

    a = activated(x, block.activation[0])
    y = activated(F.conv2d(a, first.weight, stride=2, padding=1), block.residual[1])
    expected = F.conv2d(y, second.weight, padding=1)
    expected = expected + F.conv2d(a, block.shortcut.weight, stride=2)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize("block", [PreActBasic, PreActBottleneck])
def test_nothing_stands_on_the_path(block):
    torch.manual_seed(0)
    channels = 16 // block.expansion
    stage = make_stage(block, 3, 16, channels, stride=1)
    x = torch.randn(2, 16, 8, 8)
    total = x
    with torch.no_grad():
        for layer in stage:
            assert layer.shortcut is None
            total = total + layer.residual(layer.activation(total))
        assert (total < 0).any()
        assert torch.equal(stage(x), total)
        for layer in stage:
            nn.init.zeros_(layer.residual[-1].weight)
        assert torch.equal(stage(x), x)


def test_layers_are_counted_as_in_the_names():
    for name, layers in (("wrn_28_10", 28), ("wrn_16_4", 16)):
        network = on_meta(name)
        assert sum(isinstance(m, nn.Conv2d) for m in network.modules()) == layers
    network = on_meta("cifar_preact_resnet1001")
    kinds = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    shortcuts = sum(
        isinstance(m, PreActBlock) and m.shortcut is not None for m in network.modules()
    )
    assert len(kinds) - shortcuts == 1001


def test_dropout_stands_between_the_convolutions():
    torch.manual_seed(0)
    block = PreActBasic(8, 8, dropout=0.5)
    kinds = [type(layer).__name__ for layer in block.residual]
    assert kinds == ["Conv2d", "BatchNorm2d", "ReLU", "Dropout", "Conv2d"]
    x = torch.randn(4, 8, 6, 6)
    assert not torch.equal(block(x), block(x))
    block.eval()
    assert torch.equal(block(x), block(x))
    network = create_model("wrn_16_4", 10, dropout=0.3)
    found = [m.p for m in network.modules() if isinstance(m, nn.Dropout)]
    assert found == 6 * [0.3]


def test_the_stem_is_not_widened():
    assert on_meta("wrn_28_10").conv1.weight.shape == (16, 3, 3, 3)
    assert on_meta("preact_resnet50").conv1.weight.shape == (64, 3, 7, 7)
    x = torch.empty(1, 3, 128, 128, device="meta")
    network = on_meta("wrn_16_4", stem="imagenet").eval()
    shapes = []
    for part in list(network)[:4]:
        x = part(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 64, 64), (64, 32, 32), (128, 16, 16), (256, 8, 8)]


def test_a_wide_bottleneck_that_is_not_widened_is_a_bottleneck():
    torch.manual_seed(0)
    old = Bottleneck(32, 16, stride=2).eval()
    new = WideBottleneck(32, 16, stride=2, widen=1).eval()
    new.load_state_dict(old.state_dict())
    x = torch.randn(2, 32, 9, 9)
    assert torch.equal(old(x), new(x))
    wider = WideBottleneck(32, 16, widen=3)
    assert wider.residual[3].weight.shape == (48, 48, 3, 3)
    assert wider(x).shape == (2, 64, 9, 9)


def test_where_the_stride_stands():
    strides = {
        where: [
            m.stride[0]
            for m in PreActBottleneck(8, 4, 2, stride_on=where).residual
            if isinstance(m, nn.Conv2d)
        ]
        for where in ("1x1", "3x3")
    }
    assert strides == {"1x1": [2, 1, 1], "3x3": [1, 2, 1]}
    with pytest.raises(ValueError, match="must be '1x1' or '3x3'"):
        PreActBottleneck(8, 4, stride_on="2x2")


def test_initial_weights():
    torch.manual_seed(0)
    network = PreActResNet(**wide(16, 8), num_classes=10)
    for conv in (network.conv4_x[1].residual[0], network.conv4_x[0].shortcut):
        outputs = conv.weight.shape[0] * conv.weight[0, 0].numel()
        expected = (2 / outputs) ** 0.5
        assert conv.weight.std().item() == pytest.approx(expected, rel=0.01)
        assert conv.bias is None
    assert network.fc.bias.eq(0).all()


def test_the_papers_recipe():
    recipe = nbs.Recipe.load("wrn-cifar")
    assert (recipe.epochs, recipe.batch_size, recipe.nesterov) == (200, 128, True)
    assert recipe.lr * recipe.gamma ** len(recipe.milestones) == pytest.approx(0.0008)
