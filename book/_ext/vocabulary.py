"""The page on the package: `{vocabulary}` lists what `import nbs_utils` offers.

Read from the source files, not from the imported package, so that the book builds
without torch. What stands on the page is the docstring, in the form that the whole
package keeps: a summary, more text, then "Args:", "Returns:", "Raises:", "Attributes:".
"""

from __future__ import annotations

import ast
import re
import textwrap
from dataclasses import dataclass
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PACKAGE = Path(__file__).resolve().parents[2] / "nbs_utils"
LISTS = ("Args", "Attributes", "Returns", "Raises", "Yields")
Definition = ast.FunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Entry:
    """One name of the vocabulary.

    Attributes:
        name: as in `nbs.name`.
        module: dotted path of the module that offers it, below `nbs_utils`.
        definition: its syntax tree.
        file: where it is defined.
    """

    name: str
    module: str
    definition: Definition
    file: Path


def module_file(module: str) -> Path:
    """Return the file of a module below the package ("figures.curves")."""
    path = PACKAGE.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def parse(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_text(encoding="utf-8"))


def homes(path: Path) -> dict[str, str]:
    """Return the table `_HOME` of a package: name -> module that holds it."""
    for node in parse(path).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == "_HOME":
            return ast.literal_eval(node.value)
    return {}


def find(name: str, module: str) -> Entry | None:
    """Return a definition, followed through `from .other import name`."""
    path = module_file(module)
    inside = path.name == "__init__.py"
    package = module if inside else module.rpartition(".")[0]
    for node in parse(path).body:
        if isinstance(node, Definition) and node.name == name:
            return Entry(name, module, node, path)
        if isinstance(node, ast.ImportFrom) and node.level:
            for alias in node.names:
                if (alias.asname or alias.name) == name:
                    above = package.split(".") if package else []
                    above = above[: len(above) - node.level + 1]
                    place = ".".join([*above, *([node.module] if node.module else [])])
                    return find(alias.name, place)
    return None


def signature(entry: Entry, prefix: str) -> str:
    """Return how a name is called, one argument a line where one line is too long."""
    definition = entry.definition
    if isinstance(definition, ast.ClassDef):
        return f"{prefix}{entry.name}"
    parts = _parts(definition.args)
    result = f" -> {ast.unparse(definition.returns)}" if definition.returns else ""
    line = f"{prefix}{entry.name}({', '.join(parts)}){result}"
    if len(line) <= 80:
        return line
    inner = "".join(f"    {part},\n" for part in parts)
    return f"{prefix}{entry.name}(\n{inner}){result}"


def _parts(arguments: ast.arguments) -> list[str]:
    """Return each argument as it is written: `name: kind = default`."""
    plain = [*arguments.posonlyargs, *arguments.args]
    missing = [None] * (len(plain) - len(arguments.defaults))
    parts = list(map(_part, plain, [*missing, *arguments.defaults]))
    if arguments.vararg:
        parts.append(f"*{_part(arguments.vararg)}")
    elif arguments.kwonlyargs:
        parts.append("*")
    parts += map(_part, arguments.kwonlyargs, arguments.kw_defaults)
    if arguments.kwarg:
        parts.append(f"**{_part(arguments.kwarg)}")
    return parts


def _part(argument: ast.arg, default: ast.expr | None = None) -> str:
    kind = argument.annotation
    if isinstance(kind, ast.Constant):  # "str | Recipe", quoted for older Pythons
        kind = ast.parse(kind.value, mode="eval").body
    written = argument.arg + (f": {ast.unparse(kind)}" if kind else "")
    if default is not None:
        written += f"{' = ' if kind else '='}{ast.unparse(default)}"
    return written.replace("'", '"')


def text(words: str) -> list[nodes.Node]:
    """Return text with `code` between backticks."""
    pieces = re.split(r"`+([^`]+)`+", " ".join(words.split()))
    return [
        nodes.literal("", piece) if n % 2 else nodes.Text(piece)
        for n, piece in enumerate(pieces)
        if piece
    ]


def described(docstring: str) -> list[nodes.Node]:
    """Return a docstring as paragraphs and definition lists."""
    blocks = re.split(rf"^({'|'.join(LISTS)}):$", docstring, flags=re.MULTILINE)
    found: list[nodes.Node] = [
        nodes.paragraph("", "", *text(paragraph))
        for paragraph in blocks[0].split("\n\n")
        if paragraph.strip()
    ]
    for title, block in zip(blocks[1::2], blocks[2::2], strict=True):
        lines, _, rest = textwrap.dedent(block).strip("\n").partition("\n\n")
        items = re.split(r"^(\S.*?): ", lines, flags=re.MULTILINE)
        title = {"Args": "Arguments"}.get(title, title)
        found.append(nodes.paragraph("", title, classes=["label"]))
        if items[0].strip():
            found.append(nodes.paragraph("", "", *text(lines)))
        else:
            rows = zip(items[1::2], items[2::2], strict=True)
            found.append(_definitions(list(rows)))
        found += [nodes.paragraph("", "", *text(p)) for p in rest.split("\n\n") if p]
    return found


def _definitions(rows: list[tuple[str, str]]) -> nodes.definition_list:
    return nodes.definition_list(
        "",
        *(
            nodes.definition_list_item(
                "",
                nodes.term("", "", nodes.literal("", name)),
                nodes.definition("", nodes.paragraph("", "", *text(words))),
            )
            for name, words in rows
        ),
        classes=["arguments"],
    )


class Vocabulary(SphinxDirective):
    """`{vocabulary}`: a section for each module, in it one for each name."""

    def run(self) -> list[nodes.Node]:
        groups: dict[str, list[tuple[str, str, str]]] = {}
        for name, module in homes(PACKAGE / "__init__.py").items():
            groups.setdefault(module, []).append((name, module, "nbs."))
        figures = homes(module_file("figures"))
        groups["figures"] = [
            (name, f"figures.{module}", "nbs.figures.")
            for name, module in figures.items()
        ]
        return [self.group(module, names) for module, names in groups.items()]

    def group(self, module: str, names: list[tuple[str, str, str]]) -> nodes.section:
        """Return the section of a module: its first sentence, then its names."""
        self.env.note_dependency(str(module_file(module)))
        summary = ast.get_docstring(parse(module_file(module))) or ""
        title = summary.split("\n\n")[0]
        section = nodes.section(ids=[f"package-{module}"])
        section += nodes.title("", "", nodes.literal("", module))
        section += nodes.paragraph("", "", *text(title))
        for name, place, prefix in names:
            entry = find(name, place)
            if entry:
                self.env.note_dependency(str(entry.file))
                section += self.entry(entry, prefix)
        return section

    def entry(self, entry: Entry, prefix: str) -> nodes.section:
        """Return the section of a name: how it is called and what it does."""
        section = nodes.section(ids=[f"nbs-{entry.name}".replace("_", "-")])
        section += nodes.title("", "", nodes.literal("", prefix + entry.name))
        call = signature(entry, prefix)
        section += nodes.literal_block(call, call, language="python")
        section += described(ast.get_docstring(entry.definition) or "")
        return section


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("vocabulary", Vocabulary)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
