"""The rules of a committed chapter: a good one keeps all, a broken one is caught."""

import json

import pytest
from a_chapter import cells, make_book, markdown, shown, stream

from nbs_utils.authoring import export, notebook
from nbs_utils.authoring.book import Book, headings, part_cells, prose
from nbs_utils.authoring.check import BOOK_RULES, all_rules, check, findings

# ---- Reading a chapter's text


def test_prose_leaves_out_code_but_not_roles_and_directives():
    text = (
        "See {cite:t}`a` and {cite:t}`b`, `TODO` and ``x ` y``.\n"
        "```python\n# TODO {cite:t}`c`\n```\n"
        "```{note}\nRead {numref}`fig-a`.\n```\n"
        "```\nplain\n```\nend"
    )
    assert prose(text) == (
        "See {cite:t}`a` and {cite:t}`b`,  and .\n\n\n\n"
        "```{note}\nRead {numref}`fig-a`.\n```\n\n\n\nend"
    )


def test_parts_are_found_by_their_marker_not_by_their_words(tmp_path):
    chapter, _ = make_book(tmp_path)
    assert [h.part for h in headings(chapter)][:2] == ["why", "idea"]
    assert [i for i, _ in part_cells(chapter, "glance")] == [0, 1, 2, 3]
    assert [notebook.source(c) for _, c in part_cells(chapter, "build")][2] == "2 + 2"
    assert part_cells(chapter, "references")[0][1] is chapter.cells[-1]


# ---- The rules


def test_a_good_chapter_keeps_every_rule(tmp_path):
    make_book(tmp_path)
    export.export(tmp_path)
    lines: list[str] = []
    assert check(tmp_path, say=lines.append) == 0, "\n".join(lines)
    count = len(all_rules()) + len(BOOK_RULES)
    assert lines == [f"1 chapter, {count} rules: 0 to repair."]


def cell_of(made: list[dict], text: str) -> dict:
    return next(cell for cell in made if text in cell["source"])


def rewrite(old: str, new: str):
    """Return a breakage that replaces text in the first cell that has it."""

    def apply(made, _):
        cell = cell_of(made, old)
        cell["source"] = cell["source"].replace(old, new)

    return apply


def say(*outputs: dict):
    """Return a breakage that gives the cell `2 + 2` other outputs."""
    return lambda made, _: cell_of(made, "2 + 2").update(outputs=list(outputs))


def figure(**changes):
    return lambda made, _: cell_of(made, "plt.show")["metadata"]["mystnb"].update(
        changes
    )


def metadata(**changes):
    return lambda _, meta: meta.update(changes)


def nbs(**changes):
    return lambda _, meta: meta["nbs"].update(changes)


BROKEN = {
    "kind: unknown": ("kind", nbs(kind="essay"), "nbs.kind is 'essay'"),
    "kind: no export": (
        "kind",
        lambda made, _: cell_of(made, "class Tiny")["metadata"].update(tags=[]),
        "no cell is tagged `export`",
    ),
    "title: no year": ("title", rewrite("# Tiny (2020)", "# Tiny"), "must end in the"),
    "title: two": ("title", rewrite("Prose.", "\n# Again (2021)"), "second level-1"),
    "parts: missing": (
        "parts",
        rewrite("<!-- part: worth -->", ""),
        "1 part is missing: `<!-- part: worth -->`",
    ),
    "parts: unmarked": (
        "parts",
        rewrite("Prose.", "\n## More"),
        "'More' opens no part",
    ),
    "parts: order": (
        "parts",
        lambda made, _: made.append(made.pop(made.index(cell_of(made, "part: why")))),
        "out of order",
    ),
    "parts: unknown": (
        "parts",
        rewrite("part: why", "part: wy"),
        "no part is called 'wy'",
    ),
    "glance": (
        "glance",
        lambda made, _: cell_of(made, "nbs.zoo").update(outputs=[]),
        "no table",
    ),
    "set-up: words": ("set-up", rewrite("%pip", "!pip"), "differs from the text"),
    "set-up: tag": (
        "set-up",
        lambda made, _: made[1]["metadata"].update(tags=["setup"]),
        "`hide-input`",
    ),
    "set-up: place": ("set-up", lambda made, _: made.pop(1), "exactly the second"),
    "exercises: three": (
        "exercises",
        lambda made, _: made.remove(cell_of(made, "tiny-ex4")),
        "3 exercises",
    ),
    "exercises: no code": (
        "exercises",
        lambda made, _: made.remove(cell_of(made, "2 + 1")),
        "tiny-ex2 has no code cell",
    ),
    "exercises: open": (
        "exercises",
        rewrite(":class: dropdown", ""),
        "needs `:class: dropdown`",
    ),
    "exercises: unended": (
        "exercises",
        rewrite(":::{solution-end}\n:::", "Done."),
        "the solution of tiny-ex1 has no `solution-end`",
    ),
    "exercises: unsolved": (
        "exercises",
        rewrite("{solution-start} tiny-ex1", "{solution-start} tiny-ex9"),
        "tiny-ex1 has 0 solutions",
    ),
    "ids: twice": (
        "ids",
        lambda made, _: made[5].update(id=made[4]["id"]),
        "that of cell 5, too",
    ),
    "ids: none": ("ids", lambda made, _: made[5].pop("id"), "id is None"),
    "cell-length": ("cell-length", rewrite("2 + 2", "\n" * 40 + "2 + 2"), "41 lines"),
    "long-cell": ("long-cell", rewrite("2 + 2", "\n" * 25 + "2 + 2"), "26 lines"),
    "empty-cell": ("empty-cell", rewrite("2 + 2", " "), "is empty"),
    "magics": ("magics", rewrite("2 + 2", "%matplotlib inline"), "%matplotlib"),
    "magics: shell": ("magics", rewrite("2 + 2", "!ls"), "`!ls` is not Python"),
    "checked-output: none": (
        "checked-output",
        lambda made, _: cell_of(made, "2 + 2")["metadata"].update(tags=[]),
        "no cell is tagged",
    ),
    "checked-output: silent": ("checked-output", say(), "no text to compare"),
    "zoo: differs": ("zoo", rewrite("nn.Linear(4", "nn.Linear(5"), "the zoo differs"),
    "zoo: incomplete": (
        "zoo",
        rewrite("register(Tiny", "register(Big"),
        "uses 'Big', which no exported cell defines",
    ),
    "zoo-recorded": (
        "zoo-recorded",
        nbs(zoo_sha256={"tiny": "0" * 64}),
        "zoo/tiny.py is not the one that the outputs were recorded with",
    ),
    "tags: misspelt": (
        "tags",
        lambda made, _: cell_of(made, "2 + 2")["metadata"].update(
            tags=["nbval-check-ouput"]
        ),
        "did you mean `nbval-check-output`?",
    ),
    "kind: foundation": ("kind", nbs(kind="foundation"), "set it to 'model'"),
    "labels: exercise": (
        "labels",
        rewrite(":label: tiny-ex2", ":label: tiny-ex1"),
        "the label 'tiny-ex1' is that of cell ",
    ),
    "labels: figure": (
        "labels",
        rewrite("Prose.", "(fig-tiny-line)=\n"),
        "the label 'fig-tiny-line' is that of cell ",
    ),
    "figures": (
        "figures",
        rewrite("See {numref}`fig-tiny-line`, [it](fig-tiny-line),", "See"),
        "no sentence refers to fig-tiny-line",
    ),
    "numbers": (
        "numbers",
        rewrite("Prose.", "It has 61,706 parameters."),
        "nothing explains 61,706: “It has 61,706 parameters.”",
    ),
    "numbers: arithmetic": (
        "numbers",
        rewrite("Prose.", "That is $3 \\cdot 4 = 13$ of them."),
        "the arithmetic `3 \\cdot 4 = 13` does not hold",
    ),
    "numbers: needless": (
        "numbers",
        lambda made, _: made[0]["metadata"].update(nbs={"numbers": {"No": "why"}}),
        "the exemption of “No” is not needed",
    ),
    "text-read": (
        "text-read",
        nbs(text_of={"date": "2026-11-20", "sentences": ["Its accuracy"]}),
        "go through it, then `nbs tidy old/tiny --prose-read`.\n  “Its accuracy”",
    ),
    "contents": ("contents", lambda *_: None, "is not in _toc.yml"),
    "family": ("family", lambda *_: None, "no network of book/family.yml names"),
    "recorded: output": (
        "recorded",
        say(stream("5\n")),
        "stored outputs are not those of the recording",
    ),
    "ruff: lint": ("ruff", rewrite("2 + 2", "import os"), "F401"),
    "ruff: format": ("ruff", rewrite("2 + 2", "2+2"), "not formatted: `nbs tidy"),
    "executed: count": (
        "executed",
        lambda made, _: cell_of(made, "2 + 2").update(execution_count=9),
        "has count 9, expected 5",
    ),
    "executed: not": (
        "executed",
        lambda made, _: cell_of(made, "2 + 2").update(execution_count=None),
        "was not executed",
    ),
    "recorded: edited": ("recorded", rewrite("2 + 2", "2 + 3"), "edited after"),
    "recorded: quick": (
        "recorded",
        lambda _, meta: meta["nbs"]["recorded"].update(tier="quick"),
        "quick run",
    ),
    "recorded: device": (
        "recorded",
        lambda _, meta: meta["nbs"]["recorded"].update(device="NVIDIA T4"),
        "does not show the device, NVIDIA T4",
    ),
    "recorded: never": (
        "recorded",
        lambda _, meta: meta["nbs"].pop("recorded"),
        "never recorded",
    ),
    "errors": (
        "errors",
        say({"output_type": "error", "ename": "KeyError", "traceback": []}),
        "failed: KeyError",
    ),
    "errors: stderr": ("errors", say(stream("bar", "stderr")), "stderr is stored"),
    "widgets: state": ("widgets", metadata(widgets={}), "widget state"),
    "widgets: shown": (
        "widgets",
        say(shown(**{"application_vnd.jupyter.widget-view+json": "{}"})),
        "a widget is shown",
    ),
    "transient: language": (
        "transient",
        metadata(language_info={"name": "python", "version": "3.11"}),
        "language_info",
    ),
    "transient: address": (
        "transient",
        say(shown(text_plain="<Axes at 0x7f9ab0c1d2e3>")),
        "memory address",
    ),
    "images: alt": ("images", figure(image={"alt": "Line."}), "no alt text"),
    "images: caption": ("images", figure(figure={"name": "fig-a"}), "no caption"),
    "images: name": (
        "images",
        figure(figure={"caption": "A line.", "name": "line"}),
        "name is 'line'",
    ),
    "images: two": (
        "images",
        lambda made, _: cell_of(made, "plt.show")["outputs"].append(
            shown(image_png="iVBO")
        ),
        "2 images in one cell",
    ),
    "images: svg": (
        "images",
        say(shown(text_html='<svg role="img"></svg>')),
        "aria-label",
    ),
    "images: text": ("images", rewrite("Prose.", "![](a.png)"), "in the text has no"),
    "size: cell": ("size", say(shown(text_html="x" * 700_000)), "700 kB of at most"),
    "size: page": (
        "size",
        lambda made, _: [
            cell_of(made, text).update(outputs=[shown(text_html="x" * 590_000)])
            for text in ("2 + 2", "1 + 1", "3 + 1")
        ],
        "1.77 MB of at most 1.5 MB",
    ),
    "paths": ("paths", say(stream("saved to /home/ada/x.pt")), "/home/ada"),
    "paths: windows": ("paths", rewrite("Prose.", r"C:\Users\ada"), r"C:\Users"),
    "addresses": ("addresses", rewrite("Prose.", "See 10.0.0.12."), "10.0.0.12"),
    "addresses: port": (
        "addresses",
        rewrite("Prose.", "http://build.example:8080/x"),
        "http://build.example:8080",
    ),
    "todo": ("todo", rewrite("Prose.", "TODO-RECORD: top-1"), "TODO-RECORD: top-1"),
    "todo: placeholder": ("todo", rewrite("Prose.", "It is @@TOP1@@."), "@@TOP1@@"),
    "citations": (
        "citations",
        rewrite("author2020tiny", "author2020tiny,b1999"),
        "'b1999' is not in",
    ),
    "references: figure": (
        "references",
        rewrite("{numref}`fig-tiny-line`", "{numref}`Figure %s <fig-tiny-lime>`"),
        "fig-tiny-lime",
    ),
    "references: page": (
        "references",
        rewrite("Prose.", "{doc}`../old/none`"),
        "'../old/none', which is no page",
    ),
    "links: anchor": ("links", rewrite("#about-why", "#about-wy"), "'#about-wy'"),
    "links: file": ("links", rewrite("#about-why", "why.md"), "'why.md' leads to no"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_rule_is_found(tmp_path, case):
    rule, breakage, said = BROKEN[case]
    if rule in ("ruff", "zoo") and export.ruff_command() is None:
        pytest.skip("ruff is not installed: pip install ruff")
    chapter, _ = make_book(tmp_path)
    export.export(tmp_path)
    if rule in ("contents", "family"):  # these break in the files around a chapter
        (
            tmp_path / {"contents": "_toc.yml", "family": "book/family.yml"}[rule]
        ).unlink()
    breakage(chapter.cells, chapter.raw["metadata"])
    chapter.path.write_text(json.dumps(chapter.raw))
    book = Book.load(tmp_path)
    found = findings(book.chapters[0], book, rule)
    assert any(said in finding.message for finding in found), found


def test_every_rule_is_broken_by_a_test():
    assert {rule for rule, _, _ in BROKEN.values()} == set(all_rules())


@pytest.mark.parametrize(
    "text",
    [
        "version 1.0.4 of 12.3.4.5.6",  # five numbers are no address
        "read https://example.org/home/work/page",
        r"the map $f: \mathbb{R} \to C$",
        "and/home/or ~/work/x",
    ],
)
def test_what_looks_like_a_path_or_address_but_is_none(tmp_path, text):
    made = [markdown("# Tiny (2020)\n\n" + text)]
    chapter, book = make_book(tmp_path, made)
    assert findings(chapter, book, "paths") == []
    assert findings(chapter, book, "addresses") == []


def test_a_foundation_chapter_needs_only_exercises_and_references(tmp_path):
    made = cells()
    made = [cell for cell in made if "<!-- part" not in cell["source"]] + [
        cell for cell in made if "part: exercises" in cell["source"]
    ]
    chapter, book = make_book(tmp_path, made)
    chapter.nbs["kind"] = "foundation"
    found = findings(chapter, book, "parts")
    assert [f.message for f in found] == [
        "1 part is missing: `<!-- part: references -->`."
    ]


def test_advice_is_printed_but_does_not_fail(tmp_path):
    made = cells()
    cell_of(made, "2 + 2")["source"] = "x = 1\n" * 26 + "2 + 2"
    make_book(tmp_path, made)
    export.export(tmp_path)
    lines: list[str] = []
    assert check(tmp_path, "tiny", say=lines.append) == 0, "\n".join(lines)
    assert "long-cell (advice): 27 lines" in lines[0]
