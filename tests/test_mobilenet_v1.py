"""MobileNet v1: the references' counts and functions, and its block written out."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.parity.calibration import vary
from nbs_utils.training.schedule import parameter_groups
from nbs_utils.zoo import create_model
from nbs_utils.zoo.mobilenet_v1 import BODY, DepthwiseSeparable, MobileNetV1, scaled

PYTORCHCV = {1.0: "w1", 0.75: "w3d4", 0.5: "wd2", 0.25: "wd4"}


def on_meta(*args, **options):
    with torch.device("meta"):
        return MobileNetV1(*args, **options)


def shapes(network):
    return [tuple(p.shape) for p in network.parameters()]


@pytest.mark.parametrize(
    ("there", "width"),
    [
        *((f"ptcv/mobilenet_{name}", width) for width, name in PYTORCHCV.items()),
        ("timm/mobilenetv1_100", 1.0),
        ("timm/mobilenetv1_125", 1.25),
    ],
)
def test_same_tensors_as_the_reference(there, width):
    theirs = nbs.reference_network(there, device="meta")
    assert shapes(on_meta(width)) == shapes(theirs)


@pytest.mark.parametrize(
    ("there", "width", "activation", "side"),
    [
        ("timm/mobilenetv1_100", 1.0, nn.ReLU6, 64),
        ("ptcv/mobilenet_wd4", 0.25, nn.ReLU, 224),
        pytest.param(
            *("timm/mobilenetv1_125", 1.25, nn.ReLU6, 64), marks=pytest.mark.slow
        ),
        *(
            pytest.param(
                *(f"ptcv/mobilenet_{PYTORCHCV[width]}", width, nn.ReLU, 224),
                marks=pytest.mark.slow,
            )
            for width in (1.0, 0.75, 0.5)
        ),
    ],
)
def test_same_logits_as_the_reference(there, width, activation, side):
    reference = nbs.reference_network(there)
    network = MobileNetV1(width, activation=activation).eval()
    assert nbs.transplant(reference, network, (3, side, side)).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison


def test_the_activation_is_an_argument_of_every_layer():
    reference = nbs.reference_network("timm/mobilenetv1_100")
    network = create_model("mobilenet_v1").eval()  # ReLU, as in the paper
    nbs.transplant(reference, network, (3, 64, 64))
    assert not nbs.compare(network, reference, input_size=(3, 64, 64)).agrees
    kinds = [type(m) for m in on_meta(activation=nn.Hardswish).modules()]
    assert kinds.count(nn.Hardswish) == 27
    assert nn.ReLU not in kinds


# Totals that the authors print at the head of their code, without the classifier.
@pytest.mark.parametrize(
    ("width", "side", "weights", "macs"),
    [(1.0, 224, 3_185_088, 567_716_352), (0.75, 128, 1_800_144, 106_002_432)],
)
def test_totals_of_the_authors_code(width, side, weights, macs):
    network = on_meta(width)
    convs = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(conv.weight.numel() for conv in convs) == weights
    kinds = nbs.count_macs(network, (3, side, side), by_kind=True)
    assert kinds["convolution"] == macs


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),  # millions: Table 6 of the paper
    [
        ("mobilenet_v1", 4.2, 569),
        ("mobilenet_v1_x0_75", 2.6, 325),
        ("mobilenet_v1_x0_5", 1.3, 149),
        ("mobilenet_v1_x0_25", 0.5, 41),
    ],
)
def test_counts_of_the_paper(name, parameters, macs):
    with torch.device("meta"):
        network = create_model(name)
    assert round(nbs.count_parameters(network) / 1e6, 1) == parameters
    assert abs(nbs.count_macs(network) / 1e6 - macs) < 0.5
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    assert len(layers) == 28


def test_maps_of_table_1_with_the_misprint_corrected():
    table = nbs.stage_table(on_meta()).set_index("stage")["output shape"]
    sizes = [tuple(map(int, table[f"conv_{i}"].split(" x "))) for i in range(14)]
    assert [size[0] for size in sizes] == [32, *(channels for channels, _ in BODY)]
    assert [size[1] for size in sizes] == [112, 112, 56, 56, 28, 28, *[14] * 6, 7, 7]


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_is_its_two_halves_written_out(stride):
    torch.manual_seed(0)
    block = DepthwiseSeparable(4, 6, stride).double().eval()
    vary(block)
    x = torch.randn(2, 4, 7, 9, dtype=torch.float64)
    windows = nn.functional.unfold(x, 3, padding=1, stride=stride)  # (2, 4 * 9, n)
    windows = windows.unflatten(1, (4, 9))

    def normed(z, norm):
        shape = (1, -1, 1)
        z = (z - norm.running_mean.view(shape)) / (
            norm.running_var.view(shape) + norm.eps
        ).sqrt()
        return (z * norm.weight.view(shape) + norm.bias.view(shape)).clamp(min=0)

    kernels = block.depthwise.conv.weight.flatten(1)  # (4, 9): one for each channel
    y = torch.einsum("ck,bckn->bcn", kernels, windows)
    y = normed(y, block.depthwise.norm)
    y = torch.einsum("oc,bcn->bon", block.pointwise.conv.weight[:, :, 0, 0], y)
    y = normed(y, block.pointwise.norm)
    torch.testing.assert_close(block(x).flatten(2), y, rtol=0, atol=1e-12)


def test_depthwise_kernels_and_nothing_else_are_spared_by_name():
    network = on_meta(0.25)
    depthwise = [
        f"{name}.weight"
        for name, m in network.named_modules()
        if isinstance(m, nn.Conv2d) and m.groups > 1
    ]
    assert sorted(network.no_weight_decay) == sorted(depthwise)
    assert len(depthwise) == 13
    decaying, rest = parameter_groups(network, nbs.Recipe.load("short"))
    assert sum(p.dim() == 4 for p in rest["params"]) == 13
    assert sum(p.dim() == 4 for p in decaying["params"]) == 14


def test_first_weights_count_the_products_of_one_output():
    torch.manual_seed(0)
    network = create_model("mobilenet_v1")
    for conv in (network.conv_13.depthwise.conv, network.conv_13.pointwise.conv):
        terms = conv.weight[0].numel()  # 9 for a depthwise kernel
        assert conv.weight.std().item() == pytest.approx((2 / terms) ** 0.5, rel=0.03)


def test_a_block_may_be_another():
    def block(in_channels, out_channels, stride, activation):
        conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels), activation())

    network = on_meta(block=block)
    assert round(nbs.count_parameters(network) / 1e6, 1) == 29.3  # Table 4
    assert nbs.count_macs(network) // 10**6 == 4867  # the paper cuts it to 4866


def test_channels_are_multiplied_and_never_fewer_than_eight():
    assert [scaled(32, w) for w in (1.25, 1.0, 0.75, 0.5, 0.25, 0.1)] == [
        *(40, 32, 24, 16, 8, 8)
    ]


def test_small_images_keep_more_of_their_places():
    sides = []
    for stem in ("imagenet", "cifar"):
        table = nbs.stage_table(on_meta(0.25, stem=stem), (3, 32, 32))
        sides.append(table.set_index("stage")["output shape"]["conv_13"])
    assert sides == ["256 x 1 x 1", "256 x 2 x 2"]
