"""What the package says of itself: its requirements as pip reads them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from packaging.requirements import Requirement
from site_helpers import ROOT


def read_metadata(clone: Path) -> list[str]:
    """Return what the package says of itself, as pip reads it from a fresh clone.

    Args:
        clone: an empty folder to do it in.
    """
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, clone)
    shutil.copytree(ROOT / "requirements", clone / "requirements")
    (clone / "nbs_utils").mkdir()
    (clone / "nbs_utils" / "__init__.py").touch()
    code = (
        "from setuptools.build_meta import prepare_metadata_for_build_wheel as write\n"
        "print(write('.'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=clone,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    folder = clone / done.stdout.strip().splitlines()[-1]
    return (folder / "METADATA").read_text(encoding="utf-8").splitlines()


def required(metadata: list[str], extras: tuple[str, ...]) -> list[Requirement]:
    """Return what an installation with these extras asks for."""
    lines = [line.partition(": ")[2] for line in metadata if "Requires-Dist" in line]
    asked = [Requirement(line) for line in lines]
    return [
        one
        for one in asked
        if one.marker is None
        or any(one.marker.evaluate({"extra": extra}) for extra in extras)
    ]


def read_requirements(path: Path) -> list[Requirement]:
    """Return the requirements of a file, comments left out."""
    lines = (line.partition("#")[0].strip() for line in path.read_text().splitlines())
    return [Requirement(line) for line in lines if line]
