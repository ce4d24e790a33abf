"""How papers cut an image into the pictures that a network is tested on.

A protocol is a pure function of an image's height and width and of the side of the
crop: `views("ten_crop", 375, 500)` lists what AlexNet's protocol shows the network.
Nothing here touches a pixel but `cut`, which follows such a list.

The papers' sizes belong to crops of 224 px. At another crop they keep their ratio to
it: the shorter side is round(256 * crop / 224), 146 px at a crop of 128.
"""

import difflib
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

NATIVE = 224  # the crop, in pixels, that the papers' sizes belong to


@dataclass(frozen=True)
class Protocol:
    """One way of testing a network on an image.

    Attributes:
        name: what `evaluate` and the shell call it.
        cuts: how a resized image is cut: "center", "ten", "grid", "squares", or
            "whole", which is not cut: the network is applied to all of it, densely.
        scales: shorter sides that the image is resized to, in pixels at a crop of 224.
        mirror: show each picture and its mirror image.
        average: "softmax" takes the mean of the probabilities of all pictures,
            "scores" the mean of the class scores before the softmax. The class map of
            a dense picture is always averaged over space as scores.
        source: the paper, and where in it.
    """

    name: str
    cuts: str
    scales: tuple[int, ...]
    mirror: bool
    average: str
    source: str

    @property
    def dense(self) -> bool:
        """True where the network must be made fully convolutional."""
        return self.cuts == "whole"


PROTOCOLS = {
    p.name: p
    for p in (
        Protocol("center", "center", (256,), False, "softmax", "one center crop"),
        Protocol(
            "ten_crop",
            "ten",
            (256,),
            True,
            "softmax",
            "AlexNet: Krizhevsky et al. (2012), section 4.1",
        ),
        Protocol(
            "dense",
            "whole",
            (256,),
            True,
            "softmax",
            "VGG: Simonyan and Zisserman (2015), section 3.2",
        ),
        Protocol(
            "multi_crop",
            "grid",
            (256, 384, 512),
            True,
            "softmax",
            "VGG: Simonyan and Zisserman (2015), sections 3.2 and 4.3",
        ),
        Protocol(
            "googlenet_144",
            "squares",
            (256, 288, 320, 352),
            True,
            "softmax",
            "GoogLeNet: Szegedy et al. (2015), section 7",
        ),
        Protocol(
            "multi_scale_dense",
            "whole",
            (224, 256, 384, 480, 640),
            False,
            "scores",
            "ResNet: He et al. (2016), section 3.4",
        ),
    )
}
# The mean of two of them, as VGG has it; `parse` takes the mean of any.
COMBINED = ("dense+multi_crop",)


@dataclass(frozen=True)
class View:
    """One picture of an image, as a network sees it. Sizes are (height, width).

    Attributes:
        resized: what the whole image is resized to, in pixels.
        box: (top, left, height, width) of the cut in the resized image.
        size: what the cut is resized to; mostly the size of the box.
        mirrored: whether the picture is then mirrored, left to right.
    """

    resized: tuple[int, int]
    box: tuple[int, int, int, int]
    size: tuple[int, int]
    mirrored: bool = False

    def on_original(self, height: int, width: int) -> tuple[float, ...]:
        """Return (top, left, height, width) of the cut in the original's pixels."""
        down, across = height / self.resized[0], width / self.resized[1]
        top, left, tall, wide = self.box
        return top * down, left * across, tall * down, wide * across


def list_protocols() -> list[str]:
    """Return the names that `evaluate` takes, from the cheapest to the dearest."""
    return [*PROTOCOLS, *COMBINED]


def parse(protocol: "str | Protocol") -> tuple[Protocol, ...]:
    """Return the protocols whose mean a name stands for; mostly one.

    Args:
        protocol: a name of `list_protocols()`. Names joined by + are the mean of
            their probabilities (in such a sum `center` is cut as `views` says; alone
            it is the split's own center crop, which may differ by a pixel). "dense@384" or "dense@256,384,512" puts other shorter
            sides (in pixels at a crop of 224) in the place of the paper's.

    Raises:
        ValueError: there is no such protocol, or a side is no positive number.
    """
    if isinstance(protocol, Protocol):
        return (protocol,)
    return tuple(_parse_one(part, protocol) for part in str(protocol).split("+"))


def _parse_one(part: str, whole: str) -> Protocol:
    name, at, sides = part.strip().partition("@")
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name.replace("-", "_"), PROTOCOLS, n=2)
        hint = f" Did you mean {' or '.join(near)}?" if near else ""
        raise ValueError(
            f"The protocol '{whole}' is unknown.{hint} There are "
            f"{', '.join(list_protocols())}; 'center' is one center crop."
        )
    found = PROTOCOLS[name]
    if not at:
        return found
    words = sides.split(",")
    if not all(word.strip().isdigit() and int(word) for word in words):
        raise ValueError(
            f"'{part}' names the shorter sides '{sides}'; write whole numbers of "
            f"pixels, as in {name}@{','.join(map(str, found.scales))}."
        )
    return replace(found, name=part.strip(), scales=tuple(map(int, words)))


def scaled(side: int, crop: int) -> int:
    """Return a paper's size, which belongs to crops of 224 px, for another crop."""
    return round(side * crop / NATIVE)


def resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Return the size after the shorter side was resized to `shorter`.

    The longer side is rounded down, as torchvision's `Resize` does.
    """
    if height <= width:
        return shorter, int(shorter * width / height)
    return int(shorter * height / width), shorter


def views(
    protocol: str | Protocol,
    height: int,
    width: int,
    crop: int = NATIVE,
    *,
    shorter: int | None = None,
) -> list[View]:
    """List the pictures that a protocol makes of an image.

    All pictures that are not mirrored come first, then their mirror images in the
    same order.

    - center: the shorter side becomes 256; the central crop.
    - ten_crop: the shorter side becomes 256, and of that the central square; its four
      corner crops and the central one; mirrored. AlexNet.
    - multi_crop: at each of three scales a regular 5 x 5 grid of crops that reaches
      all four edges; mirrored: 150. VGG.
    - googlenet_144: at each of four scales the left, central and right square (top,
      central and bottom of a portrait); of each the four corner crops, the central
      crop and the whole square resized to a crop; mirrored: 144. GoogLeNet.
    - dense: the whole image, shorter side 256; mirrored. VGG.
    - multi_scale_dense: the whole image at five scales. ResNet.

    Args:
        protocol: a name or a `Protocol`; see `parse`.
        height, width: of the image, in pixels.
        crop: side of the square that the network was made for, in pixels.
        shorter: a side in pixels, not scaled, in the place of the protocol's; for
            the preset of published weights.

    Raises:
        ValueError: unknown protocol, an image or a crop without pixels, or a crop
            that is larger than the resized image.
    """
    if min(height, width, crop) < 1:
        raise ValueError(
            f"An image of {height} x {width} px cannot be cut to crops of {crop} px; "
            "all sizes must be at least 1."
        )
    return [
        view
        for one in parse(protocol)
        for view in _views(one, height, width, crop, shorter)
    ]


def _views(
    protocol: Protocol, height: int, width: int, crop: int, shorter: int | None
) -> list[View]:
    sides = [scaled(s, crop) for s in protocol.scales] if shorter is None else [shorter]
    plain = []
    for side in sides:
        size = resized(height, width, side)
        if side < crop:
            raise ValueError(
                f"A crop of {crop} x {crop} px is larger than the image, whose shorter "
                f"side '{protocol.name}' resizes to {side} px. Use a smaller crop or a "
                f"larger side, as in {protocol.name.partition('@')[0]}@{NATIVE}."
            )
        boxes = _BOXES[protocol.cuts](*size, crop)
        whole = protocol.dense
        plain += [View(size, box, box[2:] if whole else (crop, crop)) for box in boxes]
    mirrored = [replace(view, mirrored=True) for view in plain]
    return plain + mirrored if protocol.mirror else plain


# Each of these returns boxes (top, left, height, width) in a resized image.


def _middle(length: int, part: int) -> int:
    """Return where the central part begins, rounded as torchvision rounds."""
    return round((length - part) / 2)


def _center(height: int, width: int, crop: int) -> list[tuple]:
    return [(_middle(height, crop), _middle(width, crop), crop, crop)]


def _five(side: int, crop: int, top: int = 0, left: int = 0) -> list[tuple]:
    """Return corners and center of a square, in torchvision's order."""
    far, mid = side - crop, _middle(side, crop)
    corners = [(0, 0), (0, far), (far, 0), (far, far), (mid, mid)]
    return [(top + y, left + x, crop, crop) for y, x in corners]


def _ten(height: int, width: int, crop: int) -> list[tuple]:
    side = min(height, width)
    return _five(side, crop, _middle(height, side), _middle(width, side))


def _grid(height: int, width: int, crop: int, count: int = 5) -> list[tuple]:
    rows = [i * (height - crop) // (count - 1) for i in range(count)]
    columns = [i * (width - crop) // (count - 1) for i in range(count)]
    return [(top, left, crop, crop) for top in rows for left in columns]


def _squares(height: int, width: int, crop: int) -> list[tuple]:
    side, boxes = min(height, width), []
    far = max(height, width) - side
    for shift in (0, _middle(max(height, width), side), far):
        top, left = (shift, 0) if height > width else (0, shift)
        boxes += [*_five(side, crop, top, left), (top, left, side, side)]
    return boxes


def _whole(height: int, width: int, crop: int) -> list[tuple]:
    return [(0, 0, height, width)]


_BOXES = {
    "center": _center,
    "ten": _ten,
    "grid": _grid,
    "squares": _squares,
    "whole": _whole,
}


# ---- Pixels


def resize(x: Tensor, size: tuple[int, int], mode: str = "bilinear") -> Tensor:
    """Resize uint8 images (B, C, H, W), antialiased, as PIL does to within one level.

    Args:
        x: uint8.
        size: (height, width).
        mode: "bilinear" or "bicubic".
    """
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    if x.device.type == "cpu":  # has a kernel for bytes, which computes as PIL does
        return F.interpolate(x, size, mode=mode, antialias=True)
    x = F.interpolate(x.float(), size, mode=mode, antialias=True)
    return x.round_().clamp_(0, 255).to(torch.uint8)


def cut(x: Tensor, wanted: list[View], mode: str = "bilinear") -> list[Tensor]:
    """Cut images of one size into views.

    Args:
        x: uint8 (B, C, H, W).
        wanted: what `views` returned for this height and width.
        mode: "bilinear" or "bicubic".

    Returns:
        for each view, uint8 (B, C, *view.size).
    """
    scales: dict = {}  # an image is resized once for each scale
    plain: dict = {}
    pictures = []
    for view in wanted:
        if view.resized not in scales:
            scales[view.resized] = resize(x, view.resized, mode)
        key = view.resized, view.box, view.size
        if key not in plain:
            top, left, height, width = view.box
            part = scales[view.resized][..., top : top + height, left : left + width]
            plain[key] = resize(part, view.size, mode)
        pictures.append(plain[key].flip(-1) if view.mirrored else plain[key])
    return pictures
