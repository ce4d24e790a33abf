"""Where the pixels are while a network trains: on the device, in memory, in files."""

import contextlib
import math
import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..distributed import world
from .decoding import BadImage, decode_file, square
from .parts import Part
from .reading import in_order

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20,
         "gi": 2**30}  # fmt: skip
CHUNK = 16  # images that one thread decodes before it looks for more work


class Store:
    """The images of one split, by position.

    Attributes:
        labels: int64 (N,).
        resident: True where all images are on the device.
        home: where positions must be to read there.
        paths: the files of the images, by position; empty where they are in none.
    """

    labels: Tensor
    paths: Sequence[Path] = ()
    resident = False
    home = torch.device("cpu")

    def read(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a uint8 batch for each set of positions, and the positions kept."""
        raise NotImplementedError


class ArrayStore(Store):
    """Images in one uint8 array (N, C, H, W), on the device or in host memory.

    Args:
        images: the array.
        labels: int64 (N,).
        indices: int64 (M,), which of its images belong to the split.
        resident: True where the array is on the device that trains.
        pin: copy batches to page-locked memory, for a GPU.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        indices: Tensor,
        resident: bool = True,
        pin: bool = False,
    ):
        self.home = images.device
        self.indices = indices.to(self.home)
        # Color values side by side (photographs) or in planes: whole images are
        # copied fast only in the order in which they lie in memory.
        self.last = not images.is_contiguous()
        self.rows = images.permute(0, 2, 3, 1) if self.last else images
        self.labels = labels[indices]
        self.resident, self.pin = resident, pin

    def read(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in chosen:
            x = self.rows.index_select(0, self.indices[batch])
            x = x.permute(0, 3, 1, 2) if self.last else x
            yield (x.pin_memory() if self.pin else x), batch


class FileStore(Store):
    """Images in files, decoded anew for every epoch, in threads ahead of their use.

    Args:
        part: the files of the split and their labels.
        size: side of the squares in pixels.
        channels: 1 or 3.
        workers: threads that decode; 0 decodes in the caller's.
        skip: leave unreadable images out instead of raising.
        pin: decode into page-locked memory, for a GPU.
        upright: apply the EXIF orientation.
    """

    def __init__(
        self,
        part: Part,
        size: int,
        channels: int,
        workers: int = 0,
        skip: bool = False,
        pin: bool = False,
        upright: bool = False,
    ):
        self.labels, self.paths = part.labels, part.paths
        self.size, self.channels, self.upright = size, channels, upright
        self.workers, self.skip, self.pin = workers, skip, pin

    def read(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield batches; two whole ones at most are decoded before they are used.

        Raises:
            BadImage: a file cannot be read and `skip` is off.
        """
        batches = [batch.tolist() for batch in chosen]
        sizes = [math.ceil(len(batch) / CHUNK) for batch in batches]
        ahead = max(2 * max(sizes, default=1), 2 * self.workers)
        threads = min(self.workers, sum(sizes))
        done = in_order(self._decode, self._chunks(batches), threads, ahead)
        # Closed here, not when the garbage is collected: its threads end with this.
        with contextlib.closing(done):
            for batch, count in zip(batches, sizes):
                kept = []
                for _ in range(count):
                    rows, found, skipped = next(done)
                    kept += found
                    for sentence in skipped:
                        warnings.warn(f"Skipped: {sentence}", stacklevel=2)
                if not count:
                    rows = self._rows(0)
                if len(kept) < len(batch):
                    rows = rows[kept]
                x = rows.permute(0, 3, 1, 2)  # as the decoder leaves them
                yield x, torch.tensor([batch[i] for i in kept], dtype=torch.int64)

    def _rows(self, count: int) -> Tensor:
        shape = (count, self.size, self.size, self.channels)
        return torch.empty(shape, dtype=torch.uint8, pin_memory=self.pin)

    def _chunks(self, batches: list[list[int]]) -> Iterator[tuple]:
        """Yield a batch's memory, where in it to begin, and the images to decode."""
        for batch in batches:
            rows = self._rows(len(batch))
            for start in range(0, len(batch), CHUNK):
                yield rows, start, batch[start : start + CHUNK]

    def _decode(self, chunk: tuple) -> tuple[Tensor, list[int], list[str]]:
        """Fill a part of a batch; return it, the places filled, and what was bad."""
        rows, start, images = chunk
        kept, skipped = [], []
        for place, i in enumerate(images, start):
            try:
                image = decode_file(self.paths[i], self.channels, upright=self.upright)
            except BadImage as error:
                if not self.skip:
                    raise
                skipped.append(str(error).partition(" Replace or")[0])
                continue
            rows[place] = square(image, self.size).permute(1, 2, 0)
            kept.append(place)
        return rows, kept, skipped


def parse_bytes(amount: float | str) -> int:
    """Return bytes for a number or a text such as "4 GB" or "512 MiB"."""
    if isinstance(amount, (int, float)):
        return int(amount)
    match = re.fullmatch(r"\s*([\d.]+)\s*([kmg]?i?)b?\s*", amount.lower())
    if not match or match[2] not in UNITS:
        raise ValueError(
            f"memory_budget is '{amount}'; give bytes as a number, or a text such as "
            '"4 GB" or "512 MiB".'
        )
    return int(float(match[1]) * UNITS[match[2]])


def _host_memory() -> int:
    """Return the bytes of main memory that this process can still use."""
    free = 8 * 2**30  # a guess where the system does not say
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        kib = next(x for x in lines if x.startswith("MemAvailable")).split()[1]
        free = int(kib) * 1024
    except (OSError, StopIteration):
        if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    for limit, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):  # a container's own limit, version 2 and 1
        try:
            group = Path("/sys/fs/cgroup")
            stat = (group / used).with_name("memory.stat").read_text()
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            left = int((group / limit).read_text()) - int((group / used).read_text())
            left += int(cached[1]) if cached else 0  # files read, given back at need
            free = min(free, max(0, left))
        except (OSError, ValueError):
            continue
    return free


def default_budget(device: torch.device) -> int:
    """Return half of the memory that is free on a device, in bytes.

    Of main memory, each process on this machine counts on its part only.
    """
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] // 2
    return _host_memory() // (2 * world().local_size)
