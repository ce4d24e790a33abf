"""What the package declares: the packages that it imports, and its licenses."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest
import repository
import yaml
from package_metadata import read_metadata, read_requirements, required
from packaging.utils import canonicalize_name
from site_helpers import ROOT


@pytest.fixture(scope="module")
def metadata(tmp_path_factory) -> list[str]:
    return read_metadata(tmp_path_factory.mktemp("clone"))


# What is imported under another name than it is installed by.
INSTALLED_AS = {
    "PIL": "pillow",
    "bs4": "beautifulsoup4",
    "sklearn": "scikit-learn",
    "yaml": "pyyaml",
}


def imported(paths: list[Path], *, at_once: bool = False) -> dict[str, set[str]]:
    """Return what files import from others: package -> the files that do.

    Args:
        paths: Python files and notebooks.
        at_once: leave out imports inside of functions, which wait until they are
            needed.
    """
    found: dict[str, set[str]] = {}
    for path in paths:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".ipynb":
            cells = json.loads(text)["cells"]
            code = ["".join(c["source"]) for c in cells if c["cell_type"] == "code"]
            text = re.sub(
                r"^(\s*)[%!].*$", r"\1pass", "\n".join(code), flags=re.MULTILINE
            )
        for node in nodes_of(ast.parse(text), at_once):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module]
            else:
                continue
            for name in (name.partition(".")[0] for name in names):
                if name not in sys.stdlib_module_names:
                    name = canonicalize_name(INSTALLED_AS.get(name, name))
                    found.setdefault(name, set()).add(path.relative_to(ROOT).as_posix())
    return found


def nodes_of(tree: ast.AST, at_once: bool):
    """Yield the nodes of a syntax tree, on request without the insides of functions."""
    for child in ast.iter_child_nodes(tree):
        yield child
        if not (at_once and isinstance(child, ast.FunctionDef)):
            yield from nodes_of(child, at_once)


def files(folder: str, kind: str = "*.py") -> list[Path]:
    return sorted((ROOT / folder).rglob(kind))


class TestDependencies:
    """What is imported is declared, and what is declared is imported."""

    def declared(self, metadata, *extras: str) -> set[str]:
        return {canonicalize_name(one.name) for one in required(metadata, extras)}

    def test_the_package_asks_for_what_it_imports_and_for_nothing_else(self, metadata):
        used = imported(files("nbs_utils"))
        chapters = imported(files("chapters", "*.ipynb"))
        own = self.declared(metadata)
        assert own - set(used) - set(chapters) == set(), "declared, but not imported"
        at_once = imported(files("nbs_utils"), at_once=True)
        missing = {name: at_once[name] for name in set(at_once) - own - {"nbs-utils"}}
        assert missing == {}, "imported, but not declared"

    def test_what_waits_until_it_is_needed_is_in_an_extra(self, metadata):
        every = self.declared(metadata, "test", "reference", "shards")
        used = imported(files("nbs_utils") + files("chapters", "*.ipynb"))
        # These are installed apart, without their pins (requirements/peers.txt, and
        # the sentence that asks for pytorchcv).
        others = set(used) - every - {"nbs-utils", "d2l", "pytorchcv"}
        assert {name: used[name] for name in others} == {}

    def test_the_site_and_the_tests_ask_for_what_they_import(self, metadata):
        every = self.declared(metadata, "book", "test") | {"nbs-utils", "d2l"}
        folders = {"book/_ext": "book", "tests": "test", "tools": "test"}
        siblings = {
            canonicalize_name(path.stem)
            for folder in folders
            for path in (ROOT / folder).glob("*.py")
        }
        for folder, extra in folders.items():
            used = imported(sorted((ROOT / folder).glob("*.py")))
            missing = {name: used[name] for name in set(used) - every - siblings}
            assert missing == {}, f"add it to requirements/{extra}.txt"
        book = {
            canonicalize_name(one.name)
            for one in read_requirements(ROOT / "requirements" / "book.txt")
        }
        assert set(imported(files("book/_ext"))) - siblings <= book

    def test_an_import_is_seen_wherever_it_stands(self, tmp_path, monkeypatch):
        monkeypatch.setattr(sys.modules[__name__], "ROOT", tmp_path)
        path = tmp_path / "m.py"
        path.write_text(
            "import os, numpy.linalg\nfrom PIL import Image\nfrom . import near\n"
            "def f():\n    import timm\n"
        )
        assert set(imported([path])) == {"numpy", "pillow", "timm"}
        assert set(imported([path], at_once=True)) == {"numpy", "pillow"}


class TestRights:
    """Under which licenses the book comes, in all places that say it."""

    def test_each_license_is_there_in_full(self):
        code = (ROOT / "LICENSE").read_text(encoding="utf-8")
        assert code.startswith("MIT License")
        assert 'THE SOFTWARE IS PROVIDED "AS IS"' in code
        text = (ROOT / "LICENSE-text").read_text(encoding="utf-8")
        assert "https://creativecommons.org/licenses/by/4.0/" in text
        assert "Attribution 4.0 International Public License" in text
        assert "Section 8 – Interpretation" in text
        assert "Photographs" in text

    def test_the_package_says_so(self, metadata):
        assert "License-Expression: MIT" in metadata
        assert "License-File: LICENSE" in metadata

    def test_readme_and_site_lead_to_them(self):
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        for name in ("LICENSE", "LICENSE-text", "CITATION.cff"):
            assert f"[{name}]({name})" in readme
        page = (ROOT / "chapters" / "license.md").read_text(encoding="utf-8")
        assert "https://creativecommons.org/licenses/by/4.0/" in page

    def test_the_citation_agrees_with_the_package_and_the_page(self, metadata):
        cited = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
        address = repository.read_address()
        assert cited["cff-version"] == "1.2.0"
        assert cited["repository-code"] == address.repository
        assert cited["url"] == address.pages
        assert f"Version: {cited['version']}" in metadata
        assert cited["license"] == ["MIT", "CC-BY-4.0"]
        page = (ROOT / "chapters" / "license.md").read_text(encoding="utf-8")
        assert cited["authors"][0]["name"] in page
        assert cited["title"] in page
