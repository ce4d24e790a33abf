"""Write the networks of the chapters into the zoo.

The cells tagged `export` of `chapters/residual/resnet.ipynb`, in their order, become
`nbs_utils/zoo/resnet.py`. The chapter stays the only source: nobody edits the zoo.
"""

import ast
import difflib
import hashlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from . import exported_code
from .hashing import meaning
from .notebook import (
    AuthoringError,
    Chapter,
    cell_label,
    load_chapters,
    source,
    tags,
    write_atomically,
)
from .ruff import ruff_command, tidy_code

# Modules of the zoo that no chapter writes.
RESERVED = {"registry", "contract"}


def exported_cells(chapter: Chapter) -> list[tuple[int, dict]]:
    """Return (position, cell) of the cells that travel to the zoo, in order."""
    return [(i, cell) for i, cell in chapter.code_cells() if "export" in tags(cell)]


def zoo_path(chapter: Chapter, root: Path) -> Path:
    """Return the file of the zoo that belongs to a chapter.

    Raises:
        AuthoringError: the notebook does not say where its network goes.
    """
    name = chapter.nbs.get("zoo", "")
    if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name in RESERVED:
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
        where = f"{chapter.name}, {cell_label(chapter.cells, position)}"
        body = exported_code.split_imports(source(cell), imports, where)
        if body:
            bodies.append(body)
    first_line = (
        f"# Written by `nbs export` from chapters/{chapter.name}.ipynb; "
        "edit the chapter, not this file."
    )
    ordered = sorted(imports, key=lambda line: not line.startswith("from __future__"))
    top = "\n".join([first_line, docstring, "", *ordered])
    return _format("\n\n\n".join([top, *bodies]) + "\n")


def _format(code: str) -> str:
    """Sort imports and format like the rest of the repository."""
    length = ["--config", "line-length = 88"]
    known = ["--config", 'lint.isort.known-first-party = ["nbs_utils"]']
    sort = ["check", "--fix", "--select", "I,F401", "--exit-zero", *known]
    for arguments in (sort, ["format"]):
        done = tidy_code(code, *arguments, *length)
        if done is None:
            return code
        if done.returncode:
            raise AuthoringError(f"ruff cannot format an export: {done.stderr.strip()}")
        code = done.stdout
    return code


def faults(
    chapter: Chapter, chapters: list[Chapter]
) -> Iterator[tuple[int | None, str]]:
    """Yield (position of the cell, sentence) of what would break the chapter's module.

    Names that exported cells use and no exported cell defines, and networks that
    another chapter registers under the same name.

    Args:
        chapter: the chapter.
        chapters: all chapters of the book.

    Raises:
        AuthoringError: an exported cell is not plain Python.
    """
    trees = _trees(chapter)
    known = set().union(*(exported_code.defined_names(tree) for _, tree in trees))
    for position, tree in trees:
        for name, line in exported_code.undefined_names(tree, known):
            yield (
                position,
                (
                    f"line {line} uses '{name}', which no exported cell defines"
                    f"{_origin(chapter, name)}; the zoo could not be imported."
                ),
            )
    yield from _clashes(chapter, trees, chapters)


def _trees(chapter: Chapter) -> list[tuple[int, ast.Module]]:
    return [
        (
            position,
            exported_code.parse(
                source(cell), f"{chapter.name}, {cell_label(chapter.cells, position)}"
            ),
        )
        for position, cell in exported_cells(chapter)
    ]


def _origin(chapter: Chapter, name: str) -> str:
    """Return where a cell that is not exported defines a name, as part of a sentence."""
    for position, cell in chapter.code_cells():
        if "export" in tags(cell):
            continue
        try:
            tree = ast.parse(source(cell))
        except SyntaxError:
            continue
        if name in exported_code.defined_names(tree):
            label = cell_label(chapter.cells, position)
            return f" ({label} does: tag it `export`, or move the name)"
    return ""


def _clashes(
    chapter: Chapter, trees: list[tuple[int, ast.Module]], chapters: list[Chapter]
) -> Iterator[tuple[int | None, str]]:
    names = exported_code.registered_names([tree for _, tree in trees])
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield None, f"the network '{name}' is registered twice."
    for other in chapters:
        if other.name == chapter.name:
            continue
        try:
            taken = exported_code.registered_names([tree for _, tree in _trees(other)])
        except AuthoringError:
            continue  # its own export says so
        for name in sorted(set(names) & set(taken)):
            yield (
                None,
                (
                    f"the network '{name}' is registered by {other.name}, too; rename one "
                    "of them."
                ),
            )


def _same_meaning(one: str, other: str) -> bool:
    return meaning(one) == meaning(other)


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


def require_fresh(chapter: Chapter, root: Path) -> None:
    """Stop before a run that would use a network other than the chapter's.

    Raises:
        AuthoringError: the chapter's module of the zoo is missing or differs.
    """
    if not exported_cells(chapter) or not difference(chapter, root):
        return
    path = zoo_path(chapter, root)
    if path.exists():
        said = f"nbs_utils/zoo/{path.name} is not what {chapter.name} exports"
        why = "its tables would count the old network"
    else:
        said = f"the zoo has no module of {chapter.name} yet"
        why = "its networks could not be found by name"
    raise AuthoringError(f"{said}, and {why}: run `nbs export {chapter.name}` first.")


def zoo_sha256(chapter: Chapter, root: Path) -> dict[str, str]:
    """Return the hashes of the zoo's modules that a chapter exports or imports.

    Returns:
        Module -> hash of its meaning (comments and layout left out). A module that
        does not exist is missing here, too.
    """
    modules = set()
    if exported_cells(chapter) and chapter.nbs.get("zoo"):
        modules.add(chapter.nbs["zoo"])
    for _, cell in chapter.code_cells():
        modules |= set(re.findall(r"nbs_utils\.zoo\.([a-z]\w*)", source(cell)))
    found = {}
    for module in sorted(modules - RESERVED):
        path = root / "nbs_utils" / "zoo" / f"{module}.py"
        if path.exists():
            found[module] = module_sha256(path.read_text(encoding="utf-8"))
    return found


def module_sha256(text: str) -> str:
    """Return the hash of what a module means; comments and layout do not count."""
    return hashlib.sha256(json.dumps(meaning(text)).encode()).hexdigest()


def export(root: Path, name: str | None = None, *, check: bool = False) -> list[str]:
    """Write the zoo modules of one chapter or of all.

    Args:
        root: the repository.
        name: a chapter, or None for every chapter.
        check: only say which modules differ; write nothing.

    Returns:
        The chapters whose module was (or, with `check`, would be) changed.

    Raises:
        AuthoringError: see `module_text`; or a module would not stand on its own, or
            two chapters export to one module. Then nothing is written.
    """
    owners: dict[Path, str] = {}
    chapters = load_chapters(root)
    for chapter in chapters:
        if not exported_cells(chapter):
            continue
        path = zoo_path(chapter, root)
        if path in owners:
            raise AuthoringError(
                f"{owners[path]} and {chapter.name} both export to zoo/{path.name}; "
                "give one of them another 'nbs.zoo' in its metadata."
            )
        owners[path] = chapter.name
    changed = [
        chapter for chapter in load_chapters(root, name) if difference(chapter, root)
    ]
    if not check:
        for chapter in changed:
            _require_whole(chapter, chapters)
        for chapter in changed:
            write_atomically(zoo_path(chapter, root), module_text(chapter))
    return [chapter.name for chapter in changed]


def _require_whole(chapter: Chapter, chapters: list[Chapter]) -> None:
    found = [
        f"{chapter.name}{'' if cell is None else ', ' + cell_label(chapter.cells, cell)}"
        f": {said}"
        for cell, said in faults(chapter, chapters)
    ]
    if found:
        raise AuthoringError("\n".join(found) + "\nNothing was written.")
