"""A notebook runs where Colab would run it: nothing of the book is there yet.

The environment is bare: links to the packages that Colab has (its own list is public:
googlecolab/backend-info), no `nbs_utils`, no Jupyter Book. The folder is empty. The
set-up cell installs the package from the repository's history as pip would do from the
public address, which git is told to find here; the notebook is not changed.
"""

import json
import os
import re
import subprocess
import sys
import venv
from importlib import metadata
from pathlib import Path

import pytest

from nbs_utils.authoring.book import Book
from nbs_utils.authoring.notebook import repository_root, source

pytest.importorskip("setuptools")
ROOT = repository_root(__file__)
# What a chapter may import and Colab has; with what these need themselves.
ON_COLAB = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "matplotlib",
    "einops",
    "tqdm",
    "PyYAML",
    "scikit-learn",
    "timm",
    "ipykernel",
    "pip",
    "setuptools",
)
RUNNER = """\
import json, sys
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec
from nbclient import NotebookClient

class Manager(AsyncKernelManager):
    @property
    def kernel_spec(self):
        argv = [sys.argv[1], "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=argv, name="python3")

notebook = nbformat.read(sys.argv[2], as_version=4)
end = nbformat.v4.new_code_cell(sys.argv[3])
notebook.cells.append(end)
client = NotebookClient(notebook, kernel_manager_class=Manager, timeout=300)
client.execute()
print(json.dumps([output.get("text", "") for output in end.outputs]))
"""
# Asked in the kernel after the last cell: where the package came from.
WHERE = "import nbs_utils; print(nbs_utils.__file__); print(nbs_utils.list_recipes())"


def with_what_they_need(names: tuple[str, ...]) -> dict[str, metadata.Distribution]:
    """Return the installed distributions of these names and of all they require."""
    found: dict[str, metadata.Distribution] = {}
    wanted = list(names)
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found or name == "nbs-utils":
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue  # an extra, or for another system
        for requirement in found[name].requires or ():
            if "extra ==" not in requirement:
                wanted.append(re.match(r"[\w.-]+", requirement)[0])
    return found


def make_bare_environment(folder: Path) -> tuple[Path, Path]:
    """Make an environment of links; return its python and its site-packages."""
    venv.EnvBuilder(symlinks=os.name != "nt").create(folder)
    python = folder / "bin" / "python"
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    packages = folder / "lib" / version / "site-packages"
    for distribution in with_what_they_need(ON_COLAB).values():
        tops = {file.parts[0] for file in distribution.files or ()}
        for top in tops - {"..", "__pycache__", "bin"}:
            target = Path(distribution.locate_file(top))
            if target.exists() and not (packages / top).exists():
                (packages / top).symlink_to(target)
    return python, packages


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Run the shortest chapter in the bare environment, from an empty folder."""
    if os.name == "nt" or not (ROOT / ".git").exists():
        pytest.skip("needs a clone with its git history, and links")
    book = Book.load(ROOT)
    shortest = min(
        (chapter for chapter in book.chapters if chapter.kind),
        key=lambda chapter: sum(len(source(c)) for _, c in chapter.code_cells()),
    )
    place = tmp_path_factory.mktemp("colab")
    python, packages = make_bare_environment(place / "python")
    before = {path.name for path in packages.iterdir()}
    (place / "empty").mkdir()
    own = ("PYTHON", "NBS_", "MPL", "PIP_", "GIT_", "VIRTUAL_ENV")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    # pip's own configuration (a mirror, say) stays what it is.
    environment |= {k: v for k, v in os.environ.items() if k.startswith("PIP_")}
    environment |= {
        "NBS_QUICK": "1",
        "HOME": str(place / "home"),
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        # The public address means this clone.
        "GIT_CONFIG_COUNT": "2",
        "GIT_CONFIG_KEY_0": f"url.{ROOT.as_uri()}.insteadOf",
        "GIT_CONFIG_VALUE_0": book.repository,
        "GIT_CONFIG_KEY_1": "safe.directory",
        "GIT_CONFIG_VALUE_1": "*",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    }
    if int(metadata.version("setuptools").split(".")[0]) >= 77:
        # Build with the setuptools that is linked, and let no one use a network: a
        # quick run needs none. (0 is what switches isolation off: the variable stands
        # for the value of `build_isolation`.)
        environment["PIP_NO_BUILD_ISOLATION"] = "0"
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            environment[name] = environment[name.upper()] = "http://127.0.0.1:9"
    (place / "home").mkdir()
    missing = subprocess.run(
        [python, "-c", "import nbs_utils"],
        env=environment,
        cwd=place,
        capture_output=True,
        check=False,
    )
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(python), str(shortest.path), WHERE],
        env=environment,
        cwd=place / "empty",
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    return missing.returncode, done, packages, before


def test_the_environment_had_no_package_of_the_book(ran):
    missing, _, packages, before = ran
    assert missing == 1
    assert not any("nbs_utils" in name or "jupyter_book" in name for name in before)
    assert (packages / "torch").is_symlink()


def test_every_cell_ran_with_the_package_that_the_set_up_cell_installed(ran):
    _, done, packages, _ = ran
    assert done.returncode == 0, done.stderr[-4000:]
    said = "".join(json.loads(done.stdout.splitlines()[-1]))
    assert str(packages / "nbs_utils" / "__init__.py") in said
    assert "'cifar'" in said  # the recipes came along


def test_nothing_that_was_there_was_replaced(ran):
    _, _, packages, before = ran
    after = {path.name for path in packages.iterdir()} - {"__pycache__"}
    assert before <= after
    assert {name.split("-")[0] for name in after - before} == {"nbs_utils"}
    assert all(
        (packages / name).is_symlink() for name in before if name != "README.txt"
    )
