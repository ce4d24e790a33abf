"""The Inception v3 chapter's network against torchvision and against arithmetic."""

import pytest
import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils.zoo.inception_v3 import (
    AuxiliaryHead,
    Inception,
    make_branch,
    module_17,
    scaled,
)


def narrow(**options):
    torch.manual_seed(0)
    return nbs.create_model("inception_v3", 10, width=0.25, **options)


@pytest.mark.parametrize(
    ("aux", "parameters"), [(False, 23_834_568), (True, 27_161_264)]
)
def test_counts(aux, parameters):
    with torch.device("meta"):
        network = nbs.create_model("inception_v3", aux=aux)
    assert nbs.count_parameters(network) == parameters
    assert nbs.count_macs(network, (3, 299, 299)) == 5_713_216_096


def test_logits_equal_torchvision():
    reference, ours = (
        nbs.reference_network("inception_v3"),
        nbs.create_model("inception_v3", aux=True).eval(),
    )
    assert nbs.transplant(reference, ours, (3, 107, 107)).complete
    comparison = nbs.compare(ours, reference, input_size=(3, 107, 107))
    assert comparison.agrees, comparison
    head, theirs = ours.aux.double(), reference.AuxLogits.double()
    for side in (17, 18, 23):
        x = torch.rand(2, 768, side, side, dtype=torch.float64)
        torch.testing.assert_close(head(x), theirs(x), rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_logits_equal_torchvision_at_the_native_size():
    reference, ours = (
        nbs.reference_network("inception_v3"),
        nbs.create_model("inception_v3"),
    )
    assert nbs.transplant(reference, ours, (3, 299, 299)).complete
    comparison = nbs.compare(ours, reference, input_size=(3, 299, 299))
    assert comparison.agrees, comparison


def test_no_image_is_dropped_at_the_sizes_of_the_exercise():
    network = narrow().eval()
    for places in (1, 2, 3):
        side = 32 * places + 43
        x = torch.randn(1, 3, side, side, requires_grad=True)
        maps = network.mixed_7(network.mixed_6(network.mixed_5(network.stem(x))))
        assert maps.shape[-2:] == (places, places)
        (seen,) = torch.autograd.grad(maps.sum(), x)
        assert seen[..., -1, :].abs().sum() > 0
    x = torch.randn(1, 3, 108, 108, requires_grad=True)  # one row more is not read
    (seen,) = torch.autograd.grad(network(x).sum(), x)
    assert seen[..., -1, :].abs().sum() == 0
    with pytest.raises(ValueError, match="at least 75 x 75"):
        network(torch.zeros(1, 3, 74, 74))


def test_the_stem_for_small_images_keeps_their_grid():
    network = nbs.create_model("inception_v3", 10, image_size=32, width=0.25)
    x = torch.randn(2, 3, 32, 32)
    grids = []
    for part in (network.stem, network.mixed_5, network.mixed_6, network.mixed_7):
        x = part(x)
        grids.append(x.shape[-1])
    assert grids == [15, 15, 7, 3]


def field_of(layers):
    branch, _ = make_branch(4, layers)
    x = torch.randn(1, 4, 15, 15, requires_grad=True)
    middle = branch.eval()(x)[0, :, 7, 7].sum()
    seen = torch.autograd.grad(middle, x)[0][0].abs().sum(0) > 0
    assert (seen == seen.any(0) & seen.any(1)[:, None]).all()  # a rectangle
    return seen.any(1).sum().item(), seen.any(0).sum().item()


def test_windows_of_the_grid_of_17():
    torch.manual_seed(0)
    branches = module_17(16)
    assert field_of(branches["7x7"]) == (7, 7)
    assert field_of(branches["7x7_7x7"]) == (13, 13)
    assert field_of(branches["7x7"][:2]) == (1, 7)  # the row comes first
    assert field_of(branches["7x7_7x7"][:2]) == (7, 1)  # here the column


def test_a_fork_keeps_both_outputs():
    fork = Inception(
        8, {"a": [(16, 1)], "b": [(16, 3), {"c": [(24, 1)], "d": [(32, 1)]}]}
    )
    assert fork.out_channels == 16 + 24 + 32
    assert fork(torch.randn(2, 8, 5, 5)).shape == (2, 72, 5, 5)


def test_width():
    assert (scaled(80, 0.5), scaled(48, 0.25), scaled(288, 1.0)) == (40, 16, 288)
    wide, small = nbs.create_model("inception_v3"), narrow()
    layers = [
        [m for m in network.modules() if isinstance(m, nn.Conv2d)]
        for network in (wide, small)
    ]
    for full, part in zip(*layers, strict=True):
        assert part.out_channels == max(16, full.out_channels // 4)
        assert part.kernel_size == full.kernel_size


def test_every_norm_has_the_authors_epsilon():
    norms = [m for m in narrow(aux=True).modules() if isinstance(m, nn.BatchNorm2d)]
    assert len(norms) == 96
    assert {norm.eps for norm in norms} == {0.001}


def test_the_first_weights_and_the_dropout():
    """As in the authors' code: variance 2 / n, and a fifth of the features dropped."""
    torch.manual_seed(0)
    network = nbs.create_model("inception_v3")
    for layer in (network.stem.conv_4a.conv, network.mixed_7.c["3x3_3x3"][1].conv):
        weight = layer.weight
        deviation = (2 / weight[0].numel()) ** 0.5
        assert abs(weight.std().item() / deviation - 1) < 0.02
    assert network.dropout.p == 0.2


def test_the_auxiliary_head_begins_with_little_to_say():
    torch.manual_seed(0)
    head = nbs.create_model("inception_v3", aux=True).aux
    assert abs(head.conv.conv.weight.std().item() - 0.01) < 1e-4
    assert abs(head.fc.weight.std().item() - 0.001) < 1e-4
    assert not head.fc.bias.any()


@pytest.mark.parametrize("side", [1, 3, 5, 6, 16])
def test_the_auxiliary_head_takes_small_maps(side):
    head = AuxiliaryHead(16, 7, width=0.25).eval()
    assert head(torch.randn(2, 16, side, side)).shape == (2, 7)


def test_it_trains_with_its_auxiliary_head():
    """The head's loss counts as the recipe says: not at all with weight 0."""
    data = nbs.load_data(
        "digits", image_size=75, batch_size=16, limit=32, augment="none"
    )
    moved = {}
    for weight in (0.0, 0.4):
        network = narrow(aux=True, in_channels=data.channels)
        before = network.aux.fc.weight.detach().clone()
        recipe = nbs.Recipe.load("short").replace(aux_weight=weight, weight_decay=0.0)
        nbs.fit(network, data, recipe, epochs=1, progress="off")
        moved[weight] = (network.aux.fc.weight.cpu() - before).abs().max().item()
        assert nbs.evaluate(network, data.val).top1 >= 0
    assert moved[0.0] == 0
    assert moved[0.4] > 0
