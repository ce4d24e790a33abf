"""Rules on what a run left in the notebook: counts, outputs, images, size, labels."""

import json
import re
from collections.abc import Iterator

from .book import Book, alt_of, figure_of
from .check import Found, rule
from .hashing import code_sha256, outputs_sha256
from .notebook import Chapter, joined, source

PAGE_BYTES = 1_500_000
CELL_BYTES = 600_000
SHORTEST_ALT = 20


@rule("executed")
def check_executed(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Execution counts are 1 to n: one run from top to bottom, no cell left out."""
    same = chapter.nbs.get("code_sha256") == code_sha256(chapter.cells)
    cure = f"`nbs {'tidy' if same else 'record'} {chapter.name}`"
    for number, (index, cell) in enumerate(chapter.code_cells(), start=1):
        count = cell.get("execution_count")
        if count != number:
            said = "was not executed" if count is None else f"has count {count}"
            yield index, f"the cell {said}, expected {number}: {cure}."
            return  # the rest follows from the first


@rule("recorded")
def check_recorded(chapter: Chapter, book: Book) -> Iterator[Found]:
    """The outputs belong to the code, and the page says where they were made."""
    again = f"run `nbs record {chapter.name}`."
    if "recorded" not in chapter.nbs:
        yield None, f"the chapter was never recorded; {again}"
        return
    if chapter.nbs.get("code_sha256") != code_sha256(chapter.cells):
        yield None, f"the code was edited after the outputs were recorded; {again}"
    if chapter.nbs.get("outputs_sha256") != outputs_sha256(chapter.cells):
        yield (
            None,
            (
                "stored outputs are not those of the recording (edited by hand, or a cell "
                f"was run again): restore the file's outputs with git, or {again}"
            ),
        )
    recorded = chapter.nbs.get("recorded", {})
    for key in ("tier", "device", "date", "seconds", "versions"):
        if not recorded.get(key):
            yield None, f"the metadata does not say '{key}' of the recording; {again}"
    if recorded.get("tier") == "quick":
        yield None, f"the outputs are those of a quick run; {again}"
    starts = [(i, c) for i, c in chapter.code_cells() if "nbs.start(" in source(c)]
    if not starts:
        yield None, "no cell calls `nbs.start(seed=0)`, which names the device."
    for index, cell in starts[:1]:
        shown = "".join(text for _, text in texts(cell))
        if recorded.get("device") and recorded["device"] not in shown:
            yield (
                index,
                f"the page does not show the device, {recorded['device']}; {again}",
            )


@rule("errors")
def check_errors(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No output is an error, and none is stderr, which differs in every run."""
    for index, cell in chapter.code_cells():
        for output in cell.get("outputs", []):
            if output["output_type"] == "error":
                yield index, f"the cell failed: {output.get('ename')}."
            if output.get("name") == "stderr":
                yield index, "stderr is stored; `nbs record` leaves it out."


@rule("widgets")
def check_widgets(chapter: Chapter, book: Book) -> Iterator[Found]:
    """No widget state: it makes the page load scripts from another server."""
    if "widgets" in chapter.raw.get("metadata", {}):
        yield None, "the metadata holds widget state: `nbs tidy`."
    for index, cell in chapter.code_cells():
        for output in cell.get("outputs", []):
            if any("widget" in mime for mime in output.get("data", {})):
                yield index, "a widget is shown; use plain `tqdm`, not `tqdm.auto`."


@rule("transient")
def check_transient(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Nothing is stored that differs from run to run without meaning."""
    if set(chapter.raw.get("metadata", {}).get("language_info", {})) - {"name"}:
        yield None, "language_info holds versions of an editor's run: `nbs tidy`."
    for index, cell in enumerate(chapter.cells):
        if {"execution", "ExecuteTime"} & set(cell.get("metadata", {})):
            yield index, "the metadata holds timings of an editor: `nbs tidy`."
        for mime, text in texts(cell):
            found = re.search(r"(?:at|object) 0x[0-9a-fA-F]{6,}", text)
            if found:
                said = f"a memory address is shown ({mime}: {found[0]})"
                yield index, f"{said}; end a drawing cell in `plt.show()`."


@rule("images")
def check_images(chapter: Chapter, book: Book) -> Iterator[Found]:
    """Every image has alt text, a caption and a name to refer to; one in a cell."""
    for index, cell in chapter.code_cells():
        images = sum(
            any(mime.startswith("image/") for mime in output.get("data", {}))
            for output in cell.get("outputs", [])
        )
        name = figure_of(cell).get("name")
        if images == 0:
            continue
        if images > 1:
            yield index, f"{images} images in one cell; a cell shows one thing."
        if len(alt_of(cell)) < SHORTEST_ALT:
            yield index, "the image has no alt text: metadata mystnb.image.alt."
        if not figure_of(cell).get("caption", "").strip():
            yield index, "the image has no caption: metadata mystnb.figure.caption."
        if not (name or "").startswith("fig-"):
            yield index, f"the figure's name is {name!r}; call it fig-chapter-thing."
    yield from _inline_images(chapter)


def _inline_images(chapter: Chapter) -> Iterator[Found]:
    """Images inside markdown and HTML say what they show, too."""
    for index, cell in enumerate(chapter.cells):
        if cell["cell_type"] == "markdown":
            for _ in re.findall(r"!\[\s*\]\(", source(cell)):
                yield index, "an image in the text has no alt text: `![what](file)`."
        for mime, text in texts(cell):
            if mime != "text/html":
                continue
            for tag in re.findall(r"<svg\b[^>]*>", text):
                hidden = 'aria-hidden="true"' in tag
                if not hidden and not ('role="img"' in tag and "aria-label=" in tag):
                    yield index, 'an inline <svg> needs role="img" and aria-label.'
            for tag in re.findall(r"<img\b[^>]*>", text):
                if not re.search(r'\balt="[^"]+"', tag):
                    yield index, "an <img> in an output has no alt text."


@rule("size")
def check_size(chapter: Chapter, book: Book) -> Iterator[Found]:
    """A page weighs at most 1.5 MB."""
    total = 0
    for index, cell in chapter.code_cells():
        size = sum(output_bytes(output) for output in cell.get("outputs", []))
        total += size
        if size > CELL_BYTES:
            limit = f"{size / 1e3:.0f} kB of at most {CELL_BYTES / 1e3:.0f}"
            yield index, f"the output weighs {limit}; draw fewer points or images."
    if total > PAGE_BYTES:
        limit = f"{total / 1e6:.2f} MB of at most {PAGE_BYTES / 1e6:.1f} MB"
        yield None, f"all outputs of the page weigh {limit}."


def output_bytes(output: dict) -> int:
    """Return what an output adds to the page: the heaviest of its forms, decoded."""
    sizes = [len(joined(output.get("text", "")).encode())]
    for mime, value in output.get("data", {}).items():
        text = value if isinstance(value, (str, list)) else json.dumps(value)
        size = len(joined(text).encode())
        base64 = mime.startswith("image/") and "svg" not in mime
        sizes.append(size * 3 // 4 if base64 else size)
    return max(sizes)


def texts(cell: dict) -> Iterator[tuple[str, str]]:
    """Yield (MIME type, text) of every textual output of a cell."""
    for output in cell.get("outputs", []):
        if "text" in output:
            yield "stream", joined(output["text"])
        if "traceback" in output:
            yield "traceback", "\n".join(output["traceback"])
        for mime, value in output.get("data", {}).items():
            if mime.startswith("text/") or mime == "image/svg+xml":
                yield mime, joined(value)
