"""Numbers as people write them, and whether one is another, rounded.

"36.2 %", "61 million", "about 1,200": each is a value, the size of its last digit, and
what its unit allows it to be made from (0.362 is 36.2 %; 61,706,000 is 61.7 million).
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

_NUMBER = re.compile(
    r"(?<![\w.])(?<![A-Za-z]-)"
    r"(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:[eE][+-]?\d+)?|\.\d+)"
    r"(?![\w]|\.\d|,\d{3}\b)"
    r"(?P<unit>[ \u00a0\u202f-]?(?:%|percent\b|points?\b|million\b|billion\b|thousand\b"
    r"|[kMG]\b|[kKMG]i?B\b|ms\b|[µμ]s\b|minutes?\b|min\b|hours?\b|h\b))?"
)
# In code and in outputs also 1_000, 1e-3, 11.7M and numbers glued to words or signs.
_LOOSE = re.compile(
    r"(?<![A-Za-z_\d.])(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d[\d_]*(?:\.\d+)?"
    r"(?:[eE][+-]?\d+)?|\.\d+)(?P<unit>\s?(?:[kMG](?![A-Za-z])|million\b|billion\b))?"
)
_LOOSELY_SAID = re.compile(
    r"(?:\b(?:about|around|roughly|nearly|almost|some|over|under|above|below|more than"
    r"|less than|fewer than|at least|at most|close to|up to|approximately|near|within"
    r"|towards?|order of)|≈|~|<|>|≤|≥)\s*(?:the|a|an|\$|\\approx|±)?\s*$"
)
# Parts of a book, versions and names: these count or name, they do not measure.
_NAMES = re.compile(
    r"\b(?:sections?|figures?|fig\.|tables?|chapters?|equations?|eq\.|parts?|exercises?"
    r"|appendix|pages?|versions?|Python|PyTorch|torch|CUDA|volume|theorem|no\.|v)"
    r"[ \u00a0]*(?:[\d.]+ (?:and|to) )?$",
    re.IGNORECASE,
)
_UNITS = {"k": 1e3, "M": 1e6, "G": 1e9, "million": 1e6, "billion": 1e9}
# What a value may be multiplied by to be given in a unit.
_FACTORS = {
    "%": (1, 100),
    "percent": (1, 100),
    "point": (1, 100),
    "million": (1, 1e-6),
    "billion": (1, 1e-9),
    "thousand": (1, 1e-3),
    "k": (1, 1e-3),
    "M": (1, 1e-6),
    "G": (1, 1e-9),
    "kB": (1, 1e-3, 2**-10),
    "KiB": (1, 2**-10),
    "MB": (1, 1e-6, 2**-20, 1e-3),
    "MiB": (1, 2**-20, 2**-10),
    "GB": (1, 1e-9, 2**-30, 1e-3),
    "GiB": (1, 2**-30, 2**-20, 2**-10),
    "ms": (1, 1e3),
    "µs": (1, 1e3, 1e6),
    "μs": (1, 1e3, 1e6),
    "minute": (1, 1 / 60),
    "min": (1, 1 / 60),
    "hour": (1, 1 / 60, 1 / 3600),
    "h": (1, 1 / 60, 1 / 3600),
}


@dataclass(frozen=True)
class Number:
    """A number of a text.

    Attributes:
        text: as it stands there, with its unit.
        start: position of its first digit in the text.
        value: without its unit: 36.2 for "36.2 %".
        step: one unit of its last digit, 0.1 here; wider after "about" and the like.
        unit: "%", "million", ...; "" for none.
    """

    text: str
    start: int
    value: float
    step: float
    unit: str

    @property
    def digits(self) -> int:
        """How many digits it gives, zeros around them left out: 3 for "36.2"."""
        digits = re.sub(r"[^\d.]", "", self.text).replace(".", "").strip("0")
        return max(len(digits), 1)

    def is_made_from(self, value: float, *, complement: bool = True) -> bool:
        """Tell whether a value, rounded and in this unit, is this number.

        Args:
            value: from an output or from code.
            complement: 100 % less the value counts, too, for a percentage.
        """
        value = abs(value)
        for factor in _FACTORS.get(self.unit, (1,)):
            if self._near(value * factor):
                return True
        if complement and self.unit in ("%", "percent") and value <= 100:
            return (
                self._near(100 - value) or value <= 1 and self._near(100 - 100 * value)
            )
        return False

    def _near(self, value: float) -> bool:
        return abs(value - self.value) <= self.step / 2 * (1 + 1e-9) + 1e-12


def numbers_in(text: str) -> Iterator[Number]:
    """Yield the numbers of a sentence; years, names and numbers of sections left out.

    "ResNet-18", "top-5", "3x3", "section 4", "2012" and "the 1990s" are no numbers,
    nor are counts written as words.
    """
    for found in _NUMBER.finditer(text):
        before = text[: found.start()]
        digits = found["digits"]
        if re.fullmatch(r"(?:19|20)\d\d", digits) and not found["unit"]:
            continue  # a year
        if (
            _NAMES.search(before[-30:])
            or re.search(r"^\s*$", before)
            and re.match(r"[.)]\s", text[found.end() :])
        ):
            continue
        value = float(digits.replace(",", ""))
        unit = (found["unit"] or "").strip(" \u00a0\u202f-").removesuffix("s")
        unit = {"m": "ms", "µ": "µs", "μ": "μs"}.get(unit, unit)
        step = _step(digits)
        if _LOOSELY_SAID.search(before[-25:]):
            step = max(2 * step, _trailing_zeros(digits))
        yield Number(found[0].strip(" -"), found.start(), value, step, unit)


def _step(digits: str) -> float:
    mantissa, _, exponent = digits.lower().partition("e")
    decimals = len(mantissa.partition(".")[2])
    return 10.0 ** (int(exponent or 0) - decimals)


def _trailing_zeros(digits: str) -> float:
    if "." in digits or "e" in digits.lower():
        return 0.0
    plain = digits.replace(",", "")
    return 10.0 ** (len(plain) - len(plain.rstrip("0"))) if plain.strip("0") else 1.0


def values_in(text: str) -> Iterator[tuple[int, int, float]]:
    """Yield (line, place in the line from its end, value) of numbers in code or output.

    A number with a factor ("11.7M", "61 million") is yielded twice, as it stands and
    multiplied.
    """
    for line_number, line in enumerate(text.splitlines()):
        found = list(_LOOSE.finditer(line))
        for place, one in enumerate(found):
            try:
                value = float(one["digits"].replace(",", "").replace("_", ""))
            except ValueError:
                continue
            yield line_number, len(found) - place, value
            factor = _UNITS.get((one["unit"] or "").strip())
            if factor:
                yield line_number, len(found) - place, value * factor


def differences_and_ratios(
    pairs: Iterable[tuple[float, float]],
) -> Iterator[tuple[str, float]]:
    """Yield what two values give: their difference, ratios and relative change."""
    for one, other in pairs:
        yield "difference", abs(one - other)
        for a, b in ((one, other), (other, one)):
            if b:
                yield "ratio", abs(a / b)
                yield "change", abs(a / b - 1)
