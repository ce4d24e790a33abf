"""Folders of one's own photographs: layouts, formats, orientation, what is left out."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from class_folders import leave_alone, load_folder, write_image, write_pets
from PIL import Image, ImageOps

from nbs_utils.data import BadImage, decode_file, load_data, load_photographs


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path):
    leave_alone(monkeypatch, tmp_path)


@pytest.fixture
def folder(tmp_path):
    return write_pets(tmp_path / "pets")


def test_folder_layouts(folder, tmp_path):
    data = load_folder(folder)
    assert data.classes == ["cat", "guinea pig"] and data.title == "pets"
    assert (len(data.train), len(data.val), len(data.test)) == (22, 2, 6)
    flat = load_folder(folder / "train", val_size=0)
    assert (len(flat.train), len(flat.test)) == (22, 2)
    os.rename(folder / "test", folder / "val")  # ImageNet's layout: val is the test
    assert len(load_folder(folder).test) == 6
    write_image(folder / "test/cat/0.png")
    own = load_folder(folder)
    assert (len(own.train), len(own.val), len(own.test)) == (24, 6, 1)
    for path in (folder / "val").glob("*/*.png"):
        path.unlink()
    assert len(load_folder(folder).val) == 0  # empty, not taken from the training


def test_folders_that_are_none(folder, tmp_path):
    with pytest.raises(ValueError, match="There is no folder"):
        load_folder(tmp_path / "nowhere")
    (tmp_path / "bare").mkdir()
    write_image(tmp_path / "bare" / "1.png")
    with pytest.raises(ValueError, match="bare has no class folders"):
        load_folder(tmp_path / "bare")
    (tmp_path / "hollow" / "cat").mkdir(parents=True)
    with pytest.raises(ValueError, match="1 class folders but no images"):
        load_folder(tmp_path / "hollow")
    (folder / "train" / "dog").mkdir()
    with pytest.raises(ValueError, match="dog has no images"):
        load_folder(folder)
    (folder / "train" / "dog").rmdir()
    write_image(folder / "test" / "dog" / "1.png")
    with pytest.raises(ValueError, match="class folder 'dog'"):
        load_folder(folder)


def test_photographs_keep_their_centre_for_evaluation(tmp_path):
    # 200x100 with a white central square of 70: 7/8 of 80 stored is all white.
    canvas = np.zeros((100, 200, 3), np.uint8)
    canvas[12:88, 62:138] = 255
    for kind in "ab":
        for i in range(3):
            path = tmp_path / "wide" / kind / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(canvas).save(path)
    data = load_folder(tmp_path / "wide", image_size=64, val_size=0, augment="none")
    x = data.train.images([0])
    assert x.shape == (1, 3, 64, 64)
    assert int(x[0, 0, 32, 32]) == 255 and int(x[0, 0, 32, 8]) == 255
    assert int(x[0, 0, 1, 1]) == 0  # 7/8 of 100 is wider than the square
    resized = load_folder(tmp_path / "wide", image_size=64, val_size=0,
                          augment="resized-crop-flip")  # fmt: skip
    assert next(resized.train.batches(epoch=0))[0].shape == (4, 3, 64, 64)


@pytest.mark.parametrize("budget", [None, 0])
@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_bad_image_is_named_and_skipped_only_if_asked(folder, damage, budget):
    path = folder / "train" / "cat" / "03.png"
    data = path.read_bytes()
    path.write_bytes({"truncated": data[: len(data) // 2], "empty": b"",
                      "text": b"not an image"}[damage])  # fmt: skip
    settings = {"val_size": 0, "memory_budget": budget, "workers": 0}
    with pytest.raises(BadImage, match=r"cat/03\.png"):
        load_folder(folder, **settings)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data = load_folder(folder, on_bad_image="skip", **settings)
        seen = sum(len(y) for _, y in data.train.batches())
    assert any("cat/03.png" in str(w.message) for w in caught)
    assert seen == 23
    if budget is None:
        assert len(data.train) == 23
        with pytest.raises(BadImage, match=r"03\.png"):  # also from the cache
            load_folder(folder, **settings)


def test_formats_and_modes(tmp_path):
    root = tmp_path / "mixed"
    for i, (mode, ending) in enumerate(
        [("L", "png"), ("RGBA", "png"), ("P", "gif"), ("CMYK", "jpg"), ("RGB", "bmp"),
         ("RGB", "webp"), ("RGB", "jpeg"), ("I;16", "png")]
    ):  # fmt: skip
        for kind in "ab":
            path = root / kind / f"{i}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            image = Image.new("RGB", (40, 40), (200, 200, 200))
            if mode == "I;16":
                image = Image.fromarray(np.full((40, 40), 51400, np.uint16))
            else:
                image = image.convert(mode)
            image.save(path)
    for channels in (3, 1):
        data = load_folder(root, val_size=0, channels=channels)
        x = data.train.images(range(len(data.train)))
        assert x.shape[1] == channels
        gray = x.float().mean((1, 2, 3))
        assert ((gray - 200).abs() < 6).all(), gray


# --- names of folders


def test_a_folder_is_named_by_a_path_or_plainly(folder, tmp_path):
    named = load_folder(folder)
    for name in (folder, str(folder), "pets", "./pets", "~/../pets"):
        (tmp_path / "home").mkdir(exist_ok=True)
        data = load_data(name, batch_size=4)
        assert data.title == "pets" and data.name.startswith("imagefolder:")
        assert torch.equal(data.train.images([0]), named.train.images([0]))
    with pytest.raises(ValueError, match="There is no folder .*dogs"):
        load_data("photos/dogs")
    with pytest.raises(ValueError, match="'pest'.*no folder of that name"):
        load_data("pest")
    folder.rename(tmp_path / "digits")
    assert load_data("digits").title == "scikit-learn digits"  # names come first
    assert load_data("./digits").title == load_data(Path("digits")).title == "digits"


# --- orientation


def write_turned(folder, ending, **settings):
    """Write one picture in the eight orientations of EXIF; return the files."""
    folder.mkdir(parents=True)
    pixels = np.random.default_rng(5).integers(0, 256, (6, 9, 3), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((90, 60), Image.BICUBIC)
    paths = []
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        paths.append(folder / f"{orientation}.{ending}")
        image.save(paths[-1], exif=exif, **settings)
    return paths


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_upright_is_what_a_viewer_shows(tmp_path, ending, channels):
    settings = {"lossless": True} if ending == "webp" else {}
    for path in write_turned(tmp_path / "turned", ending, **settings):
        stored = decode_file(path, channels).permute(1, 2, 0)
        viewer = Image.fromarray(stored.squeeze(2).numpy())
        viewer.getexif()[0x0112] = int(path.stem)
        expected = np.array(ImageOps.exif_transpose(viewer)).reshape(
            60 if path.stem < "5" else 90, -1, channels
        )
        found = decode_file(path, channels, upright=True).permute(1, 2, 0)
        assert np.array_equal(found.numpy(), expected)
        assert np.array_equal(found, stored) == (path.stem == "1")


def test_tiff_is_upright_always(tmp_path):
    paths = write_turned(tmp_path / "turned", "tiff")
    for path in paths[1:]:  # Pillow turns this format by itself
        expected = np.array(ImageOps.exif_transpose(Image.open(path)))
        for upright in (True, False):
            found = decode_file(path, upright=upright).permute(1, 2, 0)
            assert np.array_equal(found.numpy(), expected)


@pytest.mark.parametrize("tail", [b"", b"II", b"MM\0*\0\0\0\x08\xff\xff\x01\x12"])
def test_a_damaged_orientation_says_nothing(tmp_path, tail):
    path = tmp_path / "a.jpg"
    Image.new("RGB", (30, 20)).save(path, exif=b"Exif\0\0" + tail)
    assert decode_file(path, upright=True).shape == (3, 20, 30)


@pytest.mark.parametrize("budget", [None, 0])
def test_photographs_of_ones_own_are_turned_upright(tmp_path, budget):
    for kind in "ab":
        for path in write_turned(tmp_path / "photos" / kind, "png"):
            turned = tmp_path / "turned" / kind / path.name
            turned.parent.mkdir(parents=True, exist_ok=True)
            ImageOps.exif_transpose(Image.open(path)).save(turned)
    settings = {"image_size": 48, "val_size": 4, "memory_budget": budget}
    data = load_folder(tmp_path / "photos", **settings)
    turned = load_folder(tmp_path / "turned", **settings)
    stored = load_folder(tmp_path / "photos", upright=False, **settings)
    assert data.upright and not stored.upright
    assert torch.equal(data.mean, turned.mean)
    for split in ("train", "val", "test"):
        found, expected, as_stored = (
            torch.cat([x for x, _ in getattr(d, split).batches()])
            for d in (data, turned, stored)
        )
        assert torch.equal(found, expected)
        assert not torch.equal(found, as_stored)


# --- what is left out, and what is too few


def test_files_that_are_left_out_are_counted(folder):
    for i in range(5):
        (folder / f"train/cat/{i}.heic").write_bytes(b"x")
    (folder / "train/cat/NOTES").write_text("x")
    (folder / "test/cat/9.TXT").write_text("x")
    for name in (".DS_Store", "Thumbs.db", ".hidden.heic"):  # nobody put these there
        (folder / "train/cat" / name).write_bytes(b"x")
    counts = "of the 37 files .*: 5 .heic, 1 .txt, 1 without an ending. Convert"
    with pytest.warns(UserWarning, match=f"^7 {counts}"):
        data = load_folder(folder)
    assert len(data.notes) == 1 and len(data.train) == 22
    with pytest.warns(UserWarning, match="^1 of the 7 files .*: 1 .txt"):
        load_photographs(folder)


def test_jpeg_has_more_than_two_endings(tmp_path):
    for kind in "ab":
        for i, ending in enumerate(("jpg", "jpeg", "jpe", "jfif", "JPG", "JFIF") * 2):
            write_image(tmp_path / f"j/{kind}/{i}.{ending}", seed=i, kind="JPEG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = load_folder(tmp_path / "j")
    assert len(data.train) + len(data.val) + len(data.test) == 24


def test_a_class_whose_files_cannot_be_read_says_so(folder):
    for path in (folder / "train/cat").iterdir():
        path.rename(path.with_suffix(".heic"))
    words = "cat has no images that can be read, but 12 .heic; add"
    with pytest.raises(ValueError, match=words):
        load_folder(folder)


def test_classes_with_few_images_are_named(folder):
    write_image(folder / "train/wolf/1.png")
    with pytest.warns(UserWarning, match="1 of 3 classes .*") as caught:
        data = load_folder(folder, val_size=4)
    said = "".join(str(w.message) for w in caught)
    assert "wolf (1 training, 0 validation, 0 test)" in said and "cat" not in said
    assert len(data.notes) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a limit is meant to leave few
        load_folder(folder, limit=4)
