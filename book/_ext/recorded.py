"""A line under a chapter's title: where its outputs come from.

`nbs record` notes the run in the notebook's metadata (`nbs.recorded`); this puts it
on the page, with a label that tells a run on a graphics card from a short one on a
processor, so that nobody takes the second's accuracies for the first's.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path

from docutils import nodes
from sphinx.application import Sphinx

LABELS = {
    "gpu": "Full run",
    "cpu": "Short CPU run",
    "quick": "Quick run",
}
MEANING = {
    "cpu": (
        "A budget of minutes: the accuracies show that the code learns, "
        "not how far the architecture goes."
    ),
    "quick": "A few steps on embedded digits: no number from training means anything.",
}


def duration(seconds: float) -> str:
    """Return a time as people say it: "48 s", "6 min", "1 h 20 min"."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min"


def day(date: str) -> str:
    """Return an ISO date in words: "20 November 2026"."""
    parsed = datetime.date.fromisoformat(date)
    return f"{parsed.day} {parsed:%B %Y}"


def recorded_line(
    recorded: dict | None, kind: str = "model", text_of: dict | None = None
) -> nodes.container:
    """Return the line as nodes.

    Args:
        recorded: the notebook's `nbs.recorded`; None for a chapter not yet recorded.
        kind: "model", or "foundation" where no architecture is judged.
        text_of: the earlier recording that the text was written for (its date, device
            and tier), until somebody has gone through the text; else None.
    """
    if recorded is None:
        return _line("draft", "Draft", "This chapter has not been recorded yet.")
    tier = recorded["tier"]
    versions = recorded.get("versions", {})
    named = {"torch": "PyTorch", "python": "Python"}
    software = ", ".join(
        f"{name} {versions[key].partition('+')[0]}"
        for key, name in named.items()
        if key in versions
    )
    text = (
        f"Recorded on {day(recorded['date'])} in {duration(recorded['seconds'])}: "
        f"{recorded['device']}{'; ' + software if software else ''}."
    )
    meaning = MEANING.get(tier, "") if kind == "model" else ""
    earlier = earlier_text(text_of) if text_of else ""
    said = " ".join(part for part in (text, meaning, earlier) if part)
    return _line(tier, LABELS[tier], said)


def earlier_text(text_of: dict) -> str:
    """Return the sentence for a text that was written for an earlier recording."""
    when = f" of {day(text_of['date'])}" if text_of.get("date") else ""
    where = f" ({text_of['device']})" if text_of.get("device") else ""
    return (
        f"The text was written for the recording{when}{where}: where a number in a "
        "sentence differs from the output above it, the output is right."
    )


def _line(tier: str, label: str, text: str) -> nodes.container:
    line = nodes.container(classes=["recorded", tier])
    line += nodes.paragraph("", "", nodes.inline("", label, classes=["tier"]))
    line += nodes.paragraph("", text)
    return line


def add_line(app: Sphinx, doctree: nodes.document) -> None:
    """Put the line under the title, or under the sentence that follows it."""
    path = Path(app.env.doc2path(app.env.docname))
    if path.suffix != ".ipynb":
        return
    notes = json.loads(path.read_text(encoding="utf-8"))["metadata"].get("nbs")
    section = next(iter(doctree.findall(nodes.section)), None)
    if not notes or section is None:
        return
    place = 2 if isinstance(section[1], nodes.paragraph) else 1
    line = recorded_line(
        notes.get("recorded"), notes.get("kind", "model"), notes.get("text_of")
    )
    section.insert(place, line)


def setup(app: Sphinx) -> dict:
    """Work on each page as soon as it is read."""
    app.connect("doctree-read", add_line)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
