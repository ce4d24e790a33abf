"""Run two networks side by side and name the first layer where they part.

How far apart is measured against how much different images differ: a difference of
1e-6 is rounding where logits of two images differ by 1, and another network where they
differ by 1e-8. Both networks run in double precision, where equal networks agree to
about 1e-13 of that spread, and the smallest fault tried, an epsilon of 1e-5 in place
of 1e-6, shows at 1e-7 and more.
"""

import copy
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import nn

from ..tables import Table
from .calibration import native_size, varied_images
from .recording import (
    Record,
    distance,
    in_precision,
    input_of,
    pair_layers,
    record,
    spread,
)

# What counts as a difference, as a share of the spread between images. Equal networks
# stay below a hundredth of it, every fault of benchmarks/mutants.py above.
_TOLERANCES = {torch.float64: 1e-9, torch.float32: 1e-3}
# The least spread of the logits, as a share of their size, that tells images apart.
_ALIVE = 1e-4


@dataclass
class Comparison:
    """How far two networks are apart on the same images.

    Attributes:
        max_difference: largest absolute difference between the outputs, at the first
            size.
        relative: largest difference between the outputs at any size, as a share of
            how much the reference's outputs differ between images.
        first_difference: the first layer whose output differs, with its name in
            both networks; None when they agree, or when only the outputs differ.
        layers: one row per compared layer: its two names, output shape, absolute
            difference, and difference as a share of the spread between images.
        tolerance: which share of the spread counts as a difference.
        sizes: the image sizes that were compared.
        blind: why nothing could be told apart, or empty.
        note: where to look, when the layer itself is not to blame, and which sizes
            the networks do not take.
    """

    max_difference: float
    relative: float
    first_difference: str | None
    layers: Table
    tolerance: float
    sizes: list[str] = field(default_factory=list)
    blind: str = ""
    note: str = ""
    _same: bool = False

    @property
    def agrees(self) -> bool:
        """True when outputs and layers are equal, and a difference would have shown."""
        return self._same and not self.blind

    def __repr__(self) -> str:
        largest = f"Largest difference of the outputs: {self.max_difference:.2e}"
        where = " and ".join(filter(None, [", ".join(self.sizes[:-1]), self.sizes[-1]]))
        if self._same and self.blind:
            text = f"Nothing is proved, because {self.blind} {largest}, at {where}."
        elif self._same:
            text = (
                f"The networks agree: at {where} the outputs and all "
                f"{len(self.layers)} compared layers are equal to "
                f"{max(self.relative, self._worst()):.0e} of what tells two images "
                f"apart. {largest}."
            )
        else:
            text = (
                f"The networks differ: at {where} the outputs by {self.relative:.1e} "
                f"of what tells two images apart. {largest}. "
            )
            if self.first_difference:
                text += f"The first layer that differs is {self.first_difference}."
            else:
                text += f"All {len(self.layers)} layers that could be compared agree."
        return f"{text} {self.note}".strip()

    def _worst(self) -> float:
        shares = [s for s in self.layers["relative"] if s <= self.tolerance]
        return max(shares, default=0.0)


@dataclass
class _View:
    """What one set of images showed."""

    difference: float
    relative: float
    alive: float  # spread of the outputs, as a share of their size
    rows: list
    first: tuple[Record, Record] | None
    same: bool


def compare(
    network: nn.Module,
    reference: nn.Module,
    x: torch.Tensor | None = None,
    input_size: tuple[int, ...] | None = None,
    *,
    tolerance: float | None = None,
    dtype: torch.dtype = torch.float64,
) -> Comparison:
    """Run two networks on the same images and name the first layer that differs.

    Copies of both run in evaluation mode; the networks themselves are left alone.
    Outputs are compared at the end and at the layers (modules without children, and
    `nn.MultiheadAttention`) that have a counterpart: the same weights, or else the same
    size and place. Without `x`, images of the native size and of odd ones are
    compared, since strides and ceilings show only there; a reference that takes one
    size only is compared at that.

    Args:
        network, reference: the networks, on the same device.
        x: the input (B, C, H, W); by default two images of seeded noise. To a single
            one its negative mirror image is added, since one image has no spread.
        input_size: shape of one of those images; by default what the reference was
            made for, and 3 x 224 x 224 where it does not say.
        tolerance: a layer differs when the largest absolute difference of its output
            exceeds this share of how much the outputs of different images differ; by
            default 1e-9 in double precision and 1e-3 in single.
        dtype: in which precision the copies run.

    Returns:
        A comparison that prints the verdict in a sentence; `.agrees` is the verdict.

    Raises:
        ValueError: the outputs of the two networks have different shapes.
    """
    if tolerance is None:
        tolerance = _TOLERANCES.get(dtype, 0.05)
    a, b = in_precision(network, dtype), in_precision(reference, dtype)
    device = next((p.device for p in a.parameters()), torch.device("cpu"))
    given = x is not None
    if given:
        x = torch.cat([x, -x.flip(-1)]) if len(x) == 1 else x
    else:
        x = varied_images(2, input_size or native_size(reference))
    x = x.to(device, dtype if x.is_floating_point() else x.dtype)
    with _roundings(b) as divided:
        inputs = [(x, [record(a, x), record(b, x)])]
    others, note = [], ""
    if not given and x.dim() == 4:
        others, note = _odd_images(a, b, x, divided)
    if others and divided and not note:
        sides = _sides_for_ceilings(b, x, divided)
        more, note = _at_sides(a, b, x, sides, divided)
        others += more
    inputs += others
    same, notes = not note.startswith("Images"), [note] if note else []
    views = [_look(a, b, images, tolerance, runs) for images, runs in inputs]
    same = same and all(view.same for view in views)
    result = Comparison(
        views[0].difference,
        max(view.relative for view in views),
        None,
        _table(views),
        tolerance,
        [_show(images) for images, _ in inputs],
        _blindness(views, reference),
        _same=same,
    )
    worst = next((i for i, view in enumerate(views) if not view.same), None)
    if worst is not None and views[worst].first:
        worst, images = views[worst], inputs[worst][0]
        result.first_difference = _describe(*worst.first)
        given = [input_of(n, images, r) for n, r in zip((a, b), worst.first)]
        if _share(*given, len(images)) > tolerance:
            notes.insert(
                0,
                "What it is given differs already, so look at what runs between the "
                "layer before it and this one.",
            )
    result.note = " ".join(notes)
    return result


def _show(x: torch.Tensor) -> str:
    if x.dim() != 4:
        return f"inputs of shape {tuple(x.shape[1:])}"
    return f"{x.shape[2]} x {x.shape[3]} pixels"


def _blindness(views: list[_View], reference: nn.Module) -> str:
    """Say why equal outputs would prove nothing, if so."""
    alive = min(view.alive for view in views)
    if alive >= _ALIVE:
        return ""
    return (
        f"the outputs of {type(reference).__name__} hardly depend on the image: two "
        f"images differ by {alive:.0e} of the size of the outputs, so that wrong "
        "layers would not show. Take weights from reference_network(...), which sees "
        "to that."
    )


def _odd_images(a, b, x, divided: set) -> tuple[list[tuple], str]:
    """Make images of odd sizes that both networks take.

    Three sizes, since the ceiling of a pooling layer shows only where the map before
    it does not divide. Never larger ones: a fixed pooling would drop what stands over
    the edge.

    Returns:
        (images, what both gave) for each size, and a sentence about sizes that are not taken.
    """
    native = min(x.shape[-2:])
    if native > 64:
        sides = [int(share * native) | 1 for share in (0.62, 0.765, 0.826)]
        # for a fixed pooling at the end, with the same last map as the native size
        same_map = [(native - native // 9) | 1, native - 1]
    else:
        sides, same_map = [native - 3, native - 5], [native - 1]
        sides = [side - 1 + side % 2 for side in sides]
    found, note = _at_sides(a, b, x, sides, divided)
    for side in same_map:
        if not found and not note:
            found, note = _at_sides(a, b, x, [side], divided)
    if not found and not note:
        note = f"The reference takes no images but those of {_show(x)}."
    return found, note


def _at_sides(a, b, x, sides: list[int], divided: set) -> tuple[list[tuple], str]:
    """Run both networks on squares of these sizes, as far as the reference takes them.

    What leaves a rest at a size that is compared is taken out of `divided`.

    Returns:
        (images, what both gave) for each size, and a sentence if only the reference
        takes one of them.
    """
    found = []
    for side in sides:
        images = varied_images(2, (x.shape[1], side, side), seed=1).to(x)
        with _roundings(b) as still:
            theirs = _attempt(b, images)
        if isinstance(theirs, str):
            continue
        divided &= still
        ours = _attempt(a, images)
        if isinstance(ours, str):
            return found, (
                f"Images of {side} x {side} pixels are taken by the reference only "
                f"({ours}). Pass x= to compare at one size alone."
            )
        found.append((images, [ours, theirs]))
    return found, ""


def _sides_for_ceilings(network: nn.Module, x: torch.Tensor, divided: set) -> list[int]:
    """Return sizes at which pooling layers leave a rest that divided all maps so far.

    Args:
        network: the reference.
        x: images of the native size.
        divided: names of these layers.
    """
    # Shapes alone are needed, and no numbers.
    network = copy.deepcopy(network).to("meta")
    native, sides = min(x.shape[-2:]), []
    smaller = range(int(0.62 * native), native)
    # 16 in a row: four strides of 2. A fixed pooling at the end takes only the last.
    for side in dict.fromkeys([*smaller[:16], *smaller[-16:]]):
        images = torch.empty(2, x.shape[1], side, side, dtype=x.dtype, device="meta")
        with _roundings(network) as still:
            taken = _takes(network, images)
        if taken and not divided <= still:
            sides.append(side)
            divided = divided & still
        if not divided:
            break
    return sides


def _takes(network: nn.Module, images: torch.Tensor) -> bool:
    """Say whether a network runs on such images."""
    try:
        with torch.no_grad():
            network(images)
    except Exception:  # noqa: BLE001 (whatever a foreign network raises)
        return False
    return True


@contextmanager
def _roundings(network: nn.Module) -> Iterator[set[str]]:
    """Yield the names of the pooling layers that divide every map they are given."""
    divided, hooks = set(), []

    def look(name: str, pool: nn.Module, args: tuple) -> None:
        options = map(_two, (pool.kernel_size, pool.stride, pool.padding))
        for size, kernel, stride, pad in zip(args[0].shape[-2:], *options, strict=True):
            if (size + 2 * pad - kernel) % stride:
                divided.discard(name)

    for name, module in network.named_modules():
        if _can_round(module):
            divided.add(name)
            hooks.append(module.register_forward_pre_hook(partial(look, name)))
    try:
        yield divided
    finally:
        for hook in hooks:
            hook.remove()


def _can_round(module: nn.Module) -> bool:
    """Say whether a layer pools in strides, so that a map may not divide."""
    pooling = isinstance(module, (nn.MaxPool2d, nn.AvgPool2d))
    return pooling and max(_two(module.stride)) > 1


def _two(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def _attempt(network: nn.Module, images: torch.Tensor) -> tuple | str:
    """Run a network; return what it gave, or what it says to images of this size."""
    try:
        return record(network, images)
    except Exception as error:  # noqa: BLE001 (whatever a foreign network raises)
        return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _share(ours: torch.Tensor, theirs: torch.Tensor, images: int) -> float:
    """Return the difference of two outputs as a share of the spread between images."""
    found = distance(ours, theirs)
    if found == 0:
        return 0.0
    size = theirs.abs().max().item()
    return found / max(spread(theirs, images), _ALIVE * size, 1e-300)


def _look(a, b, x: torch.Tensor, tolerance: float, runs: list) -> _View:
    """Compare what two networks gave on one set of images."""
    (out_a, records_a), (out_b, records_b) = runs
    if out_a.shape != out_b.shape:
        raise ValueError(
            f"The outputs cannot be compared: {type(a).__name__} gives "
            f"{tuple(out_a.shape)}, {type(b).__name__} {tuple(out_b.shape)}. Build "
            "both with the same number of classes."
        )
    rows, first, same = [], None, True
    certain = _certain(records_b)
    for i, j in pair_layers(records_a, records_b):
        one, other = records_a[i], records_b[j]
        shape = " x ".join(str(n) for n in one.output.shape[1:])
        share = _share(one.output, other.output, len(x))
        difference = distance(one.output, other.output)
        rows.append((one.name, other.name, shape, difference, share))
        differs = not share <= tolerance
        if differs and first is None:
            first = one, other
        if differs and one.weights in certain and one.weights == other.weights:
            same = False
    relative = _share(out_a, out_b, len(x))
    size = out_b.abs().max().item()
    alive = spread(out_b, len(x)) / size if 0 < size < float("inf") else 0.0
    same = same and relative <= tolerance
    return _View(distance(out_a, out_b), relative, alive, rows, first, same)


def _certain(records: list[Record]) -> set[tuple]:
    """Return the weights that stand in one layer only, so that pairs are no guess."""
    owners = defaultdict(set)
    for found in records:
        owners[found.weights].add(found.name)
    return {weights for weights, names in owners.items() if weights and len(names) == 1}


def _table(views: list[_View]) -> Table:
    """Return the layers at the first size with their largest share at any."""
    rows = [list(row) for row in views[0].rows]
    for view in views[1:]:
        shares = {row[:2]: row[4] for row in view.rows}
        for row in rows:
            row[4] = max(row[4], shares.get((row[0], row[1]), 0.0))
    columns = ["layer", "counterpart", "output shape", "difference", "relative"]
    return Table(rows, columns=columns)


def _describe(one: Record, other: Record) -> str:
    """Name a layer in both networks, and the two shapes where they differ."""
    name = one.name if one.name == other.name else f"{one.name} (there {other.name})"
    if one.output.numel() != other.output.numel():
        shapes = tuple(one.output.shape[1:]), tuple(other.output.shape[1:])
        name += f", whose output is {shapes[0]} here and {shapes[1]} there"
    return name
