"""The VGG chapter's networks against torchvision, the paper's tables, and a second hand.

Three linear layers hold nine tenths of the weights and nothing that is VGG's own, so
that here they have few units wherever numbers are computed.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbs_utils import (
    compare,
    count_macs,
    count_parameters,
    create_model,
    reference_network,
    transplant,
)
from nbs_utils.parity.calibration import enliven
from nbs_utils.zoo.vgg import VGG, A, B, C, D, E, make_conv, make_features

TORCHVISION = [f"vgg{n}{bn}" for n in (11, 13, 16, 19) for bn in ("", "_bn")]
HIDDEN = 32


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


def narrow_reference(name):
    """Return torchvision's network with HIDDEN units and weights that tell."""
    network = reference_network(name, device="meta", num_classes=10)
    for i, sizes in {0: (25088, HIDDEN), 3: (HIDDEN, HIDDEN), 6: (HIDDEN, 10)}.items():
        network.classifier[i] = nn.Linear(*sizes, device="meta")
    network.to_empty(device="cpu")
    torch.manual_seed(0)
    for module in network.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    network.image_size = 64
    enliven(network)
    return network.eval()


# Table 1 of the paper, as printed: k-width for a convolution, L for LRN, M for pooling.
TABLE_1 = {
    "vgg11_lrn": "3-64 L M 3-128 M 3-256 3-256 M 3-512 3-512 M 3-512 3-512 M",
    "vgg16_1x1": "3-64 3-64 M 3-128 3-128 M 3-256 3-256 1-256 M "
    "3-512 3-512 1-512 M 3-512 3-512 1-512 M",
}


class Written(nn.Module):
    """A column of Table 1 as functions, with a list of weights and biases."""

    def __init__(self, column, tensors):
        super().__init__()
        self.column, self.tensors = column.split(), list(tensors)

    def forward(self, x):
        tensors = iter(self.tensors)
        for word in self.column:
            if word == "M":
                halves = x.unflatten(2, (-1, 2)).unflatten(4, (-1, 2))
                x = halves.amax(dim=(3, 5))
            elif word == "L":  # PyTorch divides alpha by the size, the paper does not
                x = F.local_response_norm(x, 5, alpha=5e-4, beta=0.75, k=2.0)
            else:
                size, width = map(int, word.split("-"))
                weight, bias = next(tensors), next(tensors)
                assert weight.shape[0] == width // 8 and weight.shape[2:] == (size,) * 2
                x = F.conv2d(x, weight, bias, padding=(size - 1) // 2).clamp(min=0)
        x = x.flatten(1)
        for last in (False, False, True):
            weight, bias = next(tensors), next(tensors)
            x = x @ weight.T + bias
            x = x if last else x.clamp(min=0)
        return x


@pytest.mark.parametrize("name", TORCHVISION)
def test_same_tensors_as_torchvision(name):
    ours, theirs = on_meta(name), reference_network(name, device="meta")
    shapes = [tuple(t.shape) for t in ours.state_dict().values()]
    assert shapes == [tuple(t.shape) for t in theirs.state_dict().values()]


@pytest.mark.parametrize("name", TORCHVISION)
def test_same_logits_as_torchvision(name):
    reference = narrow_reference(name)
    network = create_model(name, 10, hidden=HIDDEN).eval()
    assert transplant(reference, network, (3, 64, 64)).complete
    comparison = compare(network, reference, input_size=(3, 64, 64))
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1  # odd ones show how the average rounds


@pytest.mark.parametrize("name", TABLE_1)
def test_a_lrn_and_c_equal_an_independent_implementation(name):
    network = create_model(
        name, 10, channels=(8, 16, 32, 64, 64), hidden=HIDDEN, map_size=2
    )
    network.image_size = 64
    enliven(network)
    if name == "vgg11_lrn":  # signals that LRN does something to
        with torch.no_grad():
            network.features.conv1_1.weight.mul_(30)
            network.features.conv1_1.bias.mul_(30)
    network.double().eval()
    x = torch.randn(4, 3, 64, 64, dtype=torch.float64)
    reference = Written(TABLE_1[name], network.parameters())
    comparison = compare(network, reference, x)
    assert comparison.agrees, comparison
    if name == "vgg11_lrn":  # without it they differ, so that it was seen
        wrong = Written(TABLE_1[name].replace("L ", ""), reference.tensors)
        assert not compare(network, wrong, x).agrees


@pytest.mark.parametrize(
    ("name", "parameters", "macs", "printed"),
    [
        ("vgg11", 132_863_336, 7_609_090_048, 133),
        ("vgg11_lrn", 132_863_336, 7_609_090_048, 133),
        ("vgg13", 133_047_848, 11_308_466_176, 133),
        ("vgg16_1x1", 133_638_952, 11_770_888_192, 134),
        ("vgg16", 138_357_544, 15_470_264_320, 138),
        ("vgg19", 143_667_240, 19_632_062_464, 144),
    ],
)
def test_counts_are_those_of_the_papers_table_2(name, parameters, macs, printed):
    network = on_meta(name)
    assert count_parameters(network) == parameters
    assert round(parameters / 1e6) == printed
    assert count_macs(network) == macs


def test_parameters_of_c_by_hand():
    channels = [3, 64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    kernels = [3, 3, 3, 3, 3, 3, 1, 3, 3, 1, 3, 3, 1]
    convolutions = sum(
        (k * k * before + 1) * after
        for k, before, after in zip(kernels, channels, channels[1:])
    )
    linear = (25088 + 1) * 4096 + (4096 + 1) * 4096 + (4096 + 1) * 1000
    assert count_parameters(on_meta("vgg16_1x1")) == convolutions + linear


@pytest.mark.parametrize(
    ("kernels", "layers"), [(A, 11), (B, 13), (C, 16), (D, 16), (E, 19)]
)
def test_layers_with_weights_give_the_name(kernels, layers):
    assert sum(map(len, kernels)) + 3 == layers


def test_layers_have_the_names_of_the_released_models():
    names = [name for name, _ in on_meta("vgg16").features.named_children()]
    assert names[:5] == ["conv1_1", "relu1_1", "conv1_2", "relu1_2", "pool1"]
    assert names[-3:] == ["conv5_3", "relu5_3", "pool5"]
    names = [name for name, _ in on_meta("vgg11_lrn").features.named_children()]
    assert names[:4] == ["conv1_1", "relu1_1", "lrn1", "pool1"]


@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_a_layer_keeps_the_map(size):
    layer = nn.Sequential(*make_conv(3, 4, size, norm=True).values())
    assert layer(torch.randn(2, 3, 11, 8)).shape == (2, 4, 11, 8)


def test_at_the_native_size_the_average_changes_nothing():
    network = VGG(A, (4, 4, 4, 4, 4), hidden=8)
    maps = network.features(torch.randn(1, 3, 224, 224))
    assert maps.shape == (1, 4, 7, 7)
    assert torch.equal(network.resize(maps), maps)


def test_dropout_stands_behind_fc6_and_fc7_and_acts_in_training_only():
    torch.manual_seed(0)
    network = VGG(A, (4, 4, 4, 4, 8), hidden=64, num_classes=5)
    for name in ("fc6", "fc7"):
        nn.init.ones_(network.classifier.get_submodule(name).bias)  # all units alive
    x, seen = torch.randn(2, 3, 64, 64), {}
    for name in ("fc6", "fc7", "fc8"):
        network.classifier.get_submodule(name).register_forward_hook(
            lambda layer, inputs, _, name=name: seen.update({name: inputs[0]})
        )
    network.train()(x)
    maps = network.resize(network.features(x)).flatten(1)
    assert torch.equal(seen["fc6"], maps)
    for name in ("fc7", "fc8"):
        assert 0.35 < (seen[name] == 0).float().mean() < 0.75
    assert torch.equal(network.eval()(x), network(x))


def test_first_weights_keep_the_signal():
    torch.manual_seed(0)
    network = create_model("vgg19", 10, channels=(32, 64, 64, 128, 128), hidden=256)
    for layer in network.features:
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            assert abs(layer.weight.std().item() / (2 / fan_in) ** 0.5 - 1) < 0.15
            assert not layer.bias.any()
    with torch.no_grad():
        out = network.features[:-2](torch.randn(2, 3, 64, 64))  # conv5_4
    assert 0.1 < out.std() < 10


def test_small_images_get_a_head_for_one_position():
    network = on_meta("vgg16", num_classes=10, image_size=32)
    assert network.classifier.fc6.in_features == 512
    assert network(torch.empty(2, 3, 32, 32, device="meta")).shape == (2, 10)
    with pytest.raises(ValueError, match="at least 32 x 32"):
        network(torch.empty(2, 3, 31, 40, device="meta"))


def test_stages_and_channels_must_be_as_many():
    with pytest.raises(ValueError, match="shorter|longer"):
        make_features(A, (8, 8))
