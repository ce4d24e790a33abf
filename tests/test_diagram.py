"""Diagrams show what is executed: against networks whose structure is known."""

import re
import xml.etree.ElementTree as ET

import pytest
import torch
from torch import nn

from nbs_utils.figures.diagram import _drawn, network_svg, outline
from nbs_utils.figures.shapes import shapes_svg, stages
from nbs_utils.figures.structure import Arcs, Parallel, build
from nbs_utils.figures.tracing import graph_of


def words(network: nn.Module, size, depth="auto") -> str:
    """Return the diagram in words."""
    return _drawn(network, size, depth, None)[1]


class Residual(nn.Module):
    """x + f(x) with everything that blurs who made a tensor."""

    def __init__(self, inplace=True):
        super().__init__()
        self.conv1 = nn.Conv2d(8, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=inplace)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)  # at rest it returns its input itself
        self.shortcut = nn.Identity()  # and so does this
        self.never = nn.Linear(3, 3)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.drop(self.conv2(y))
        y += self.shortcut(x)
        return self.relu(y)


def test_skip_through_identity_dropout_and_in_place_operations():
    found = words(Residual(), (8, 6, 6))
    assert found == (
        "Diagram of Residual: input 8 × 6 × 6; branches (conv 3×3, 8 to 8 × 6 × 6; "
        "conv 3×3, 8 to 8 × 6 × 6 | skip), joined by sum to 8 × 6 × 6; "
        "ReLU to 8 × 6 × 6."
    )


def test_detail_shows_every_layer_and_a_shared_one_each_time_it_runs():
    found = words(Residual(), (8, 6, 6), "leaf")
    assert found.count("ReLU") == 2
    assert found.count("batch norm") == 1
    assert found.count("dropout 0.5") == 1
    assert "linear" not in found  # the layer that never runs


def test_equal_blocks_are_counted_and_unequal_ones_are_not():
    network = nn.Sequential(Residual(), Residual(), nn.MaxPool2d(2), Residual())
    found = words(network, (8, 6, 6), 1)
    assert "2 times Residual (3×3 → 3×3) with a skip to 8 × 6 × 6; max pool" in found
    assert found.endswith("Residual (3×3 → 3×3) with a skip to 8 × 3 × 3.")
    network[1].conv1 = nn.Conv2d(8, 8, 5, padding=2)
    assert "2 times" not in words(network, (8, 6, 6), 1)


def test_resnet18_as_in_the_paper():
    from torchvision.models import resnet18

    found = words(resnet18(), (3, 224, 224), 1)
    parts = found.split("; ")[1:]
    assert parts[0] == "conv 7×7, 64, /2 to 64 × 112 × 112"
    assert parts[1] == "max pool 3×3, /2 to 64 × 56 × 56"
    assert parts[2].startswith("2 times BasicBlock")
    channels = [64, 128, 128, 256, 256, 512, 512]
    skips = ["", "1×1", "", "1×1", "", "1×1", ""]
    for part, c, skip in zip(parts[2:9], channels, skips, strict=True):
        through = " through 1×1" if skip else ""
        assert f"(3×3 → 3×3) with a skip{through} to {c} × " in part
    assert parts[9:] == ["global average pool to 512 × 1 × 1", "linear, 1000 to 1000."]


def test_branches_of_inception_stand_side_by_side():
    from torchvision.models.googlenet import Inception

    block = Inception(192, 64, 96, 128, 16, 32, 32)
    series = build(graph_of(block, (192, 28, 28)), 1)
    (part,) = series.items
    assert isinstance(part, Parallel)
    assert part.join.node.words.kind == "cat"
    assert part.join.node.shape == (256, 28, 28)
    inside = [[b.node.words.label for b in branch.items] for branch in part.branches]
    assert inside == [
        ["conv 1×1, 64"],
        ["conv 1×1, 96", "conv 3×3, 128"],
        ["conv 1×1, 16", "conv 3×3, 32"],
        ["max pool 3×3", "conv 1×1, 32"],
    ]


def test_densely_connected_layers_keep_all_their_connections():
    class Dense(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(nn.Conv2d(4 + 2 * i, 2, 1) for i in range(3))

        def forward(self, x):
            found = [x]
            for layer in self.layers:
                found.append(layer(torch.cat(found, 1)))
            return torch.cat(found, 1)

    series = build(graph_of(Dense(), (4, 5, 5)), 1)
    (part,) = series.items
    assert isinstance(part, Arcs)
    labels = [box.node.words.label for box in part.boxes]
    sources = {
        i: sorted(labels[s] if s >= 0 else "input" for s in part.inputs[i])
        for i, label in enumerate(labels)
        if label == "concat"
    }
    # the last concatenation reads the input and all three layers
    assert sources[len(labels) - 1] == ["conv 1×1, 2"] * 3 + ["input"]


def test_vit_is_folded_and_its_tokens_are_named():
    from torchvision.models import VisionTransformer

    network = VisionTransformer(32, 8, 6, 2, 16, 32, num_classes=10)
    found = words(network, (3, 32, 32))
    assert "conv 8×8, 16, /8 to 16 × 4 × 4; reshape to 16 × 16" in found
    assert "concat class_token to 17 × 16; " in found
    assert "+ pos_embedding to 17 × 16; " in found
    assert found.count("6 times EncoderBlock of (branches (layer norm") == 1
    assert "attention, 2 heads to 17 × 16 | skip), joined by sum" in found
    assert "pick [:, 0] to 16; linear, 10 to 10." in found


def test_code_with_einops_and_plain_functions():
    from einops import rearrange
    from torch.nn import functional as F

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)
            self.out = nn.Linear(8, 8)

        def forward(self, x):
            q, k, v = rearrange(self.qkv(x), "b n (t h d) -> t b h n d", t=3, h=2)
            weights = F.softmax(q @ k.transpose(-2, -1) / 2, dim=-1)
            return self.out(rearrange(weights @ v, "b h n d -> b n (h d)"))

    # inside a larger network, only what computes
    found = words(nn.Sequential(Attention(), nn.ReLU()), (5, 8), 2)
    assert (
        "input 5 × 8; Attention of (linear, 24 to 5 × 24; branches (matrix product to "
        "2 × 5 × 5; softmax to 2 × 5 × 5 | skip), joined by matrix product to 2 × 5 × 4"
        "; linear, 8 to 5 × 8); ReLU to 5 × 8."
    ) in found
    # by itself, how the tensors are rearranged as well
    found = words(Attention(), (5, 8))
    assert "linear, 24 to 5 × 24; reshape to 2 × 5 × 4; branches (" in found
    assert (
        "transpose to 2 × 4 × 5 | skip), joined by matrix product to 2 × 5 × 5" in found
    )


def test_the_network_is_not_touched():
    network = Residual().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network_svg(network, (8, 6, 6))
    assert network.training
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("depth", [1, 2, "auto", "leaf"])
def test_the_drawing_fits_a_phone_and_both_themes(depth):
    from torchvision.models import resnet18

    svg = network_svg(resnet18(), (3, 64, 64), depth, title="A & B")
    root = ET.fromstring(svg)
    left, _, width, height = map(float, root.get("viewBox").split())
    assert root.get("role") == "img"
    assert root.get("aria-label").startswith("Diagram of A & B: input 3 × 64 × 64")
    assert width <= 640
    assert "max-width:100%" in root.get("style")
    assert " id=" not in svg  # nothing that could meet another drawing of the page
    assert not re.search("#(000|fff|222)", svg.lower())
    for element in root.iter():  # nothing is cut off
        if element.tag.endswith("rect"):
            x, w = float(element.get("x")), float(element.get("width"))
            assert left <= x
            assert x + w <= left + width
            assert float(element.get("y")) + float(element.get("height")) <= height


def test_bad_input_is_told_what_to_do():
    with pytest.raises(ValueError, match=r"Residual cannot take an input of 3 x 6 x 6"):
        network_svg(Residual(), (3, 6, 6))
    with pytest.raises(ValueError, match="depth is 0; it must be a positive number"):
        network_svg(Residual(), (8, 6, 6), 0)


def test_operations_of_one_level_are_words():
    class Gate(nn.Module):
        def __init__(self):
            super().__init__()
            self.places = nn.Parameter(torch.zeros(4))

        def forward(self, x):
            x = torch.relu(x + self.places)
            return x * torch.sigmoid(x.mean(1, keepdim=True))

    series = build(graph_of(Gate(), (3, 4)), 1)
    assert outline(series) == (
        "+ places to 3 × 4; ReLU to 3 × 4; branches (global average pool to 1 × 4; "
        "sigmoid to 1 × 4 | skip), joined by product to 3 × 4"
    )


def test_tensors_to_scale():
    from torchvision.models import alexnet, vit_b_16

    assert stages(alexnet(), (3, 224, 224)) == [
        ("input", (3, 224, 224)),
        ("features", (64, 55, 55)),
        ("features", (192, 27, 27)),
        ("features", (256, 13, 13)),
        ("avgpool", (256, 6, 6)),
        ("flatten", (9216, 1, 1)),
        ("classifier", (4096, 1, 1)),
        ("classifier", (1000, 1, 1)),
    ]
    root = ET.fromstring(shapes_svg(alexnet()))
    fronts = [
        [tuple(map(float, p.split(","))) for p in e.get("points").split()]
        for e in root.iter()
        if e.tag.endswith("polygon")
    ][::3]
    lengths = [points[1][0] - points[0][0] for points in fronts]
    heights = [points[2][1] - points[1][1] for points in fronts]
    assert heights[1] / heights[0] == pytest.approx(55 / 224, abs=0.01)
    assert lengths[2] / lengths[3] == pytest.approx(192 / 256, abs=0.01)
    assert lengths[6] / lengths[5] == pytest.approx(4096 / 9216, abs=0.01)
    with pytest.raises(ValueError, match=r"shape 196 × 768.*draw_network"):
        shapes_svg(vit_b_16())
