"""ResNeXt: the counts of the references, the same function, the sum of its paths."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.resnext import GroupedBottleneck, ResNeXt


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def shapes(network):
    return [tuple(p.shape) for p in network.parameters()]


@pytest.mark.parametrize(
    ("name", "there"),
    [
        ("resnext50_32x4d", "resnext50_32x4d"),
        ("resnext101_32x8d", "resnext101_32x8d"),
        ("resnext101_64x4d", "resnext101_64x4d"),
    ],
)
def test_same_tensors_as_torchvision(name, there):
    assert shapes(on_meta(name)) == shapes(nbs.reference_network(there, device="meta"))


@pytest.mark.parametrize(
    ("name", "there", "classes"),
    [
        ("resnext101_32x4d", "resnext101_32x4d", 1000),
        ("resnext29_16x64d", "resnext29_16x64d_cifar10", 10),
        ("resnext29_32x4d", "resnext29_32x4d_cifar10", 10),
    ],
)
def test_as_many_parameters_as_in_pytorchcv(name, there, classes):
    theirs = nbs.reference_network(f"ptcv/{there}", device="meta")
    ours = on_meta(name, num_classes=classes)
    # there a block's projection is registered behind its branch or before it
    assert sorted(shapes(ours)) == sorted(shapes(theirs))


@pytest.mark.parametrize(
    ("name", "there", "side", "classes"),
    [
        ("resnext50_32x4d", "resnext50_32x4d", 64, 1000),
        ("resnext29_32x4d", "ptcv/resnext29_32x4d_cifar10", 32, 10),
        pytest.param(
            *("resnext101_32x8d", "resnext101_32x8d", 64, 1000), marks=pytest.mark.slow
        ),
        pytest.param(
            *("resnext101_64x4d", "resnext101_64x4d", 64, 1000), marks=pytest.mark.slow
        ),
    ],
)
def test_same_logits_as_the_reference(name, there, side, classes):
    reference = nbs.reference_network(there)
    network = create_model(name, num_classes=classes).eval()
    assert nbs.transplant(reference, network, (3, side, side)).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("resnext50_32x4d", 25_028_904, 4_230_479_872),  # torchvision's 4.23
        ("resnext101_32x8d", 88_791_336, 16_414_015_488),  # torchvision's 16.414
        ("resnext101_64x4d", 83_455_272, 15_460_270_080),  # torchvision's 15.46
    ],
)
def test_counts(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize(
    ("name", "millions"), [("resnext29_8x64d", 34.4), ("resnext29_16x64d", 68.1)]
)
def test_parameters_of_the_papers_cifar_networks(name, millions):
    network = on_meta(name, num_classes=10)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    count = nbs.count_parameters(network) - sum(map(nbs.count_parameters, norms))
    assert round(count / 1e6, 1) == millions  # table 7, which leaves the norms out


def test_one_path_of_width_64_is_resnet50():
    torch.manual_seed(0)
    one = create_model("resnext50_32x4d", cardinality=1, base_width=64).eval()
    resnet = create_model("resnet50").eval()
    resnet.load_state_dict(one.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(one(x), resnet(x))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("training", [True, False])
def test_the_branch_is_a_sum_of_paths(stride, training):
    torch.manual_seed(0)
    block = GroupedBottleneck(24, 16, stride, cardinality=4, base_width=12).double()
    for norm in block.residual:
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.weight, 0.5, 2), nn.init.normal_(norm.bias)
            nn.init.normal_(norm.running_mean), nn.init.uniform_(norm.running_var, 1, 2)
    block.residual.train(training)
    x = torch.randn(3, 24, 9, 7, dtype=torch.float64)
    first, norm1, _, grouped, norm2, _, last, norm3 = block.residual

    def normed(y, norm, part):
        statistics = norm.running_mean[part].clone(), norm.running_var[part].clone()
        return F.batch_norm(
            y, *statistics, norm.weight[part], norm.bias[part], training=training
        )

    total = 0
    for i in range(4):  # each path has 16 * 12 / 64 = 3 channels
        part = slice(3 * i, 3 * i + 3)
        u = normed(F.conv2d(x, first.weight[part]), norm1, part).relu()
        h = F.conv2d(u, grouped.weight[part], stride=stride, padding=1)
        h = normed(h, norm2, part).relu()
        total = total + F.conv2d(h, last.weight[:, part])
    expected = normed(total, norm3, slice(None))
    torch.testing.assert_close(block.residual(x), expected, rtol=0, atol=1e-12)


def test_a_path_reads_its_own_channels_only():
    block = GroupedBottleneck(32, 16, cardinality=4, base_width=16)  # 4 channels each
    u = torch.randn(1, 16, 5, 5, requires_grad=True)
    block.residual[3](u)[0, 5, 2, 2].backward()  # an output of the second path
    read = u.grad[0].abs().sum(dim=(1, 2)).nonzero().flatten().tolist()
    assert read == [4, 5, 6, 7]


def test_width_of_a_path_doubles_with_the_stages():
    network = on_meta("resnext101_64x4d")
    found = [
        {
            (m.groups, m.in_channels // m.groups)
            for m in getattr(network, f"conv{i}_x").modules()
            if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)
        }
        for i in (2, 3, 4, 5)
    ]
    assert found == [{(64, 4)}, {(64, 8)}, {(64, 16)}, {(64, 32)}]


@pytest.mark.parametrize(
    "name", ["resnext26_mini", "resnext29_8x64d", "resnext50_32x4d", "resnext101_64x4d"]
)
def test_layers_with_weights_give_the_name(name):
    layers = sum(
        isinstance(module, (nn.Conv2d, nn.Linear)) and ".shortcut" not in path
        for path, module in on_meta(name).named_modules()
    )
    assert name.startswith(f"resnext{layers}_")


def test_the_3x3_has_the_stride():
    block = GroupedBottleneck(256, 128, stride=2)
    convs = [m for m in block.residual if isinstance(m, nn.Conv2d)]
    assert [c.stride[0] for c in convs] == [1, 2, 1]
    assert [c.groups for c in convs] == [1, 32, 1]
    assert block(torch.randn(2, 256, 7, 7)).shape == (2, 512, 4, 4)


def test_stages_of_a_cifar_network():
    table = nbs.stage_table(on_meta("resnext29_8x64d", num_classes=10), (3, 32, 32))
    shapes = table.set_index("stage")["output shape"]
    assert list(shapes[:4]) == [
        "64 x 32 x 32",
        "256 x 32 x 32",
        "512 x 16 x 16",
        "1024 x 8 x 8",
    ]


def test_a_descendants_block_is_used():
    class Gated(GroupedBottleneck):
        pass

    network = ResNeXt((1, 1), (16, 32), 2, 32, block=Gated, stem="cifar", num_classes=3)
    assert sum(isinstance(m, Gated) for m in network.modules()) == 2
    assert network(torch.randn(2, 3, 16, 16)).shape == (2, 3)


def test_paths_without_channels_are_named():
    with pytest.raises(ValueError, match=r"32 groups of 8 \* 4 / 64 channels are none"):
        GroupedBottleneck(32, 8)
