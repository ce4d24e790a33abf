"""Fixtures of the tests in this folder; how pytest runs stands in ../conftest.py."""

import pytest
from site_helpers import Site, build_site


@pytest.fixture(scope="session")
def site(tmp_path_factory) -> Site:
    """The book, built once for all processes of a run."""
    return build_site(tmp_path_factory.getbasetemp())
