"""The page on where the numbers come from: `{recordings}`.

A table of the chapters (device, date, duration, versions), read from the metadata of
the notebooks, and the run cards behind their results, read from results/*.json, each
time the book is built.
"""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from docutils import nodes
from recorded import LABELS, day, duration
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).resolve().parents[2]
HEADINGS = (
    *("Chapter", "Run", "Device", "Recorded on", "Duration", "Versions", "Run cards"),
)
CARD_HEADINGS = (
    *(
        "Run card",
        "Network",
        "Data",
        "Training",
        "Test top-1",
        "Images",
        "Device",
        "Date",
        "Code",
    ),
)


def chapters(root: Path) -> list[tuple[str, dict]]:
    """Return (document, metadata `nbs`) of the notebooks in the order of the book."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    found = []
    for part in toc["parts"]:
        for entry in part["chapters"]:
            path = root / f"{entry['file']}.ipynb"
            if path.exists():
                raw = json.loads(path.read_text(encoding="utf-8"))
                found.append((entry["file"], raw["metadata"].get("nbs", {})))
    return found


def cards(root: Path) -> list[tuple[str, dict]]:
    """Return (name, content) of the run cards in the order of their file names."""
    return [
        (path.stem, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted((root / "results").glob("*.json"))
    ]


def chapter_row(nbs: dict) -> list[str]:
    """Return the cells behind the chapter's name, in the order of `HEADINGS`."""
    run = nbs.get("recorded")
    if not run:
        return ["Draft", "", "", "", "", ""]
    versions = ", ".join(
        f"{name} {version.partition('+')[0]}"
        for name, version in sorted(run.get("versions", {}).items())
    )
    return [
        LABELS[run["tier"]],
        run["device"],
        day(run["date"]),
        duration(run["seconds"]),
        versions,
        ", ".join(name.removesuffix(".json") for name in run.get("cards", [])),
    ]


def card_row(name: str, card: dict) -> list[str]:
    """Return the cells of a run card, in the order of `CARD_HEADINGS`."""
    data, recipe, test = card["data"], card["recipe"], card.get("test") or {}
    commit = card.get("commit")
    top1, images = test.get("top1"), test.get("images")
    protocol = test.get("protocol")
    return [
        name,
        card["name"],
        f"{data['title']}, {data['image_size']} px",
        (
            f"{recipe.get('name') or 'own recipe'}, {card['epochs']} epochs, "
            f"seed {card['seed']}, {duration(card['seconds'])}"
        ),
        "" if top1 is None else f"{100 * top1:.1f} %",
        ("" if images is None else f"{images:,}")
        + (f" ({protocol.replace('_', ' ')})" if protocol else ""),
        card["device"],
        day(card["date"]),
        commit[:10] + ("-dirty" if commit.endswith("-dirty") else "") if commit else "",
    ]


def table(headings: tuple[str, ...], rows: list[list[nodes.Node]]) -> nodes.table:
    """Return a table whose cells hold one inline node each."""
    group = nodes.tgroup(cols=len(headings))
    group += [nodes.colspec(colwidth=1) for _ in headings]
    titles = [nodes.paragraph("", text) for text in headings]
    group += nodes.thead("", _row(titles))
    body = nodes.tbody()
    for row in rows:
        body += _row([nodes.paragraph("", "", cell) for cell in row])
    group += body
    return nodes.table("", group, classes=["recordings"])


def _row(paragraphs: list[nodes.paragraph]) -> nodes.row:
    row = nodes.row()
    row += [nodes.entry("", paragraph) for paragraph in paragraphs]
    return row


class Recordings(SphinxDirective):
    """`{recordings}` for the chapters, `{recordings} cards` for the run cards."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        if self.arguments == ["cards"]:
            for path in sorted((ROOT / "results").glob("*.json")):
                self.env.note_dependency(str(path))
            found = [[nodes.Text(text) for text in card_row(*c)] for c in cards(ROOT)]
            return [table(CARD_HEADINGS, found)]
        if self.arguments:
            raise self.error(f"'{self.arguments[0]}' is not known: 'cards' or nothing.")
        rows = []
        for document, nbs in chapters(ROOT):
            self.env.note_dependency(str(ROOT / f"{document}.ipynb"))
            texts = [nodes.Text(text) for text in chapter_row(nbs)]
            rows.append([self.link(document), *texts])
        return [table(HEADINGS, rows)]

    def link(self, document: str) -> pending_xref:
        """Return a link to a document, which shows its title."""
        return pending_xref(
            "",
            nodes.inline("", document),
            refdomain="std",
            reftype="doc",
            refdoc=self.env.docname,
            reftarget=f"/{document}",
            refexplicit=False,
            refwarn=True,
        )


def changed_outside(app: Sphinx, env, added, changed, removed) -> list[str]:
    """Read the page again in every build: a new run card is a file of no page."""
    return [name for name in env.found_docs if name.endswith("chapters/recordings")]


def setup(app: Sphinx) -> dict:
    """Register the directive."""
    app.add_directive("recordings", Recordings)
    app.connect("env-get-outdated", changed_outside)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
