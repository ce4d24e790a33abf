"""Recording: one clean run, what fails in it, and many chapters one after another."""

import json
import tarfile
import threading

import pytest
from a_chapter import code, make_book, markdown, stream

from nbs_utils.authoring import (
    export,
    lock,
    notebook,
    record,
    record_all,
    rules_outputs,
)
from nbs_utils.authoring.hashing import code_sha256, outputs_sha256
from nbs_utils.authoring.notebook import AuthoringError, find_chapter
from nbs_utils.authoring.ruff import ruff_command

needs_ruff = pytest.mark.skipif(
    ruff_command() is None, reason="ruff is not installed: pip install ruff"
)


def silent(line):
    """Say nothing."""


@pytest.fixture(autouse=True)
def own_lock(tmp_path_factory, monkeypatch):
    """These recordings wait for each other alone, not for others of this machine."""
    monkeypatch.setattr(lock, "LOCK", tmp_path_factory.mktemp("lock") / "record.lock")


# ---- Recording

RUN = """\
import json
import os
import sys
from pathlib import Path

print("noise", file=sys.stderr)
print(Path.cwd().name, os.environ.get("NBS_QUICK"))
card = Path(os.environ["NBS_CARDS"]) / "tiny.json"
_ = card.write_text(json.dumps({"top1": 0.5}))
"""


def recorded(tmp_path, *sources: str, quick: bool = False) -> tuple[dict, list[str]]:
    made = [markdown("# Tiny (2020)"), *(code(s) for s in sources)]
    chapter, _ = make_book(tmp_path, made)
    lines: list[str] = []
    record.record("tiny", tmp_path, quick=quick, say=lines.append)
    return json.loads(chapter.path.read_text()), lines


def test_record_stores_one_clean_run_and_says_where_it_was_made(tmp_path):
    raw, lines = recorded(tmp_path, RUN, "print(1)\nprint(2)", '"a\\nb"')
    one, two, three = raw["cells"][1:]
    assert [cell["execution_count"] for cell in (one, two, three)] == [1, 2, 3]
    assert one["outputs"] == [
        {"name": "stdout", "output_type": "stream", "text": ["old None\n"]}
    ]
    assert two["outputs"][0]["text"] == ["1\n", "2\n"]  # one stream, not two
    assert three["outputs"][0]["data"] == {"text/plain": ["'a\\nb'"]}
    assert "noise" in "".join(lines)  # dropped, but not in silence
    nbs = raw["metadata"]["nbs"]
    assert nbs["code_sha256"] == code_sha256(raw["cells"])
    assert nbs["recorded"]["tier"] in ("cpu", "gpu")
    assert nbs["recorded"]["seconds"] > 0
    keys = {"tier", "device", "date", "seconds", "versions", "cards"}
    assert set(nbs["recorded"]) == keys
    assert nbs["recorded"]["cards"] == ["tiny.json"]
    assert nbs["outputs_sha256"] == outputs_sha256(raw["cells"])
    assert raw["metadata"]["language_info"] == {"name": "python"}
    assert all("execution" not in cell["metadata"] for cell in raw["cells"])
    assert json.loads((tmp_path / "results" / "tiny.json").read_text())["top1"] == 0.5


def test_a_cell_that_fails_leaves_notebook_and_cards_untouched(tmp_path):
    made = [markdown("# Tiny (2020)"), code(RUN), code("1 / 0"), code("print(3)")]
    chapter, _ = make_book(tmp_path, made)
    before = chapter.path.read_bytes()
    with pytest.raises(AuthoringError, match="nothing was written") as caught:
        record.record("tiny", tmp_path, say=silent)
    assert "ZeroDivisionError" in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert chapter.path.read_bytes() == before
    assert not (tmp_path / "results").exists()


def test_a_kernel_that_dies_is_reported_in_a_sentence(tmp_path):
    with pytest.raises(
        AuthoringError, match=r"old/tiny, cell 2 \(`import os`\): the kernel died"
    ):
        recorded(tmp_path, "import os\n\nos._exit(1)")


def test_a_cell_that_takes_too_long_is_reported(tmp_path):
    make_book(tmp_path, [code("while True:\n    pass")])
    with pytest.raises(AuthoringError, match="timed out"):
        record.record("tiny", tmp_path, timeout=1, say=silent)


def test_a_quick_run_writes_nothing(tmp_path):
    made = [markdown("# Tiny (2020)"), code("assert __import__('os')\n" + RUN)]
    chapter, _ = make_book(tmp_path, made)
    before = chapter.path.read_bytes()
    done = record.record("tiny", tmp_path, quick=True, say=silent).chapter
    texts = [text for _, text in rules_outputs.texts(done.cells[1])]
    assert "old 1\n" in texts
    assert chapter.path.read_bytes() == before
    assert not (tmp_path / "results").exists()


@needs_ruff
def test_code_that_the_formatter_would_change_is_not_recorded(tmp_path):
    with pytest.raises(AuthoringError, match="is not formatted"):
        recorded(tmp_path, "x=1")


@pytest.fixture
def no_kernel(monkeypatch):
    """Replace the run by one that edits the chapter while it lasts."""

    def prepare(edit):
        def execute(chapter, *_):
            done = json.loads(json.dumps(chapter.raw))
            for cell in done["cells"]:
                if cell["cell_type"] == "code":
                    cell["outputs"] = [stream("new\n")]
            raw = json.loads(chapter.path.read_text())
            edit(raw["cells"])
            chapter.path.write_text(json.dumps(raw))
            return done

        monkeypatch.setattr(record, "execute", execute)

    return prepare


def test_prose_that_was_edited_during_the_run_is_kept(tmp_path, no_kernel):
    def edit(made):
        made[0]["source"] = "# Tiny (2020)\n\nBetter words."
        made.append(markdown("One more."))

    no_kernel(edit)
    raw, _ = recorded(tmp_path, "print(1)")
    assert "".join(raw["cells"][0]["source"]).endswith("Better words.")
    assert raw["cells"][1]["outputs"][0]["text"] == ["new\n"]
    assert len(raw["cells"]) == 3


def test_code_that_was_edited_during_the_run_is_not_overwritten(tmp_path, no_kernel):
    no_kernel(lambda made: made[1].update(source="print(2)"))
    with pytest.raises(AuthoringError, match="edited while it ran.*is kept in runs/"):
        recorded(tmp_path, "print(1)")
    chapter = find_chapter("tiny", tmp_path)
    assert notebook.source(chapter.cells[1]) == "print(2)"
    kept = tmp_path / "runs" / "recorded" / "old-tiny.ipynb"
    assert "print(1)" in kept.read_text()


# ---- What is refused before a run, and how failures read


def test_a_stale_or_missing_zoo_is_named_before_the_run(tmp_path):
    chapter, _ = make_book(tmp_path)
    for quick in (True, False):
        with pytest.raises(
            AuthoringError, match="no module of old/tiny yet.*nbs export"
        ):
            record.record("tiny", tmp_path, quick=quick, say=silent)
    export.export(tmp_path)
    text = chapter.path.read_text().replace("nn.Linear(4", "nn.Linear(5")
    chapter.path.write_text(text)
    with pytest.raises(
        AuthoringError, match="is not what old/tiny exports.*nbs export"
    ):
        record.record("tiny", tmp_path, say=silent)


def test_a_failure_names_the_cell_the_error_and_the_way_to_it(tmp_path):
    source = "def half(n):\n    return n / 0\n\n\nhalf(3)"
    make_book(tmp_path, [markdown("# Tiny (2020)"), code("x = 1"), code(source)])
    with pytest.raises(AuthoringError) as caught:
        record.record("tiny", tmp_path, say=silent)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("old/tiny, cell 3 (`def half(n):`): the cell failed")
    assert lines[1] == "  ZeroDivisionError: division by zero"
    assert any("return n / 0" in line for line in lines[2:])
    assert len(lines) < 12


def test_a_quick_run_shows_its_outputs_briefly(tmp_path):
    many = code("for n in range(9):\n    print('line', n)")
    picture = code(
        "from IPython.display import display\n"
        "display({'image/svg+xml': '<svg></svg>', 'text/plain': 'x'}, raw=True)"
    )
    make_book(tmp_path, [markdown("# Tiny (2020)"), many, picture])
    lines: list[str] = []
    record.record("tiny", tmp_path, quick=True, say=lines.append)
    shown_lines = [line.strip() for line in lines]
    assert shown_lines.count("line 3") == 1
    assert "line 4" not in shown_lines
    assert "… 5 more lines" in shown_lines
    assert "(a figure)" in shown_lines
    assert any("cell 2 (`for n in range(9):`)" in line for line in lines)


# ---- Text and recording


def with_text(tmp_path, monkeypatch, new: str) -> tuple[dict, list[str]]:
    """Record a chapter whose text says 36.2 % (and 4, in code) for new outputs."""
    made = [
        markdown("# Tiny (2020)"),
        code("4", stream("top-1 0.362\n")),
        markdown("It reaches 36.2 % with 4 layers. It took 12 steps and 17.5 % of it."),
    ]
    made[2]["metadata"]["nbs"] = {"numbers": {"It took 12": "an example"}}
    make_book(tmp_path, made)

    def execute(chapter, *_):
        done = json.loads(json.dumps(chapter.raw))
        done["cells"][1]["outputs"] = [stream(new)]
        return done

    monkeypatch.setattr(record, "execute", execute)
    lines: list[str] = []
    record.record("tiny", tmp_path, say=lines.append)
    return find_chapter("tiny", tmp_path).nbs, lines


def test_sentences_that_no_longer_hold_are_listed_and_noted(tmp_path, monkeypatch):
    nbs, lines = with_text(tmp_path, monkeypatch, "top-1 0.411\n")
    assert "1 sentences do not agree with the new outputs:" in lines
    assert "  cell 3: It reaches 36.2 % with 4 layers." in lines
    assert nbs["text_of"]["date"] == "2026-11-20"
    assert nbs["text_of"]["sentences"] == ["It reaches 36.2 % with 4 layers."]


def test_a_recording_with_the_same_results_leaves_the_text_alone(tmp_path, monkeypatch):
    nbs, lines = with_text(tmp_path, monkeypatch, "top-1 0.3621\n")
    assert "text_of" not in nbs
    assert not any("do not agree" in line for line in lines)


def test_the_number_must_hold_where_it_stood(tmp_path, monkeypatch):
    """That 36.2 % turns up somewhere else in the outputs is no agreement."""
    nbs, _ = with_text(tmp_path, monkeypatch, "top-1 0.411\nloss 0.362\n")
    assert "text_of" in nbs


# ---- One at a time, and many


def test_a_second_recording_waits_and_says_for_whom(tmp_path):
    place = tmp_path / "machine.lock"
    lines, order = [], []
    entered, leave = threading.Event(), threading.Event()

    def first():
        with lock.one_recording("old/first", silent, place):
            entered.set()
            leave.wait(20)
            order.append("first")

    def heard(line):
        lines.append(line)
        leave.set()

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(20)
    with lock.one_recording("old/second", heard, place):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]
    assert "Waiting for old/first (process " in lines[0]
    assert ", since " in lines[0]
    assert not place.with_suffix(".json").exists()


def test_what_was_left_by_a_process_that_died_holds_nobody_up(tmp_path):
    place = tmp_path / "machine.lock"
    place.touch()
    place.with_suffix(".json").write_text("{")
    with lock.one_recording("old/tiny", pytest.fail, place):
        assert "old/tiny" in place.with_suffix(".json").read_text()


def three_chapters(tmp_path):
    """Write three chapters: one that fails, one with a card, one that is recorded."""
    make_book(tmp_path, [markdown("# A (2020)"), code("1 / 0")], "old/a")
    make_book(tmp_path, [markdown("# B (2020)"), code(CARD)], "old/b")
    make_book(tmp_path, [markdown("# C (2020)"), code("1")], "old/c")
    for name in ("a", "b"):
        path = tmp_path / "chapters" / "old" / f"{name}.ipynb"
        raw = json.loads(path.read_text())
        raw["metadata"]["nbs"]["code_sha256"] = "0" * 64
        path.write_text(json.dumps(raw))
    toc = (tmp_path / "_toc.yml").read_text().splitlines()
    toc[-3:] = reversed(toc[-3:])  # c, b, a: the order of the book, not of the names
    (tmp_path / "_toc.yml").write_text("\n".join(toc) + "\n")


CARD = """\
import json
import os
from pathlib import Path

card = {"name": "bnet", "test": {"top1": 0.731}}
_ = (Path(os.environ["NBS_CARDS"]) / "b.json").write_text(json.dumps(card))
"""


def test_all_stale_chapters_are_recorded_in_order_and_a_failure_stops_nothing(tmp_path):
    three_chapters(tmp_path)
    lines: list[str] = []
    archive = tmp_path / "out" / "recorded.tar.gz"
    status = record_all.record_all(tmp_path, archive=archive, say=lines.append)
    assert status == 1
    begun = [line for line in lines if line.startswith("---")]
    assert begun == ["--- old/b (1 of 2)", "--- old/a (2 of 2)"]
    table = [line for line in lines if line.startswith("| old/")]
    assert "bnet 73.1 %" in table[0]
    assert "the cell failed" in table[1]
    assert any(line.startswith("1 of 2 chapters recorded in") for line in lines)
    with tarfile.open(archive) as tar:
        assert tar.getnames() == ["chapters/old/b.ipynb", "results/b.json"]
        entry = tar.getmembers()[0]
        assert (entry.uname, entry.mtime) == ("", 0)  # nothing of this machine
        stored = tar.extractfile(entry).read()
    assert stored == (tmp_path / "chapters" / "old" / "b.ipynb").read_bytes()
    lines.clear()
    assert record_all.record_all(tmp_path, say=lines.append) == 1  # only `a` is left
    assert [line for line in lines if line.startswith("---")] == ["--- old/a (1 of 1)"]


def test_all_means_all_when_asked(tmp_path, monkeypatch):
    three_chapters(tmp_path)
    seen = []

    def fake(name, *_, **__):
        seen.append(name)
        raise AuthoringError("not today")

    monkeypatch.setattr(record_all, "record", fake)
    record_all.record_all(tmp_path, everything=True, say=silent)
    assert seen == ["old/c", "old/b", "old/a"]


def test_a_person_who_stops_it_still_gets_the_table(tmp_path, monkeypatch):
    three_chapters(tmp_path)

    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(record_all, "record", stopped)
    lines: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        record_all.record_all(tmp_path, say=lines.append)
    assert "| old/b |  |  |  | stopped |" in lines


def test_a_fault_of_the_tools_in_one_chapter_does_not_cost_the_others(
    tmp_path, monkeypatch
):
    three_chapters(tmp_path)

    def broken(name, *_, **__):
        raise KeyError(name)

    monkeypatch.setattr(record_all, "record", broken)
    lines: list[str] = []
    assert record_all.record_all(tmp_path, say=lines.append) == 1
    assert "| old/a |  |  |  | KeyError: 'old/a' |" in lines
