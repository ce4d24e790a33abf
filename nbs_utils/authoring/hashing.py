"""What a recording executed and what it left, each as one hash.

The hash of the code is that of its meaning: comments, docstrings, blank lines, quotes
and line breaks may change without a new recording. It is the same on every version of
Python, so the tree is written out here and not by `ast.dump`, whose text changes.
"""

import ast
import hashlib
import json
import re
from typing import Any

from .notebook import joined, source, tags

# Where a node stands, and what only some versions of Python note about it.
_IGNORED = {"ctx", "kind", "type_comment", "type_ignores"}
_MAGIC = re.compile(r"^(?P<indent>\s*)(?P<line>(?:%{1,2}[A-Za-z]|!).*)$")


def code_sha256(cells: list[dict]) -> str:
    """Return the hash of the code that a recording executed, as hexadecimal digits.

    Over the code cells in their order. The set-up cell stands apart: it holds the
    repository's address, which changes without any result changing, and a check of
    its own compares it word for word.
    """
    code = [
        meaning(source(cell))
        for cell in cells
        if cell["cell_type"] == "code" and "setup" not in tags(cell)
    ]
    return _sha256(code)


def outputs_sha256(cells: list[dict]) -> str:
    """Return the hash of all stored outputs, as hexadecimal digits.

    A text counts the same as one string and as a list of lines: an editor may store
    either.
    """
    return _sha256(
        [
            [_plain_output(output) for output in cell.get("outputs", [])]
            for cell in cells
            if cell["cell_type"] == "code"
        ]
    )


def meaning(code: str) -> Any:
    """Return the syntax tree of a cell as lists, without comments and layout.

    Magics are kept word for word. A cell that is not Python is its own text.
    """
    quiet = code.rstrip().endswith(";")  # IPython then shows no result
    try:
        tree = ast.parse("\n".join(map(_without_magic, code.splitlines())))
    except SyntaxError:
        return code.strip()
    return [_plain(tree.body), quiet]


def _without_magic(line: str) -> str:
    found = _MAGIC.match(line)
    if not found:
        return line
    return f"{found['indent']}__magic__({found['line'].strip()!r})"


def _plain(value: Any) -> Any:
    """Return a part of a syntax tree made of lists and texts only."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if not isinstance(value, ast.AST):
        return repr(value)
    fields = []
    for name, content in ast.iter_fields(value):
        if name == "body" and _has_docstring(value):
            content = content[1:]
        if name in _IGNORED or content is None or content == []:
            continue  # a newer Python adds fields, which are then empty
        fields.append([name, _plain(content)])
    return [type(value).__name__, *fields]


def _has_docstring(node: ast.AST) -> bool:
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(node, kinds) and ast.get_docstring(node) is not None


def _plain_output(output: dict) -> dict:
    """Return an output with every text as one string, keys that matter only."""
    kept = {key: output[key] for key in ("output_type", "name") if key in output}
    for key in ("text", "traceback"):
        if key in output:
            kept[key] = joined(output[key])
    if "data" in output:
        kept["data"] = {
            mime: joined(value) if isinstance(value, (str, list)) else value
            for mime, value in output["data"].items()
        }
    return kept


def _sha256(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()
