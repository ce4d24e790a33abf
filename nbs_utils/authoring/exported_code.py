"""The code of exported cells: its imports taken out, its names understood.

Read as a syntax tree and nothing is executed, so that a mistake is found before it
reaches the zoo.
"""

import ast
import builtins
import sys

from .notebook import AuthoringError

# What a network may need; a zoo that imports more could not be read on its own.
ALLOWED_IMPORTS = {"torch", "einops"} | set(sys.stdlib_module_names)
_KNOWN = set(dir(builtins)) | {"__name__", "__file__", "__doc__"}


def parse(code: str, where: str) -> ast.Module:
    """Return the syntax tree of an exported cell.

    Raises:
        AuthoringError: it is not plain Python.
    """
    try:
        return ast.parse(code)
    except SyntaxError as error:
        raise AuthoringError(
            f"{where}: an exported cell must be plain Python without magics, but line "
            f"{error.lineno} is not: {error.msg}."
        ) from None


def split_imports(code: str, imports: dict[str, None], where: str) -> str:
    """Return the code without its top-level imports, which go into `imports`.

    Whatever stands on the same line as an import stays: `import math; HALF = 0.5`
    leaves `HALF = 0.5`.

    Args:
        code: the source of an exported cell.
        imports: import statements, one for each key; used as a set with an order.
        where: the cell, for messages.

    Raises:
        AuthoringError: the cell is not plain Python, does more than define and
            register, or imports what the zoo may not import.
    """
    tree = parse(code, where)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            check_import(node, where)
    lines = [line.encode() for line in code.splitlines()]  # ast counts bytes
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            imports[ast.unparse(node)] = None
            _cut(lines, node)
        elif isinstance(node, ast.Expr) and not is_register(node.value):
            raise AuthoringError(
                f"{where}: line {node.lineno} of an exported cell is an expression; "
                "exported cells only define and register, so show results in the next "
                "cell."
            )
    return "\n".join(line.decode() for line in lines).strip("\n")


def _cut(lines: list[bytes], node: ast.stmt) -> None:
    """Remove a statement, with its semicolon or its comment, and keep other lines."""
    first, last = node.lineno - 1, node.end_lineno - 1
    before, after = lines[first][: node.col_offset], lines[last][node.end_col_offset :]
    rest = after.lstrip()
    if rest.startswith(b";"):
        after = rest[1:].lstrip()
    elif rest.startswith(b"#") and not before.strip():
        after = b""
    # Blanks of the same length in front: later columns of this line stay true.
    kept = before + after if before.strip() else after
    shift = len(lines[last]) - len(kept)
    for number in range(first, last + 1):
        lines[number] = b""
    lines[last] = b" " * shift + kept if kept.strip() else b""
    # What is left begins its line again, so blanks in front would be an indent.
    if lines[last] and not _more_imports(kept):
        lines[last] = kept


def _more_imports(rest: bytes) -> bool:
    """Tell whether further imports follow on a line, to be cut by their columns."""
    try:
        tree = ast.parse(rest)
    except SyntaxError:
        return False
    return any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in tree.body)


def is_register(value: ast.expr) -> bool:
    """Tell whether an expression is the call that puts a network into the zoo."""
    called = getattr(value, "func", None)
    return "register" in (getattr(called, "id", ""), getattr(called, "attr", ""))


def check_import(node: ast.Import | ast.ImportFrom, where: str) -> None:
    """Refuse an import that the zoo may not have.

    Raises:
        AuthoringError: with the module and the reason.
    """
    if isinstance(node, ast.ImportFrom):
        modules = ["." * node.level + (node.module or "")]
        if any(alias.name == "*" for alias in node.names):
            raise AuthoringError(
                f"{where}: an exported cell imports everything from '{modules[0]}'; "
                "name what it needs."
            )
    else:
        modules = [alias.name for alias in node.names]
    for module in modules:
        top = module.split(".")[0]
        if top in ALLOWED_IMPORTS or module == "nbs_utils.zoo":
            continue
        if module.startswith("nbs_utils.zoo."):
            continue
        why = ""
        if top in ("torchvision", "timm"):
            why = f" {top} is what a chapter compares its network with,"
            why += " so the network must not be made of it."
        raise AuthoringError(
            f"{where}: an exported cell imports '{module}', but a network of the "
            "zoo uses only torch, einops, the standard library and nbs_utils.zoo; "
            f"import it in a cell that is not exported.{why}"
        )


def defined_names(tree: ast.Module) -> set[str]:
    """Return the names that a cell defines for the cells after it."""
    found: set[str] = set()
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
            continue
        for part in ast.walk(node):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                found.add(part.id)
            elif isinstance(part, (ast.Import, ast.ImportFrom)):
                found |= {
                    (alias.asname or alias.name).split(".")[0] for alias in part.names
                }
            elif isinstance(part, (ast.FunctionDef, ast.ClassDef)):
                found.add(part.name)  # inside `if` or `try`
    return found


def undefined_names(tree: ast.Module, known: set[str]) -> list[tuple[str, int]]:
    """Return (name, line) of names that a cell uses and nothing defines.

    A name that is bound anywhere inside the statement (an argument, a variable of a
    function) counts as defined there: what is reported is certainly missing.

    Args:
        tree: a cell.
        known: names that the whole module defines.
    """
    found: dict[str, int] = {}
    for node in tree.body:
        bound = _bound_inside(node)
        for part in ast.walk(node):
            read = isinstance(part, ast.Name) and isinstance(part.ctx, ast.Load)
            if read and part.id not in known | bound | _KNOWN:
                found.setdefault(part.id, part.lineno)
    return sorted(found.items(), key=lambda pair: pair[1])


def _bound_inside(node: ast.stmt) -> set[str]:
    bound: set[str] = set()
    for part in ast.walk(node):
        if isinstance(part, ast.Name) and not isinstance(part.ctx, ast.Load):
            bound.add(part.id)
        elif isinstance(part, ast.arg):
            bound.add(part.arg)
        elif isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            bound.add(part.name)
        elif isinstance(part, (ast.Import, ast.ImportFrom)):
            bound |= {(a.asname or a.name).split(".")[0] for a in part.names}
        elif (
            isinstance(part, ast.ExceptHandler)
            and part.name
            or isinstance(part, (ast.MatchAs, ast.MatchStar))
            and part.name
        ):
            bound.add(part.name)
        elif isinstance(part, ast.MatchMapping) and part.rest:
            bound.add(part.rest)
    return bound


def registered_names(trees: list[ast.Module]) -> list[str]:
    """Return the names of networks that cells register, as far as they are written out.

    Understood are `register(Class, {...})`, `dict(name=...)`, names of such
    dictionaries and their unions with `|`.
    """
    assigned: dict[str, ast.expr] = {}
    found: list[str] = []
    for tree in trees:
        for node in tree.body:
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                targets = (
                    node.targets if isinstance(node, ast.Assign) else [node.target]
                )
                for target in targets:
                    if isinstance(target, ast.Name):
                        assigned[target.id] = node.value
            elif isinstance(node, ast.Expr) and is_register(node.value):
                call = node.value
                given = call.args[1:2] or [
                    k.value for k in call.keywords if k.arg == "variants"
                ]
                for value in given:
                    found += _keys(value, assigned, depth=0)
    return found


def _keys(value: ast.expr, assigned: dict[str, ast.expr], depth: int) -> list[str]:
    if depth > 10:  # a name that is defined by itself
        return []
    if isinstance(value, ast.Dict):
        found = []
        for key, content in zip(value.keys, value.values, strict=True):
            if key is None:
                found += _keys(content, assigned, depth + 1)
            elif isinstance(key, ast.Constant):
                found.append(str(key.value))
        return found
    if isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr):
        left = _keys(value.left, assigned, depth + 1)
        return left + _keys(value.right, assigned, depth + 1)
    if isinstance(value, ast.Name) and value.id in assigned:
        return _keys(assigned[value.id], assigned, depth + 1)
    if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "dict":
        return [keyword.arg for keyword in value.keywords if keyword.arg]
    return []
