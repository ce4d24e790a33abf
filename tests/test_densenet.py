"""DenseNet: the paper's counts, both references, and what recomputation leaves alone."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.weights import fill
from nbs_utils.zoo import create_model
from nbs_utils.zoo.densenet import DenseBlock, DenseLayer, DenseNet, frozen_statistics


def on_meta(name, **changes):
    with torch.device("meta"):
        return create_model(name, **changes)


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("densenet121", 7_978_856, 2_834_161_664),
        ("densenet161", 28_681_000, 7_727_907_072),
        ("densenet169", 14_149_480, 3_359_843_328),
        ("densenet201", 20_013_928, 4_291_365_888),
    ],
)
def test_counts_of_imagenet(name, parameters, macs):
    network = on_meta(name)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network) == macs


@pytest.mark.parametrize(
    ("name", "printed"),
    [
        ("densenet_40_12", 1.0),
        ("densenet_100_12", 7.0),
        ("densenet_100_24", 27.2),
        ("densenet_bc_100_12", 0.8),
        ("densenet_bc_250_24", 15.3),
        ("densenet_bc_190_40", 25.6),
    ],
)
def test_the_papers_table_for_cifar(name, printed):
    network = on_meta(name)
    assert round(nbs.count_parameters(network) / 1e6, 1) == printed
    depth = sum(isinstance(m, (nn.Conv2d, nn.Linear)) for m in network.modules())
    assert depth == int(name.split("_")[-2])


@pytest.mark.parametrize(
    ("name", "side"), [("densenet161", 64), ("densenet169", 64), ("densenet201", 64)]
)
def test_same_function_as_torchvision(name, side):
    reference = nbs.reference_network(name)
    network = create_model(name).eval()
    assert nbs.transplant(reference, network).complete
    comparison = nbs.compare(network, reference, input_size=(3, side, side))
    assert comparison.agrees, comparison
    assert len(comparison.sizes) > 1


@pytest.mark.parametrize(
    ("name", "theirs", "changes"),
    [
        ("densenet_bc_40_12", "densenet40_k12_bc", {}),
        ("densenet_bc_100_12", "densenet100_k12_bc", {}),
        # pytorchcv's plain networks have 2 k channels in the stem, and compress
        (
            "densenet_40_12",
            "densenet40_k12",
            {"stem_channels": 24, "compression": 0.5},
        ),
    ],
)
def test_same_function_as_pytorchcv(name, theirs, changes):
    reference = nbs.reference_network(f"ptcv/{theirs}_cifar10")
    network = create_model(name, **changes).eval()
    assert nbs.transplant(reference, network).complete
    assert nbs.compare(network, reference, input_size=(3, 32, 32)).agrees


def test_a_layer_and_a_block_by_hand():
    torch.manual_seed(0)
    block = DenseBlock(2, 6, 4).eval()
    x = torch.randn(2, 6, 5, 7)

    def unit(x, part, padding):
        norm = part.norm
        statistics = norm.running_mean, norm.running_var
        x = F.batch_norm(x, *statistics, norm.weight, norm.bias).relu()
        return F.conv2d(x, part.conv.weight, padding=padding)

    expected = x
    for layer in block:
        hidden = unit(expected, layer.read, 0)
        assert hidden.shape[1] == 16  # 4 k
        expected = torch.cat([expected, unit(hidden, layer.grow, 1)], dim=1)
    torch.testing.assert_close(block(x), expected)


def passed(make, **options):
    """Return gradients, running statistics and output of a forward and backward pass."""
    torch.manual_seed(0)
    network = make(**options).train()
    x = torch.randn(4, 3, 32, 32, requires_grad=True)
    torch.manual_seed(1)
    y = network(x)
    y.square().sum().backward()
    return [x.grad, *(p.grad for p in network.parameters())], list(network.buffers()), y


@pytest.mark.parametrize("bottleneck", [0, 4])
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_recomputation_changes_no_gradient_and_no_statistic(bottleneck, dropout):
    make = partial(
        DenseNet, 4, (3, 3), stem="cifar", bottleneck=bottleneck, dropout=dropout
    )
    for kept, again in zip(passed(make), passed(make, recompute=True), strict=True):
        assert all(torch.equal(a, b) for a, b in zip(kept, again, strict=True))
    gradients = passed(make)[0]
    assert all(g.abs().max() > 0 for g in gradients)


def saved_channels(recompute, depth):
    """Return how many channels, without copies, a forward pass gives autograd."""
    block = DenseBlock(depth, 4, 4, bottleneck=0, recompute=recompute)
    x, saved = torch.randn(2, 4, 8, 8, requires_grad=True), []
    with torch.autograd.graph.saved_tensors_hooks(saved.append, lambda t: t):
        block(x)
    maps = {t.data_ptr(): t.shape[1] for t in saved if t.shape[2:] == (8, 8)}
    return sum(maps.values())


@pytest.mark.parametrize("depth", [3, 8, 16])
def test_recomputation_keeps_no_copy(depth):
    assert saved_channels(True, depth) == 4 * depth  # what came in, and n - 1 layers
    assert saved_channels(False, depth) == 2 * 4 * depth * (depth + 1) // 2


def test_recomputation_happens_in_training_only(monkeypatch):
    calls = []
    layer = DenseLayer(6, 4, recompute=True)
    join = layer.join_and_read
    monkeypatch.setattr(
        layer, "join_and_read", lambda *f: (calls.append(len(f)), join(*f))[1]
    )
    x = torch.randn(2, 6, 5, 5, requires_grad=True)
    with torch.no_grad():
        layer(x)
    assert calls == [1]
    layer(x).sum().backward()
    assert calls == [1, 1, 1]


def test_frozen_statistics_are_thawed_after_an_error():
    norm = nn.BatchNorm2d(3, momentum=0.3)
    x = 5 + torch.randn(4, 3, 2, 2)
    with pytest.raises(RuntimeError, match="inside"), frozen_statistics(norm):
        norm(x)
        raise RuntimeError("inside")
    assert norm.running_mean.eq(0).all() and norm.num_batches_tracked == 0
    norm(x)
    assert norm.momentum == 0.3 and norm.num_batches_tracked == 1
    torch.testing.assert_close(norm.running_mean, 0.3 * x.mean(dim=(0, 2, 3)))


def test_dropout_follows_every_convolution_but_the_first():
    network = on_meta("densenet_bc_40_12", dropout=0.2)
    convs = sum(isinstance(m, nn.Conv2d) for m in network.modules())
    drops = [m for m in network.modules() if isinstance(m, nn.Dropout)]
    assert len(drops) == convs - 1 and {m.p for m in drops} == {0.2}
    assert not any(isinstance(m, nn.Dropout) for m in on_meta("densenet121").modules())


def test_he_initialization_counts_inputs():
    torch.manual_seed(0)
    network = create_model("densenet121")
    conv = network.dense_block4[-1].read.conv
    assert conv.weight.std().item() == pytest.approx((2 / 992) ** 0.5, rel=0.02)
    assert network.classifier.bias.eq(0).all()


@pytest.mark.parametrize(
    ("name", "changes", "least"),
    [
        ("densenet121", {}, 29),
        ("densenet121", {"stem": "cifar"}, 8),
        ("densenet_40_12", {}, 4),
    ],
)
def test_the_smallest_image(name, changes, least):
    network = on_meta(name, **changes).eval()
    y = network(torch.empty(1, 3, least, least, device="meta"))
    assert y.shape[0] == 1
    with pytest.raises(ValueError, match=f"at least {least} x {least}"):
        network(torch.empty(1, 3, least, least - 1, device="meta"))


def test_published_files_with_dots_in_their_names():
    source = nbs.reference_network("densenet121")
    old = {
        key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): value + 1
        if value.is_floating_point()
        else value
        for key, value in source.state_dict().items()
    }
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    before = source.features.denseblock2.denselayer3.norm1.weight.clone()
    fill(source, old, "densenet121", "a file")
    after = source.features.denseblock2.denselayer3.norm1.weight
    torch.testing.assert_close(after, before + 1)
