"""The AlexNet chapter's network against torchvision and against arithmetic."""

import pytest
import torch
from torch import nn

from nbs_utils import (
    compare,
    count_macs,
    count_parameters,
    create_model,
    reference_network,
    transplant,
)
from nbs_utils.zoo.alexnet import LRN, AlexNet, init_2012, init_he


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


@pytest.mark.parametrize(
    ("name", "pixels", "parameters", "macs"),
    [
        ("alexnet", 224, 61_100_840, 714_188_480),
        ("alexnet_2012", 227, 60_965_224, 724_406_816),
    ],
)
def test_counts(name, pixels, parameters, macs):
    network = on_meta(name)
    assert count_parameters(network) == parameters
    assert count_macs(network, (3, pixels, pixels)) == macs


def test_logits_equal_torchvision():
    reference, ours = reference_network("alexnet"), create_model("alexnet")
    assert transplant(reference, ours).complete
    comparison = compare(ours, reference, input_size=(3, 96, 96))
    assert comparison.agrees, comparison


def test_towers_do_not_see_each_other_before_conv3():
    torch.manual_seed(0)
    network = AlexNet((8, 16, 16, 16, 16), towers=2, padding=0).eval()
    x = torch.randn(1, 8, 27, 27)
    changed = x.clone()
    changed[:, 4:] += 1  # the right tower's channels only
    before, after = network.features.conv2(x), network.features.conv2(changed)
    assert torch.equal(before[:, :8], after[:, :8])
    assert not torch.equal(before[:, 8:], after[:, 8:])
    mixed = network.features.conv3(before) - network.features.conv3(after)
    assert (mixed.abs().amax(dim=(2, 3)) > 0).all()


def test_lrn_against_the_formula_written_out():
    torch.manual_seed(0)
    a = 30 * torch.randn(2, 7, 3, 4)
    out = LRN(size=5, alpha=1e-4, beta=0.75, k=2.0)(a)
    for i in range(7):
        low, high = max(0, i - 2), min(6, i + 2)
        energy = sum(a[:, j] ** 2 for j in range(low, high + 1))
        expected = a[:, i] / (2 + 1e-4 * energy) ** 0.75
        torch.testing.assert_close(out[:, i], expected)


def test_lrn_alpha_is_the_papers_not_pytorchs():
    a = 50 * torch.randn(1, 16, 4, 4)
    ours = LRN(5, alpha=1e-4)(a)
    assert torch.allclose(ours, nn.LocalResponseNorm(5, 5e-4, 0.75, 2.0)(a), atol=1e-4)
    assert not torch.allclose(
        ours, nn.LocalResponseNorm(5, 1e-4, 0.75, 2.0)(a), atol=1e-2
    )


@pytest.mark.parametrize(("pixels", "padding"), [(227, 0), (224, 2)])
def test_native_sizes_need_no_resizing(pixels, padding):
    network = AlexNet(padding=padding, channels=(8, 8, 8, 8, 8))
    x = torch.randn(1, 3, pixels, pixels)
    maps = network.features(x)
    assert maps.shape == (1, 8, 6, 6)
    assert torch.equal(network.resize(maps), maps)


def test_dropout_stands_where_each_version_has_it():
    torch.manual_seed(0)
    x = torch.randn(4, 8 * 36)

    def embedding(**options):
        classifier = AlexNet((8,) * 5, **options).train().classifier
        classifier.fc7.bias.data += 10  # all units active: zeros come from dropout
        return classifier[:-1](x)

    after = embedding(dropout_first=False)
    assert 0.4 < (after == 0).float().mean() < 0.6
    before = embedding(dropout_first=True)
    assert (before == 0).sum() == 0


def test_dropout_acts_in_training_only():
    network, x = AlexNet((8,) * 5), torch.randn(2, 3, 96, 96)
    assert not torch.equal(network.train()(x), network(x))
    assert torch.equal(network.eval()(x), network(x))


def test_initializations():
    torch.manual_seed(0)
    network = create_model("alexnet", num_classes=10)
    init_2012(network)
    assert abs(network.classifier.fc7.weight.std().item() - 0.01) < 1e-4
    ones = {n for n, p in network.named_parameters() if (p == 1).all()}
    convs = {f"features.conv{i}.bias" for i in (2, 4, 5)}
    assert ones == convs | {f"classifier.fc{i}.bias" for i in (6, 7)}
    init_he(network)
    assert abs(network.classifier.fc7.weight.std().item() - (2 / 4096) ** 0.5) < 1e-4
    assert abs(network.classifier.fc8.weight.std().item() - 0.01) < 1e-3
    assert not any(p.any() for n, p in network.named_parameters() if "bias" in n)
