"""Arithmetic that a sentence shows: `3 × 32 × 32 = 3,072`, in words or as math.

What can be read as arithmetic is computed; what cannot (a formula with letters) passes.
"""

import ast
import math
import operator
import re
from collections.abc import Iterator

_MATH = re.compile(r"(?<!\\)\$([^$\n]+)\$")
_RELATION = re.compile(r"=|≈|\\approx|\\simeq")
_OPERATOR = re.compile(
    r"[+*/^×·÷−=≈<>]|\\(?:cdot|times|approx|frac|tfrac|sqrt|log|le|ge|to)|(?<=[\d)}])\s*-\s*(?=[\d({])"
)
_NUM = r"(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?)\s?%?"
_PLAIN = re.compile(
    rf"\(?{_NUM}(?:\)?\s*[×·*/+−÷-]\s*\(?{_NUM})+\)?(?:\s*[=≈]\s*{_NUM}"
    rf"(?:\s*[×·*/+−÷-]\s*\(?{_NUM})*)+"
)
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_FUNCTIONS = {"sqrt": math.sqrt, "log": math.log, "log2": math.log2, "exp": math.exp}
_LATEX = (
    (r"\\[,;!: ]|\\(?:left|right|[bB]igg?[lr]?)(?![a-zA-Z])|~", " "),
    (r"\\text\{[^}]*\}|\\mathrm\{[^}]*\}", " "),
    (r"\\[td]?frac\s*(\d)\s*(\d)", r"((\1)/(\2))"),
    (r"\\[td]?frac\{([^{}]*)\}\{([^{}]*)\}", r"((\1)/(\2))"),
    (r"\\sqrt\{([^{}]*)\}", r"sqrt(\1)"),
    (r"\\log_2\s*(\d[\d,.]*)", r"log2(\1)"),
    (r"\\log_2", "log2"),
    (r"\\(?:log|ln)\s*(\d[\d,.]*)", r"log(\1)"),
    (r"\\(?:cdot|times)(?![a-zA-Z])|×|·", "*"),
    (r"÷", "/"),
    (r"−", "-"),
    (r"\^\{([^{}]*)\}", r"**(\1)"),
    (r"\^(\d)", r"**\1"),
    (r"\{,\}|(?<=\d),(?=\d{3})", ""),
    (r"\\?%", "/100"),
)


def shown_in(text: str) -> Iterator[tuple[int, int, str]]:
    """Yield (start, end, expression) of every piece of arithmetic or math in a text."""
    for found in _MATH.finditer(text):
        if _OPERATOR.search(found[1]):
            yield found.start(), found.end(), found[1]
    for found in _PLAIN.finditer(_MATH.sub(lambda m: " " * len(m[0]), text)):
        yield found.start(), found.end(), found[0]


def is_false(expression: str) -> bool:
    """Tell whether an expression states an equality of numbers that does not hold.

    Each side is rounded as it is written: `2 / 3 ≈ 0.67` holds.
    """
    sides = [side.strip(" .;") for side in _RELATION.split(expression)]
    if len(sides) < 2:
        return False
    known = [(side, _value(side)) for side in sides]
    if any(value is None for _, value in known):
        return False
    (first, value), *others = known
    return any(not _agree(first, value, side, other) for side, other in others)


def results(expression: str) -> Iterator[float]:
    """Yield the values of the sides of an equality that are numbers."""
    for side in _RELATION.split(expression):
        value = _value(side.strip(" .;"))
        if value is not None:
            yield value


def numbers_of(expression: str) -> Iterator[float]:
    """Yield the numbers that an expression is made of, powers and indices included."""
    plain = re.sub(r"\{,\}|(?<=\d),(?=\d{3})", "", expression)
    yield from map(float, re.findall(r"\d+(?:\.\d+)?", plain))


def _agree(one: str, a: float, other: str, b: float) -> bool:
    step = max(_step_of(one), _step_of(other))
    if not step:  # powers and products: "about" is within a tenth
        return abs(a - b) <= 0.1 * max(abs(a), abs(b))
    return abs(a - b) <= max(step / 2 * (1 + 1e-9), 1e-9 * max(abs(a), abs(b)))


def _step_of(side: str) -> float:
    """Return one unit of the last digit of a side that is a single number, else 0."""
    found = re.fullmatch(r"([\d,{}]+)(?:\.(\d+))?\s*(\\?%)?", side.strip())
    if not found:
        return 0.0
    step = 10.0 ** -len(found[2] or "")
    if not found[2]:  # 1,300,000 may be rounded to its zeros
        digits = re.sub(r"\D", "", found[1])
        step = (
            10.0 ** (len(digits) - len(digits.rstrip("0"))) if digits.strip("0") else 1
        )
    return step / 100 if found[3] else step


def _value(side: str) -> float | None:
    """Return the value of a side, or None where it is not plain arithmetic."""
    for pattern, plain in _LATEX:
        side = re.sub(pattern, plain, side)
    side = side.replace("{", "(").replace("}", ")").strip()
    try:
        tree = ast.parse(side, mode="eval")
    except SyntaxError:
        return None
    try:
        return float(_compute(tree.body))
    except (ArithmeticError, KeyError, TypeError, ValueError):
        return None


def _compute(node: ast.expr) -> float:
    """Return the value of an expression of numbers.

    Raises:
        ValueError: something else stands in it.
    """
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)):
        return node.value
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return -_compute(node.operand)
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATIONS:
        left, right = _compute(node.left), _compute(node.right)
        if isinstance(node.op, ast.Pow) and abs(right) > 100:
            raise ValueError("too large to be shown")
        return _OPERATIONS[type(node.op)](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        return _FUNCTIONS[node.func.id](*map(_compute, node.args))
    raise ValueError("not arithmetic")
