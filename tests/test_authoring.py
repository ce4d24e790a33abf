"""Export, and chapters as files, each tried on a chapter of its own."""

import json
import stat

import pytest
from a_chapter import cells, code, make_book, markdown, shown, stream

from nbs_utils.authoring import export, exported_code, notebook
from nbs_utils.authoring.hashing import code_sha256, outputs_sha256
from nbs_utils.authoring.notebook import AuthoringError, find_chapter

needs_ruff = pytest.mark.skipif(
    export.ruff_command() is None, reason="ruff is not installed: pip install ruff"
)


# ---- Export


def exported(tmp_path, *sources: str) -> str:
    made = [markdown("# Tiny (2020)"), *(code(s, tags=("export",)) for s in sources)]
    return export.module_text(make_book(tmp_path, made)[0])


@needs_ruff
def test_export_moves_imports_to_the_top_once_and_keeps_the_order(tmp_path):
    text = exported(
        tmp_path,
        "import torch\nfrom torch import nn\n\n\nclass B(nn.Module):\n    x = torch.e",
        "from torch import nn\n# Why A follows B.\nclass A(B): pass",
    )
    assert text == (
        "# Written by `nbs export` from chapters/old/tiny.ipynb; edit the chapter, not "
        'this file.\n"""Tiny (2020), as its chapter builds it."""\n\nimport torch\n'
        "from torch import nn\n\n\nclass B(nn.Module):\n    x = torch.e\n\n\n"
        "# Why A follows B.\nclass A(B):\n    pass\n"
    )


def test_export_takes_only_tagged_cells_and_imports_of_the_zoo(tmp_path):
    made = [
        code("from nbs_utils.zoo.resnet import Bottleneck", tags=("export",)),
        code("SECRET = 1"),
        code("class C(Bottleneck):\n    pass", tags=("export",)),
    ]
    text = export.module_text(make_book(tmp_path, made)[0])
    assert "from nbs_utils.zoo.resnet import Bottleneck\n" in text
    assert "SECRET" not in text


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("%timeit 1", "plain Python without magics, but line 1"),
        ("x = 1\nx", "line 2 of an exported cell is an expression"),
        ("print('hi')", "line 1 of an exported cell is an expression"),
        ("import pandas as pd", "imports 'pandas'"),
        ("from nbs_utils import data", "imports 'nbs_utils'"),
        ("from . import registry", r"imports '\.'"),
    ],
)
def test_export_refuses_what_a_network_must_not_do(tmp_path, source, said):
    with pytest.raises(AuthoringError, match=said):
        exported(tmp_path, source)


def test_export_writes_says_what_differs_and_is_then_content(tmp_path):
    make_book(tmp_path)
    module = tmp_path / "nbs_utils" / "zoo" / "tiny.py"
    assert export.export(tmp_path, check=True) == ["old/tiny"]
    assert not module.exists()
    assert export.export(tmp_path) == ["old/tiny"]
    assert "class Tiny" in module.read_text()
    assert export.export(tmp_path) == []
    module.write_text(module.read_text().replace("Linear(4", "Linear(5"))
    diff = export.difference(find_chapter("tiny", tmp_path), tmp_path)
    assert "-        self.head = nn.Linear(5, num_classes)" in diff
    assert "+        self.head = nn.Linear(4, num_classes)" in diff


def test_without_ruff_export_compares_the_meaning(tmp_path, monkeypatch):
    chapter, _ = make_book(tmp_path)
    export.export(tmp_path)
    module = tmp_path / "nbs_utils" / "zoo" / "tiny.py"
    monkeypatch.setattr(export, "ruff_command", lambda: None)
    module.write_text(module.read_text().replace("\n\n\n", "\n\n"))
    assert export.difference(chapter, tmp_path) == ""
    module.write_text(module.read_text().replace("Linear(4", "Linear(5"))
    assert export.difference(chapter, tmp_path) != ""


def test_two_chapters_cannot_export_to_one_module(tmp_path):
    make_book(tmp_path)
    make_book(tmp_path, name="new/tiny2")
    with pytest.raises(AuthoringError, match=r"new/tiny2 and old/tiny both export"):
        export.export(tmp_path)


@pytest.mark.parametrize("name", ["", "ResNet", "registry", "../train"])
def test_export_needs_a_proper_name_for_the_module(tmp_path, name):
    chapter, _ = make_book(tmp_path)
    chapter.nbs["zoo"] = name
    with pytest.raises(AuthoringError, match="set it to the name of a module"):
        export.zoo_path(chapter, tmp_path)


# ---- Imports and names of exported cells


@needs_ruff
@pytest.mark.parametrize(
    ("source", "kept"),
    [
        ("import math; HALF = math.pi", ["import math\n", "HALF = math.pi\n"]),
        ("HALF = 0.5; import math\nP = math.pi", ["import math\n", "HALF = 0.5\n"]),
        (
            "import math; import copy; HALF = copy.copy(math.pi)",
            ["import copy\nimport math\n", "HALF = copy.copy(math.pi)\n"],
        ),
        (
            "from math import (\n    pi,  # the number\n    tau,\n)\nBOTH = pi, tau",
            ["from math import pi, tau\n", "BOTH = pi, tau\n"],
        ),
        (
            "import torch.nn.functional as F  # short\n\n\ndef f(x):\n    return F.relu(x)",
            ["import torch.nn.functional as F\n", "return F.relu(x)\n"],
        ),
        (
            "import os.path as p; from math import pi as π; NAME = p.sep * int(π)",
            [
                "import os.path as p\nfrom math import pi as π\n",
                "NAME = p.sep * int(π)",
            ],
        ),
        (
            "from __future__ import annotations\nimport math\nP = math.pi",
            ["\n\nfrom __future__ import annotations\n\nimport math\n"],
        ),
        (
            "def f():\n    import math\n\n    return math.pi",
            ["def f():\n    import math\n"],
        ),
    ],
)
def test_export_keeps_everything_that_stands_beside_an_import(tmp_path, source, kept):
    text = exported(tmp_path, source)
    for part in kept:
        assert part in text
    compile(text, "zoo.py", "exec")
    assert text.count("import math") <= 1


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("from torchvision import models", "what a chapter compares its network with"),
        ("def f():\n    import pandas", "imports 'pandas'"),
        ("from torch.nn import *", "imports everything from 'torch.nn'"),
    ],
)
def test_export_says_why_an_import_may_not_be(tmp_path, source, said):
    with pytest.raises(AuthoringError, match=said):
        exported(tmp_path, source)


def undefined(tmp_path, *sources: str) -> list[str]:
    made = [code(s, tags=("export",)) for s in sources]
    chapter, _ = make_book(tmp_path, made)
    return [said.split("'")[1] for _, said in export.faults(chapter, [chapter])]


@pytest.mark.parametrize(
    "source",
    [
        "def f(a, *b, c=len, **d):\n    e = [x for x in b]\n    return a, c, d, e",
        "try:\n    import torch\nexcept ImportError as e:\n    raise e\nx = torch.e",
        "class A:\n    def g(self) -> 'A':\n        return self.g()\n\n\nx: A = A()",
        "def f(v):\n    match v:\n        case [first, *rest]:\n            return first, rest",
        "if True:\n    HALF = 1\nprintable = lambda v: (w := v) + HALF + w",
    ],
)
def test_names_that_are_bound_somewhere_are_not_called_missing(tmp_path, source):
    assert undefined(tmp_path, source) == []


def test_names_of_later_exported_cells_are_known(tmp_path):
    assert undefined(tmp_path, "def f():\n    return LATER + NEVER", "LATER = 1") == [
        "NEVER"
    ]


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ('register(A, {"a": {}, "b": {}}, image_size=32)', ["a", "b"]),
        ("register(A, dict(a={}, b={}))", ["a", "b"]),
        ('X = {"a": {}}\nY = X | {"b": {}}\nregister(A, Y)', ["a", "b"]),
        ('X = {"a": {}}\nregister(A, variants={**X, "b": {}})', ["a", "b"]),
        ("register(A, make())", []),  # not written out: the register itself refuses
        ("X = X | X\nregister(A, X)", []),
    ],
)
def test_the_names_of_networks_are_read_from_the_register(source, names):
    tree = exported_code.parse(source, "here")
    assert exported_code.registered_names([tree]) == names


# ---- Finding and writing chapters


def test_a_chapter_is_found_by_name_last_name_and_path(tmp_path):
    chapter, _ = make_book(tmp_path)
    names = ["old/tiny", "tiny", "chapters/old/tiny.ipynb", str(chapter.path)]
    assert {find_chapter(name, tmp_path).path for name in names} == {chapter.path}
    with pytest.raises(AuthoringError, match="'old/tyni'. Did you mean old/tiny"):
        find_chapter("old/tyni", tmp_path)
    make_book(tmp_path, name="new/tiny")
    with pytest.raises(AuthoringError, match="Did you mean new/tiny or old/tiny"):
        find_chapter("tiny", tmp_path)


def test_a_file_that_is_no_notebook_is_named(tmp_path):
    chapter, _ = make_book(tmp_path)
    chapter.path.write_text("{")
    with pytest.raises(AuthoringError, match=r"tiny\.ipynb is not a notebook"):
        find_chapter("tiny", tmp_path)


def test_the_hash_follows_code_and_order_but_not_prose_or_set_up():
    made = cells()
    before = code_sha256(made)
    made[0]["source"] = "# Other (2021)"
    made[1]["source"] = made[1]["source"].replace("__owner__", "someone")
    assert code_sha256(made) == before
    made[2]["source"] = made[2]["source"].splitlines(keepends=True)  # as on disk
    assert code_sha256(made) == before
    made[2], made[3] = made[3], made[2]
    assert code_sha256(made) != before


@pytest.mark.parametrize(
    ("code_before", "code_after", "same"),
    [
        ("x = 1  # one", "x=1", True),
        ("f(a, b)", "f(\n    a,\n    b,\n)", True),
        ("x = 'a'", 'x = "a"', True),
        ('def f():\n    """Old."""\n    return 1', "def f():\n    return 1", True),
        ('def f():\n    """Old."""', 'def f():\n    """New."""', True),
        ("x = 1_000", "x = 1000", True),
        ("%matplotlib inline", "%matplotlib  svg", False),
        ("x", "x;", False),  # shows nothing
        ("x = 1", "x = 1.0", False),
        ('"""Shown."""', '"""Shown again."""', False),
        ("f(a, b)", "f(b, a)", False),
    ],
)
def test_the_hash_is_that_of_the_meaning(code_before, code_after, same):
    one, other = code_sha256([code(code_before)]), code_sha256([code(code_after)])
    assert (one == other) is same


def test_the_hash_does_not_depend_on_the_version_of_python():
    """Trees of Python 3.10 and later differ in fields that are empty in this code."""
    source = (
        "@d\ndef f(x: int = 1, /, *, y=2) -> int:\n    return f'{x!r:>{y}}' + g[1:]"
    )
    assert code_sha256([code(source)]) == (
        "e3f2a4e56cd9400465eb5c96513836f85a9a0b2770844bd825d3f7491466326f"
    )


def test_the_hash_of_outputs_ignores_how_texts_are_stored():
    one = code("1", stream("a\nb\n"), shown(text_plain="3"))
    other = json.loads(json.dumps(one))
    other["outputs"][0]["text"] = ["a\n", "b\n"]
    assert outputs_sha256([one]) == outputs_sha256([other])
    other["outputs"][0]["text"] = ["a\n", "c\n"]
    assert outputs_sha256([one]) != outputs_sha256([other])


def test_writing_is_all_or_nothing_and_keeps_the_mode(tmp_path, monkeypatch):
    path = tmp_path / "file"
    notebook.write_atomically(path, "one")
    path.chmod(0o640)
    notebook.write_atomically(path, "two")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(notebook.os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        notebook.write_atomically(path, "three")
    assert path.read_text() == "two"
    assert list(tmp_path.iterdir()) == [path]


def test_the_root_of_the_book_is_found_from_any_folder_in_it(tmp_path, monkeypatch):
    chapter, _ = make_book(tmp_path)
    assert notebook.repository_root(chapter.path.parent) == tmp_path
    installed = tmp_path / "site-packages" / "nbs_utils" / "authoring" / "notebook.py"
    monkeypatch.setattr(notebook, "__file__", str(installed))
    with pytest.raises(AuthoringError, match="clone of the book's repository"):
        notebook.repository_root(tmp_path.parent)
