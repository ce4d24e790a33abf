"""A small folder of photographs as people have them, with all that is odd about them.

They are made from the photographs of Imagenette that the page on data shows, so that a
fresh clone has them; nothing else of Imagenette lies in the repository.
"""

import base64
import functools
import io
import json
import re
from pathlib import Path

import numpy as np
from PIL import Image, features

from nbs_utils.data.folders import IMAGENETTE

PAGE = Path(__file__).parents[1] / "chapters" / "foundations" / "data.ipynb"
# Names of folders, and the class of Imagenette that is in them.
CLASSES = {"Hörner": "French horn", "church": "church", "my dog": "English springer"}
LONE = "one parachute"  # a class with a single photograph
# What `damaged` writes. None can be read; the first three have endings of images.
DAMAGED = ("broken.jpg", "empty.jpg", "words.jpg")
OTHER_KINDS = ("phone.heic", "notes.txt")  # left out by their endings


@functools.cache
def imagenette() -> dict[str, Image.Image]:
    """Return one photograph of each class, 128 px wide, from the recorded page."""
    cells = json.loads(PAGE.read_text(encoding="utf-8"))["cells"]
    (cell,) = (
        cell
        for cell in cells
        if cell["metadata"].get("mystnb", {}).get("figure", {}).get("name")
        == "fig-data-imagenette"
    )
    svg = "".join(cell["outputs"][0]["data"]["image/svg+xml"])
    found = re.findall(r"data:image/(?:jpeg|png);base64,\s*([^\"]+)\"", svg)
    images = [Image.open(io.BytesIO(base64.b64decode(x))).convert("RGB") for x in found]
    return dict(zip(IMAGENETTE.values(), images, strict=True))


def photograph(name: str, seed: int, width: int = 80, height: int = 60) -> Image.Image:
    """Return a part of the photograph of a class, of a size."""
    draw = np.random.default_rng(seed)
    whole = imagenette()[CLASSES.get(name, name)]
    side = int(draw.integers(80, 129))
    left, top = draw.integers(0, 129 - side, 2).tolist()
    part = whole.crop((left, top, left + side, top + side))
    return part.resize((width, height), Image.Resampling.BICUBIC)


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


def odd_photographs(folder: Path, name: str) -> None:
    """Write files that are unusual and can be read: 13, and 1 more where AVIF can be."""
    photograph(name, 1).convert("L").save(folder / "gray.jpg")
    photograph(name, 2).convert("CMYK").save(folder / "print.jpg")
    photograph(name, 3).save(folder / "web.webp")
    photograph(name, 4).convert("P").save(folder / "old.gif")
    deep = np.asarray(photograph(name, 5).convert("L")).astype(np.uint16) * 256
    Image.fromarray(deep).save(folder / "deep.png")
    (folder / "trip").mkdir()
    photograph(name, 6, 1600, 1200).save(folder / "trip" / "large.png")
    photograph(name, 7, 5, 3).save(folder / "tiny.png")
    photograph(name, 8, 400, 20).save(folder / "panorama.jpg")
    clear = photograph(name, 9).convert("RGBA")
    clear.putalpha(128)
    clear.save(folder / "clear.png")
    photograph(name, 10).convert("P").save(folder / "palette.png", transparency=3)
    photograph(name, 11).save(folder / "SHOUTING.JPG")
    photograph(name, 12).save(folder / "mail.jfif", "JPEG")
    turned = photograph(name, 13).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned a quarter to the right
    turned.save(folder / "sideways.jpg", exif=exif, quality=95)
    if features.check("avif"):
        photograph(name, 14).save(folder / "new.avif")


def damaged(folder: Path) -> None:
    """Write files that cannot be read, and what systems leave in folders."""
    whole = (folder / "print.jpg").read_bytes()
    (folder / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "words.jpg").write_text("not a photograph", encoding="utf-8")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic")
    (folder / "notes.txt").write_text("not a photograph", encoding="utf-8")
    for name in (".DS_Store", "Thumbs.db", "._photo 1 ü.jpg", ".hidden.png"):
        (folder / name).write_bytes(b"\0")


def make_photographs(root: Path, count=(14, 10, 8)) -> Path:
    """Write class folders of odd and of damaged files; return the folder."""
    for name, n in zip(CLASSES, count, strict=True):
        folder = root / name
        folder.mkdir(parents=True)
        for i in range(n):
            image = photograph(name, 100 + i, 60 + 7 * (i % 5), 60)
            image.save(folder / f"photo {i} ü.jpg", quality=90)
    odd_photographs(root / "my dog", "my dog")
    damaged(root / "my dog")
    return root


def readable(folder: Path) -> list[Path]:
    """Return the photographs of a folder that can be read, sorted."""
    return sorted(
        path
        for path in folder.rglob("*.*")
        if path.is_file()
        and path.name not in (*DAMAGED, *OTHER_KINDS, "Thumbs.db")
        and not path.name.startswith(".")
    )
