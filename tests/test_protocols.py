"""Every box of every protocol by hand, and the protocols of torchvision."""

import pytest
import torch
from torchvision.transforms import v2

from nbs_utils.data.protocols import cut, list_protocols, parse, resized, views

LANDSCAPE, PORTRAIT, SQUARE = (480, 640), (500, 375), (300, 300)


def boxes(protocol, size, crop=224):
    return [v.box[:2] for v in views(protocol, *size, crop)]


@pytest.mark.parametrize(
    ("size", "shorter", "expected"),
    [
        (LANDSCAPE, 256, (256, 341)),  # 256 * 640 / 480 = 341.33
        (PORTRAIT, 256, (341, 256)),  # 256 * 500 / 375 = 341.33
        (SQUARE, 288, (288, 288)),
        ((10, 1000), 224, (224, 22400)),
    ],
)
def test_the_shorter_side_is_resized_and_the_longer_rounded_down(
    size, shorter, expected
):
    assert resized(*size, shorter) == expected
    image = torch.zeros(3, *size, dtype=torch.uint8)
    if max(expected) < 1000:
        assert v2.Resize(shorter)(image).shape[1:] == expected


@pytest.mark.parametrize(
    ("size", "expected"),
    [(LANDSCAPE, (16, 58)), (PORTRAIT, (58, 16)), (SQUARE, (16, 16))],
)
def test_center_by_hand(size, expected):
    # (341 - 224) / 2 = 58.5, to the even neighbor; (256 - 224) / 2 = 16
    (view,) = views("center", *size)
    assert view.box == (*expected, 224, 224)
    assert not view.mirrored


@pytest.mark.parametrize(
    ("size", "top", "left"),
    [(LANDSCAPE, 0, 42), (PORTRAIT, 42, 0), (SQUARE, 0, 0)],
)
def test_ten_crop_by_hand(size, top, left):
    # the central 256 x 256 begins at (341 - 256) / 2 = 42.5, to the even neighbor
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    five = [(top + y, left + x) for y, x in corners]
    found = views("ten_crop", *size)
    assert len(found) == 10
    assert [v.box for v in found] == [(*c, 224, 224) for c in five] * 2
    assert [v.mirrored for v in found] == [False] * 5 + [True] * 5


def test_multi_crop_by_hand():
    # landscape: 256 x 341, 384 x 512, 512 x 682; shifts are the rest over four
    grids = [
        ((0, 8, 16, 24, 32), (0, 29, 58, 87, 117)),
        ((0, 40, 80, 120, 160), (0, 72, 144, 216, 288)),
        ((0, 72, 144, 216, 288), (0, 114, 229, 343, 458)),
    ]
    expected = [(y, x) for rows, columns in grids for y in rows for x in columns]
    assert len(expected) == 75
    assert boxes("multi_crop", LANDSCAPE) == expected * 2
    assert (
        boxes("multi_crop", (640, 480))
        == [(y, x) for columns, rows in grids for y in rows for x in columns] * 2
    )
    square = [(y, x) for rows, _ in grids for y in rows for x in rows]
    assert boxes("multi_crop", SQUARE) == square * 2
    found = views("multi_crop", *LANDSCAPE)
    assert len(found) == 150
    assert [v.resized for v in found[::25]] == [(256, 341), (384, 512), (512, 682)] * 2
    assert {v.size for v in found} == {(224, 224)}


def test_googlenet_by_hand():
    sides = {
        256: (341, (0, 42, 85)),  # 42.5 to the even neighbor
        288: (384, (0, 48, 96)),
        320: (426, (0, 53, 106)),
        352: (469, (0, 58, 117)),  # 58.5
    }
    expected = []
    for side, (longer, shifts) in sides.items():
        far, mid = side - 224, (side - 224) // 2
        for shift in shifts:
            five = [(0, 0), (0, far), (far, 0), (far, far), (mid, mid)]
            crops = [(y, shift + x, 224, 224) for y, x in five]
            square = (0, shift, side, side)
            expected += [((side, longer), box) for box in [*crops, square]]
    found = views("googlenet_144", *LANDSCAPE)
    assert len(found) == 144
    assert [(v.resized, v.box) for v in found] == expected * 2
    assert {v.size for v in found} == {(224, 224)}
    portrait = views("googlenet_144", *PORTRAIT)
    turned = [(size[::-1], (x, y, h, w)) for size, (y, x, h, w) in expected]
    assert {(v.resized, v.box) for v in portrait} == set(turned)
    assert [v.box for v in portrait[:3]] == [
        (0, 0, 224, 224),
        (0, 32, 224, 224),
        (32, 0, 224, 224),
    ]
    square = views("googlenet_144", *SQUARE)  # all three squares are the image
    assert [v.box for v in square[:6]] == [v.box for v in square[6:12]]
    assert square[5].box == (0, 0, 256, 256)


def test_dense_protocols_see_the_whole_image():
    plain, mirrored = views("dense", *LANDSCAPE)
    assert plain.box == (0, 0, 256, 341)
    assert plain.size == (256, 341)
    assert mirrored.mirrored
    sides = [v.size for v in views("multi_scale_dense", *PORTRAIT)]
    assert sides == [(298, 224), (341, 256), (512, 384), (640, 480), (853, 640)]
    counts = {name: len(views(name, *PORTRAIT)) for name in list_protocols()}
    assert counts == {
        "center": 1,
        "ten_crop": 10,
        "dense": 2,
        "multi_crop": 150,
        "googlenet_144": 144,
        "multi_scale_dense": 5,
        "dense+multi_crop": 152,
    }


def test_sizes_keep_their_ratio_to_the_crop():
    # round(256 * 128 / 224) = 146
    found = views("ten_crop", 160, 160, crop=128)
    assert found[0].resized == (146, 146)
    assert found[3].box == (18, 18, 128, 128)
    assert views("center", 160, 200, crop=128, shorter=130)[0].resized == (130, 162)
    assert [v.size[0] for v in views("dense@224,448", 160, 160, 112)] == [112, 224] * 2


def test_ten_crop_equals_torchvisions():
    image = torch.randint(0, 256, (3, 97, 130), dtype=torch.uint8)
    steps = v2.Compose([v2.Resize(64), v2.CenterCrop(64), v2.TenCrop(56)])
    ours = cut(image[None], views("ten_crop", 97, 130, crop=56))
    assert len(ours) == 10
    # torchvision cuts the mirrored image: what was left comes as right
    order = [0, 1, 2, 3, 4, 6, 5, 8, 7, 9]
    for i, theirs in zip(order, steps(image), strict=True):
        assert torch.equal(ours[i][0], theirs)


def test_a_box_on_the_original():
    view = views("ten_crop", 512, 512)[3]  # at half the size, the crop at (32, 32)
    assert view.on_original(512, 512) == (64, 64, 448, 448)


def test_bad_input_is_told_what_to_do():
    with pytest.raises(ValueError, match="Did you mean ten_crop"):
        parse("ten-crop")
    with pytest.raises(ValueError, match="crop of 224 x 224 px is larger than the im"):
        views("ten_crop@200", 300, 300)
    with pytest.raises(ValueError, match="whole numbers of pixels"):
        parse("dense@big")
    with pytest.raises(ValueError, match="at least 1"):
        views("center", 0, 10)
