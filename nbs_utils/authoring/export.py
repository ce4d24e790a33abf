"""Write the networks of the chapters into the zoo.

The cells tagged `export` of `chapters/residual/resnet.ipynb`, in their order, become
`nbs_utils/zoo/resnet.py`. The chapter stays the only source: nobody edits the zoo.
"""

import ast
import difflib
import re
import shutil
import subprocess
import sys
from pathlib import Path

from .notebook import (
    AuthoringError,
    Chapter,
    load_chapters,
    source,
    tags,
    write_atomically,
)

# What a network may need; a zoo that imports more could not be read on its own.
ALLOWED_IMPORTS = {"torch", "einops"} | set(sys.stdlib_module_names)


def exported_cells(chapter: Chapter) -> list[tuple[int, dict]]:
    """Return (position, cell) of the cells that travel to the zoo, in order."""
    return [(i, cell) for i, cell in chapter.code_cells() if "export" in tags(cell)]


def zoo_path(chapter: Chapter, root: Path) -> Path:
    """Return the file of the zoo that belongs to a chapter.

    Raises:
        AuthoringError: the notebook does not say where its network goes.
    """
    name = chapter.nbs.get("zoo", "")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "registry":
        raise AuthoringError(
            f"{chapter.name}: cells are tagged `export`, but the notebook's metadata "
            f"'nbs.zoo' is {name!r}; set it to the name of a module of the zoo, in "
            "lower case, such as 'resnet'."
        )
    return root / "nbs_utils" / "zoo" / f"{name}.py"


def module_text(chapter: Chapter) -> str:
    """Return the module of the zoo that a chapter's exported cells make.

    Imports that stand inside exported cells move to the top, once each; everything
    else keeps its order. Formatted by ruff where it is installed.

    Raises:
        AuthoringError: an exported cell is not plain Python, does more than define,
            or imports what the zoo may not import.
    """
    docstring = f'"""{chapter.title}, as its chapter builds it."""'
    imports: dict[str, None] = {}  # a set that keeps its order
    bodies = []
    for position, cell in exported_cells(chapter):
        body = _split_imports(source(cell), imports, f"{chapter.name}, cell {position}")
        if body:
            bodies.append(body)
    first_line = (
        f"# Written by `nbs export` from chapters/{chapter.name}.ipynb; "
        "edit the chapter, not this file."
    )
    top = "\n".join([first_line, docstring, "", *imports])
    return _format("\n\n\n".join([top, *bodies]) + "\n")


def _split_imports(code: str, imports: dict[str, None], where: str) -> str:
    """Return the code without its top-level imports, which go into `imports`."""
    try:
        tree = ast.parse(code)
    except SyntaxError as error:
        raise AuthoringError(
            f"{where}: an exported cell must be plain Python without magics, but line "
            f"{error.lineno} is not: {error.msg}."
        ) from None
    lines = code.splitlines()
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            _check_import(node, where)
            imports[ast.unparse(node)] = None
            # Blank, not deleted: the line numbers of the other nodes stay true.
            for number in range(node.lineno - 1, node.end_lineno):
                lines[number] = ""
        elif isinstance(node, ast.Expr) and not _is_register(node.value):
            raise AuthoringError(
                f"{where}: line {node.lineno} of an exported cell is an expression; "
                "exported cells only define and register, so show results in the next "
                "cell."
            )
    return "\n".join(lines).strip("\n")


def _is_register(value: ast.expr) -> bool:
    """Tell whether an expression is the call that puts a network into the zoo."""
    called = getattr(value, "func", None)
    return "register" in (getattr(called, "id", ""), getattr(called, "attr", ""))


def _check_import(node: ast.Import | ast.ImportFrom, where: str) -> None:
    if isinstance(node, ast.ImportFrom):
        modules = ["." * node.level + (node.module or "")]
    else:
        modules = [alias.name for alias in node.names]
    for module in modules:
        top = module.split(".")[0]
        if top not in ALLOWED_IMPORTS and not module.startswith("nbs_utils.zoo"):
            raise AuthoringError(
                f"{where}: an exported cell imports '{module}', but a network of the "
                "zoo uses only torch, einops, the standard library and nbs_utils.zoo; "
                "import it in a cell that is not exported."
            )


def ruff_command() -> list[str] | None:
    """Return the command that starts ruff, or None where it is not installed."""
    beside = Path(sys.executable).with_name("ruff")
    if beside.exists():
        return [str(beside)]
    found = shutil.which("ruff")
    return [found] if found else None


def _format(code: str) -> str:
    """Sort imports and format like the rest of the repository."""
    ruff = ruff_command()
    if ruff is None:
        return code
    # --isolated: the result must not depend on the folder in which it is made.
    common = ["--isolated", "--stdin-filename", "zoo.py", "-"]
    length = ["--config", "line-length = 88"]
    sort = ["check", "--quiet", "--fix", "--select", "I,F401", "--exit-zero"]
    known = ["--config", 'lint.isort.known-first-party = ["nbs_utils"]']
    for arguments in (sort + known, ["format", "--quiet"]):
        done = subprocess.run(
            [*ruff, *arguments, *length, *common],
            input=code,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise AuthoringError(f"ruff cannot format an export: {done.stderr.strip()}")
        code = done.stdout
    return code


def _same_meaning(one: str, other: str) -> bool:
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))


def difference(chapter: Chapter, root: Path) -> str:
    """Return what differs between a chapter and its module of the zoo.

    Returns:
        A unified diff; empty when they agree or the chapter exports nothing. Without
        ruff only the meaning (the syntax tree) is compared, not the layout.
    """
    if not exported_cells(chapter):
        return ""
    path = zoo_path(chapter, root)
    wanted = module_text(chapter)
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    if ruff_command() is None and found and _same_meaning(found, wanted):
        return ""
    names = (f"{path.name} in the zoo", f"{chapter.name}.ipynb")
    diff = difflib.unified_diff(
        found.splitlines(), wanted.splitlines(), *names, lineterm="", n=2
    )
    return "\n".join(diff)


def export(root: Path, name: str | None = None, *, check: bool = False) -> list[str]:
    """Write the zoo modules of one chapter or of all.

    Args:
        root: the repository.
        name: a chapter, or None for every chapter.
        check: only say which modules differ; write nothing.

    Returns:
        The chapters whose module was (or, with `check`, would be) changed.

    Raises:
        AuthoringError: see `module_text`; or two chapters export to one module.
    """
    changed = []
    owners: dict[Path, str] = {}
    for chapter in load_chapters(root):
        if not exported_cells(chapter):
            continue
        path = zoo_path(chapter, root)
        if path in owners:
            raise AuthoringError(
                f"{owners[path]} and {chapter.name} both export to zoo/{path.name}; "
                "give one of them another 'nbs.zoo' in its metadata."
            )
        owners[path] = chapter.name
    for chapter in load_chapters(root, name):
        if difference(chapter, root):
            changed.append(chapter.name)
            if not check:
                write_atomically(zoo_path(chapter, root), module_text(chapter))
    return changed
