"""Print the whole book as one PDF: book/_build/pdf/book.pdf.

    python tools/pdf.py

Builds the book as a single page, then lets Chromium print it, with its mathematics,
an outline and tags for screen readers.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
from browser import NoBrowser, find_chromium, launch_arguments

BOOK = Path(__file__).resolve().parent.parent / "book"
SINGLE = BOOK / "_build" / "singlehtml"


def build_single_page() -> Path:
    """Build the book as one page and return its file.

    The root page lies in a subfolder, and addresses of style sheets and images are
    written for the folder above it: the page is moved there.
    """
    command = [Path(sys.executable).parent / "jupyter-book", "build"]
    done = subprocess.run(
        [*command, str(BOOK), "--builder", "singlehtml", "-W", "-n", "--keep-going"],
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    page = SINGLE / "index.html"
    shutil.copy(SINGLE / "chapters" / "index.html", page)
    return page


def print_page(page: Path, target: Path) -> None:
    """Let Chromium print a page; wait for its mathematics."""
    target.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        [
            find_chromium(),
            *launch_arguments(),
            "--headless",
            "--disable-gpu",
            "--no-pdf-header-footer",
            "--generate-pdf-document-outline",
            "--virtual-time-budget=60000",
            f"--print-to-pdf={target}",
            page.as_uri(),
        ],
        check=True,
        capture_output=True,
    )


def main() -> int:
    """Make the PDF; return the exit status."""
    target = BOOK / "_build" / "pdf" / "book.pdf"
    try:
        find_chromium()
    except NoBrowser as error:
        print(error, file=sys.stderr)
        return 1
    print_page(build_single_page(), target)
    print(f"{target} ({target.stat().st_size / 1e6:.1f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
