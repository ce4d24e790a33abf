"""Export, and chapters as files, each tried on a chapter of its own."""

import stat

import pytest
from a_chapter import cells, code, make_book, markdown

from nbs_utils.authoring import export, notebook
from nbs_utils.authoring.hashing import code_sha256
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
