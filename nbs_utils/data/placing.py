"""Bring the images of a data set to where they stay while a network trains."""

import json
import os
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from ..distributed import world
from ..runtime import cpu_cores
from .decoding import cache_places, decode_cached, decode_files, files_key, image_sums
from .layout import Layout
from .parts import Part, Source, stratified
from .storage import ArrayStore, FileStore, Store, default_budget


def _convert(images: Tensor, layout: Layout) -> Tensor:
    """Bring an array to the channels of the layout, and enlarge tiny images."""
    if images.shape[1] == 3 and layout.channels == 1:
        weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)  # ITU-R BT.601
        images = torch.cat(
            [(x * weights).sum(1, True).round().byte() for x in images.split(4096)]
        )
    if images.shape[-1] < layout.stored:
        size = (layout.stored, layout.stored)
        images = torch.cat(
            [
                F.interpolate(x.float(), size, mode="bicubic").round_().clamp_(0, 255)
                .byte() for x in images.split(256)
            ]
        )  # fmt: skip
    return images.expand(-1, layout.channels, -1, -1).contiguous()


def _moments(sums: Tensor, pixels: int) -> tuple[Tensor, Tensor]:
    """Return mean and standard deviation of values in 0..1, exactly summed."""
    total, squares = sums.sum(0).double().unbind(-1)
    count = len(sums) * pixels
    mean = total / count
    variance = squares / count - mean**2
    # An image set of one color has no deviation; dividing by it must not give inf.
    std = variance.clamp_min(1).sqrt()
    return (mean / 255).float(), (std / 255).float()


def _sampled_moments(
    part: Part, layout: Layout, place: Path, skip: bool, upright: bool
) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of streamed files, from 2,048 of them.

    They are kept in the folder `place`; where it cannot be written, nowhere.
    """
    if len(part) > 2048:
        part = part.take(stratified(part.labels, 2048, seed=0)[0])
    turned = ["upright"] if upright else []
    key = files_key(part.paths, layout.stored, layout.channels, *turned)
    note = place / f"statistics-{key}.json"
    try:
        mean, std = json.loads(note.read_text())
        return torch.tensor(mean), torch.tensor(std)
    except (OSError, ValueError):
        pass  # not computed yet
    images, bad = decode_files(
        part.paths,
        layout.stored,
        layout.channels,
        on_bad_image="skip" if skip else "raise",
        upright=upright,
    )
    good = torch.ones(len(part), dtype=torch.bool)
    good[bad] = False
    mean, std = _moments(image_sums(images[good]), layout.stored**2)
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        draft = note.with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps([mean.tolist(), std.tolist()]))
        draft.replace(note)
    except OSError:
        pass  # a read-only folder: compute it again next time
    return mean, std


def _load(
    source: Source, part: Part, used: Tensor, layout: Layout, skip: bool, upright: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return images, their sums and a mask of the readable ones."""
    if len(used) < len(part):
        part = part.take(used)
        part.name = f"{part.name}.{len(used)}"
    good = torch.ones(len(part), dtype=torch.bool)
    if part.images is not None:
        images = _convert(part.images, layout)
        return images, image_sums(images), good
    images, sums, bad = decode_cached(
        part.paths,
        layout.stored,
        layout.channels,
        cache_places(source.folder, source.own),
        part.name,
        "skip" if skip else "raise",
        upright,
    )
    good[bad] = False
    if not layout.center:
        images = images.contiguous()  # small images are augmented fastest in planes
    return images, sums, good


def _unreadable_note(loaded: list[tuple[Part, Tensor, Tensor]]) -> list[str]:
    """Say in at most one sentence which images cannot be read.

    Args:
        loaded: parts, the positions that were used of them, and which are readable.
    """
    total = sum(len(used) for _, used, _ in loaded)
    bad = [
        str(part.paths[i])
        for part, used, good in loaded
        for i in used[~good].tolist()
        if part.paths
    ]
    if not bad:
        return []
    names = f"{', '.join(bad[:3])}{', ...' if len(bad) > 3 else ''}"
    return [f"Skipped {len(bad)} of {total} images that cannot be read: {names}"]


def place(
    source: Source,
    chosen: list[Tensor],
    layout: Layout,
    *,
    device: torch.device,
    budget: int,
    skip: bool,
    workers: int | None,
    upright: bool,
) -> tuple[list[Store], Tensor, Tensor, int]:
    """Put the images of three splits on the device, or arrange to stream them.

    Args:
        source: the data set that was found.
        chosen: positions of the training, validation and test images in their parts.
        layout: how images are kept.
        device: the device that trains.
        budget: bytes that the images may take there.
        skip: leave unreadable files out.
        workers: threads that decode streamed files; None is one per core.
        upright: apply the EXIF orientation.

    Returns:
        three stores; mean and deviation of the training split, each (C,); the bytes
        that all images take.
    """
    parts = [source.train, source.val_part, source.test]
    each = layout.channels * layout.stored**2
    nbytes = sum(len(where) for where in chosen) * each
    if layout.center:  # evaluation keeps what it sees of two splits as well
        seen = layout.channels * layout.image_size**2
        nbytes += (len(chosen[1]) + len(chosen[2])) * seen
    fits = nbytes <= budget
    pin = device.type == "cuda"
    host = budget if device.type == "cpu" else default_budget(torch.device("cpu"))
    if source.train.images is None and nbytes > host:
        if workers is None:  # the processes on this machine share its cores
            workers = max(1, cpu_cores() // world().local_size)
        stores = [
            FileStore(
                part.take(where),
                layout.stored,
                layout.channels,
                workers,
                skip,
                pin,
                upright,
            )
            for part, where in zip(parts, chosen)
        ]
        train = parts[0].take(chosen[0])
        kept = cache_places(source.folder, source.own)[0]
        moments = _sampled_moments(train, layout, kept, skip, upright)
        return stores, *moments, nbytes

    loaded: dict[int, tuple[Tensor, ...]] = {}
    stores: list[Store] = []
    for part, where in zip(parts, chosen):
        if id(part) not in loaded:  # training and validation share one
            used = torch.cat([w for p, w in zip(parts, chosen) if p is part]).unique()
            images, sums, good = _load(source, part, used, layout, skip, upright)
            images = images.to(device) if fits else images
            loaded[id(part)] = used, images, sums, good
        used, images, sums, good = loaded[id(part)]
        rows = torch.searchsorted(used, where)
        rows = rows[good[rows]]
        if not stores:
            mean, std = _moments(sums[rows], layout.stored**2)
        stores.append(
            ArrayStore(images, part.labels[used], rows, fits, pin and not fits)
        )
        if part.paths:
            stores[-1].paths = [part.paths[i] for i in used[rows].tolist()]
    parts = {id(part): part for part in parts}
    source.notes += _unreadable_note(
        [(parts[i], used, good) for i, (used, _, _, good) in loaded.items()]
    )
    return stores, mean, std, nbytes
