"""Rules on the words: every reference leads somewhere, nothing private stands there."""

import re
from collections.abc import Iterator
from pathlib import Path

from .book import ROLE, Book, anchors_of, figure_of, prose
from .check import Found, rule
from .notebook import Chapter, source
from .rules_outputs import texts

REFERENCES = {"ref", "numref", "eq", "prf:ref", "exercise:ref"}
# A folder of the machine on which a chapter was written or recorded.
_PATH = re.compile(
    r"(?<![\w.~/:}-])/(?:home|work|tmp|root|Users|mnt|private|workspace)/[\w.]"
    r"|\b[A-Za-z]:\\\\?(?:Users|Windows|Temp|Program)"
)
_ADDRESS = re.compile(
    r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?!\.?\d)"
    r"|\blocalhost\b|\bfile://|https?://[\w.-]+:\d+"
)
_TODO = re.compile(r"\b(?:TODO|FIXME|XXX|TBD)\b|@@\w+@@")


def written(chapter: Chapter) -> Iterator[tuple[int, str]]:
    """Yield (position, text) of everything in a chapter that a reader can see."""
    for index, cell in enumerate(chapter.cells):
        yield index, source(cell)
        for _, text in texts(cell):
            yield index, text
        metadata = cell.get("metadata", {}).get("mystnb", {})
        for part in metadata.values():
            yield from ((index, str(value)) for value in dict(part).values())


def markdown(chapter: Chapter) -> Iterator[tuple[int, str]]:
    """Yield (position, MyST without code) of the prose, captions included."""
    for index, cell in enumerate(chapter.cells):
        if cell["cell_type"] == "markdown":
            yield index, prose(source(cell))
        figure = cell.get("metadata", {}).get("mystnb", {}).get("figure", {})
        if figure.get("caption"):
            yield index, figure["caption"]


@rule("paths")
def check_paths(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No path of a machine: it means nothing to a reader."""
    for index, text in written(chapter):
        for found in _PATH.finditer(text):
            near = text[found.start() : found.start() + 40].splitlines()[0]
            yield index, f"a path of a machine is shown: {near}"


@rule("addresses")
def check_addresses(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No address of a machine: IP, port, localhost or local file."""
    for index, text in written(chapter):
        for found in _ADDRESS.finditer(text):
            yield index, f"an address of a machine is shown: {found[0]}"


@rule("todo")
def check_todo(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Nothing is left to do."""
    left: dict[int, list[str]] = {}
    for index, text in written(chapter):
        for found in _TODO.finditer(text):
            line = text[found.start() :].splitlines()[0]
            left.setdefault(index, []).append(line[:70])
    for index, lines in left.items():
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        yield index, f"something is left to do: {lines[0]}{more}"


@rule("citations")
def check_citations(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every key that is cited stands in the bibliography."""
    cited = set()
    for index, text in markdown(chapter):
        for role in ROLE.finditer(text):
            if role[1] != "cite" and not role[1].startswith("cite:"):
                continue
            for key in (part.strip() for part in role[2].split(",")):
                cited.add(key)
                if key not in book.citations:
                    yield index, f"'{key}' is not in book/references.bib."
    if chapter.kind in ("model", "foundation") and not cited:
        yield None, "nothing is cited; a claim from the literature names its source."


@rule("figures", advice=True)
def check_figures(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The text refers to every figure, so that a reader knows when to look at it."""
    text = "\n".join(part for _, part in markdown(chapter)).lower()
    names = [figure_of(cell).get("name", "") for _, cell in chapter.code_cells()]
    alone = [
        name
        for name in filter(None, names)
        if not re.search(rf"[`<(#]{re.escape(name.lower())}[`>)]", text)
    ]
    if alone:
        yield (
            None,
            (
                f"no sentence refers to {', '.join(alone)}; write {{numref}}`{alone[0]}` "
                "where the reader should look at it."
            ),
        )


@rule("references")
def check_references(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every figure, equation, section and document that is referred to exists."""
    for index, text in markdown(chapter):
        for role in ROLE.finditer(text):
            inner = re.search(r"<([^<>]+)>\s*$", role[2])
            target = (inner[1] if inner else role[2]).strip()
            if role[1] in REFERENCES and target.lower() not in book.labels:
                yield index, f"{{{role[1]}}} points at '{target}', which nothing names."
            if role[1] == "doc" and not _document(chapter.path, target, book.root):
                yield index, f"{{doc}} points at '{target}', which is no page."


def _document(here: Path, target: str, root: Path) -> bool:
    base = root if target.startswith("/") else here.parent
    path = base / target.lstrip("/")
    names = [path, *(path.with_name(path.name + end) for end in (".ipynb", ".md"))]
    return any(name.is_file() for name in names)


@rule("links")
def check_links(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every relative link and every file that a directive shows exists."""
    for index, text in markdown(chapter):
        targets = re.findall(r"\]\(<?([^()\s<>]+)>?(?:\s+\"[^\"]*\")?\)", text)
        targets += re.findall(
            r"\{(?:figure|image|include|literalinclude)\} *(\S+)", text
        )
        for target in targets:
            if re.match(r"[a-z][a-z0-9+.-]*:", target):
                continue  # another server; a weekly run looks at those
            if target.lower() in book.labels:
                continue  # MyST finds a label without a #, too
            path, _, anchor = target.partition("#")
            if path and not _document(chapter.path, path, book.root):
                yield index, f"the link '{target}' leads to no file."
            elif anchor and not _anchor(chapter, path, anchor, book):
                yield index, f"the link '{target}' points at no label or heading."


def _anchor(here: Chapter, path: str, anchor: str, book: Book) -> bool:
    """Tell whether a chapter has this anchor; pages that are not chapters pass."""
    if anchor.lower() in book.labels:
        return True
    if not path:
        return anchor in anchors_of(here)
    target = (here.path.parent / path).with_suffix("").resolve()
    there = [c for c in book.chapters if c.path.with_suffix("").resolve() == target]
    return not there or anchor in anchors_of(there[0])
