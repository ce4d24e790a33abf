# Written by `nbs export` from chapters/classics/lenet.ipynb; edit the chapter, not this file.
"""LeNet (1998), as its chapter builds it."""

import random

import torch
from torch import nn

from nbs_utils.zoo import register, require_side


class ScaledTanh(nn.Module):
    """f(a) = 1.7159 tanh(2 a / 3), so that f(1) is 1 and f(-1) is -1.

    Shape: any -> the same.

    Source: LeCun et al. 1998, appendix A.
    """

    def forward(self, x):
        return 1.7159 * torch.tanh(2 / 3 * x)


class Subsample(nn.Module):
    """Sum windows of 2 x 2, times a trained coefficient, plus a trained bias.

    Args:
        channels: number of maps; each has its own coefficient and bias.

    Shape: (B, C, H, W) -> (B, C, H // 2, W // 2).

    Source: LeCun et al. 1998, section II.B.
    """

    def __init__(self, channels):
        super().__init__()
        self.coefficient = nn.Parameter(torch.full((channels, 1, 1), 0.25))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x):
        total = 4 * nn.functional.avg_pool2d(x, 2)  # (B, C, H // 2, W // 2)
        return self.coefficient * total + self.bias


C3_TABLE = (
    *(tuple(sorted((i + j) % 6 for j in range(3))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in range(4))) for i in range(6)),
    *(tuple(sorted((i + j) % 6 for j in (0, 1, 3, 4))) for i in range(3)),
    (0, 1, 2, 3, 4, 5),
)


class TableConv(nn.Module):
    """A convolution in which each output map sees the input maps of a table.

    Maps that see equally many inputs are one grouped convolution. The inputs are
    copied into its groups first, since a map belongs to several.

    Args:
        table: for each output map the input maps that it sees.
        kernel_size: side of the filters.

    Shape: (B, C, H, W) -> (B, len(table), H - kernel_size + 1, W - kernel_size + 1).

    Source: LeCun et al. 1998, Table I.
    """

    def __init__(self, table=C3_TABLE, kernel_size=5):
        super().__init__()
        widths = sorted({len(row) for row in table})
        grouped = [[row for row in table if len(row) == width] for width in widths]
        self.inputs = [[i for row in rows for i in row] for rows in grouped]
        self.convs = nn.ModuleList(
            nn.Conv2d(len(rows) * width, len(rows), kernel_size, groups=len(rows))
            for width, rows in zip(widths, grouped, strict=True)
        )

    def forward(self, x):
        parts = zip(self.convs, self.inputs, strict=True)
        return torch.cat([conv(x[:, inputs]) for conv, inputs in parts], dim=1)


STROKES = ("ABCDEF", "BC", "ABGED", "ABGCD", "FGBC", "AFGCD", "AFGECD", "ABC")
STROKES = (*STROKES, "ABCDEFG", "ABCDFG")  # segments of a display, A on top


def draw_digit(digit):
    """Return a digit as 84 numbers, -1 or 1: seven columns by twelve rows."""
    boxes = dict(A=(0, 2, 0, 7), B=(0, 6, 5, 7), C=(6, 12, 5, 7), D=(10, 12, 0, 7))
    boxes |= dict(E=(6, 12, 0, 2), F=(0, 6, 0, 2), G=(5, 7, 0, 7))
    rows = [[-1.0] * 7 for _ in range(12)]
    for top, bottom, left, right in (boxes[s] for s in STROKES[digit]):
        for row in range(top, bottom):
            rows[row][left:right] = [1.0] * (right - left)
    return [pixel for row in rows for pixel in row]


class RadialBasis(nn.Module):
    """Minus the squared distances to fixed codes: (B, width) -> (B, num_classes).

    Args:
        width: length of a code; 84 gives the pictures of digits, any other random
            signs.
        num_classes: number of codes; from the eleventh on they are random signs.

    Source: LeCun et al. 1998, section II.B.
    """

    def __init__(self, width=84, num_classes=10):
        super().__init__()
        draws = (random.Random(k) for k in range(num_classes))
        signs = [draw.choices((-1.0, 1.0), k=width) for draw in draws]
        if width == 84:
            signs[:10] = [draw_digit(k) for k in range(min(10, num_classes))]
        self.register_buffer("codes", torch.tensor(signs))

    def forward(self, x):
        return -(x[:, None] - self.codes).square().sum(dim=2)


UNITS = dict(tanh=nn.Tanh, relu=nn.ReLU, scaled_tanh=ScaledTanh)


def subsample(pool: str, channels: int, unit: type[nn.Module]) -> nn.Sequential:
    """Return what halves maps; trained sums are squashed by `unit`, as in 1998."""
    if pool == "trained":
        return nn.Sequential(Subsample(channels), unit())
    return nn.Sequential(dict(average=nn.AvgPool2d, max=nn.MaxPool2d)[pool](2))


class LeNet5(nn.Module):
    """LeNet-5 (LeCun et al. 1998): (B, C, H, W) -> (B, num_classes).

    Args:
        unit: "tanh", "relu" or "scaled_tanh", after every layer but the last.
        pool: "average", "max" or "trained" (a coefficient and a bias for each map).
        table: whether C3 has the paper's table of connections, or sees all maps.
        rbf: whether outputs are minus squared distances to fixed codes.
        hidden: units of C5 and of F6.
        map_size: side of the map that C5 reads: 5 for images of 32 pixels.
    """

    def __init__(
        self,
        unit: str = "tanh",
        pool: str = "average",
        table: bool = False,
        rbf: bool = False,
        hidden: tuple[int, int] = (120, 84),
        map_size: int = 5,
        num_classes: int = 10,
        in_channels: int = 1,
    ) -> None:
        super().__init__()
        f, (c5, f6) = UNITS[unit], hidden
        self.c1 = nn.Sequential(nn.Conv2d(in_channels, 6, 5), f())
        self.s2 = subsample(pool, 6, f)
        self.c3 = nn.Sequential(TableConv() if table else nn.Conv2d(6, 16, 5), f())
        self.s4 = subsample(pool, 16, f)
        self.resize = nn.AdaptiveAvgPool2d(map_size)
        self.c5 = nn.Sequential(nn.Conv2d(16, c5, map_size), f(), nn.Flatten())
        self.f6 = nn.Sequential(nn.Linear(c5, f6), f())
        head = RadialBasis if rbf else nn.Linear
        self.output = head(f6, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        require_side(x, 32)
        x = self.s2(self.c1(x))  # (B, 6, 14, 14)
        x = self.resize(self.s4(self.c3(x)))  # (B, 16, 5, 5)
        return self.output(self.f6(self.c5(x)))  # (B, num_classes)


LENET5_1998 = dict(unit="scaled_tanh", pool="trained", table=True, rbf=True)
register(LeNet5, {"lenet5": {}, "lenet5_1998": LENET5_1998}, image_size=32)
