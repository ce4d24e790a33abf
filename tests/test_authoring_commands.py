"""The commands for authors, as they are typed."""

import json
import subprocess
from pathlib import Path

import pytest
from a_chapter import code, make_book, markdown

from nbs_utils.authoring import lock
from nbs_utils.cli.main import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def nbs(tmp_path, monkeypatch, capsys):
    """Run `nbs` in a book of one chapter; return (status, output, errors)."""
    make_book(tmp_path, [markdown("# Tiny (2020)"), code("print(1)")])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lock, "LOCK", tmp_path / "record.lock")

    def run(*words: str) -> tuple[int, str, str]:
        status = main(list(words))
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["tidy"], "Name one chapter, or give --all."),
        (["tidy", "tiny", "--all"], "Name one chapter, or give --all."),
        (["tidy", "--all", "--prose-read"], "one chapter at a time"),
        (["record"], "Name one chapter, or give --all."),
        (["record", "--all", "--quick"], "--quick writes nothing"),
        (["record", "tiny", "--every"], "--every belongs to --all"),
        (["new", "tiny"], "write a folder and a name in lower case"),
        (["check", "tyni"], "Did you mean old/tiny"),
    ],
)
def test_words_that_cannot_be_used_are_answered_in_a_sentence(nbs, words, said):
    status, out, err = nbs(*words)
    assert (status, out) == (2, "")
    assert said in err


def test_a_chapter_is_recorded_and_carried_away(nbs, tmp_path):
    assert nbs("tidy", "tiny") == (0, "Tidied old/tiny.\n", "")
    status, out, _ = nbs("record", "tiny", "--archive", "out/one.tar.gz")
    assert (status, "cell 2 (`print(1)`)" in out) == (0, True)
    assert (tmp_path / "out" / "one.tar.gz").stat().st_size > 0
    status, out, _ = nbs("record", "--all")
    assert status == 0
    assert out.startswith("Every chapter's code is the recorded one")
    status, out, _ = nbs("record", "--all", "--every")
    assert status == 0
    assert "1 of 1 chapters recorded" in out


def test_prose_that_was_read_is_said_on_the_command_line(nbs, tmp_path):
    path = tmp_path / "chapters" / "old" / "tiny.ipynb"
    raw = json.loads(path.read_text())
    raw["metadata"]["nbs"]["text_of"] = {"date": "2026-11-20"}
    path.write_text(json.dumps(raw))
    assert nbs("tidy", "tiny", "--prose-read")[0] == 0
    assert "text_of" not in path.read_text()


def test_make_records_all_without_installing_where_an_environment_is_named():
    words = ["NBS=python -m nbs_utils", "ALL=1", "ARCHIVE=out/all.tar.gz"]
    done = subprocess.run(
        ["make", "--no-print-directory", "-n", "record-all", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (
        'python -m nbs_utils record --all --every --archive "out/all.tar.gz"'
    )
