"""The page of recordings, the line for an older text, and a readable failed build."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from bs4 import BeautifulSoup
from site_helpers import ROOT, notebooks

sys.path.insert(0, str(ROOT / "book" / "_ext"))

import build_errors
import recorded
import recordings

RUN = {
    "tier": "gpu",
    "device": "NVIDIA T4",
    "date": "2026-03-05",
    "seconds": 301.0,
    "versions": {"torch": "2.11.0+cu128", "numpy": "2.1.3"},
    "cards": ["tiny-seed0.json", "tiny-seed1.json"],
}


def test_a_row_of_a_chapter_says_how_it_was_recorded():
    assert recordings.chapter_row({"recorded": RUN}) == [
        "Full run",
        "NVIDIA T4",
        "5 March 2026",
        "5 min",
        "numpy 2.1.3, torch 2.11.0",
        "tiny-seed0, tiny-seed1",
    ]
    assert recordings.chapter_row({})[0] == "Draft"
    assert len(recordings.chapter_row({})) == len(recordings.HEADINGS) - 1


def test_a_row_of_a_card_says_what_is_behind_the_number():
    (path, *_) = sorted((ROOT / "results").glob("*.json"))
    card = json.loads(path.read_text())
    row = recordings.card_row(path.stem, card)
    assert len(row) == len(recordings.CARD_HEADINGS)
    assert row[4] == f"{100 * card['test']['top1']:.1f} %"
    assert row[8] == card["commit"][:10]
    unknown = {**card, "test": None, "commit": None}
    assert recordings.card_row("x", unknown)[4::4] == ["", ""]


def test_the_page_lists_every_chapter_and_every_card(site):
    page = BeautifulSoup(site.page("chapters/recordings"), "html.parser")
    chapters, cards = page.select("article table")
    links = [a["href"] for a in chapters.select("tbody a")]
    assert links == [f"{name.removeprefix('chapters/')}.html" for name in notebooks()]
    assert all(a.get_text() for a in chapters.select("tbody a"))  # the titles
    names = [row.find("td").get_text(strip=True) for row in cards.select("tbody tr")]
    assert names == sorted(path.stem for path in (ROOT / "results").glob("*.json"))


def test_the_page_says_that_a_text_was_written_for_an_earlier_recording():
    earlier = {"date": "2026-01-02", "device": "CPU, 2 cores", "tier": "cpu"}
    line = recorded.recorded_line(RUN, "model", earlier).astext()
    assert "written for the recording of 2 January 2026 (CPU, 2 cores)" in line
    assert "earlier" not in recorded.recorded_line(RUN, "model").astext()
    assert "The text was written" not in recorded.recorded_line(RUN).astext()


LOG = """\
Running Jupyter-Book v1.0.4
\x1b[91m{root}/book/chapters/a.ipynb:120031: WARNING: undefined label: 'fig-b'\x1b[39;49;00m
reading sources... [100%] chapters/a
{root}/book/chapters/a.ipynb:120031: WARNING: undefined label: 'fig-b'
Traceback (most recent call last):
  File "sphinx.py", line 3, in build
ValueError: family.yml: X builds on 'Nobody', which is not in the file.
Traceback (most recent call last):
  File "jupyter_book.py", line 7, in main
RuntimeError: There was an error in building your book. Look above for the cause.
"""


def test_an_error_of_several_lines_is_told_whole():
    log = (
        "ERROR: (a) is missing a solution-end\n  solution-start at line: 930011\nTrace"
    )
    assert build_errors.summary(log, ROOT) == [
        "ERROR: (a) is missing a solution-end",
        "  solution-start at cell 93, line 11",
    ]


def test_a_failed_build_is_told_in_its_warnings_and_last_error():
    log = LOG.format(root=ROOT)
    assert build_errors.summary(log, ROOT) == [
        "chapters/a.ipynb, cell 12, line 31: WARNING: undefined label: 'fig-b'",
        "ValueError: family.yml: X builds on 'Nobody', which is not in the file.",
    ]
    assert build_errors.summary("one\n\ntwo\n", ROOT) == ["one", "two"]


@pytest.mark.parametrize("build", ["exit 1", "exit 0"])
def test_make_book_says_where_the_log_is(tmp_path, build):
    """`make book` with a builder that fails, or does not."""
    stamps = tmp_path / "venv" / "bin"
    stamps.mkdir(parents=True)
    for name in (".python", ".book-ready"):
        (tmp_path / "venv" / name).touch()
    tool = stamps / "jupyter-book"
    tool.write_text(f"#!/bin/sh\necho 'a.md:1: WARNING: no such thing'\n{build}\n")
    tool.chmod(0o755)
    (stamps / "python").symlink_to(sys.executable)
    log = tmp_path / "build.log"
    done = subprocess.run(
        ["make", "--no-print-directory", "book", f"VENV={tmp_path}/venv", f"LOG={log}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if build == "exit 0":
        assert done.returncode == 0, done.stderr
        assert "file://" in done.stdout
        return
    assert done.returncode != 0
    assert "a.md:1: WARNING: no such thing" in done.stderr
    assert f"The whole log: {log}" in done.stderr
    assert log.read_text().startswith("a.md:1:")
