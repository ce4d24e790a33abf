"""GoogLeNet: the paper's table, torchvision's function, the auxiliary heads."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy_data import ToyData

import nbs_utils as nbs
from nbs_utils.zoo import create_model
from nbs_utils.zoo.googlenet import (
    MODULES,
    AuxiliaryHead,
    ConvNormAct,
    Inception,
    downsample,
)


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


@pytest.mark.parametrize(
    ("name", "aux", "parameters", "macs"),
    [
        ("googlenet", False, 6_998_552, 1_582_671_872),
        ("googlenet", True, 13_378_280, 1_582_671_872),
        ("googlenet_tv", False, 6_624_904, 1_498_376_192),  # torchvision's 1.498
        ("googlenet_tv", True, 13_004_888, 1_498_376_192),
    ],
)
def test_counts(name, aux, parameters, macs):
    network = on_meta(name, aux=aux)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


def test_operations_of_the_papers_table():
    table = nbs.stage_table(on_meta("googlenet")).set_index("stage")
    printed = {"conv2": 360, "inception_3a": 128, "inception_3b": 304, "fc": 1}
    printed |= {"inception_4b": 88, "inception_4c": 100, "inception_4e": 170}
    for stage, millions in printed.items():
        assert round(table.loc[stage, "MACs"] / 1e6) == millions
    assert table.loc["inception_5b", "output shape"] == "1024 x 7 x 7"


def test_same_function_as_torchvision():
    reference = nbs.reference_network("googlenet")
    network = create_model("googlenet_tv", aux=True).eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference, input_size=(3, 96, 96))
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1  # odd ones show how the poolings round
    for ours, theirs, channels in (
        (network.aux_4a, reference.aux1, 512),
        (network.aux_4d, reference.aux2, 528),
    ):
        for side in (14, 9):
            x = torch.randn(4, channels, side, side)
            assert nbs.compare(ours, theirs, x).agrees


def test_torchvisions_logits_in_training_mode():
    reference = nbs.reference_network("googlenet", dropout=0.0, dropout_aux=0.0)
    network = create_model("googlenet_tv", aux=True, dropout=0.0, aux_dropout=0.0)
    nbs.transplant(reference, network)
    x = torch.randn(4, 3, 96, 96)
    with torch.no_grad():
        end, of_4a, of_4d = network.double().train()(x.double())
        theirs = reference.double().train()(x.double())
    torch.testing.assert_close(end, theirs.logits)
    torch.testing.assert_close(of_4a, theirs.aux_logits1)
    torch.testing.assert_close(of_4d, theirs.aux_logits2)


def test_the_papers_module_by_hand():
    torch.manual_seed(0)
    module = Inception(8, 2, 3, 5, 2, 4, 6)
    x = torch.randn(2, 8, 9, 11)

    def conv(x, layer, padding=0):
        return F.conv2d(x, layer.conv.weight, layer.conv.bias, padding=padding).relu()

    three, five, pool = module.branch_3x3, module.branch_5x5, module.branch_pool
    expected = [
        conv(x, module.branch_1x1),
        conv(conv(x, three[0]), three[1], 1),
        conv(conv(x, five[0]), five[1], 2),
        conv(F.max_pool2d(F.pad(x, 4 * [1], value=-torch.inf), 3, 1), pool[1]),
    ]
    torch.testing.assert_close(module(x), torch.cat(expected, dim=1))
    assert module.out_channels == 17


def test_the_paper_has_5x5_and_lrn_and_no_batch_norm():
    network = on_meta("googlenet")
    kernels = [getattr(network, f"inception_{n}").branch_5x5[1].conv for n in MODULES]
    assert {conv.kernel_size for conv in kernels} == {(5, 5)}
    assert not any(isinstance(m, nn.BatchNorm2d) for m in network.modules())
    torch.manual_seed(0)
    x = 30 * torch.rand(2, 7, 6, 6)
    for norm in (on_meta("googlenet").pool1[-1], on_meta("googlenet").conv2[-1]):
        expected = F.local_response_norm(x, 5, alpha=1e-4, beta=0.75, k=1.0)
        torch.testing.assert_close(norm(x), expected)


def test_22_layers_lie_behind_one_another():
    network = on_meta("googlenet")

    def weights(part):
        return sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in part.modules())

    longest = sum(
        max(map(weights, part.children()))
        if isinstance(part, Inception)
        else weights(part)
        for part in network.children()
    )
    assert (longest, weights(network)) == (22, 58)


def test_poolings_round_up():
    sides = [112]
    for _ in range(4):
        sides.append(downsample()(torch.zeros(1, 1, sides[-1], sides[-1])).shape[-1])
    assert sides == [112, 56, 28, 14, 7]
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert downsample()(x).flatten().tolist() == [10, 11, 14, 15]  # windows at 0 and 2


def test_the_papers_head_pools_windows_of_five():
    torch.manual_seed(0)
    head = AuxiliaryHead(6, 8, 16, 5, window=5, dropout=0.0)
    x = torch.randn(2, 6, 14, 14)
    pooled = head.resize(head.pool(x))
    torch.testing.assert_close(pooled[..., 1, 2], x[..., 3:8, 6:11].mean(dim=(2, 3)))
    assert pooled.shape == (2, 6, 4, 4)
    adaptive = AuxiliaryHead(6, 8, 16, 5, window=None, dropout=0.0)
    assert not torch.allclose(adaptive.resize(x), pooled, atol=1e-3)


def test_heads_leave_the_rest_of_the_network_as_it_is():
    def build(aux):
        torch.manual_seed(0)
        return create_model("googlenet", 10, width=0.25, aux=aux)

    with_heads, without = build(True).state_dict(), build(False).state_dict()
    assert all(torch.equal(value, with_heads[key]) for key, value in without.items())
    assert len(with_heads) > len(without)


def trained(**options):
    """Return the first and the last weights of two steps of `fit`."""
    aux_weight = options.pop("aux_weight", 0.3)
    torch.manual_seed(0)
    network = create_model(
        *("googlenet", 10),
        **dict(width=0.125, stem="cifar", in_channels=1, dropout=0.0, aux_dropout=0.0),
        **options,
    )
    first = {key: value.clone() for key, value in network.state_dict().items()}
    recipe = nbs.Recipe.load("short").replace(
        epochs=1, lr=0.05, weight_decay=0.0, precision="float32", aux_weight=aux_weight
    )
    nbs.fit(network, ToyData(train=64), recipe, progress="off")
    return first, network.state_dict()


def test_fit_trains_the_heads_with_the_recipes_weight():
    first, plain = trained()
    _, silent = trained(aux=True, aux_weight=0.0)
    before, heard = trained(aux=True)
    for key in plain:  # a head whose loss counts nothing changes nothing
        torch.testing.assert_close(silent[key], plain[key])
    stem = "conv1.conv.weight"
    assert torch.equal(first[stem], before[stem])
    assert not torch.allclose(heard[stem], plain[stem], rtol=0.01)
    for key in before:
        if key.startswith("aux") and key.endswith("weight"):
            assert not torch.equal(before[key], heard[key])
            assert torch.equal(before[key], silent[key])


@pytest.mark.parametrize(
    ("kernel_size", "stride", "shape"),
    [(1, 1, (9, 11)), (3, 2, (5, 6)), (5, 1, (9, 11)), ((1, 7), 1, (9, 11))],
)
def test_conv_norm_act_pads_half_of_its_kernel(kernel_size, stride, shape):
    layer = ConvNormAct(4, 6, kernel_size, stride)
    assert layer(torch.randn(2, 4, 9, 11)).shape == (2, 6, *shape)
    assert [name for name, _ in layer.named_children()] == ["conv", "act"]
    assert layer.conv.bias is not None


def test_conv_norm_act_has_what_it_is_given():
    norm = partial(nn.BatchNorm2d, eps=1e-3)
    layer = ConvNormAct(4, 8, 3, padding=0, groups=4, norm=norm, act=None)
    assert [name for name, _ in layer.named_children()] == ["conv", "norm"]
    assert layer.conv.bias is None and layer.norm.eps == 1e-3
    assert layer.conv.weight.shape == (8, 1, 3, 3)
    x = torch.randn(2, 4, 9, 9)
    expected = layer.norm(layer.conv(x))
    assert layer(x).shape == (2, 8, 7, 7)
    torch.testing.assert_close(layer(x), expected)


def test_he_initialization():
    torch.manual_seed(0)
    network = create_model("googlenet", 10, aux=True)
    conv = network.inception_4e.branch_3x3[1].conv
    expected = (2 / (9 * 160)) ** 0.5
    assert conv.weight.std().item() == pytest.approx(expected, rel=0.01)
    assert conv.bias.eq(0).all()
    for classifier in (network.fc, network.aux_4a.fc2):
        assert classifier.weight.std().item() == pytest.approx(1 / 32, rel=0.05)
    hidden = network.aux_4d.fc1.weight.std().item()
    assert hidden == pytest.approx((2 / 2048) ** 0.5, rel=0.01)


@pytest.mark.parametrize(("name", "least"), [("googlenet", 31), ("googlenet_tv", 15)])
def test_the_smallest_image(name, least):
    network = on_meta(name).eval()
    assert network(torch.empty(1, 3, least, least, device="meta")).shape == (1, 1000)
    with pytest.raises(ValueError, match=f"at least {least} x {least}"):
        network(torch.empty(1, 3, least - 1, least, device="meta"))
