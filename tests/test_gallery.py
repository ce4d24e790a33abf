"""One block of each kind, drawn: what a reader must find in the drawing is there."""

import itertools
import xml.etree.ElementTree as ET

import pytest
import torch
from blocks import BLOCKS
from torch import nn
from torchvision import models

from nbs_utils.figures import network_svg
from nbs_utils.figures.moves import describe_move
from nbs_utils.figures.pen import text_width

# block -> (words at "auto", boxes there, not counting frames, words when closed)
FACTS = {
    "NiN": (["conv 11×11, 96", "conv 1×1, 96 × 2"], 2, ["11×11 → 1×1 → 1×1"]),
    "Inception": (["conv 5×5", "max pool 3×3", "concat"], 8, ["concat", "5×5"]),
    "ResNet": (["conv 3×3, 64", "+"], 4, ["1×1 → 3×3 → 1×1", "+"]),
    "ResNeXt": (["conv 3×3, 128, 32 groups", "+"], 4, ["3×3, 32 groups", "+"]),
    "dense": (["DenseLayer", "concat"], 8, ["4 × DenseLayer"]),
    "separable": (["depthwise 3×3, 728", "Separable × 3", "+"], 3, ["Separable"]),
    "SE": (["×", "+", "linear, 16", "sigmoid"], 7, ["× SqueezeExcite"]),
    "SE, stride 2": (["×", "conv 1×1, /2"], 8, ["× SqueezeExcite", "1×1"]),
    "ConvNeXt": (["depthwise 7×7, 96", "× layer_scale"], 7, ["depthwise 7×7", "+"]),
    "fire": (["conv 3×3", "concat"], 4, ["1×1 → concat (1×1 | 3×3)"]),
    "inverted residual": (["depthwise 3×3, 144"], 3, ["→ depthwise 3×3 → 1×1", "+"]),
    "inverted residual with SE": (["×", "+"], 6, ["× SqueezeExcite → 1×1"]),
    "shuffle v1": (
        ["channel shuffle, 3 groups", "conv 1×1, 60, 3 groups"],
        5,
        ["1×1, 3 groups → shuffle → depthwise 3×3"],
    ),
    "shuffle v1, stride 2": (
        ["channel shuffle, 3 groups", "average pool 3×3, /2", "concat"],
        7,
        ["shuffle", "concat", "pool"],
    ),
    "shuffle v2": (
        ["split", "concat", "channel shuffle, 2 groups"],
        6,
        ["split → concat → shuffle", "identity", "depthwise 3×3"],
    ),
    "shuffle v2, stride 2": (
        ["depthwise 3×3, /2", "concat", "channel shuffle, 2 groups"],
        7,
        ["concat → shuffle", "depthwise 3×3"],
    ),
    "Mixer": (["transpose", "linear, 196", "+"], 8, ["(transpose → MLP → transpose)"]),
    "Cycle FC": (["shift → 1×1", "+"], 8, ["CycleFC (shift) + CycleFC (shift) + 1×1"]),
    "Cycle FC by roll": (["shift → 1×1"], 8, ["CycleFCByRoll (shift)"]),
    "Swin": (["windows of 7×7", "MLP", "+"], 11, ["x + WindowAttention → x + MLP"]),
    "Swin, shifted": (["shift"], 4, ["x + WindowAttention (shift) → x + MLP"]),
}


def read(svg: str) -> tuple[str, int, float, float]:
    """Return the texts, the number of solid boxes, width and height of a drawing."""
    root = ET.fromstring(svg)
    texts = " ".join(t.text for t in root.iter() if t.tag.endswith("text"))
    boxes = [r for r in root.iter() if r.tag.endswith("rect")]
    solid = [r for r in boxes if r.get("stroke-dasharray") is None]
    _, _, width, height = map(float, root.get("viewBox").split())
    return texts, len(solid), width, height


def test_every_block_of_the_gallery_has_its_facts():
    assert set(FACTS) == set(BLOCKS)


@pytest.mark.parametrize("name", FACTS)
def test_a_block_is_drawn_with_what_makes_it(name):
    wanted, boxes, closed = FACTS[name]
    build, size = BLOCKS[name]
    texts, found, width, height = read(network_svg(build(), size))
    for word in wanted:
        assert word in texts
    assert found == boxes
    assert width <= 640
    assert height <= 800
    texts, found, width, height = read(network_svg(nn.Sequential(build()), size, 1))
    for word in closed:
        assert word in texts
    assert found <= 2  # the block, and what stands on its skip
    assert height <= 200


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Swin, shifted", ["cyclic shift −3, −3", "windows of 7×7", "cyclic shift +3"]),
        ("Cycle FC", ["shift +1", "shift −1", "pick [:, 2::3]"]),
        ("Cycle FC by roll", ["shift +1", "shift −1", "split"]),
        ("shuffle v2", ["channel shuffle, 2 groups"]),
        ("Mixer", ["transpose"]),
    ],
)
def test_rearrangements_are_called_by_what_they_do(name, words):
    build, size = BLOCKS[name]
    texts, *_ = read(network_svg(build(), size, "leaf"))
    for word in words:
        assert word in texts
    assert "roll" not in texts
    assert "empty" not in texts


@pytest.mark.parametrize("name", BLOCKS)
def test_no_text_of_a_box_lies_on_another(name):
    build, size = BLOCKS[name]
    for depth, block in ((1, nn.Sequential(build())), ("auto", build())):
        rows: dict[float, list[tuple[float, float]]] = {}
        for text in ET.fromstring(network_svg(block, size, depth)).iter():
            if text.tag.endswith("text") and not text.get("style"):
                x, width = (
                    float(text.get("x")),
                    0.94 * text_width(text.text, float(text.get("font-size"))),
                )
                shift = {"middle": width / 2, "end": width}.get(
                    text.get("text-anchor"), 0
                )
                y = round(float(text.get("y")) - 0.35 * float(text.get("font-size")))
                rows.setdefault(y, []).append((x - shift, x - shift + width))
        for spans in rows.values():
            spans.sort()
            for (_, end), (begin, _) in itertools.pairwise(spans):
                assert end <= begin + 1


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("googlenet", ["Inception × 5", "concat"]),
        ("inception_v3", ["InceptionC × 4", "conv 3×3, 192"]),
        ("resnext50_32x4d", ["Bottleneck × 6", "3×3, 32 groups"]),
        ("mobilenet_v3_large", ["InvertedResidual × 3", "hard swish"]),
        ("efficientnet_b0", ["MBConv × 4", "× SqueezeExcitation"]),
        ("vgg19_bn", ["conv 3×3, 512 × 4"]),
        ("densenet121", ["24 × "]),
        ("swin_t", ["SwinTransformerBlock × 6", "shift in some"]),
    ],
)
def test_whole_networks_stay_below_the_height_of_auto(name, words):
    options = {"init_weights": False} if "ception" in name or "goog" in name else {}
    with torch.device("meta"):
        network = models.get_model(name, weights=None, **options)
    side = 299 if name == "inception_v3" else 224
    texts, _, width, height = read(network_svg(network, (3, side, side)))
    for word in words:
        assert word in texts
    assert height <= 800
    assert width <= 640


@pytest.mark.parametrize("groups", [2, 3, 4])
def test_a_shuffle_is_recognized_however_it_is_written(groups):
    from einops import rearrange

    size = (1, 12, 3, 2)
    ways = [
        lambda x: nn.functional.channel_shuffle(x.float(), groups).int(),
        lambda x: rearrange(x, "b (g c) h w -> b (c g) h w", g=groups),
        lambda x: x.unflatten(1, (groups, -1)).transpose(1, 2).flatten(1, 2),
        lambda x: x[:, torch.arange(12).view(groups, -1).T.flatten()],
    ]
    for way in ways:
        assert describe_move((way,), size).label == f"channel shuffle, {groups} groups"
    other = describe_move((lambda x: x.flip(1),), size)
    assert other.label == "channels reordered"
    assert describe_move((lambda x: x.transpose(2, 3),), size) is None


def test_shifts_and_windows_are_told_apart():
    size = (1, 4, 6, 5)
    roll = describe_move((lambda x: x.roll((-2, 1), (2, 3)),), size)
    assert roll.label == "cyclic shift −2, +1"
    padded = describe_move(
        (lambda x: nn.functional.pad(x, (0, 0, 0, 2))[:, :, 2:],), size
    )
    assert padded.label == "shift −2"
    assert describe_move((lambda x: x[:, :, ::2],), size) is None
    assert describe_move((lambda x: x.contiguous(),), size).kind == "identity"

    def windows(x):
        return x.view(1, 2, 3, 2, 3, 5).transpose(2, 3).reshape(4, 9, 5)

    assert describe_move((windows,), (1, 6, 6, 5)).label == "windows of 3×3"
    assert describe_move((lambda x: x.view(4, 9, 5),), (1, 6, 6, 5)) is None
