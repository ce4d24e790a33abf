"""Where the pixels are while a network trains: on the device, in memory, in files."""

import os
import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..distributed import world
from .datasets import Part
from .decoding import BadImage, decode_file, square

UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20,
         "gi": 2**30}  # fmt: skip


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


class _Files(Dataset):
    """What a DataLoader worker holds: one item is one batch, decoded."""

    def __init__(self, paths: list[Path], size: int, channels: int, skip: bool):
        # One array of bytes: a list of Path objects would be copied into every
        # worker, page by page, as its reference counts are touched.
        names = [os.fspath(p).encode() for p in paths]
        self.ends = torch.tensor([len(n) for n in names]).cumsum(0)
        self.names = torch.from_numpy(np.frombuffer(b"".join(names), np.uint8).copy())
        self.size, self.channels, self.skip = size, channels, skip

    def path(self, i: int) -> Path:
        first = int(self.ends[i - 1]) if i else 0
        return Path(bytes(self.names[first : int(self.ends[i])].tolist()).decode())

    def __getitem__(self, batch: list[int]) -> tuple[Tensor | str, list[int] | None]:
        images, kept = [], []
        for i in batch:
            try:
                image = decode_file(self.path(i), self.channels)
            except BadImage as error:
                if not self.skip:
                    return str(error), None  # raised by the reader, not in a worker
                warnings.warn(
                    f"Skipped an unreadable image: {self.path(i)}", stacklevel=2
                )
                continue
            images.append(square(image, self.size))
            kept.append(i)
        if not images:
            shape = (0, self.channels, self.size, self.size)
            return torch.empty(shape, dtype=torch.uint8), []
        rows = torch.stack([image.permute(1, 2, 0) for image in images])
        return rows.permute(0, 3, 1, 2), kept  # as the decoder leaves them


class FileStore(Store):
    """Images in files, decoded anew for every epoch by DataLoader workers.

    Args:
        part: the files of the split and their labels.
        size: side of the squares in pixels.
        channels: 1 or 3.
        workers: processes that decode; 0 decodes in this one.
        skip: leave unreadable images out instead of raising.
        pin: copy batches to page-locked memory, for a GPU.
    """

    def __init__(
        self,
        part: Part,
        size: int,
        channels: int,
        workers: int = 0,
        skip: bool = False,
        pin: bool = False,
    ):
        self.labels = part.labels
        self.files = _Files(part.paths, size, channels, skip)
        self.workers, self.pin = workers, pin

    def read(self, chosen: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
        loader = DataLoader(
            self.files,
            batch_size=None,  # an item is a batch already
            sampler=[batch.tolist() for batch in chosen],
            num_workers=min(self.workers, len(chosen)),
            pin_memory=self.pin,
            # torch's own generator must not advance: it belongs to the network
            generator=torch.Generator().manual_seed(0),
        )
        for x, kept in loader:
            if kept is None:
                raise BadImage(x)
            yield x, torch.as_tensor(kept, dtype=torch.int64)


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
