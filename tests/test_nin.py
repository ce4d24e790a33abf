"""The NiN chapter's networks against the authors' definitions, pytorchcv and sums."""

import itertools

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
from nbs_utils.parity.calibration import vary
from nbs_utils.zoo.nin import MlpConv, NiN

# The authors' definition files, a word for each layer: its kernel, stride and padding,
# and its channels. Behind each of them stands a ReLU, the last one not excepted.
DEFINITIONS = {
    "nin": "11/4/0:96 1:96 1:96 pool 5/1/2:256 1:256 1:256 pool "
    "3/1/1:384 1:384 1:384 pool 3/1/1:1024 1:1024 1:1000",
    "nin_cifar": "5/1/2:192 1:160 1:96 pool 5/1/2:192 1:192 1:192 pool "
    "3/1/1:192 1:192 1:10",
}


def pooled(x):
    """Largest values of windows of 3x3 at every second place; the last may be cut."""
    rows = range(0, max(x.shape[2] - 1, 1), 2)
    columns = range(0, max(x.shape[3] - 1, 1), 2)
    windows = [
        [x[:, :, i : i + 3, j : j + 3].amax(dim=(2, 3)) for j in columns] for i in rows
    ]
    return torch.stack([torch.stack(row, dim=2) for row in windows], dim=2)


class Reference(nn.Module):
    """A network in network without layers: from a definition and a list of weights."""

    def __init__(self, definition, weights):
        super().__init__()
        self.words, self.weights = definition.split(), list(weights)

    def forward(self, x):
        weights = iter(self.weights)
        for word in self.words:
            if word == "pool":
                x = pooled(x)
                continue
            w, b = next(weights), next(weights)
            if word.startswith("1:"):
                x = torch.einsum("oi,bihw->bohw", w[:, :, 0, 0], x)
            else:
                kernel, stride, padding = map(int, word.split(":")[0].split("/"))
                height = (x.shape[2] + 2 * padding - kernel) // stride + 1
                patches = F.unfold(x, kernel, padding=padding, stride=stride)
                x = (w.flatten(1) @ patches).unflatten(2, (height, -1))
            x = (x + b[:, None, None]).clamp(min=0)
        return x.sum(dim=(2, 3)) / (x.shape[2] * x.shape[3])


@pytest.mark.parametrize(
    ("name", "pixels", "parameters", "macs", "side"),
    [
        ("nin", 224, 7_595_176, 1_100_188_800, 6),
        ("nin_cifar", 32, 966_986, 222_486_528, 8),
    ],
)
def test_counts_and_class_maps(name, pixels, parameters, macs, side):
    classes = 1000 if name == "nin" else 10
    with torch.device("meta"):
        network = create_model(name, classes)
        maps = network.features(torch.empty(1, 3, pixels, pixels))
    assert count_parameters(network) == parameters
    assert count_macs(network, (3, pixels, pixels)) == macs
    assert maps.shape == (1, classes, side, side)


@pytest.mark.parametrize("name", DEFINITIONS)
def test_the_widths_are_the_published_ones(name):
    with torch.device("meta"):
        network = create_model(name, 1000 if name == "nin" else 10)
    convs = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    words = [word for word in DEFINITIONS[name].split() if word != "pool"]
    assert convs == [int(word.split(":")[1]) for word in words]


@pytest.mark.parametrize(("name", "pixels"), [("nin", 131), ("nin_cifar", 32)])
def test_logits_equal_an_independent_implementation(name, pixels):
    torch.manual_seed(0)
    network = create_model(name, 1000 if name == "nin" else 10).eval()
    vary(network)
    network.double()
    reference = Reference(DEFINITIONS[name], network.state_dict().values()).eval()
    for side in (pixels, pixels + 4):
        x = torch.randn(2, 3, side, side, dtype=torch.float64)
        comparison = compare(network, reference, x)
        assert comparison.agrees, comparison


def test_logits_equal_pytorchcv_with_its_pooling_and_no_other():
    reference = reference_network("ptcv/nin_cifar10")
    for pools, padded, same in (
        (("max", "average"), True, True),
        (("max", "average"), False, False),
        (("max", "max"), True, False),
    ):
        ours = create_model("nin_cifar", 10, pools=pools, padded=padded).eval()
        assert transplant(reference, ours).complete
        comparison = compare(ours, reference, input_size=(3, 32, 32))
        assert comparison.agrees == same, comparison


def test_a_mlpconv_layer_is_one_mlp_at_every_position():
    torch.manual_seed(0)
    block = MlpConv(3, (6, 5, 4), kernel_size=3, stride=2, padding=1).double()
    sizes = [(27, 6), (6, 5), (5, 4)]
    mlp = nn.Sequential(*(m for size in sizes for m in (nn.Linear(*size), nn.ReLU())))
    for own, other in zip(mlp.double().parameters(), block.parameters(), strict=True):
        own.data = other.data.view_as(own)
    x = torch.randn(2, 3, 9, 9, dtype=torch.float64)
    out, padded = block(x), F.pad(x, (1, 1, 1, 1))
    for i in range(5):
        for j in range(5):
            window = padded[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3].flatten(1)
            torch.testing.assert_close(out[:, :, i, j], mlp(window))


@pytest.mark.parametrize("rectified", [True, False])
def test_logits_are_averages_of_class_maps(rectified):
    torch.manual_seed(0)
    network = NiN(((8, 8), (8,)), (3,), ("max",), (0.0,), rectified=rectified).eval()
    x = torch.randn(3, 3, 67, 95)
    maps = network.features(x)
    torch.testing.assert_close(network(x), maps.mean(dim=(2, 3)))
    assert (maps.min() < 0) == (not rectified)


def test_options_move_nothing_else():
    """Dropout stands where each form has it, batch norm in front of every ReLU."""
    for name, expected in (("nin", [3]), ("nin_cifar", [1, 2])):
        layers = dict(create_model(name, 10).features.named_children())
        dropped = [i for i in (1, 2, 3) if layers.get(f"drop{i}", nn.Dropout(0)).p > 0]
        assert dropped == expected
        normed = create_model(name, 10, norm=True)
        kinds = [type(m) for m in normed.modules() if not list(m.children())]
        before = [a for a, b in itertools.pairwise(kinds) if b is nn.ReLU]
        assert set(before) == {nn.BatchNorm2d}
        assert nn.BatchNorm2d not in {type(m) for m in create_model(name, 10).modules()}


@pytest.mark.parametrize(("stem", "least"), [("imagenet", 39), ("cifar", 8)])
def test_the_smallest_image(stem, least):
    network = NiN(((4,), (4,), (4,), (4,)), stem=stem, num_classes=5).eval()
    assert network(torch.zeros(1, 3, least, least)).shape == (1, 5)
    with pytest.raises(ValueError, match=f"at least {least} x {least}"):
        network(torch.zeros(1, 3, least - 1, least))
