"""Swin: the function of torchvision, and what windows, shift and mask are for."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import nbs_utils as nbs
from nbs_utils.parity.calibration import enliven, vary
from nbs_utils.zoo import create_model
from nbs_utils.zoo.swin import (
    PatchGrid,
    PatchMerging,
    ShiftedWindows,
    StochasticDepth,
    SwinBlock,
    SwinTransformer,
    WindowAttention,
    foreign_pairs,
    from_windows,
    relative_index,
    to_windows,
)

SMALL = dict(embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)


def small(**changes) -> SwinTransformer:
    """A small network in which norms, tables and biases have numbers of their own."""
    torch.manual_seed(0)
    network = SwinTransformer(num_classes=10, **SMALL | changes)
    vary(network)
    return network.eval()


def reference(seed: int = 1) -> nn.Module:
    """The same architecture, built by torchvision, with signals that live."""
    from torchvision.models.swin_transformer import SwinTransformer as Torchvision

    torch.manual_seed(seed)
    network = Torchvision([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=10).eval()
    network.image_size = 64
    enliven(network)
    return network


# --- counts


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [  # torchvision's documentation; the multiply-adds there in billions
        ("swin_t", 28_288_354, 4.491),
        ("swin_s", 49_606_258, 8.741),
        ("swin_b", 87_768_224, 15.431),
    ],
)
def test_counts(name, parameters, macs):
    with torch.device("meta"):
        network = create_model(name)
    assert nbs.count_parameters(network) == parameters
    assert round(nbs.count_macs(network) / 1e9, 3) == macs


def test_stages_of_swin_t():
    with torch.device("meta"):
        network = create_model("swin_t")
        x, shapes = torch.empty(1, 3, 224, 224), []
        for stage in network.stages:
            x = stage(x)
            shapes.append(tuple(x.shape[1:]))
    assert shapes == [(56, 56, 96), (28, 28, 192), (14, 14, 384), (7, 7, 768)]
    blocks = [m for m in network.modules() if isinstance(m, SwinBlock)]
    assert [b.attention.shift for b in blocks] == [0, 3] * 6
    assert [b.drop_path.p for b in blocks] == pytest.approx(
        [0.2 * l / 11 for l in range(12)]
    )


# --- the function


@pytest.mark.parametrize("side", [64, 61, 76, 40, 16, 5])
def test_same_logits_as_torchvision_at_any_size(side):
    """Padded maps, maps of one window, odd maps that are merged, pixels left over."""
    theirs, ours = reference(), small()
    assert nbs.transplant(theirs, ours, (3, 64, 64)).complete
    theirs, ours = theirs.double(), ours.double()
    x = torch.randn(3, 3, side, side + 8).double()  # not square
    with torch.no_grad():
        expected = theirs(x)
        assert (expected[0] - expected[1]).abs().max() > 1e-2
        torch.testing.assert_close(ours(x), expected, rtol=0, atol=1e-10)


def test_the_index_is_ours_and_not_only_a_transplanted_one():
    index = [b for n, b in small().named_buffers() if n.endswith("index")]
    theirs = [b for n, b in reference().named_buffers() if n.endswith("index")]
    assert len(index) == len(theirs) == 4
    assert all(torch.equal(a, b) for a, b in zip(index, theirs, strict=True))


def test_windows_are_squares_row_by_row():
    x = torch.arange(4 * 6.0).view(1, 4, 6, 1)
    windows = to_windows(x, 2)
    assert windows.shape == (1, 6, 4, 1)
    assert windows[0, 1].flatten().tolist() == [2, 3, 8, 9]
    assert windows[0, 3].flatten().tolist() == [12, 13, 18, 19]
    assert torch.equal(from_windows(windows, 2, rows=2), x)


def test_index_says_the_offset():
    side = 3
    index = relative_index(side)
    for i in range(side**2):
        for j in range(side**2):
            rows, columns = i // side - j // side, i % side - j % side
            assert (
                index[i, j] == (rows + side - 1) * (2 * side - 1) + columns + side - 1
            )


@pytest.mark.parametrize(
    ("height", "width", "side", "shift"), [(8, 12, 4, 2), (14, 21, 7, 3)]
)
def test_masked_windows_are_the_pieces_of_a_shifted_grid(height, width, side, shift):
    torch.manual_seed(0)
    layer = WindowAttention(8, 2, side).double()
    nn.init.normal_(layer.bias_table)
    x = torch.randn(2, height, width, 8).double()
    y = ShiftedWindows(layer, side, shift)(x)
    row = (torch.arange(height) + side - shift) // side
    column = (torch.arange(width) + side - shift) // side
    place = torch.cartesian_prod(torch.arange(height), torch.arange(width))
    q, k, v = layer.qkv(x).flatten(1, 2).view(2, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
    out = torch.empty(2, 2, height * width, 4).double()
    piece = (row[:, None] * 10 + column).flatten()
    for number in piece.unique():  # each by itself, with the bias written out
        own = (piece == number).nonzero().flatten()
        offset = place[own][:, None] - place[own] + side - 1
        bias = layer.bias_table[offset[..., 0] * (2 * side - 1) + offset[..., 1]]
        scores = q[:, :, own] @ k[:, :, own].mT / 2 + bias.permute(2, 0, 1)
        out[:, :, own] = scores.softmax(dim=-1) @ v[:, :, own]
    expected = layer.proj(out.transpose(1, 2).flatten(2)).view_as(x)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_an_axis_of_one_window_is_not_shifted():
    layer = WindowAttention(8, 2, 4)
    x = torch.randn(1, 4, 12, 8)
    by_hand = x.roll(-2, 2)
    forbidden = foreign_pairs((4, 12), 4, (0, 2), x.device)
    by_hand = from_windows(layer(to_windows(by_hand, 4), forbidden), 4, 1).roll(2, 2)
    torch.testing.assert_close(ShiftedWindows(layer, 4, 2)(x), by_hand)


def test_forbidden_pairs_get_no_weight():
    torch.manual_seed(0)
    layer = WindowAttention(8, 2, 4)
    forbidden = foreign_pairs((8, 8), 4, (2, 2), torch.device("cpu"))
    _, weights = layer(torch.randn(3, 4, 16, 8), forbidden, return_weights=True)
    assert weights.masked_select(forbidden[:, None]).max() == 0
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 4, 2, 16))


def test_no_image_changes_the_network():
    network, x = small(), torch.randn(1, 3, 64, 64)
    before = network(x)
    network(torch.randn(1, 3, 8, 8))  # a single window in every stage
    assert torch.equal(network(x), before)


@pytest.mark.parametrize(("shift", "sides"), [(0, [7, 7, 7]), (3, [7, 14, 21])])
def test_how_far_a_token_is_heard(shift, sides):
    torch.manual_seed(0)
    x = torch.randn(1, 35, 35, 8).double()
    changed = x.clone()
    changed[0, 17, 17] += torch.randn(8).double()
    for i, side in enumerate(sides):
        block = SwinBlock(8, 1, shift=shift if i % 2 else 0).double()
        x, changed = block(x), block(changed)
        moved = (x - changed).abs().amax(dim=-1)[0] > 0
        assert moved.sum() == side**2
        assert moved.any(0).sum() == moved.any(1).sum() == side


def test_without_shift_a_stage_is_blind_across_borders():
    network = small(depths=(4,), num_heads=(2,), patch_size=1, shift=False)
    x = torch.randn(1, 3, 8, 8)
    changed = x.clone()
    changed[..., 4] += 1
    same = network.stages(x)[:, :, :4] == network.stages(changed)[:, :, :4]
    assert same.all()
    shifted = small(depths=(4,), num_heads=(2,), patch_size=1)
    assert (shifted.stages(x)[:, :, 3] != shifted.stages(changed)[:, :, 3]).any()


def test_a_merging_takes_the_left_column_first():
    merging = PatchMerging(1)
    merging.norm, merging.reduction = nn.Identity(), nn.Identity()
    x = torch.tensor([[1.0, 3, 5], [2, 4, 6], [7, 9, 11]]).view(1, 3, 3, 1)
    assert merging(x)[0, 0].tolist() == [[1, 2, 3, 4], [5, 6, 0, 0]]
    assert merging(x)[0, 1].tolist() == [[7, 0, 9, 0], [11, 0, 0, 0]]


def test_pixels_beyond_the_last_patch_are_cut_off():
    grid, x = PatchGrid(4, 8), torch.randn(1, 3, 11, 14)
    assert torch.equal(grid(x), grid(x[..., :8, :12]))
    assert grid(x).shape == (1, 2, 3, 8)


# --- training


def test_stochastic_depth_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, ones = StochasticDepth(0.3), torch.ones(20_000, 2, 3)
    y = drop(ones)
    assert y.unique().tolist() == [0, pytest.approx(1 / 0.7)]
    assert (y.flatten(1).std(dim=1) == 0).all()
    assert (y == 0).float().mean().item() == pytest.approx(0.3, abs=0.02)
    assert y.mean().item() == pytest.approx(1, abs=0.02)
    assert drop.eval()(ones) is ones


def test_both_branches_of_a_block_are_dropped_on_their_own():
    torch.manual_seed(0)
    block = SwinBlock(8, 1, 4, drop_path=0.5).double()
    x = torch.randn(1, 4, 4, 8).double().expand(400, -1, -1, -1)
    y = block(x)
    kinds = {tuple(image.flatten().round(decimals=9).tolist()) for image in y}
    assert len(kinds) == 4  # with or without each of the two


def test_tables_decay_nothing_and_learn():
    network = small().train()
    assert len(network.no_weight_decay) == 4
    loss = F.cross_entropy(network(torch.randn(4, 3, 64, 64)), torch.arange(4))
    loss.backward()
    without = [n for n, p in network.named_parameters() if not p.grad.abs().max() > 0]
    assert without == []


def test_first_loss_is_near_that_of_guessing():
    torch.manual_seed(0)
    network = create_model("swin_mini", num_classes=10)
    loss = F.cross_entropy(network(torch.randn(4, 3, 128, 128)), torch.arange(4))
    assert loss.item() == pytest.approx(math.log(10), abs=0.2)
