"""Augmentation against torchvision: exactly where given, in distribution where drawn."""

from functools import partial

import numpy
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from torchvision.transforms import v2

import nbs_utils
from nbs_utils import augment
from nbs_utils.augment import geometry, scale


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def images(count=12, size=20, channels=3, dtype=torch.uint8, last=False):
    x = torch.randint(
        0, 256, (count, size, size, channels), dtype=torch.uint8,
        generator=torch.Generator().manual_seed(1),
    ).permute(0, 3, 1, 2)  # fmt: skip
    x = x if last else x.contiguous()
    return x if dtype == torch.uint8 else x.float() / 255


def test_crop_cuts_each_image_at_its_own_place():
    x = images()
    top, left = torch.randint(0, 9, (2, 12))
    y = augment.crop(x, top, left, 12, 10)
    for i in range(12):
        expected = TF.crop(x[i], int(top[i]), int(left[i]), 12, 10)
        assert torch.equal(y[i], expected)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_flip_mirrors_only_the_chosen(last, dtype):
    x = images(dtype=dtype, last=last)
    before = x.clone()
    mask = torch.arange(12) % 3 == 0
    y = augment.flip(x, mask)
    for i in range(12):
        assert torch.equal(y[i], TF.horizontal_flip(x[i]) if mask[i] else x[i])
    assert torch.equal(x, before)
    assert torch.equal(augment.flip(x, ~mask | mask), x.flip(-1))


def test_random_crop_pads_with_black_and_draws_every_offset(generator):
    x = torch.zeros(4000, 1, 6, 6, dtype=torch.uint8)
    x[:, :, 3, 2] = 200  # one bright pixel shows where the window went
    y = augment.random_crop(x, 2, generator)
    place = y.flatten(1).argmax(1)
    offsets = torch.stack([3 + 2 - place // 6, 2 + 2 - place % 6])
    assert torch.equal(y.flatten(1).amax(1), torch.full((4000,), 200).byte())
    assert int(y.sum(dtype=torch.int64)) == 4000 * 200  # all else is black
    counts = torch.stack([row.bincount(minlength=5) for row in offsets])
    assert counts.min() > 700 and counts.max() < 900  # uniform on 0..4: 800 +- 25


def test_random_flip_is_fair_and_drawn_for_each_image(generator):
    x = torch.tensor([0, 1], dtype=torch.uint8).expand(4000, 1, 1, 2)
    flipped = augment.random_flip(x.contiguous(), generator)[:, 0, 0, 0]
    assert 1900 < int(flipped.sum()) < 2100
    runs = (flipped[1:] != flipped[:-1]).sum()
    assert 1900 < int(runs) < 2100  # neighbors are independent


def test_crop_and_flip_in_one_go_are_the_two_steps(generator):
    x = images(200)
    before = x.clone()
    y = augment.random_crop_flip(x, 3, generator)
    draw = torch.rand(3, 200, generator=torch.Generator().manual_seed(5))
    top, left = (draw[:2] * 7).long()
    cut = augment.crop(torch.nn.functional.pad(x, [3] * 4), top, left, 20, 20)
    assert torch.equal(y, augment.flip(cut, draw[2] < 0.5))
    assert torch.equal(x, before)
    assert 70 < sum(map(torch.equal, y, cut)) < 130


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_resized_crop_equals_torchvision(last, dtype):
    x = images(40, 32, dtype=dtype, last=last)
    boxes = augment.draw_boxes(40, 32, 32, (0.08, 1), (0.75, 1.33),
                               torch.Generator().manual_seed(0))  # fmt: skip
    y = augment.resized_crop(x, *boxes, 24)
    for i, (top, left, height, width) in enumerate(boxes.T.tolist()):
        expected = TF.resized_crop(
            x[i], top, left, height, width, [24, 24], antialias=True
        )
        difference = (y[i].float() - expected.float()).abs().max()
        assert difference <= (1 if dtype == torch.uint8 else 1e-5)


def test_resized_crop_by_matrices_equals_the_kernel():
    # What other devices than the CPU do; here on the CPU, to compare.
    x = images(40, 32, dtype=torch.float32)
    boxes = augment.draw_boxes(40, 32, 32, (0.08, 1), (0.5, 2),
                               torch.Generator().manual_seed(0))  # fmt: skip
    for size in (10, 24, 48):
        a = augment.resized_crop(x, *boxes, size)
        b = geometry.resample(x, *boxes, size)
        assert (a - b).abs().max() < 1e-5


def test_boxes_are_distributed_as_torchvision_draws_them(generator):
    count, height, width = 4000, 60, 80
    scale, ratio = (0.08, 1.0), (3 / 4, 4 / 3)
    ours = augment.draw_boxes(count, height, width, scale, ratio, generator).double()
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(10, scale, ratio)
    canvas = torch.empty(3, height, width)
    drawn = [crop.make_params([canvas]) for _ in range(count)]
    theirs = torch.tensor(
        [[p["top"], p["left"], p["height"], p["width"]] for p in drawn]
    ).T.double()
    top, left, h, w = ours
    assert (top >= 0).all() and (top + h <= height).all()
    assert (left >= 0).all() and (left + w <= width).all()

    def features(boxes):
        top, left, h, w = boxes
        return h * w / (height * width), (w / h).log(), top, left, h, w

    for a, b in zip(features(ours), features(theirs)):
        # Kolmogorov-Smirnov: 1.95 * sqrt(2 / n) is passed with 99.9 % if equal.
        grid = torch.cat([a, b]).sort().values
        gap = torch.searchsorted(a.sort().values, grid, right=True)
        gap = gap - torch.searchsorted(b.sort().values, grid, right=True)
        assert gap.abs().max() / count < 1.95 * (2 / count) ** 0.5


def test_boxes_that_never_fit_become_the_central_one(generator):
    box = augment.draw_boxes(3, 10, 40, (1.0, 1.0), (1.0, 1.0), generator)
    assert box.T.tolist() == [[0, 15, 10, 10]] * 3


def test_random_resized_crop_has_the_asked_size_and_type(generator):
    y = augment.random_resized_crop(images(last=True), 11, generator=generator)
    assert y.shape == (12, 3, 11, 11) and y.dtype == torch.uint8


@pytest.mark.parametrize(
    "name, theirs, factors",
    [
        ("brightness", TF.adjust_brightness, (0.2, 0.7, 1.0, 1.6)),
        ("contrast", TF.adjust_contrast, (0.0, 0.7, 1.0, 1.6)),
        ("saturation", TF.adjust_saturation, (0.0, 0.7, 1.0, 1.6)),
        ("hue", TF.adjust_hue, (-0.5, -0.1, 0.0, 0.3)),
    ],
)
def test_color_functions_equal_torchvision(name, theirs, factors):
    x = images(4, 16, dtype=torch.float32)
    x[0, :, :4] = x[0, :1, :4]  # gray pixels have no hue
    y = augment.adjust_color(x, **{name: torch.tensor(factors)})
    for i, factor in enumerate(factors):
        assert (y[i] - theirs(x[i], factor)).abs().max() < 1e-5
    whole = (x * 255).round().byte()
    levels = augment.adjust_color(whole, **{name: torch.tensor(factors)}).int()
    for i, factor in enumerate(factors):
        # torchvision cuts bytes off where this rounds
        assert (levels[i] - theirs(whole[i], factor).int()).abs().max() <= 1


def test_color_jitter_stays_within_its_amounts(generator):
    x = torch.full((3000, 3, 2, 2), 0.5)
    y = augment.color_jitter(x, generator, 0.4, 0.0, 0.0)
    factor = y[:, 0, 0, 0] / 0.5
    assert 0.6 <= factor.min() < 0.61 and 1.39 < factor.max() <= 1.4
    assert abs(factor.mean() - 1) < 0.02
    gray = images(4, 8, channels=1)
    assert augment.color_jitter(gray, generator, hue=0.1).shape == gray.shape


def test_erasing_covers_areas_and_shapes_in_range(generator):
    x = torch.ones(2000, 1, 40, 40)
    y = augment.random_erasing(x, generator, 0.7, (0.1, 0.2), (0.5, 2.0), value=0)
    hole = y[:, 0] == 0
    erased = hole.any(2).any(1)
    assert 1340 < int(erased.sum()) < 1460
    height = hole.any(2).sum(1)[erased]
    width = hole.any(1).sum(1)[erased]
    assert torch.equal(height * width, hole.flatten(1).sum(1)[erased])  # rectangles
    area = height * width / 1600
    assert area.min() > 0.09 and area.max() < 0.215  # sides are whole pixels
    shape = width / height
    assert shape.min() > 0.45 and shape.max() < 2.25
    assert abs(area.mean() - 0.15) < 0.005


def test_cutout_centres_anywhere_and_is_cut_at_the_border(generator):
    y = augment.cutout(torch.ones(5000, 1, 10, 10), 4, generator)
    area = (y == 0).flatten(1).sum(1)
    # rows seen of a side of 4 around a center 0..9: 2, 3, then 4 seven times, then 3
    rows = torch.tensor([2, 3, 4, 4, 4, 4, 4, 4, 4, 3]).float()
    assert abs(area.float().mean() - rows.mean() ** 2) < 0.2
    assert int(area.max()) == 16 and int(area.min()) == 4


def test_mixup_blends_images_and_labels_by_the_same_share(generator):
    y = torch.arange(64)
    x = torch.nn.functional.one_hot(y).float().view(64, 1, 8, 8)
    mixed, (a, b, lam) = augment.mixup(x, y, 0.4, generator)
    assert torch.equal(a, y) and sorted(b.tolist()) == y.tolist()
    weights = mixed.flatten(1)  # pixel k holds the share of label k
    expected = torch.zeros(64, 64)
    expected.scatter_add_(1, a[:, None], lam[:, None])
    expected.scatter_add_(1, b[:, None], 1 - lam[:, None])
    assert (weights - expected).abs().max() < 1e-6
    assert lam.unique().numel() > 60  # drawn for each image


def test_mixing_shares_follow_the_beta_distribution(generator):
    x, y = torch.zeros(20000, 1, 1, 1), torch.zeros(20000, dtype=torch.int64)
    for alpha in (0.2, 1.0):
        _, (_, _, lam) = augment.mixup(x, y, alpha, generator)
        variance = 1 / (4 * (2 * alpha + 1))  # of Beta(alpha, alpha)
        assert abs(lam.mean() - 0.5) < 0.02
        assert abs(lam.var() - variance) < 0.01


def test_cutmix_labels_weigh_what_is_seen(generator):
    y = torch.arange(500)
    x = y.float().view(-1, 1, 1, 1).expand(-1, 1, 16, 16).contiguous()
    mixed, (a, b, lam) = augment.cutmix(x, y, 1.0, generator)
    seen = mixed.flatten(1)
    assert torch.equal(((seen == a[:, None]) | (seen == b[:, None])).all(1),
                       torch.ones(500, dtype=torch.bool))  # fmt: skip
    other = a != b
    kept = (seen == a[:, None]).float().mean(1)
    assert torch.allclose(lam[other], kept[other], atol=1e-6)
    assert 0 < (lam == 1).sum() < 50 and lam.min() < 0.2


def test_alpha_must_be_positive(generator):
    x, y = torch.zeros(2, 1, 4, 4), torch.tensor([0, 1])
    with pytest.raises(ValueError, match="alpha is 0"):
        augment.mixup(x, y, 0, generator)


# --- crops from a resized image


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("sides", [(40, 40), (30, 50), (50, 30)])
def test_scaled_crop_is_resize_then_crop(sides, dtype):
    x = torch.rand(6, 3, *sides, generator=torch.Generator().manual_seed(2))
    x = (x * 255).byte() if dtype == torch.uint8 else x
    shorter = torch.tensor([22, 25, 30, 37, 41, 60])  # smaller, the same, larger
    top, left = torch.tensor([0, 3, 1, 15, 2, 38]), torch.tensor([0, 1, 8, 5, 19, 30])
    y = augment.scaled_crop(x, shorter, top, left, 22)
    for i in range(6):
        resized = TF.resize(x[i], [int(shorter[i])], antialias=True)
        expected = TF.crop(resized, int(top[i]), int(left[i]), 22, 22)
        assert torch.equal(y[i], expected)


def test_scaled_crop_by_matrices_equals_the_kernel():
    # What other devices than the CPU do; here on the CPU, to compare.
    x = torch.rand(6, 3, 30, 50, generator=torch.Generator().manual_seed(2))
    shorter = torch.tensor([22, 25, 30, 37, 41, 60])
    top, left = torch.tensor([0, 3, 1, 15, 2, 38]), torch.tensor([0, 1, 8, 5, 19, 30])
    a = augment.scaled_crop(x, shorter, top, left, 22)
    b = scale._by_matrices(x, shorter, top, left, 22)
    assert (a - b).abs().max() < 1e-4


def test_shorter_sides_and_corners_are_drawn_evenly(generator, monkeypatch):
    drawn = {}

    def keep(x, side, top, left, size):
        drawn.update(side=side, top=top, left=left)

    monkeypatch.setattr(scale, "scaled_crop", keep)
    x = torch.empty(20000, 1, 8, 16)
    augment.random_scaled_crop(x, 8, (8, 12), generator)
    side = drawn["side"]
    counts = side.bincount(minlength=13)[8:]
    assert len(counts) == 5 and (counts - 4000).abs().max() < 4 * 57
    for s in range(8, 13):
        # a side of s leaves s - 8 rows and 2 * s - 8 columns to move in
        for corner, room in ((drawn["top"], s - 8), (drawn["left"], 2 * s - 8)):
            counts = corner[side == s].bincount(minlength=room + 1)
            assert len(counts) == room + 1
            expected = 4000 / (room + 1)
            assert (counts - expected).abs().max() < 5 * expected**0.5
    augment.random_scaled_crop(x, 8, 11, generator)
    assert set(drawn["side"].tolist()) == {11}


# --- color noise along principal components


def test_color_components_are_those_of_the_pixels():
    g = torch.Generator().manual_seed(3)
    axes = torch.linalg.qr(torch.randn(3, 3, generator=g)).Q
    spread = torch.tensor([0.09, 0.04, 0.01])  # deviations along the axes
    x = 0.5 + torch.randn(100, 40, 40, 3, generator=g) * spread @ axes.T
    parts = augment.color_components(x.permute(0, 3, 1, 2))
    assert torch.allclose(parts.variance, spread**2, rtol=0.02)
    for found, axis in zip(parts.direction, axes.T):
        assert abs(found @ axis) > 0.999 and found.sum() > 0
    assert torch.allclose(parts.share.sum(), torch.tensor(1.0))
    whole = images(90)
    pixels = whole.transpose(0, 1).flatten(1).double().numpy() / 255
    values = augment.color_components(whole).variance
    assert values.tolist() == pytest.approx(
        sorted(numpy.linalg.eigvalsh(numpy.cov(pixels, bias=True)), reverse=True)
    )
    gray = augment.color_components(images(4, channels=1))
    assert gray.direction.tolist() == [[1.0]]


def test_pca_noise_shifts_whole_images_as_defined(generator):
    parts = augment.ColorComponents(
        torch.tensor([0.2, 0.1, 0.05]), torch.eye(3)[[2, 0, 1]]
    )
    x = torch.full((20000, 3, 2, 2), 0.5)
    shift = augment.pca_noise(x, generator, parts) - x
    assert torch.equal(shift, shift[..., :1, :1].expand_as(shift))  # one per image
    # blue moves with the first component, red with the second, green with the third
    deviation = shift[..., 0, 0].std(0) / 0.1
    assert torch.allclose(deviation, torch.tensor([0.1, 0.05, 0.2]), rtol=0.03)
    assert shift.mean().abs() < 1e-3
    levels = torch.full((4, 3, 2, 2), 250, dtype=torch.uint8)
    moved = augment.shift_color(levels, torch.tensor([[-0.1, 0.01, 0.1]]).expand(4, 3))
    assert moved[0, :, 0, 0].tolist() == [round(250 - 25.5), 253, 255]


def test_components_of_other_images_are_refused(generator):
    parts = augment.color_components(images(4, channels=1))
    with pytest.raises(ValueError, match="3 channels and the components .* with 1"):
        augment.pca_noise(images(), generator, parts)


# --- presets


def preset_named(name, size):
    some = images(6, 40)
    return augment.make_augment(name, size, images=lambda: some)


PRESETS = ["none", "flip", "crop-flip", "side-crop-flip", "scale-crop-flip",
           "resized-crop-flip", "strong", "pca", "autoaugment", "randaugment",
           "trivialaugment", "erasing"]  # fmt: skip


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("size", [32, 80])
def test_presets_repeat_with_the_seed_and_only_then(name, size):
    preset = preset_named(name, size)
    x = images(8, 100 if preset.from_stored else size, last=True)
    before = x.clone()
    first = preset(x, torch.Generator().manual_seed(1))
    again = preset(x, torch.Generator().manual_seed(1))
    other = preset(x, torch.Generator().manual_seed(2))
    assert first.shape == (8, 3, size, size) and first.dtype == torch.uint8
    assert torch.equal(first, again)
    assert torch.equal(first, other) == (name == "none")
    assert torch.equal(x, before)


def test_make_augment_takes_functions_and_names_the_known():
    def invert(x, generator):
        return 255 - x

    made = augment.make_augment(invert, 32)
    assert made.name == "invert"
    assert torch.equal(made(images(), None), 255 - images())
    with pytest.raises(ValueError, match="'crop-flop'.*crop-flip"):
        augment.make_augment("crop-flop", 32)
    with pytest.raises(ValueError) as error:
        augment.make_augment("crop-flop", 32)
    assert all(name in str(error.value) for name in PRESETS)
    named = augment.make_augment(partial(augment.rand_augment, magnitude=3), 32)
    assert named.name == "rand_augment"


def test_pca_by_name_takes_the_components_of_the_data_at_hand():
    data = nbs_utils.load_data("digits", limit=100, augment="pca")
    assert data.augment == "pca"
    noise = data.train.augment.steps[-1]
    (x,) = (x for x, _ in data.train.store.read([torch.arange(100)]))
    expected = augment.color_components(x)
    assert torch.allclose(noise.keywords["components"].variance, expected.variance)
    with pytest.raises(ValueError, match="'pca' needs the colors of the training"):
        augment.make_augment("pca", 32)


# --- bad input is answered with a sentence


@pytest.mark.parametrize(
    "call, sentence",
    [
        (lambda x, g: augment.crop(x, *[torch.zeros(12).long()] * 2, 24, 20),
         "A crop of 24 x 20 px is larger than the images of 20 x 20 px"),
        (lambda x, g: augment.random_scaled_crop(x, 24, 22, g),
         "crop of 24 x 24 px is larger .* 22 px; make the shorter side at least 24"),
        (lambda x, g: augment.scaled_crop(x, *[torch.zeros(12).long()] * 3, 24),
         "larger than an image whose shorter side is resized to 0 px"),
        (lambda x, g: augment.random_scaled_crop(x, 24, (30, 25), g),
         r"shorter_side is \(30, 25\)"),
        (lambda x, g: augment.random_crop(x, -1, g), "padding is -1 px"),
        (lambda x, g: augment.random_crop_flip(x, -1, g), "padding is -1 px"),
        (lambda x, g: augment.random_resized_crop(x, 8, (0.5, 0.1), generator=g),
         r"scale is \(0.5, 0.1\)"),
        (lambda x, g: augment.random_erasing(x, g, ratio=(2, 1)), r"ratio is \(2, 1\)"),
        (lambda x, g: augment.random_erasing(x, g, p=1.5), "p is 1.5"),
        (lambda x, g: augment.cutout(x, -4, g), "size is -4 px"),
        (lambda x, g: augment.color_jitter(x, g, contrast=-1), "contrast is -1"),
        (lambda x, g: augment.color_jitter(x, g, hue=0.7), "hue is 0.7"),
        (lambda x, g: augment.color_components(x[:0]), r"shape \(0, 3, 20, 20\)"),
    ],
)  # fmt: skip
def test_bad_input_is_named(call, sentence, generator):
    with pytest.raises(ValueError, match=sentence):
        call(images(), generator)
