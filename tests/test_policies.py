"""AutoAugment, RandAugment and TrivialAugment against torchvision's transforms."""

import pytest
import torch
from torchvision.transforms import v2

from nbs_utils import augment
from nbs_utils.augment import policies
from nbs_utils.augment.policies import CHOICES, LEVELS, SIGNED, magnitudes, read_policy

NAMES = list(augment.OPERATIONS)
MOVING = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDING = ("Brightness", "Color", "Contrast", "Sharpness")


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(5)


def photographs(height=30, width=24, channels=3):
    """Return two smooth images with noise, whose colors differ: uint8."""
    g = torch.Generator().manual_seed(1)
    coarse = torch.rand(2, channels, 5, 4, generator=g)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    noise = 0.05 * torch.randn(2, channels, height, width, generator=g)
    return ((smooth + noise) * 220 + 20).clamp(0, 255).byte()


def theirs(image, name, magnitude):
    """Apply an operation as torchvision's automatic augmentations do."""
    transform = v2.RandAugment()
    return transform._apply_image_or_video_transform(
        image, name, magnitude, transform.interpolation, transform._fill
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", NAMES)
def test_every_operation_at_every_magnitude_equals_torchvision(name, channels):
    x = photographs(channels=channels)
    amounts = []
    for wide in (False, True):
        row = magnitudes(LEVELS, *x.shape[-2:], wide)[NAMES.index(name)].tolist()
        amounts += row + ([-m for m in row] if name in SIGNED else [])
    batch = x.repeat(len(amounts), 1, 1, 1)  # all magnitudes in one call
    ours = augment.apply_operation(
        batch, name, torch.tensor(amounts).repeat_interleave(2)
    )
    expected = torch.cat([theirs(x, name, m) for m in amounts])
    difference = (ours.int() - expected.int()).abs()
    if name in MOVING:
        # The same pixels, but for a few whose source is halfway between two.
        assert (difference > 0).float().mean() < 0.002
    elif name in BLENDING:  # one level where floats are rounded in another order
        assert difference.max() <= 1 and (difference > 0).float().mean() < 0.002
    else:
        assert torch.equal(ours, expected)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("levels", [10, LEVELS])
def test_magnitudes_are_torchvisions(levels, wide):
    spaces = [v2.TrivialAugmentWide] if wide else [v2.RandAugment, v2.AutoAugment]
    table = magnitudes(levels, 30, 24, wide)
    for transform in spaces:
        for name, (ladder, signed) in transform._AUGMENTATION_SPACE.items():
            expected = ladder(levels, 30, 24)
            row = table[NAMES.index(name)]
            if expected is None:
                assert not row.any()
            else:
                assert torch.allclose(row, expected.float(), atol=1e-4)
            assert (name in SIGNED) == signed


@pytest.mark.parametrize("name", ["imagenet", "cifar10", "svhn"])
def test_learned_policies_are_torchvisions(name):
    expected = v2.AutoAugment(v2.AutoAugmentPolicy(name))._policies
    expected = [[(op, p, level or 0) for op, p, level in pair] for pair in expected]
    assert read_policy(name) == expected


def test_each_image_of_a_batch_gets_its_own_operation():
    x = photographs()[:1].expand(len(NAMES), -1, -1, -1)
    amount = magnitudes(LEVELS, *x.shape[-2:])[:, 20]
    together = augment.apply_operation(x, NAMES, amount)
    for i, name in enumerate(NAMES):
        alone = augment.apply_operation(x[:1], name, amount[i])
        assert torch.equal(together[i], alone[0])
    assert torch.equal(x, photographs()[:1].expand_as(x))  # not in place
    last = x.contiguous(memory_format=torch.channels_last)
    assert torch.equal(augment.apply_operation(last, NAMES, amount), together)


def test_operations_by_hand():
    x = torch.tensor([0, 100, 130, 255], dtype=torch.uint8).view(1, 1, 2, 2)

    def values(name, magnitude=0.0):
        return augment.apply_operation(x, name, magnitude).flatten().tolist()

    assert values("Identity") == [0, 100, 130, 255]
    assert values("Invert") == [255, 155, 125, 0]
    assert values("Solarize", 0.5) == [0, 100, 125, 0]  # from 127.5 on
    assert values("Posterize", 1) == [0, 0, 128, 128]
    assert values("Posterize", 0) == [0, 0, 0, 0]
    assert values("Brightness", -0.5) == [0, 50, 65, 127]
    assert values("TranslateX", 1) == [0, 0, 0, 130]
    assert values("TranslateY", -1.9) == [130, 255, 0, 0]  # whole pixels


def test_float_images_are_changed_as_bytes():
    x = photographs()
    change = augment.apply_operation(x, "Contrast", 0.5)
    floats = augment.apply_operation(x.float() / 255, "Contrast", 0.5)
    assert floats.dtype == torch.float32
    assert torch.equal((floats * 255).round().byte(), change)


def recorded(monkeypatch, function, x, generator, **how):
    """Return what a policy asks for in each of its steps: names and magnitudes."""
    steps = []

    def record(x, which, magnitude):
        steps.append(([NAMES[k] for k in which.tolist()], magnitude.tolist()))
        return x

    monkeypatch.setattr(policies, "apply_operation", record)
    function(x, generator, **how)
    return steps


def share(names, name):
    return sum(n == name for n in names) / len(names)


def test_rand_augment_draws_operations_evenly_at_one_magnitude(monkeypatch, generator):
    x = torch.zeros(14000, 3, 10, 20, dtype=torch.uint8)
    steps = recorded(monkeypatch, augment.rand_augment, x, generator, magnitude=12)
    assert len(steps) == 2
    level = magnitudes(LEVELS, 10, 20)[:, 12]
    for names, amounts in steps:
        for name in CHOICES:
            # 1 / 14 of 14,000 is 1,000, give or take 31
            assert abs(share(names, name) - 1 / 14) < 4 * 31 / 14000
            got = [m for n, m in zip(names, amounts) if n == name]
            expected = level[NAMES.index(name)].item()
            assert {abs(m) for m in got} == {abs(expected)}
            negative = sum(m < 0 for m in got) / len(got)
            assert abs(negative - 0.5) < 0.07 if name in SIGNED else negative == 0
    first, second = (step[0] for step in steps)
    same = sum(a == b for a, b in zip(first, second)) / len(first)
    assert abs(same - 1 / 14) < 0.01  # the two draws know nothing of each other
    three = recorded(monkeypatch, augment.rand_augment, x[:4], generator, num_ops=3)
    assert len(three) == 3


def test_trivial_augment_draws_one_operation_at_any_level(monkeypatch, generator):
    x = torch.zeros(31000, 1, 8, 8, dtype=torch.uint8)
    ((names, amounts),) = recorded(monkeypatch, augment.trivial_augment, x, generator)
    table = magnitudes(LEVELS, 8, 8, wide=True)
    for name in CHOICES:
        assert abs(share(names, name) - 1 / 14) < 0.006
        got = torch.tensor([abs(m) for n, m in zip(names, amounts) if n == name])
        row = table[NAMES.index(name)].abs()
        distance, level = (got[:, None] - row).abs().min(1)
        assert distance.max() < 1e-6
        if len(row.unique()) == LEVELS:
            counts = level.bincount(minlength=LEVELS)
            assert counts.min() > 35 and counts.max() < 115  # 71, give or take 8.4


def test_auto_augment_draws_pairs_with_their_chances(monkeypatch, generator):
    x = torch.zeros(50000, 3, 8, 8, dtype=torch.uint8)
    first, second = recorded(
        monkeypatch, augment.auto_augment, x, generator, policy="cifar10"
    )
    pairs = read_policy("cifar10")
    for step, (names, _) in enumerate((first, second)):
        for name in NAMES[1:]:
            expected = sum(pair[step][1] for pair in pairs if pair[step][0] == name)
            assert abs(share(names, name) - expected / 25) < 0.007
    # "TranslateY .4 3, Sharpness .2 6" is the only pair that moves by level 3 first
    level = magnitudes(10, 8, 8)[NAMES.index("TranslateY"), 3].item()
    at = [
        i
        for i, (name, amount) in enumerate(zip(*first))
        if name == "TranslateY" and abs(abs(amount) - level) < 1e-6
    ]
    assert abs(len(at) / 50000 - 0.4 / 25) < 0.002
    follow = [second[0][i] for i in at]
    assert set(follow) == {"Identity", "Sharpness"}
    assert abs(share(follow, "Sharpness") - 0.2) < 0.06


@pytest.mark.parametrize(
    "policy", [augment.auto_augment, augment.rand_augment, augment.trivial_augment]
)
def test_policies_repeat_with_the_generator_and_leave_the_batch_alone(policy):
    x = photographs().repeat(30, 1, 1, 1)
    before = x.clone()
    first, again, other = (
        policy(x, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == x.shape and first.dtype == torch.uint8
    assert torch.equal(x, before)
    assert len({tuple(image.flatten().tolist()) for image in first}) > 24


def test_bad_requests_are_answered_with_what_there_is(generator):
    x = photographs()
    with pytest.raises(ValueError, match="'Twist'; there are Identity, ShearX"):
        augment.apply_operation(x, "Twist")
    with pytest.raises(ValueError, match="3 operations came with 2 images"):
        augment.apply_operation(x, ["Invert", "Rotate", "Color"])
    with pytest.raises(ValueError, match="3 magnitudes came with 2 images"):
        augment.apply_operation(x, "Rotate", torch.ones(3))
    with pytest.raises(ValueError, match=r"shape \(2, 5, 30, 24\).*1 channel"):
        augment.apply_operation(photographs(channels=5), "Invert")
    with pytest.raises(ValueError, match="'mnist'; there are imagenet, cifar10, svhn"):
        augment.auto_augment(x, generator, policy="mnist")
    with pytest.raises(ValueError, match="magnitude is 31; .* 0 to 30"):
        augment.rand_augment(x, generator, magnitude=31)
    with pytest.raises(ValueError, match="num_ops is -1"):
        augment.rand_augment(x, generator, num_ops=-1)
