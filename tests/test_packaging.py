"""One list of requirements, one address: what must agree with what."""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest
import repository
import yaml
from package_metadata import read_metadata, read_requirements, required
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from site_helpers import ROOT

EXTRAS = ("book", "test", "reference")


@pytest.fixture(scope="module")
def metadata(tmp_path_factory) -> list[str]:
    return read_metadata(tmp_path_factory.mktemp("clone"))


def constraints() -> dict[str, Version]:
    return {
        canonicalize_name(one.name): Version(str(one.specifier).removeprefix("=="))
        for one in read_requirements(ROOT / "constraints.txt")
    }


def environment() -> dict:
    return yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))


def test_no_requirement_is_declared_twice(metadata):
    names = [canonicalize_name(one.name) for one in required(metadata, ())]
    assert sorted(names) == sorted(set(names))


def test_the_extras_are_the_files_in_requirements(metadata):
    own = {str(one) for one in required(metadata, ())}
    for extra in EXTRAS:
        files = [ROOT / "requirements" / f"{extra}.txt"]
        if extra == "test":
            files += [ROOT / "requirements" / f"{x}.txt" for x in ("reference", "onnx")]
        listed = {str(one) for file in files for one in read_requirements(file)}
        asked = {
            str(one).partition(";")[0].strip() for one in required(metadata, (extra,))
        }
        assert asked - own == listed


def test_what_make_installs_is_what_a_person_installs_by_hand():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "-e '.[book,test]'" in makefile
    assert 'pip install -e ".[book,test]"' in (ROOT / "README.md").read_text()


def test_conda_users_get_the_same(metadata):
    """Its pip part is the package itself with its extras, nothing listed twice."""
    dependencies = environment()["dependencies"]
    plain = [one for one in dependencies if isinstance(one, str)]
    (by_pip,) = [one for one in dependencies if not isinstance(one, str)]
    (line,) = by_pip["pip"]
    found = re.fullmatch(r"-e \.\[([\w,]+)\]", line)
    assert found, "the pip part installs the clone itself"
    extras = tuple(found[1].split(","))
    provided = {
        line.partition(": ")[2]
        for line in metadata
        if line.startswith("Provides-Extra")
    }
    assert set(extras) <= provided
    # ... and requirement by requirement it is what pip would read.
    assert {str(one) for one in required(metadata, extras)} == {
        str(one) for one in required(metadata, ("book", "test"))
    }
    assert "pip" in plain
    (python,) = [one for one in plain if one.startswith("python")]
    (asked,) = [
        line.partition(": ")[2]
        for line in metadata
        if line.startswith("Requires-Python")
    ]
    assert SpecifierSet(python.removeprefix("python")) == SpecifierSet(asked)


def test_the_tested_set_is_what_the_package_allows(metadata):
    tested = constraints()
    for one in required(metadata, EXTRAS):
        version = tested[canonicalize_name(one.name)]
        assert one.specifier.contains(version), f"{one} against {version}"


def test_versions_of_colab_are_allowed(metadata):
    """Installing the package there must change nothing (August 2026)."""
    colab = {
        "torch": "2.11.0",
        "torchvision": "0.26.0",
        "numpy": "2.1.3",
        "matplotlib": "3.10.0",
        "pandas": "2.2.3",
    }
    asked = {canonicalize_name(one.name): one for one in required(metadata, ())}
    for name, version in colab.items():
        assert asked[name].specifier.contains(version), name
    pinned = [str(one) for one in asked.values() if "==" in str(one.specifier)]
    assert pinned == []


def test_peers_come_in_without_their_pins(metadata):
    """d2l pins numpy 1.23.5; it is installed in one place, without dependencies."""
    (d2l,) = read_requirements(ROOT / "requirements" / "peers.txt")
    assert str(d2l) == "d2l==1.0.3"
    assert "d2l" not in {one.name for one in required(metadata, EXTRAS)}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert makefile.count("peers.txt") == 2  # as a prerequisite, and installed
    assert "--no-deps -r requirements/peers.txt" in makefile


def test_d2l_imports_beside_our_versions():
    pytest.importorskip("d2l", reason="pip install --no-deps -r requirements/peers.txt")
    import d2l.torch

    assert d2l.torch.Trainer


class TestMakefile:
    """What a newcomer types."""

    def make(self, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            ["make", "--no-print-directory", *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def test_help_lists_every_command(self):
        listed = re.findall(r"^  make ([\w-]+)", self.make("help").stdout, re.MULTILINE)
        commands = [
            "book",
            "test",
            "serve",
            "record",
            "record-all",
            "lint",
            "diffs",
            "pdf",
            "clean",
            "repository",
            "help",
        ]
        assert sorted(listed) == sorted(commands)
        assert self.make().stdout == self.make("help").stdout

    def test_an_old_python_is_refused_in_a_sentence(self, tmp_path):
        old = tmp_path / "python3"
        old.write_text(
            '#!/bin/sh\necho "This book needs Python 3.10 or newer, and it is 3.8." >&2\n'
            "exit 1\n"
        )
        old.chmod(0o755)
        done = self.make("book", f"PYTHON={old}", f"VENV={tmp_path}/venv")
        assert done.returncode != 0
        assert "This book needs Python 3.10 or newer" in done.stderr
        assert not (tmp_path / "venv").exists()

    def test_no_python_at_all_is_a_sentence_too(self, tmp_path):
        done = self.make("book", "PYTHON=", f"VENV={tmp_path}/venv")
        assert done.returncode != 0
        assert "none was found" in done.stderr

    def test_recording_asks_for_a_chapter(self, tmp_path):
        done = self.make("-n", "record", "CHAPTER=residual/resnet")
        assert "nbs record residual/resnet" in done.stdout


class TestAddress:
    """`make repository URL=...` and the one place where the address stands."""

    def test_every_file_names_the_same_repository(self):
        assert repository.strangers() == []

    def test_the_set_up_cells_install_from_it(self):
        address = repository.read_address()
        for path in sorted((ROOT / "chapters").rglob("*.ipynb")):
            cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
            (setup,) = [c for c in cells if "setup" in c["metadata"].get("tags", [])]
            assert f'"git+{address.repository}"' in "".join(setup["source"]), path

    def test_badges_open_every_notebook(self):
        readme = (ROOT / "README.md").read_text(encoding="utf-8")
        slug = repository.read_address().slug
        for path in sorted((ROOT / "chapters").rglob("*.ipynb")):
            name = path.relative_to(ROOT).as_posix()
            assert f"colab.research.google.com/github/{slug}/blob/main/{name}" in readme

    @pytest.mark.parametrize(
        ("given", "repo", "pages", "prefix"),
        [
            (
                "https://github.com/Ada/Book.git",
                "https://github.com/Ada/Book",
                "https://ada.github.io/Book/",
                "/Book/",
            ),
            (
                "https://github.com/ada/ada.github.io/",
                "https://github.com/ada/ada.github.io",
                "https://ada.github.io/",
                "/",
            ),
        ],
    )
    def test_an_address_is_read_as_people_write_it(self, given, repo, pages, prefix):
        address = repository.Address.parse(given)
        assert (address.repository, address.pages, address.prefix) == (
            repo,
            pages,
            prefix,
        )

    @pytest.mark.parametrize(
        "wrong",
        ["github.com/a/b", "https://gitlab.com/a/b", "https://github.com/a", ""],
    )
    def test_what_is_no_address_is_refused(self, wrong):
        with pytest.raises(repository.AddressError, match="OWNER/REPOSITORY"):
            repository.Address.parse(wrong)

    def test_writing_an_address_changes_every_place_and_back(self, tmp_path):
        """On a copy: all places follow, recordings stay valid, the way back is exact."""
        copy = tmp_path / "clone"
        files = [p.relative_to(ROOT) for p in repository.text_files(ROOT)]
        for name in files:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
        subprocess.run(["git", "init", "-q"], cwd=copy, check=True)
        old = repository.read_address(copy)
        new = repository.Address.parse("https://github.com/ada/nets", "https://nets.io")
        before = {name: (copy / name).read_text(encoding="utf-8") for name in files}

        repository.write_address(new, copy)
        assert repository.read_address(copy) == new
        assert repository.strangers(copy) == []
        config = yaml.safe_load((copy / "_config.yml").read_text())
        assert config["repository"]["url"] == "https://github.com/ada/nets"
        assert config["html"]["baseurl"] == "https://nets.io/"
        assert config["sphinx"]["config"]["ogp_site_url"] == "https://nets.io/"
        assert config["sphinx"]["config"]["notfound_urls_prefix"] == "/"
        for name in files:
            text = (copy / name).read_text(encoding="utf-8")
            assert old.slug not in text, name
            if name.suffix == ".ipynb":
                from nbs_utils.authoring.hashing import code_sha256

                cells = json.loads(text)["cells"]
                original = json.loads(before[name])["cells"]
                assert code_sha256(cells) == code_sha256(original)

        repository.write_address(old, copy)
        assert before == {
            name: (copy / name).read_text(encoding="utf-8") for name in files
        }

    def test_a_similar_name_is_left_alone(self):
        old = repository.Address.parse("https://github.com/a/b")
        new = repository.Address.parse("https://github.com/c/d")
        text = "github.com/a/b github.com/a/b-two github.com/a/b.git, github.com/a/b."
        assert repository.rewrite(text, old, new) == (
            "github.com/c/d github.com/a/b-two github.com/c/d.git, github.com/c/d."
        )


def test_the_continuous_check_runs_both_commands():
    script = ROOT / ".ci" / "run"
    assert script.stat().st_mode & 0o111
    lines = script.read_text(encoding="utf-8").splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert "set -euo pipefail" in lines
    test = lines.index("make --no-print-directory test")
    assert test < lines.index("make --no-print-directory book")
    subprocess.run(["bash", "-n", str(script)], check=True)
