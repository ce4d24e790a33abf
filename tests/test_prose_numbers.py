"""Where the numbers of the prose come from, each way tried on a chapter of its own."""

import pytest
from a_chapter import code, make_book, markdown, shown, stream

from nbs_utils.authoring import arithmetic
from nbs_utils.authoring.numbers import numbers_in
from nbs_utils.authoring.prose_numbers import explain
from nbs_utils.authoring.sentences import sentences

TABLE = """\
network   top-1  seconds  parameters
plain      35.5      120     269,722
residual   36.2      180     272,474
"""


def kinds(tmp_path, prose: str, *cells: dict) -> dict[str, set[str]]:
    """Return, for each number of the last sentence, what kinds of sources explain it."""
    made = [markdown("# Tiny (2020)"), *cells, markdown(prose)]
    chapter, _ = make_book(tmp_path, made)
    return {one.number.text: {s.kind for s in one.sources} for one in explain(chapter)}


RESULTS = code("run()", stream(TABLE))


@pytest.mark.parametrize(
    ("prose", "kind"),
    [
        ("It reaches 36.2 %.", "output"),
        ("It reaches 36 %.", "output"),  # rounded
        ("It has 272,474 parameters.", "output"),
        ("It has 0.27 million parameters.", "output"),
        ("It has about 270,000 parameters.", "output"),
        ("It takes 3 minutes.", "output"),
        ("The error is 63.8 %.", "output"),  # what is missing to 100
        ("It is 0.7 points better.", "difference"),
        ("It takes 1.5 times as long.", "ratio"),
        ("It takes 50 % longer.", "change"),
        ("It has 2,752 parameters more.", "difference"),
    ],
)
def test_a_number_made_from_an_output_is_explained(tmp_path, prose, kind):
    (found,) = kinds(tmp_path, prose, RESULTS).values()
    assert kind in found


@pytest.mark.parametrize(
    "prose",
    [
        "It reaches 36.3 %.",
        "It reaches 37 %.",
        "It has 272,475 parameters.",
        "It has 272,000 parameters.",  # not rounded: nothing says "about"
        "It is 0.8 points better.",
        "It takes 1.6 times as long.",
        "It takes 44 % longer.",
        "It has 61,706 parameters.",
    ],
)
def test_a_number_that_is_wrong_is_listed(tmp_path, prose):
    assert list(kinds(tmp_path, prose, RESULTS).values()) == [set()]


def test_an_output_that_comes_later_explains_nothing(tmp_path):
    made = [
        markdown("# Tiny (2020)"),
        markdown("It reaches 36.2 %."),
        markdown("Then it is run."),
        RESULTS,
    ]
    (one,) = explain(make_book(tmp_path, made)[0])
    assert one.sources == []


def test_prose_may_speak_of_the_cells_that_it_introduces(tmp_path):
    made = [markdown("# Tiny (2020)"), markdown("It reaches 36.2 %:"), RESULTS]
    (one,) = explain(make_book(tmp_path, made)[0])
    assert [s.kind for s in one.sources] == ["output"]


def test_differences_are_looked_for_in_the_same_part_of_the_chapter(tmp_path):
    here = "It is 0.7 points better.\n\n## Next\n<!-- part: idea -->"
    found = kinds(tmp_path, here, RESULTS)  # the heading of the next part in this cell
    assert "difference" in found["0.7 points"]
    later = markdown("## Next\n<!-- part: idea -->")
    found = kinds(tmp_path, "It is 0.7 points better.", RESULTS, later)
    assert found == {"0.7 points": set()}


def test_a_caption_speaks_of_its_own_figure(tmp_path):
    svg = "<svg><text>0.59</text><path d='M 7.25 3'/></svg>"
    made = [
        markdown("# Tiny (2020)"),
        code(
            "draw()",
            shown(**{"image_svg+xml": svg}),
            figure={"name": "fig-a", "caption": "Flat near 0.59. Not at 7.25."},
        ),
    ]
    found = explain(make_book(tmp_path, made)[0])
    assert [bool(one.sources) for one in found] == [True, False]  # a path is no label


@pytest.mark.parametrize(
    ("prose", "kind"),
    [
        ("The error was 45.7 % {cite:p}`author2020tiny`.", "citation"),
        ("They tried it {cite:p}`author2020tiny`. The error was 45.7 %.", "citation"),
        ("It holds $3 \\cdot 32 \\cdot 32 = 3072$ numbers.", "arithmetic"),
        ("It holds 3 × 32 × 32 = 3,072 numbers.", "arithmetic"),
        ("It has 4,800 more, $4800 - 1792 = 3008$ in all.", "arithmetic"),
        ("As told {cite:p}`author2020tiny`.\n\n| a |\n|--|\n| 45.7 |", "citation"),
        (
            "| a | b |\n|--|--|\n| 45.7 | 3.9 |\n| {cite:p}`author2020tiny` |",
            "citation",
        ),
        (":::{exercise} A\n:label: a\n\nWhat if the loss is 45.7?\n:::", "exercise"),
    ],
)
def test_what_else_explains_a_number(tmp_path, prose, kind):
    found = kinds(tmp_path, prose, RESULTS)
    assert all(kind in one for one in found.values()), found


def test_a_citation_in_another_paragraph_explains_nothing(tmp_path):
    prose = "They tried it {cite:p}`author2020tiny`.\n\nThe error was 45.7 %."
    assert kinds(tmp_path, prose) == {"45.7 %": set()}


def test_what_was_cited_once_may_be_said_again(tmp_path):
    first = markdown("It gains 1.4 points {cite:p}`author2020tiny`.")
    found = kinds(tmp_path, "The paper's 1.4 points are not seen here.", first)
    assert found == {"1.4 points": {"citation"}} | {"1.4 points": {"text"}}


def test_numbers_in_code_and_in_code_spans_are_known(tmp_path):
    cell = code("epochs, lr, images = 12, 1e-3, 1_200_000")
    found = kinds(tmp_path, "For 12 epochs, 0.001 and 1.2 million, 7 of `n = 7`.", cell)
    assert set.union(*found.values()) == {"code"}
    assert all(found.values())


def test_false_arithmetic_is_named(tmp_path):
    made = [markdown("# Tiny (2020)"), markdown("That is $3 \\cdot 4 = 13$.")]
    found = explain(make_book(tmp_path, made)[0])
    assert {one.wrong for one in found} == {r"3 \cdot 4 = 13"}


@pytest.mark.parametrize(
    ("expression", "false"),
    [
        (r"2^{-3/4} \approx 0.59", False),
        (r"2^{-3/4} \approx 0.61", True),
        (r"\log_2 1000 \approx 10", False),
        (r"\tfrac{1}{4} = 0.25", False),
        (r"\sqrt{2 \cdot 10^{4} / 5} \approx 63", False),
        (r"2^{-24} \approx 6 \cdot 10^{-8}", False),
        (r"10^{-4} \cdot 60^2 = 0.36", False),
        (r"10^{-4} \cdot 60^2 = 0.37", True),
        ("4,800 - 1,792 = 3,008", False),
        ("12 × 12 = 145", True),
        ("x = 3", False),  # letters: not arithmetic
        (r"9^{9^{9^9}} = 1", False),  # too large to compute, so not judged
    ],
)
def test_arithmetic_is_computed(expression, false):
    assert arithmetic.is_false(expression) is false


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("In 2012 and the 1990s ResNet-18 had top-5, 3x3 and conv2.", []),
        ("See section 4.1, Figure 3 and version 1.0.4.", []),
        ("two cores, one of them, a dozen", []),
        ("1,000 classes, 61.7 million, 36.2 %", ["1,000", "61.7 million", "36.2 %"]),
        ("a 224-pixel image at 0.5", ["224", "0.5"]),
        ("11.4 ms and 2.6 GiB", ["11.4 ms", "2.6 GiB"]),
    ],
)
def test_what_counts_as_a_number(text, numbers):
    assert [number.text for number in numbers_in(text)] == numbers


def test_sentences_leave_out_code_equations_and_headings(tmp_path):
    text = (
        "## Part 7\n<!-- part: why -->\n\nOne is `12`. See [it](a.md) {cite:t}`b`.\n\n"
        "$$\nx = 3 (eq-a)\n$$\n\n```python\nn = 5\n```\n\n- First item.\n- Second et al. 9."
    )
    chapter, _ = make_book(tmp_path, [markdown("# T (2020)"), markdown(text)])
    assert [s.text for s in sentences(chapter)] == [
        "One is ⟦code⟧.",
        "See it ⟦cited⟧.",
        "First item.",
        "Second et al. 9.",
    ]
