"""Image files become one uint8 array, once: decoding on all cores, and the cache."""

import hashlib
import json
import os
import shutil
import uuid
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision  # noqa: F401  (its import registers the decoder)
from PIL import Image, ImageOps, features
from torch import Tensor

from ..runtime import cpu_cores, in_threads

VERSION = 1  # raise it when decoding changes, and old caches are made anew
EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".webp", ".tif",
              ".tiff", ".ppm", ".gif")  # fmt: skip
if features.check("avif"):  # in Pillow since 11.3, where it was built with it
    EXTENSIONS += (".avif",)


class BadImage(ValueError):
    """An image file that cannot be decoded; the message names the file."""


def _decode_with_pil(path: Path, channels: int, upright: bool) -> Tensor:
    with Image.open(path) as image:
        if upright:
            image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits, which convert() would cut off
            levels = np.asarray(image).astype(np.int64) >> 8
            image = Image.fromarray(levels.clip(0, 255).astype(np.uint8))
        array = np.array(image.convert("L" if channels == 1 else "RGB"))
    return torch.from_numpy(array).reshape(*array.shape[:2], channels).permute(2, 0, 1)


def _by_pil_only(data: np.ndarray, channels: int, upright: bool) -> bool:
    """Tell whether torchvision passes over a file's orientation, or cannot gray it."""
    head = data[:12].tobytes()
    if head[:4] != b"RIFF" or head[8:] != b"WEBP":
        return False
    return channels == 1 or (upright and b"EXIF" in data.tobytes())


def decode_file(
    path: Path,
    channels: int = 3,
    data: np.ndarray | None = None,
    *,
    upright: bool = False,
) -> Tensor:
    """Decode one image file to uint8 (channels, H, W).

    torchvision's decoder is faster than PIL's (benchmarks/evaluation.py); PIL is asked
    where torchvision cannot read a format (BMP, TIFF, 16 bits).

    Args:
        path: the file.
        channels: 1 or 3.
        data: its bytes, uint8, where they have been read already.
        upright: apply the EXIF orientation, with which cameras say how they were
            held. Published figures of ImageNet were measured without. (Pillow turns a
            TIFF by itself, always.)

    Raises:
        BadImage: neither can read the file; it is truncated or no image.
    """
    try:
        data = np.fromfile(path, dtype=np.uint8) if data is None else data
        if len(data) == 0:
            raise BadImage(f"The image {path} is empty (0 bytes).")
        # The operator itself: torchvision.io on top of it warns at every call since
        # 0.29 that it will go. Once it is gone, the AttributeError leads to PIL.
        mode = 1 if channels == 1 else 3  # gray or RGB
        if not _by_pil_only(data, channels, upright):
            image = torch.ops.image.decode_image(torch.from_numpy(data), mode, upright)
            if image.dtype == torch.uint8 and image.shape[:-2] == (channels,):
                return image
    except (OSError, RuntimeError, AttributeError):
        pass  # PIL reads more formats, and its message says more
    try:
        return _decode_with_pil(path, channels, upright)
    except Exception as error:
        reason, kind = error, path.suffix.lower()
        if kind in (".heic", ".heif"):  # of telephones
            reason = f"{kind} is not decoded here; convert it to JPEG or PNG"
        raise BadImage(
            f"The image {path} cannot be read: {reason}. Replace or remove it, or "
            'pass on_bad_image="skip" to leave such images out.'
        ) from error


def square(image: Tensor, size: int) -> Tensor:
    """Resize the shorter side to `size` and cut out the central square.

    Args:
        image: uint8 (C, H, W).
        size: side of the square in pixels.

    Returns:
        uint8 (C, size, size).
    """
    height, width = image.shape[-2:]
    if min(height, width) != size:
        scale = size / min(height, width)
        height, width = (max(size, round(n * scale)) for n in (height, width))
        image = F.interpolate(
            image[None], (height, width), mode="bilinear", antialias=True
        )[0]
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size]


def decode_files(
    paths: Sequence[Path],
    size: int,
    channels: int = 3,
    threads: int | None = None,
    on_bad_image: str = "raise",
    upright: bool = False,
) -> tuple[Tensor, list[int]]:
    """Decode image files into one array.

    Args:
        paths: the files.
        size: side of the stored squares in pixels.
        channels: 1 or 3.
        threads: how many decode at the same time; all cores by default.
        on_bad_image: "raise" stops at a file that cannot be read, "skip" leaves its
            place black and reports it.
        upright: apply the EXIF orientation.

    Returns:
        images uint8 (N, channels, size, size), in memory (N, size, size, channels),
        and the positions of bad files.

    Raises:
        BadImage: a file cannot be read and `on_bad_image` is "raise".
    """
    # Color values lie side by side, as decoders write them.
    rows = np.zeros((len(paths), size, size, channels), dtype=np.uint8)
    bad: list[int] = []

    def decode(chunk: range) -> None:
        for i in chunk:
            try:
                image = decode_file(paths[i], channels, upright=upright)
                rows[i] = square(image, size).permute(1, 2, 0).numpy()
            except BadImage:
                if on_bad_image != "skip":
                    raise
                bad.append(i)

    threads = threads or cpu_cores()
    chunks = [range(i, min(i + 64, len(paths))) for i in range(0, len(paths), 64)]
    in_threads(decode, chunks, threads)
    return torch.from_numpy(rows).permute(0, 3, 1, 2), sorted(bad)


def image_sums(images: Tensor) -> Tensor:
    """Return the sum and the sum of squares of each image's channels, exactly.

    Args:
        images: uint8 (N, C, H, W).

    Returns:
        int64 (N, C, 2): enough for the mean and deviation of any subset.
    """
    sums = torch.empty(*images.shape[:2], 2, dtype=torch.int64)
    for i in range(0, len(images), 256):
        part = images[i : i + 256].to(torch.int32)
        sums[i : i + 256, :, 0] = part.sum((2, 3))
        sums[i : i + 256, :, 1] = part.square_().sum((2, 3))
    return sums


def files_key(paths: Sequence[Path], *settings: object) -> str:
    """Return a hash that changes when a file or a setting changes."""
    digest = hashlib.blake2b(repr((VERSION, *settings)).encode(), digest_size=8)
    for path in paths:
        stat = os.stat(path)
        line = f"{path.parent.name}/{path.name} {stat.st_size} {stat.st_mtime_ns}\n"
        digest.update(line.encode())
    return digest.hexdigest()


def cache_places(folder: Path, own: bool = False) -> tuple[Path, ...]:
    """Return where the cache of a folder of images may stand, best first.

    For a data set that is known by name beside it (`.cifar10.nbs_cache` beside
    `cifar10`, never inside, where others would take it for a class), where other runs
    and machines find it too; else in `~/.cache/nbs_utils/decoded`.

    Args:
        folder: where the images lie.
        own: True for a folder of one's own. Beside that nothing is ever written, and
            its cache carries its path, as many folders are called `photos`.
    """
    folder = folder.resolve()
    home = Path.home() / ".cache" / "nbs_utils" / "decoded"
    if own:
        path = hashlib.blake2b(os.fsencode(folder), digest_size=4).hexdigest()
        return (home / f"{folder.name}-{path}",)
    return folder.with_name(f".{folder.name}.nbs_cache"), home / folder.name


def _read_entry(entry: Path, shape: tuple[int, ...]) -> tuple | None:
    """Read a cache entry, or None where there is none or it is damaged."""
    try:
        images = np.load(entry / "images.npy")
        sums = np.load(entry / "sums.npy")
        bad = json.loads((entry / "skipped.json").read_text())
    except (OSError, ValueError, EOFError):
        return None
    if images.shape != shape or images.dtype != np.uint8 or len(sums) != shape[0]:
        return None
    return torch.from_numpy(images).permute(0, 3, 1, 2), torch.from_numpy(sums), bad


def _write_entry(entry: Path, images: Tensor, sums: Tensor, bad: list[int]) -> bool:
    """Write a cache entry as a whole; tell whether it worked.

    Everything goes to a folder of its own, which is then renamed: a reader sees a
    complete entry or none, and of two writers the later one finds it done.
    """
    draft = entry.with_name(f".{entry.name}.{uuid.uuid4().hex}")
    try:
        draft.mkdir(parents=True)
        np.save(draft / "images.npy", images.permute(0, 2, 3, 1).numpy())
        np.save(draft / "sums.npy", sums.numpy())
        (draft / "skipped.json").write_text(json.dumps(bad))
        if entry.exists():  # damaged, or the reader would have used it
            entry.rename(draft / "old")
        draft.rename(entry)
        shutil.rmtree(entry / "old", ignore_errors=True)
    except OSError:  # read-only, full, or another process was first
        shutil.rmtree(draft, ignore_errors=True)
        return entry.exists()
    prefix = entry.name.rsplit("-", 1)[0]
    for old in entry.parent.glob(f"{prefix}-*"):
        if old != entry:  # the same files before they changed
            shutil.rmtree(old, ignore_errors=True)
    return True


def decode_cached(
    paths: Sequence[Path],
    size: int,
    channels: int,
    places: Sequence[Path],
    name: str,
    on_bad_image: str = "raise",
    upright: bool = False,
) -> tuple[Tensor, Tensor, list[int]]:
    """Decode image files, or read what an earlier call has left in a cache.

    A file added, removed or changed makes an entry invalid.

    Args:
        paths: the files, in the order of the result.
        size: side of the stored squares in pixels.
        channels: 1 or 3.
        places: folders for the cache, see `cache_places`. The first that can be
            written is used; where there is none, a warning says so.
        name: tells the splits of one data set apart.
        on_bad_image: "raise" or "skip", see `decode_files`.
        upright: apply the EXIF orientation.

    Returns:
        images uint8 (N, channels, size, size); sums int64 (N, channels, 2), see
        `image_sums`; positions of files that could not be decoded.

    Raises:
        BadImage: a file cannot be read and `on_bad_image` is "raise".
    """
    key = files_key(paths, size, channels, *(["upright"] if upright else []))
    shape = (len(paths), size, size, channels)
    entries = [place / f"{name}-{size}x{channels}-{key}" for place in places]
    for entry in entries:
        found = _read_entry(entry, shape)
        if found:
            if found[2] and on_bad_image != "skip":
                decode_file(paths[found[2][0]], channels)  # raises, with the reason
            return found
    images, bad = decode_files(
        paths, size, channels, on_bad_image=on_bad_image, upright=upright
    )
    sums = image_sums(images)
    if not any(_write_entry(entry, images, sums, bad) for entry in entries):
        warnings.warn(
            f"Decoded images could not be kept: {' or '.join(map(str, places))} cannot "
            "be written (read-only or full). They will be decoded again next time.",
            stacklevel=3,
        )
    return images, sums, bad
