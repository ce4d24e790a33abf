"""A small chapter that keeps every rule, for tests that break one at a time."""

import json
from pathlib import Path

from nbs_utils.authoring.book import PARTS, Book
from nbs_utils.authoring.export import exported_cells, module_sha256, module_text
from nbs_utils.authoring.hashing import code_sha256, outputs_sha256
from nbs_utils.authoring.notebook import (
    AuthoringError,
    Chapter,
    chapter_name,
    chapter_paths,
    find_chapter,
    load_chapters,
)
from nbs_utils.authoring.rules_structure import SETUP
from nbs_utils.authoring.whole_book import badge_table

NETWORK = """\
from torch import nn

from nbs_utils.zoo import register


class Tiny(nn.Module):
    def __init__(self, num_classes=1000):
        super().__init__()
        self.head = nn.Linear(4, num_classes)


register(Tiny, {"tiny": {}})
"""
SVG = "<svg xmlns='http://www.w3.org/2000/svg'></svg>"


def markdown(text: str) -> dict:
    """Return a markdown cell; `make_book` gives it an id."""
    return {"cell_type": "markdown", "metadata": {}, "source": text}


def code(text: str, *outputs: dict, tags: tuple[str, ...] = (), **mystnb) -> dict:
    """Return a code cell; `make_book` numbers it."""
    metadata = {"tags": list(tags)} if tags else {}
    if mystnb:
        metadata["mystnb"] = mystnb
    return {
        "cell_type": "code",
        "metadata": metadata,
        "source": text.strip("\n"),
        "outputs": list(outputs),
    }


def stream(text: str, name: str = "stdout") -> dict:
    return {"output_type": "stream", "name": name, "text": text}


def shown(**data: str) -> dict:
    """Return an output; `text_plain="3"` stands for the MIME type text/plain."""
    mimes = {key.replace("_", "/", 1): value for key, value in data.items()}
    return {"output_type": "display_data", "data": mimes, "metadata": {}}


def cells() -> list[dict]:
    """Return the cells of a chapter that keeps every rule."""
    made = [
        markdown("# Tiny (2020)\n\nOne idea {cite:t}`author2020tiny`."),
        code(
            SETUP.format(repository="https://github.com/__owner__/__repo__"),
            tags=("setup", "hide-input"),
        ),
        code(
            "import matplotlib.pyplot as plt\n\nimport nbs_utils as nbs\n\n"
            "nbs.start(seed=0)",
            stream("nbs_utils 0.1, on CPU, 2 cores\n"),
        ),
        code("nbs.zoo", shown(text_html="<table></table>", text_plain="table")),
    ]
    for part in PARTS[1:]:
        made.append(markdown(f"## About {part}\n<!-- part: {part} -->\n\nProse."))
        if part == "build":
            made.append(code(NETWORK, tags=("export",)))
            made.append(
                code("2 + 2", shown(text_plain="4"), tags=("nbval-check-output",))
            )
        if part == "inside":
            made.append(
                code(
                    "plt.plot([1, 2])\nplt.show()",
                    shown(**{"image_svg+xml": SVG}),
                    image={"alt": "A straight line from one to two."},
                    figure={"name": "fig-tiny-line", "caption": "A line."},
                )
            )
            see = "See {numref}`fig-tiny-line`, [it](fig-tiny-line), [why](#about-why)."
            made.append(markdown(see))
        if part == "exercises":
            for n in range(1, 5):
                made.append(
                    markdown(
                        f":::{{exercise}} Number {n}\n:label: tiny-ex{n}\n\nCount.\n:::"
                        f"\n\n:::{{solution-start}} tiny-ex{n}\n:class: dropdown\n:::"
                    )
                )
                made.append(code(f"{n} + 1", tags=("solution",)))
                made.append(markdown(":::{solution-end}\n:::"))
    return made


def make_book(
    root: Path, made: list[dict] | None = None, name: str = "old/tiny"
) -> tuple[Chapter, Book]:
    """Write a book of one chapter into a folder, as if it had just been recorded."""
    made = cells() if made is None else made
    count = 0
    for number, cell in enumerate(made):
        cell.setdefault("id", f"cell-{number}")
        if cell["cell_type"] == "code":
            count += 1
            cell.setdefault("execution_count", count)
    raw = {
        "cells": made,
        "metadata": {
            "language_info": {"name": "python"},
            "nbs": {
                "zoo": "tiny",
                "kind": "model",
                "code_sha256": code_sha256(made),
                "outputs_sha256": outputs_sha256(made),
                "recorded": {
                    "tier": "cpu",
                    "device": "CPU, 2 cores",
                    "date": "2026-11-20",
                    "seconds": 12.5,
                    "versions": {"torch": "2.11"},
                },
            },
        },
        "nbformat": 4,
        "nbformat_minor": 5,
    }
    path = root / "chapters" / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    (root / "nbs_utils" / "zoo").mkdir(parents=True, exist_ok=True)
    raw["metadata"]["nbs"] |= zoo_hash(Chapter(path, name, raw))
    path.write_text(json.dumps(raw, indent=1), encoding="utf-8")
    write_book(root)
    return find_chapter(name, root), Book.load(root)


def zoo_hash(chapter: Chapter) -> dict:
    """Return the hash of the module that a chapter was recorded with: its own."""
    try:
        text = module_text(chapter) if exported_cells(chapter) else ""
    except AuthoringError:  # a test of what cannot be exported
        text = ""
    return {"zoo_sha256": {chapter.nbs["zoo"]: module_sha256(text)}} if text else {}


def write_book(root: Path) -> None:
    """Write the files around the chapters: contents, family tree, works, README."""
    (root / "book").mkdir(exist_ok=True)
    names = [chapter_name(path, root) for path in chapter_paths(root)]
    toc = ["format: jb-book", f"root: chapters/{names[0]}", "parts:"]
    toc += ["  - caption: Classics", "    chapters:"]
    toc += [f"      - file: chapters/{name}" for name in names]
    (root / "_toc.yml").write_text("\n".join(toc) + "\n")
    family = ["columns: [Classics]", "networks:", "  Old: [1990, Classics, []]"]
    for number, name in enumerate(names):
        family.append(f"  Tiny {number}: [2020, Classics, [Old], {name}]")
    (root / "book" / "family.yml").write_text("\n".join(family) + "\n")
    (root / "book" / "references.bib").write_text(
        "@article{author2020tiny,\n  author = {Author, Ada},\n  year = {2020}\n}\n"
    )
    repository = "https://github.com/__owner__/__repo__"
    table = badge_table(load_chapters(root), root, repository)
    (root / "README.md").write_text(f"# Book\n\n{table}\n")
