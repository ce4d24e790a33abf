"""The names of a notebook: each leads where it should, whatever was imported before."""

import importlib
import subprocess
import sys

import pytest

import nbs_utils as nbs


@pytest.mark.parametrize("name", nbs._HOME)
def test_a_name_is_what_its_module_holds(name):
    module = importlib.import_module(f"nbs_utils.{nbs._HOME[name]}")
    assert getattr(nbs, name) is getattr(module, name)
    assert callable(getattr(nbs, name))


@pytest.mark.parametrize("name", nbs._ROOMS)
def test_a_shelf_is_a_module(name):
    assert getattr(nbs, name) is importlib.import_module(f"nbs_utils.{name}")


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(AttributeError, match="no 'lod_data'. It offers: .*load_data"):
        _ = nbs.lod_data


def test_a_function_survives_the_import_of_the_module_of_its_name():
    code = "import nbs_utils.scoring.evaluation, nbs_utils as nbs; print(callable(nbs.evaluate))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "True\n"


def test_the_package_itself_imports_nothing_heavy():
    code = "import nbs_utils, sys; print({'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
