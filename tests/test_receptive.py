"""Receptive fields: against the formula, through gates, and on every layout of maps."""

import pytest
import torch.nn.functional as F
from torch import nn
from torchvision import models

from nbs_utils.counting import receptive_field, receptive_field_formula
from nbs_utils.counting.shapes import map_layouts


def test_receptive_field_equals_the_formula_on_chains():
    chains = [
        [nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Conv2d(2, 2, 3, stride=2)],
        [nn.Conv2d(3, 2, 5, stride=2), nn.MaxPool2d(3, 2), nn.Conv2d(2, 4, 3)],
        [nn.Conv2d(3, 2, 3, dilation=2), nn.BatchNorm2d(2), nn.AvgPool2d(2)],
        [nn.Conv2d(3, 2, 2, stride=2), nn.Conv2d(2, 2, 1), nn.MaxPool2d(2)],
    ]
    for layers in chains:
        field = receptive_field(nn.Sequential(*layers), (3, 48, 48))
        last = receptive_field_formula(layers).iloc[-1]
        assert field.size == (last["size"], last["size"]), layers
        assert field.jump == (last["jump"], last["jump"]), layers
        assert not field.clipped


def test_receptive_field_formula_by_hand():
    table = receptive_field_formula([(11, 4), (3, 2), (5, 1), (3, 2)])
    assert table["size"].tolist() == [11, 19, 51, 67]
    assert table["jump"].tolist() == [4, 8, 8, 16]
    with pytest.raises(ValueError, match="square"):
        receptive_field_formula([nn.Conv2d(1, 1, (1, 3))])


def test_receptive_field_is_the_support_not_what_happens_to_be_active():
    class Functional(nn.Module):
        """Dead ReLUs and a pooling that is called as a function."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 3)
            nn.init.constant_(self.conv.weight, -1)

        def forward(self, x):
            return F.max_pool2d(F.relu(self.conv(x)), 2)

    network = Functional()
    field = receptive_field(network, (1, 20, 20), position=(2, 3))
    assert field.size == (4, 4)
    assert field.box == (4, 6, 7, 9)
    assert (network.conv.weight == -1).all()  # the original keeps its weights


def test_receptive_field_of_resnet18():
    network = models.resnet18()
    # the longest path: 7x7/2, 3x3/2, then 16 convolutions of 3x3
    chain = [(7, 2), (3, 2), *[(3, 1)] * 4]
    for _ in range(3):
        chain += [(3, 2), *[(3, 1)] * 3]
    expected = receptive_field_formula(chain)["size"].iloc[-1]
    field = receptive_field(network, (3, 480, 480), "layer4")
    assert field.size == (expected, expected) == (435, 435)
    assert field.jump == (32, 32)
    cut = receptive_field(network, (3, 224, 224), "layer4")
    assert cut.clipped
    assert max(cut.size) <= 224
    with pytest.raises(ValueError, match="no layer called 'layer9'"):
        receptive_field(network, layer="layer9")
    with pytest.raises(ValueError, match="no map"):
        receptive_field(network, (3, 64, 64), layer="fc")


class Gate(nn.Module):
    """Two convolutions and squeeze-and-excitation, whose gate dies with these weights."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1), nn.Hardsigmoid()
        )
        self.after = nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x):
        x = self.conv(x)
        return self.after(x * self.gate(x))


def test_a_gate_lets_every_position_see_everything():
    network = Gate()
    before = receptive_field(network, (2, 20, 12), "conv")
    assert before.size == (3, 3)
    after = receptive_field(network, (2, 20, 12), "after")
    assert after.size == (20, 12)
    assert after.clipped
    assert after.jump is None


class LocalGate(nn.Module):
    """x * sigmoid(conv(x)): a gate that sees 3 x 3 pixels more."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 3, padding=1)

    def forward(self, x):
        return x * self.conv(x).sigmoid()


def test_two_hundred_gates_neither_vanish_nor_overflow():
    field = receptive_field(
        nn.Sequential(*[LocalGate() for _ in range(200)]), (1, 9, 500)
    )
    assert field.size == (9, 401)
    assert field.box[1:4:2] == (249 - 200, 249 + 200)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenet_v3_large"])
def test_receptive_fields_of_networks_with_gates(name):
    network = models.get_model(name, weights=None)
    stem = receptive_field(network, (3, 96, 96), "features.0")
    assert (stem.size, stem.jump) == ((3, 3), (2, 2))
    assert receptive_field(network, (3, 96, 96)).size == (96, 96)
    if name == "mobilenet_v3_large":  # the first gate is in features.4
        # stem 3/2; 3; 3/2; 3
        expected = receptive_field_formula([(3, 2), (3, 1), (3, 2), (3, 1)])
        field = receptive_field(network, (3, 96, 96), "features.3")
        assert field.size[0] == expected["size"].iloc[-1]


def test_receptive_field_of_a_map_with_channels_last():
    network = models.swin_t()
    # one position of the patches' map is 4 pixels; a window has 7 x 7 positions
    field = receptive_field(network, layer="features.1.0", position=(8, 27))
    assert field.size == (28, 28)
    assert field.box == (28, 84, 55, 111)
    # shifted windows begin at 4, 11, 18, 25: row 8 is in 4 to 10, so in two of before
    field = receptive_field(network, layer="features.1.1", position=(8, 27))
    assert field.box == (0, 84, 55, 139)
    # the last shifted window is rolled together of both edges, and masked
    corner = receptive_field(network, layer="features.1.1", position=(55, 0))
    assert corner.box == (196, 0, 223, 27)
    field = receptive_field(network, (3, 112, 224), "features.1.0", position=(20, 50))
    assert field.box == (56, 196, 83, 223)
    asked = receptive_field(network, layer="features.1.0", layout="nhwc")
    assert asked == receptive_field(network, layer="features.1.0")
    with pytest.raises(ValueError, match="layout is 'last'"):
        receptive_field(network, layout="last")


def test_layouts_are_found_by_what_grows_with_the_image():
    class Both(nn.Module):
        """Maps of 8 channels and 8 x 8 positions, and attention between 64 tokens."""

        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 1), nn.Linear(8, 8)
            self.scores = nn.Identity()

        def forward(self, x):
            x = self.last(self.first(x).permute(0, 2, 3, 1))
            tokens = x.flatten(1, 2)
            return self.scores((tokens @ tokens.transpose(1, 2))[:, None])

    names = ["first", "last", "scores"]
    found = map_layouts(Both(), (3, 8, 8), names)
    assert found == {"first": "nchw", "last": "nhwc"}

    class Fixed(Both):
        """One that takes a single size: lengths decide."""

        def forward(self, x):
            if x.shape[2:] != (8, 6):
                raise ValueError("only 8 x 6")
            return super().forward(x)

    assert map_layouts(Fixed(), (3, 8, 6), names[:2]) == found
