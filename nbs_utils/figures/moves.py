"""What a rearrangement of numbers does, told from where each number goes.

A channel shuffle may be written as reshape, transpose, reshape, with einops or by a
module; a shift as a cyclic one or as padding and cutting. The functions are called
again on the numbers 1, 2, 3, ..., and what comes out is compared with what is known.
"""

from collections.abc import Callable
from functools import lru_cache
from math import isqrt, prod

import torch
from torch import Tensor

from .words import Words

Move = Callable[[Tensor], Tensor]
_MOST = 4_000_000  # numbers; larger tensors are not looked at


def replayed(moves: tuple[Move, ...], shape: tuple[int, ...]) -> Tensor | None:
    """Return where the numbers 1 to n of a tensor go; 0 is what padding brings in.

    Args:
        moves: functions that were applied one after the other.
        shape: of the tensor that they were applied to, batch included.
    """
    if prod(shape) > _MOST:
        return None
    numbers = torch.arange(1, prod(shape) + 1, dtype=torch.int32).view(shape)
    try:
        for move in moves:
            numbers = move(numbers)
    except (RuntimeError, TypeError, ValueError, IndexError):
        return None
    return numbers if isinstance(numbers, Tensor) else None


@lru_cache(maxsize=4096)
def describe_move(moves: tuple[Move, ...], shape: tuple[int, ...]) -> Words | None:
    """Return the words for moves that have a name of their own, else None.

    Args:
        moves, shape: as in `replayed`.
    """
    after = replayed(moves, shape)
    if after is None:
        return None
    before = torch.arange(1, prod(shape) + 1, dtype=torch.int32).view(shape)
    if after.shape == before.shape:
        if torch.equal(after, before):
            return Words("identity", "identity")
        return _shuffle(before, after) or _shift(before, after)
    if after.numel() != before.numel():
        return None
    for maps, windows, joined in ((before, after, ""), (after, before, " joined")):
        side = _window(maps, windows)
        if side:
            return Words(f"windows of {side}×{side}{joined}", "move")
    a, b = before.squeeze(), after.squeeze()
    if a.dim() == 2 and torch.equal(a.T, b):
        return Words("transpose", "shape", "transpose")
    if a.dim() == 3 and torch.equal(a.permute(1, 2, 0), b):
        return Words("channels last", "shape")
    if a.dim() == 3 and torch.equal(a.permute(2, 0, 1), b):
        return Words("channels first", "shape")
    return None


def _shuffle(before: Tensor, after: Tensor) -> Words | None:
    """Recognize channels (dimension 1) in another order."""
    if before.dim() < 3 or len(before) != 1:
        return None
    c = before.shape[1]
    size = before[0, 0].numel()
    order = (after.reshape(c, size)[:, 0].long() - 1) // size
    if after.min() < 1 or not torch.equal(before[:, order], after):
        return None
    apart = int(order[1])  # neighbors came from groups that are so far apart
    if apart > 1 and c % apart == 0:
        groups = c // apart
        if torch.equal(order, torch.arange(c).view(groups, apart).T.flatten()):
            return Words(f"channel shuffle, {groups} groups", "move", "shuffle")
    return Words("channels reordered", "move", "reordered")


def _shift(before: Tensor, after: Tensor) -> Words | None:
    """Recognize a shift along some dimensions, cyclic or with zeros coming in."""
    kept = after.flatten().nonzero()
    if len(kept) == 0:
        return None
    here = torch.unravel_index(kept[0, 0], before.shape)
    there = torch.unravel_index(after[here].long() - 1, before.shape)
    offsets = [int(a - b) for a, b in zip(here, there, strict=True)]
    dims = tuple(range(before.dim()))
    rolled = before.roll(offsets, dims)
    # the way round that is shorter
    short = [
        (o + n // 2) % n - n // 2 for o, n in zip(offsets, before.shape, strict=True)
    ]
    text = ", ".join(f"{o:+d}".replace("-", "−") for o in short if o)
    if torch.equal(rolled, after):
        return Words(f"cyclic shift {text}", "move", "shift")
    for dim, offset in enumerate(offsets):
        length = before.shape[dim]
        begin, end = (0, offset) if offset > 0 else (length + offset, length)
        if offset:
            rolled.narrow(dim, begin, end - begin).zero_()
    if torch.equal(rolled, after):
        text = ", ".join(f"{o:+d}".replace("-", "−") for o in offsets if o)
        return Words(f"shift {text}", "move", "shift")
    return None


def _window(maps: Tensor, windows: Tensor) -> int:
    """Return the side of the windows that maps (1, H, W, C) were cut into, or 0."""
    if maps.dim() != 4 or len(maps) != 1 or windows.dim() not in (3, 4):
        return 0
    _, height, width, channels = maps.shape
    if windows.shape[-1] != channels:
        return 0
    side = isqrt(windows.shape[1]) if windows.dim() == 3 else windows.shape[1]
    if side < 2 or height % side or width % side:
        return 0
    cut = maps.view(height // side, side, width // side, side, channels)
    cut = cut.transpose(1, 2).reshape(-1, side * side, channels)
    same = cut.shape[0] == windows.shape[0] and torch.equal(
        cut.flatten(), windows.flatten()
    )
    return side if same and len(windows) > 1 else 0
