"""Plain `pytest` runs notebooks as this repository promises: tried on three of them.

A folder gets the repository's own conftest.py and pytest options and three small
notebooks; what their cells see and which of them fail is what the options do.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from a_chapter import code, make_book, shown, stream

ROOT = Path(__file__).resolve().parents[1]
CHECK = ("nbval-check-output",)


def see(name: str) -> str:
    return f'import os\nprint(os.environ.get("{name}"))'


ENVIRONMENT = [
    code(see("NBS_QUICK"), stream("1\n"), tags=CHECK),
    code(see("OMP_NUM_THREADS"), stream("1\n"), tags=CHECK),
    code(see("NBS_DATA"), stream("None\n"), tags=CHECK),
    code(
        "import errno\nimport urllib.request\n"
        "try:\n    urllib.request.urlopen('http://example.org', timeout=30)\n"
        "except OSError as error:\n    print(errno.errorcode[error.reason.errno])",
        stream("ECONNREFUSED\n"),  # refused at once: there is no network
        tags=CHECK,
    ),
    code(
        # Formatted as the kernel's own backend would draw it, into the page.
        "import os\nos.environ['MPLBACKEND'].rsplit('.', 1)[-1]",
        shown(text_plain="'backend_inline'"),
        tags=CHECK,
    ),
]
ONE_KERNEL = [code("x = 0")] + [
    code(f"x += 1\nassert x == {n}\nx", shown(text_plain=str(n)), tags=CHECK)
    for n in range(1, 9)
]
COMPARED = [
    # What differs in every run and is forgiven
    code("import sys\nprint('bar', file=sys.stderr)\n1", shown(text_plain="1")),
    code(
        "import sys\nprint('bar', file=sys.stderr)\nprint(1)",
        stream("1\n"),
        tags=CHECK,
    ),
    code(
        "from IPython.display import SVG, display\n"
        "display({'image/svg+xml': '<svg>new</svg>', 'text/plain': 'a'}, raw=True)",
        shown(**{"image_svg+xml": "<svg>old</svg>", "text_plain": "a"}),
        tags=CHECK,
    ),
    code(
        "display({'text/html': '<b id=\"T_0a1b2_row\">1</b>'}, raw=True)",
        shown(text_html='<b id="T_fffff_row">1</b>'),
        tags=CHECK,
    ),
    # What must be the same and is not: each of these fails
    code("1 + 1", shown(text_plain="3"), tags=CHECK),
    code("print(1)", stream("2\n"), tags=CHECK),
    code(
        "display({'text/html': '<b>1</b>'}, raw=True)",
        shown(text_html="<b>2</b>"),
        tags=CHECK,
    ),
    code("1 / 0"),
    # Not tagged: only has to run
    code("1 + 1", shown(text_plain="3")),
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """Run plain `pytest` over the three notebooks and return what it printed."""
    root = tmp_path_factory.mktemp("book")
    for file in ("conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / file, root)
    (root / "tests").mkdir()
    (root / "tests" / "test_unit.py").write_text(
        "import os\n\n\ndef test_unit():\n    assert 'NBS_QUICK' not in os.environ\n"
    )
    for name, cells in (
        ("environment", ENVIRONMENT),
        ("one_kernel", ONE_KERNEL),
        ("compared", COMPARED),
    ):
        make_book(root, cells, f"old/{name}")
    mine = ("PYTEST", "OMP_NUM_THREADS")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(mine)}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", "--color=no"],
        cwd=root,
        env=environment | {"NBS_QUICK": "0", "NBS_DATA": "elsewhere"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    return done.stdout


def cells_that(report: str, verdict: str, notebook: str) -> list[int]:
    pattern = rf"{verdict} .*{notebook}(?:\.|::)ipynb::Cell (\d+)"
    return sorted({int(n) for n in re.findall(pattern, report)})


def test_kernels_are_quick_single_threaded_and_without_a_network(report):
    assert cells_that(report, "PASSED", "environment") == [0, 1, 2, 3, 4], report


def test_units_are_not_quick(report):
    assert "PASSED tests/test_unit.py::test_unit" in report


def test_all_cells_of_a_notebook_share_one_kernel_although_two_workers_run(report):
    assert "created: 2/2 workers" in report
    assert cells_that(report, "PASSED", "one_kernel") == list(range(9)), report
    workers = re.findall(r"\[(gw\d)\].*one_kernel.*Cell", report)
    assert len(set(workers)) == 1


def test_only_what_must_be_the_same_is_compared(report):
    assert cells_that(report, "PASSED", "compared") == [0, 1, 2, 3, 8], report
    assert cells_that(report, "FAILED", "compared") == [4, 5, 6, 7], report


def test_a_failed_cell_is_named_by_its_place_in_the_notebook(report):
    """nbval counts code cells from 0; `compared` has no other cells."""
    assert "old/compared.ipynb: nbval's Cell 7 is cell 8 (`1 / 0`)" in report
