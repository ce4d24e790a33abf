"""How the tests run: units as they are, every notebook in quick mode without a network.

`pytest` alone runs both (see [tool.pytest.ini_options] in pyproject.toml). nbval runs
the notebooks; one worker takes all cells of a notebook, in order, in one kernel.
"""

import json
import os
import re
import tempfile
from pathlib import Path
from unittest import mock

import pytest

# Two workers share the machine; more threads in each would only slow both down. It
# must be set before torch is imported, here and in the kernels.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# No window, and none of the choices that a person has made in their shell.
os.environ["MPLBACKEND"] = "Agg"
for _name in ("NBS_QUICK", "NBS_DEVICE", "NBS_CARDS", "NBS_DATA"):
    os.environ.pop(_name, None)

# A port where nothing listens: a notebook that needs a connection fails at once.
_NOWHERE = "http://127.0.0.1:9"
_EMPTY = Path(tempfile.gettempdir()) / "nbs-no-weights"
KERNEL_ENVIRONMENT = {
    "NBS_QUICK": "1",
    "MPLBACKEND": "",  # the kernel's own: figures in the page
    "TORCH_HOME": str(_EMPTY),  # weights that happen to be here prove nothing
    "HF_HUB_OFFLINE": "1",
    "NO_PROXY": "",
    "no_proxy": "",
    **{
        name: _NOWHERE
        for scheme in ("http_proxy", "https_proxy", "all_proxy")
        for name in (scheme, scheme.upper())
    },
}

# nbval compares every form of a checked output but PNG. An SVG depends on the version
# of matplotlib, and the stored outputs hold no stderr (`nbs record` drops it).
_NOT_COMPARED = ("image/svg+xml", "stderr")


def _is_cell(item: pytest.Item) -> bool:
    return type(item).__name__ == "IPyNbCell"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item):
    """Start the kernel of a notebook in quick mode; unit tests stay as they are."""
    if not _is_cell(item):
        return (yield)
    with mock.patch.dict(os.environ, KERNEL_ENVIRONMENT):
        return (yield)


def pytest_collection_modifyitems(items):
    """Tell nbval which forms of an output not to compare."""
    for notebook in {item.parent for item in items if _is_cell(item)}:
        notebook.skip_compare += _NOT_COMPARED
        # pandas gives the parts of a styled table random names.
        notebook.sanitize_patterns[r"T_[0-9a-f]{5}"] = "T_table"


def pytest_terminal_summary(terminalreporter):
    """Say which cells failed, and how long each notebook took."""
    name_failed_cells(terminalreporter)
    seconds: dict[str, float] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            name, found, _ = getattr(report, "nodeid", "").partition(".ipynb::")
            if found and hasattr(report, "duration"):
                seconds[name] = seconds.get(name, 0) + report.duration
    if not seconds:
        return
    terminalreporter.section("seconds of each notebook, quick")
    for name, taken in sorted(seconds.items(), key=lambda pair: -pair[1]):
        slow = "  over 30 s" if taken > 30 else ""
        terminalreporter.write_line(f"{taken:6.1f}  {name}{slow}")


def name_failed_cells(terminalreporter) -> None:
    """Name cells as `nbs check` does: position from 1 and first line.

    nbval counts code cells alone, from 0, which no editor shows.
    """
    failed = [
        found.groups()
        for kind in ("failed", "error")
        for report in terminalreporter.stats.get(kind, [])
        if (
            found := re.match(
                r"(.+\.ipynb)::Cell (\d+)$", getattr(report, "nodeid", "")
            )
        )
    ]
    if failed:
        terminalreporter.section("cells that failed")
    for path, number in dict.fromkeys(failed):
        cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
        code = [i for i, cell in enumerate(cells) if cell["cell_type"] == "code"]
        index = code[int(number)]
        lines = "".join(cells[index]["source"]).strip().splitlines() or [""]
        terminalreporter.write_line(
            f"{path}: nbval's Cell {number} is cell {index + 1} (`{lines[0][:50]}`)"
        )
