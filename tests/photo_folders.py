"""Folders of made photographs in ImageNet's layouts, with what goes wrong in them."""

import numpy as np
from PIL import Image

WNIDS = [f"n{k:08d}" for k in range(1000)]  # sorted, as published networks order them
SIZES = [(300, 400), (400, 300), (256, 256), (500, 333), (240, 360), (301, 277)]


def picture(seed: int, height: int, width: int) -> Image.Image:
    """A smooth color image that is like no other."""
    grid = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC)


def write_devkit(folder, ids):
    """The devkit's two files: the class numbers of the images, and their names.

    Class number i is the WordNet id 1000 - i, so that sorting by number is wrong.
    """
    from scipy.io import savemat

    (folder / "data").mkdir(parents=True)
    truth = folder / "data" / "ILSVRC2012_validation_ground_truth.txt"
    truth.write_text("".join(f"{i}\n" for i in ids))
    kinds = [("ILSVRC2012_ID", "O"), ("WNID", "O"), ("num_children", "O")]
    rows = [(i, WNIDS[1000 - i], 0) for i in range(1, 1001)]
    synsets = np.array([*rows, (1001, "n99999999", 7)], dtype=kinds).reshape(-1, 1)
    savemat(folder / "data" / "meta.mat", {"synsets": synsets})


def flat_imagenet(root, ids=(1000, 999, 3, 1, 700, 500)):
    """ImageNet's flat validation folder with the devkit beside it."""
    (root / "val").mkdir(parents=True)
    for i, (number, size) in enumerate(zip(ids, SIZES, strict=True), 1):
        image = picture(number, *size)
        image.save(root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", quality=92)
    write_devkit(root / "ILSVRC2012_devkit_t12", ids)
    return root


def odd_images(folder):
    """One good image and one of each kind of trouble, as one class folder."""
    folder.mkdir(parents=True)
    picture(1, 200, 300).save(folder / "a_good.jpg")
    picture(2, 200, 300).convert("L").save(folder / "b_gray.jpg")
    picture(3, 200, 300).convert("CMYK").save(folder / "c_cmyk.jpg")
    whole = (folder / "a_good.jpg").read_bytes()
    (folder / "d_truncated.jpg").write_bytes(whole[: len(whole) // 2])
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    picture(5, 200, 300).save(folder / "e_rotated.jpg", exif=exif)
    picture(6, 20, 30).save(folder / "f_small.jpg")
    (folder / "g_empty.jpg").write_bytes(b"")
    return folder
