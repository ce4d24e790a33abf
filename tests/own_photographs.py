"""A small folder of photographs as people have them, with all that is odd about them."""

import numpy as np
from photo_folders import picture
from PIL import Image

CLASSES = {"Fußball": (200, 40, 40), "my cat": (40, 160, 60), "tree": (40, 60, 200)}


def photograph(color, seed: int, width: int = 80, height: int = 60) -> Image.Image:
    """A smooth picture of mostly one color."""
    noise = np.asarray(picture(seed, height, width)).astype(float)
    return Image.fromarray((0.75 * np.array(color) + 0.25 * noise).astype(np.uint8))


def top_and_bottom(rotated: bool):
    """A picture that is white above and black below, stored upright or sideways."""
    array = np.zeros((60, 80, 3), np.uint8)
    array[:30] = 255
    image = Image.fromarray(array)
    if not rotated:
        return image, None
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    return image.transpose(Image.Transpose.ROTATE_90), exif


def make_photographs(root, count=(14, 10, 8)):
    """Write class folders of odd files; return the folder."""
    for (name, color), n in zip(CLASSES.items(), count, strict=True):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(n):
            image = photograph(color, 10 * i + n, 60 + 7 * (i % 5), 60)
            image.save(folder / f"photo {i} ü.jpg", quality=90)
    cat = root / "my cat"
    photograph((40, 160, 60), 1).convert("L").save(cat / "gray.jpg")
    photograph((40, 160, 60), 2).convert("CMYK").save(cat / "print.jpg")
    photograph((40, 160, 60), 3).save(cat / "web.webp")
    photograph((40, 160, 60), 4).convert("P").save(cat / "old.gif")
    deep = np.asarray(photograph((40, 160, 60), 5).convert("L")).astype(np.uint16) * 256
    Image.fromarray(deep).save(cat / "deep.png")
    image, exif = top_and_bottom(rotated=True)
    image.save(cat / "sideways.jpg", exif=exif, quality=95)
    (cat / "trip").mkdir()
    photograph((40, 160, 60), 6, 300, 200).save(cat / "trip" / "large.png")
    whole = (cat / "print.jpg").read_bytes()
    (cat / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (cat / ".DS_Store").write_bytes(b"\0")
    (cat / "notes.txt").write_text("not a photograph")
    return root
