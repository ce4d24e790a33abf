"""MnasNet: counts, both references, gates, momentum, the first version's stem."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.mnasnet import A1, B1, WIDTHS, MnasBlock, MnasNet
from nbs_utils.zoo.senet import SqueezeExcite


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("mnasnet0_5", 2_218_512, 104_455_968),
        ("mnasnet0_75", 3_170_208, 215_493_104),
        ("mnasnet1_0", 4_383_312, 314_415_872),
        ("mnasnet1_3", 6_282_256, 526_362_432),
        ("mnasnet_a1", 3_887_038, 311_579_072),
    ],
)
def test_counts(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize("name", WIDTHS)
def test_same_tensors_as_torchvision(name):
    reference = nbs.reference_network(name, device="meta")
    network = on_meta(name)
    assert [p.shape for p in network.parameters()] == [
        p.shape for p in reference.parameters()
    ]


@pytest.mark.parametrize(
    ("name", "reference"),
    [("mnasnet0_5", "mnasnet0_5"), ("mnasnet_a1", "timm/semnasnet_100")],
)
def test_same_function_as_the_reference(name, reference):
    reference = nbs.reference_network(reference)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 64, 64)).agrees


def test_gates_stand_where_the_search_put_them():
    network = on_meta("mnasnet_a1")
    gates = {
        name: gate.reduce.out_channels
        for name, gate in network.named_modules()
        if isinstance(gate, SqueezeExcite)
    }
    assert sorted({name.split(".")[0] for name in gates}) == [
        "stage3",
        "stage5",
        "stage6",
    ]
    # a quarter of the block's input: 24, 40, 40; 80, 112; 112, 160, 160 channels
    assert list(gates.values()) == [6, 10, 10, 20, 28, 28, 40, 40]
    assert not any(
        isinstance(m, SqueezeExcite) for m in on_meta("mnasnet1_0").modules()
    )


def test_a_gate_has_at_least_one_hidden_channel():
    branch = MnasBlock(2, 2, se_ratio=0.25).branch
    assert branch.gate.reduce.out_channels == 1
    assert not hasattr(MnasBlock(2, 2).branch, "gate")


@pytest.mark.parametrize("stages", [A1, B1])
def test_kernels_and_expansions_are_those_of_the_table(stages):
    with torch.device("meta"):
        network = MnasNet(stages=stages)
    for i, (t, k, c, n, s, _) in enumerate(stages, start=1):
        blocks = network.get_submodule(f"stage{i}")
        assert len(blocks) == n
        convolutions = [block.branch.depthwise.conv for block in blocks]
        assert {conv.kernel_size for conv in convolutions} == {(k, k)}
        assert [conv.stride[0] for conv in convolutions] == [s] + [1] * (n - 1)
        for block in blocks:
            project = block.branch.project.conv
            assert project.out_channels == c
            if t > 1:
                expand = block.branch.expand.conv
                assert expand.out_channels == t * expand.in_channels
            else:
                assert not hasattr(block.branch, "expand")


def test_the_activation_is_an_ordinary_relu():
    kinds = [type(m) for m in on_meta("mnasnet_a1").modules()]
    assert nn.ReLU in kinds
    assert nn.ReLU6 not in kinds


@pytest.mark.parametrize(("change", "momentum"), [({}, 0.01), ({"momentum": 0.1}, 0.1)])
def test_momentum_of_all_norms(change, momentum):
    norms = [
        m for m in on_meta("mnasnet0_5", **change).modules() if hasattr(m, "momentum")
    ]
    assert len(norms) == 52
    assert {norm.momentum for norm in norms} == {momentum}


@pytest.mark.parametrize(("width", "first"), [(0.5, [16, 8, 16]), (1.3, [40, 24, 32])])
def test_the_width_scales_the_stem_but_not_the_last_convolution(width, first):
    network = on_meta("mnasnet1_0", width=width)
    stem = network.conv1.conv.out_channels
    found = [stem, *(network.get_submodule(f"stage{i}")[0].branch for i in (1, 2))]
    assert [stem, *(b.project.conv.out_channels for b in found[1:])] == first
    assert network.conv2.conv.out_channels == network.fc.in_features == 1280


def test_small_images_keep_their_size_longer():
    network = on_meta("mnasnet_a1", stem="cifar", num_classes=10)
    x = network.conv1(torch.empty(1, 3, 32, 32, device="meta"))
    sides = [x.shape[-1]]
    for i in range(1, 8):
        x = network.get_submodule(f"stage{i}")(x)
        sides.append(x.shape[-1])
    assert sides == [32, 32, 32, 16, 8, 8, 4, 4]
