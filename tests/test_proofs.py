"""Proofs that cannot be fooled: every fault in a network is seen, no equal one refused.

A chapter with a new network adds a row to `NETWORKS`: a small variant of it, at an
image size that keeps this within seconds. `benchmarks/mutants.py` does the same for
whole architectures, all kinds and places.
"""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import enliven, varied_images
from nbs_utils.parity.mutants import (
    Altered,
    changes_function,
    held_to,
    list_kinds,
    mutants_of,
)
from nbs_utils.zoo.alexnet import AlexNet
from nbs_utils.zoo.batchnorm import BNInception
from nbs_utils.zoo.convnext import ConvNeXt
from nbs_utils.zoo.cyclemlp import CycleMLP
from nbs_utils.zoo.darknet53 import Darknet
from nbs_utils.zoo.densenet import DenseNet
from nbs_utils.zoo.efficientnet import EfficientNet
from nbs_utils.zoo.inception_v3 import InceptionV3
from nbs_utils.zoo.lenet import LeNet5
from nbs_utils.zoo.mlp_mixer import MLPMixer
from nbs_utils.zoo.mnasnet import MnasNet
from nbs_utils.zoo.mobilenet_v1 import MobileNetV1
from nbs_utils.zoo.mobilenet_v2 import MobileNetV2
from nbs_utils.zoo.mobilenet_v3 import MobileNetV3
from nbs_utils.zoo.nin import NiN
from nbs_utils.zoo.resnet import ResNet
from nbs_utils.zoo.resnext import ResNeXt
from nbs_utils.zoo.senet import SENet, SENet154Block
from nbs_utils.zoo.shufflenet_v1 import ShuffleNet
from nbs_utils.zoo.shufflenet_v2 import ShuffleNetV2
from nbs_utils.zoo.squeezenet import SqueezeNet
from nbs_utils.zoo.swin import SwinTransformer
from nbs_utils.zoo.vgg import VGG, A, C
from nbs_utils.zoo.vit import VisionTransformer
from nbs_utils.zoo.wide_resnet import (
    PreActBasic,
    PreActBottleneck,
    PreActResNet,
    WideBottleneck,
)
from nbs_utils.zoo.xception import Xception


def small_alexnet() -> AlexNet:
    """AlexNet with few channels, at its own image size, where resizing shows."""
    network = AlexNet((8, 16, 16, 16, 16), num_classes=10)
    network.classifier.fc6 = nn.Linear(network.classifier.fc6.in_features, 32)
    network.classifier.fc7 = nn.Linear(32, 32)
    network.classifier.fc8 = nn.Linear(32, 10)
    return network


NETWORKS = {
    "alexnet": (small_alexnet, 224),
    "batchnorm": (lambda: BNInception(width=0.25, num_classes=10), 64),
    # On 12 x 12 and 6 x 6 positions: at the borders the kernels read padding.
    "convnext": (lambda: ConvNeXt((1, 2), (8, 16), num_classes=10), 48),
    "cyclemlp": (lambda: CycleMLP((1, 1), (16, 24), (2, 2), num_classes=10), 32),
    "darknet19": (
        lambda: nbs.create_model("darknet19", 10, depths=(0, 1, 1), width=0.25),
        27,
    ),
    "darknet53": (lambda: Darknet((1, 2), width=0.25, num_classes=10), 32),
    "densenet": (lambda: DenseNet(4, (2, 2), num_classes=10), 64),
    "densenet_plain": (
        lambda: DenseNet(6, (3, 3), 1.0, 16, "cifar", num_classes=10, bottleneck=0),
        32,
    ),
    # As of MobileNet v2, with gates, and 5x5 kernels where there is a stride.
    "efficientnet": (
        lambda: EfficientNet(
            stages=((1, 3, 1, 16, 1), (6, 5, 2, 24, 2)), num_classes=10
        ),
        32,
    ),
    "googlenet": (lambda: nbs.create_model("googlenet", 10, width=0.125), 96),
    "googlenet_tv": (lambda: nbs.create_model("googlenet_tv", 10, width=0.125), 96),
    "nin": (lambda: NiN(((8,) * 3, (8,) * 3, (8,) * 3, (8, 8)), num_classes=10), 96),
    "nin_norm": (
        lambda: nbs.create_model("nin_cifar", 10, widths=((8,) * 3,) * 3, norm=True),
        32,
    ),
    "inception_v3": (lambda: InceptionV3(width=0.25, num_classes=10), 123),
    # At 39 pixels both poolings meet an odd side and the maps before C5 are resized.
    # With ReLU, faults of the activation apply as well: for tanh the list has none.
    "lenet": (lambda: LeNet5(unit="relu", in_channels=3), 39),
    "lenet_1998": (lambda: nbs.create_model("lenet5_1998", 10, in_channels=3), 39),
    # On 3 by 3 places, so that a side cannot be mistaken for another size.
    "mlp_mixer": (
        lambda: MLPMixer(
            num_classes=10,
            image_size=24,
            patch_size=8,
            embed_dim=24,
            depth=2,
            token_dim=12,
            channel_dim=48,
        ),
        24,
    ),
    "mobilenet_v1": (
        lambda: MobileNetV1(0.5, ((32, 1), (64, 2), (64, 1)), num_classes=10),
        64,
    ),
    # Kernels of 5x5, gates of two widths, one with a stride, one that adds its input.
    "mnasnet": (
        lambda: MnasNet(
            0.5, ((1, 3, 16, 1, 1, 0), (3, 5, 24, 2, 2, 0.25)), num_classes=10
        ),
        32,
    ),
    # A block without a widening, one with a stride, one that adds its input.
    "mobilenet_v2": (
        lambda: MobileNetV2(0.5, ((1, 16, 1, 1), (6, 24, 2, 2)), num_classes=10),
        32,
    ),
    # A gate behind a ReLU and one behind an h-swish, with and without a shortcut.
    "mobilenet_v3": (
        lambda: MobileNetV3(
            ((3, 16, 16, True, "RE", 2), (5, 64, 16, True, "HS", 1)), 32, num_classes=10
        ),
        32,
    ),
    "resnet": (lambda: nbs.create_model("cifar_resnet20", 10), 32),
    "resnext": (
        lambda: ResNeXt((1, 1, 1), (16, 32, 64), 4, 16, stem="cifar", num_classes=10),
        32,
    ),
    # SENet-154's block, stem and pooling, small: at 67 pixels the ceiling counts.
    "senet": (
        lambda: SENet(
            SENet154Block,
            (1, 1),
            (8, 16),
            stem="deep",
            num_classes=10,
            reduction=8,
            cardinality=8,
        ),
        67,
    ),
    # Three channels in each of the neck's three groups; at 67 pixels sides are odd.
    "shufflenet_v1": (lambda: ShuffleNet(3, 36, 12, (2, 2), num_classes=10), 67),
    "shufflenet_v2": (
        lambda: ShuffleNetV2((8, 16, 24, 32, 40), (2, 2, 2), num_classes=10),
        67,
    ),
    # At 67 pixels the maps are 33, 16 and 8: two of the three poolings round up. With
    # 100 classes some scores pass 6, where the last ReLU and a ReLU6 differ.
    "squeezenet": (
        lambda: SqueezeNet(
            100,
            conv1=(8, 3),
            pools=(1, 2, 3),
            bypass="complex",
            fires=4,
            base=32,
            increment=32,
        ),
        67,
    ),
    # Maps of 12 and 6 tokens: windows of 4 fit the first and need padding in the second.
    "swin": (
        lambda: SwinTransformer(
            num_classes=10,
            embed_dim=16,
            depths=(2, 2),
            num_heads=(2, 4),
            window_size=4,
        ),
        48,
    ),
    "preact": (
        lambda: PreActResNet(
            PreActBottleneck, (2, 1), (4, 8), "cifar", num_classes=10, stride_on="1x1"
        ),
        32,
    ),
    "wide_resnet": (
        lambda: PreActResNet(PreActBasic, (2, 1), (16, 32), "cifar", 8, num_classes=10),
        32,
    ),
    "wide_resnet50_2": (
        lambda: ResNet(WideBottleneck, (2, 1), (4, 8), num_classes=10),
        64,
    ),
    # C with the LRN of A-LRN; at 64 pixels the last map is resized.
    "vgg": (lambda: VGG(C, (8, 8, 16, 16, 16), 64, lrn=True, num_classes=10), 64),
    "vgg_bn": (lambda: VGG(A, (8, 8, 16, 16, 16), 64, norm=True, num_classes=10), 64),
    # At 67 pixels the poolings meet 31, 16, 8 and 4 places: odd and even ones.
    "xception": (lambda: Xception(0.125, 2, num_classes=10), 67),
    "vit": (
        lambda: VisionTransformer(
            num_classes=10,
            image_size=32,
            patch_size=8,
            embed_dim=24,
            depth=2,
            num_heads=4,
            mlp_dim=48,
        ),
        32,
    ),
}


def alive(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    build, side = NETWORKS[name]
    torch.manual_seed(0)
    network = build().eval()
    network.image_size = side
    enliven(network)
    return network, (3, side, side)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_fault_that_changes_the_function_is_caught(name):
    network, size = alive(name)
    network.double()  # so that no comparison has to copy it
    caught, survivors = 0, []
    images = varied_images(2, size).double()
    for mutant in mutants_of(network, images):
        if not held_to(network, mutant.network, images).agrees:
            caught += 1
        elif changes_function(network, mutant.network):
            survivors.append(str(mutant))
    assert not survivors
    assert caught >= 15


@pytest.mark.parametrize("name", NETWORKS)
def test_equal_networks_are_not_refused(name):
    network, size = alive(name)
    other = NETWORKS[name][0]()
    assert nbs.transplant(network, other, size).complete
    for equal in (other, other.to(memory_format=torch.channels_last)):
        comparison = nbs.compare(equal, network, input_size=size)
        assert comparison.agrees, comparison
        assert comparison.relative < 1e-11


# --- what makes a comparison blind


def test_outputs_that_do_not_depend_on_the_image_prove_nothing():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(5)
    )
    network(torch.zeros(1, 3, 8, 8))
    nn.init.zeros_(network[3].weight)
    wrong = copy.deepcopy(network)
    wrong[1] = nn.Tanh()
    comparison = nbs.compare(wrong, network, torch.randn(4, 3, 8, 8))
    assert comparison.max_difference == 0
    assert not comparison.agrees
    assert "Nothing is proved" in repr(comparison)


def test_a_reference_depends_on_its_image_and_a_fresh_network_hardly():
    x = varied_images(2, (3, 224, 224))
    spreads = []
    for vary in (True, False):
        with torch.no_grad():
            y = nbs.reference_network("mobilenet_v3_small", vary=vary)(x)
        spreads.append((y[0] - y[1]).abs().max().item())
    assert spreads[0] > 0.1
    assert spreads[1] < 1e-5


def test_references_are_the_same_each_time_and_leave_the_global_seed_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one = nbs.reference_network("shufflenet_v2_x0_5")
    assert torch.equal(torch.rand(1), expected)
    two = nbs.reference_network("shufflenet_v2_x0_5")
    assert all(
        torch.equal(a, b)
        for a, b in zip(one.state_dict().values(), two.state_dict().values())
    )
    other = nbs.reference_network("shufflenet_v2_x0_5", seed=1)
    assert not torch.equal(one.fc.weight, other.fc.weight)


def test_one_image_gets_a_second():
    network, size = alive("vit")
    comparison = nbs.compare(network, network, torch.randn(1, *size))
    assert comparison.agrees


def test_ceilings_show_at_an_odd_size_only():
    torch.manual_seed(0)

    def build(ceil_mode):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1),
            nn.MaxPool2d(2, ceil_mode=ceil_mode),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(8, 5),
        )
        return network.eval()

    a, b = build(True), build(False)
    even = nbs.compare(a, b, torch.randn(2, 3, 64, 64))
    assert even.agrees
    both = nbs.compare(a, b, input_size=(3, 64, 64))
    assert not both.agrees
    assert both.sizes == ["64 x 64 pixels", "61 x 61 pixels", "59 x 59 pixels"]


def test_the_ceiling_of_a_later_pooling_shows_too():
    """At 224, 139, 171 and 185 pixels the third pooling is given 56, 34, 42, 46 rows."""

    def build(ceil_mode):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 4, 3, 1, 1),
            *(nn.MaxPool2d(2), nn.MaxPool2d(2), nn.MaxPool2d(2, ceil_mode=ceil_mode)),
            *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)),
        )
        return network.eval()

    comparison = nbs.compare(build(True), build(False), input_size=(3, 224, 224))
    assert not comparison.agrees
    assert comparison.sizes[1:4] == [f"{s} x {s} pixels" for s in (139, 171, 185)]
    assert comparison.sizes[4:] == ["140 x 140 pixels"]  # 140, 70, 35: a rest of 1


def test_a_ceiling_shows_where_small_images_are_refused():
    """Only 201 of the usual sizes is taken; there the pooling is given 100 rows."""

    def build(ceil_mode):
        torch.manual_seed(0)
        network = nn.Sequential(
            *(nn.Conv2d(3, 4, 3, 1, 1), nn.MaxPool2d(2)),
            nn.MaxPool2d(2, ceil_mode=ceil_mode),
            *(nn.AvgPool2d(50, stride=1), nn.AdaptiveAvgPool2d(1)),
            *(nn.Flatten(), nn.Linear(4, 5)),
        )
        return network.eval()

    comparison = nbs.compare(build(True), build(False), input_size=(3, 224, 224))
    assert comparison.sizes[1] == "201 x 201 pixels"
    assert not comparison.agrees


def test_a_size_that_only_the_reference_takes_is_a_difference():
    def build(pool):
        torch.manual_seed(0)
        layers = [nn.Conv2d(3, 4, 3, 1, 1), pool, nn.Flatten(), nn.Linear(4, 5)]
        return nn.Sequential(*layers).eval()

    any_size, fixed = build(nn.AdaptiveAvgPool2d(1)), build(nn.AvgPool2d(32))
    comparison = nbs.compare(fixed, any_size, input_size=(3, 32, 32))
    assert not comparison.agrees
    assert "taken by the reference only" in repr(comparison)
    comparison = nbs.compare(any_size, fixed, input_size=(3, 32, 32))
    assert comparison.agrees
    assert "no images but those of 32 x 32" in repr(comparison)


def test_a_hidden_layer_that_differs_is_no_agreement():
    class Hidden(nn.Module):
        def __init__(self, wrong):
            super().__init__()
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(6, 6), nn.Linear(6, 6)
            self.wrong = wrong

        def forward(self, x):
            hidden = self.b(x.tanh() if self.wrong else x)
            return self.a(x) + 0 * hidden

    comparison = nbs.compare(Hidden(True), Hidden(False), torch.randn(4, 6))
    assert comparison.relative == 0
    assert comparison.first_difference == "b"
    assert not comparison.agrees


def test_a_fault_is_made_where_it_says():
    network = nn.Sequential(nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    x = 10 * torch.randn(3, 4)
    from nbs_utils.parity.faults import _activation

    middle = F.relu(network[1](F.relu(x)))
    torch.testing.assert_close(
        Altered(network, _activation, 1)(x), F.relu6(middle.clone())
    )
    assert len(list_kinds()) >= 30


def test_a_fault_that_fails_elsewhere_is_not_seen_here():
    from nbs_utils.parity.faults import _max_ceil

    network = nn.Sequential(nn.MaxPool2d(2, 1), nn.MaxPool2d(3, 2, ceil_mode=True))
    x = torch.randn(1, 1, 3, 3)
    torch.testing.assert_close(Altered(network, _max_ceil, 0)(x), network(x))
    with pytest.raises(RuntimeError, match="too small"):
        Altered(network, _max_ceil, 1)(x)  # a window of 3 does not fit into 2 x 2


def test_a_change_that_is_impossible_elsewhere_is_no_fault_here():
    from nbs_utils.parity.faults import _max_ceil

    network = nn.Sequential(nn.MaxPool2d(3, 2), nn.MaxPool2d(3, 2, ceil_mode=True))
    x = torch.randn(1, 1, 5, 5)  # the second pooling needs its ceiling: 2 x 2
    assert torch.equal(Altered(network, _max_ceil, 0)(x), network(x))
    for place in (1, None):
        with pytest.raises(RuntimeError):
            Altered(network, _max_ceil, place)(x)
