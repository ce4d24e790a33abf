"""What a run's folder shows: curve, confusions, the mistakes, and a page of all that."""

import base64
import csv
import html
import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import nn

from ..figures.curves import draw_confusion, draw_history
from ..figures.style import save_svg, styled
from ..results import write_text
from .prediction import Runner
from .reliability import wilson

CURVE, CONFUSION = "curve.svg", "confusion.svg"
PER_CLASS, MISTAKES, PAGE = "per_class.csv", "mistakes.csv", "report.html"
_STYLE = Path(__file__).with_name("report.css")
_PICTURES = 24  # of the worst mistakes on the page
_SIDE = 144  # px, of a picture


@dataclass(frozen=True)
class Answer:
    """What a network said of one image.

    Attributes:
        position: in the split.
        file: path, or "" where the images are in no files.
        truth, guess: names of classes.
        probability: of the guess.
        of_truth: the probability that the network gave to the true class.
    """

    position: int
    file: str
    truth: str
    guess: str
    probability: float
    of_truth: float


def ask(network: nn.Module, split) -> list[Answer]:
    """Return what a network says of every image of a split that can be read.

    Args:
        network: trained.
        split: of `load_data`, or `PhotoFiles`.
    """
    run = Runner(network, split, "center", None, "auto", None)
    logits, labels = [], []
    with run:
        for scores, y in run:
            columns = (
                run.columns_for(scores.shape[1]) if _subset(split, scores) else None
            )
            logits.append(scores if columns is None else scores[:, columns])
            labels.append(y)
    probabilities = torch.cat(logits).softmax(1).cpu()
    truth = torch.cat(labels).cpu().tolist()
    best = probabilities.max(1)
    positions = getattr(split, "kept", None) or range(len(truth))
    if len(positions) != len(truth):  # files of a stream were skipped: which is unknown
        positions = [-1] * len(truth)
    return [
        Answer(
            i,
            str(path_of(split, i) or ""),
            split.classes[t],
            split.classes[g],
            p,
            float(row[t]),
        )
        for i, t, g, p, row in zip(
            positions,
            truth,
            best.indices.tolist(),
            best.values.tolist(),
            probabilities,
            strict=True,
        )
    ]


def _subset(split, scores) -> bool:
    return scores.shape[1] != len(split.classes)


def path_of(split, i: int) -> Path | None:
    """Return the file of an image of a split; None where it is in none."""
    paths = getattr(getattr(split, "store", split), "paths", ())
    return paths[i] if 0 <= i < len(paths) else None


def mistakes(answers: Iterable[Answer]) -> list[Answer]:
    """Return the wrong answers, those first of which the network was surest."""
    wrong = [a for a in answers if a.guess != a.truth]
    return sorted(wrong, key=lambda a: -a.probability)


def per_class(answers: list[Answer], classes: list[str]) -> pd.DataFrame:
    """Return for each class: images, found, recall, precision, most often taken for.

    Recall is the share of a class's images that were recognized, precision the share
    of the guesses of this class that were right; both are empty where there are none.
    """
    truth = np.array([a.truth for a in answers])
    guess = np.array([a.guess for a in answers])
    rows = []
    for name in classes:
        own, said = truth == name, guess == name
        right = int((own & said).sum())
        others = pd.Series(guess[own & ~said]).value_counts(sort=True)
        rows.append(
            {
                "class": name,
                "images": int(own.sum()),
                "right": right,
                "recall": right / own.sum() if own.any() else np.nan,
                "precision": right / said.sum() if said.any() else np.nan,
                "taken_for": others.index[0] if len(others) else "",
            }
        )
    return pd.DataFrame(rows)


def write_report(
    folder: str | Path,
    network: nn.Module,
    split,
    history: pd.DataFrame | None = None,
    notes: Iterable[str] = (),
) -> Path:
    """Write what a run shows into its folder, and a page that opens without a network.

    Args:
        folder: of the run. It gets `curve.svg` (where there is a history),
            `confusion.svg`, `per_class.csv`, `mistakes.csv` (file, truth, guess, the
            probability of each, the surest mistakes first) and `report.html`.
        network: trained.
        split: mostly `data.test`.
        history: of the run, `run.history`.
        notes: sentences for the page.

    Returns:
        The path of the page.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    answers = ask(network, split)
    classes = list(split.classes)
    table = per_class(answers, classes)
    wrong = mistakes(answers)
    table.round(4).to_csv(folder / PER_CLASS, index=False)
    _write_mistakes(wrong, folder / MISTAKES)
    figures = _draw(folder, answers, classes, history)
    pictures = [
        (a, _picture(split, a.position)) for a in wrong[:_PICTURES] if a.position >= 0
    ]
    title = f"{folder.resolve().name}"
    page = _page(title, split, answers, table, wrong, pictures, figures, notes)
    write_text(page, folder / PAGE)
    return folder / PAGE


def _write_mistakes(wrong: list[Answer], path: Path) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "truth", "guess", "probability", "of_truth"])
        for a in wrong:
            name = a.file or f"image {a.position}"
            numbers = f"{a.probability:.4f}", f"{a.of_truth:.4f}"
            writer.writerow([name, a.truth, a.guess, *numbers])


@styled
def _draw(folder, answers, classes, history) -> dict[str, str]:
    """Write the figures; return them as SVG text by file name."""
    index = {name: i for i, name in enumerate(classes)}
    counts = np.zeros((len(classes), len(classes)))
    for a in answers:
        counts[index[a.truth], index[a.guess]] += 1
    drawn = {CONFUSION: draw_confusion(counts, classes)}
    if history is not None and len(history):
        drawn[CURVE] = draw_history(history)
    return {
        name: save_svg(figure, folder / name) for name, figure in sorted(drawn.items())
    }


def _picture(split, position: int) -> str:
    """Return an image as a data URL, small."""
    x = split.images([position])[0].cpu()
    array = x.expand(3, -1, -1).permute(1, 2, 0).numpy()
    image = Image.fromarray(array)
    image.thumbnail((2 * _SIDE, 2 * _SIDE))  # sharp on dense screens, too
    data = io.BytesIO()
    image.save(data, "JPEG", quality=82)
    return f"data:image/jpeg;base64,{base64.b64encode(data.getvalue()).decode()}"


def _percent(share: float) -> str:
    return "" if np.isnan(share) else f"{100 * share:.1f} %"


def _page(title, split, answers, table, wrong, pictures, figures, notes) -> str:
    """Return the page; everything that it shows is inside it."""
    e = html.escape
    right = len(answers) - len(wrong)
    low, high = wilson(right, len(answers))
    lead = (
        f"{right:,} of {len(answers):,} {getattr(split, 'name', '')} photographs are "
        f"recognized: {100 * right / len(answers):.1f} % (95 % interval "
        f"{100 * low:.1f} to {100 * high:.1f} %)."
    )
    rows = "".join(
        f'<tr><th scope="row">{e(r["class"])}</th><td>{r["images"]:,}</td>'
        f"<td>{r['right']:,}</td><td>{_percent(r['recall'])}</td>"
        f'<td>{_percent(r["precision"])}</td><td class="word">{e(r["taken_for"])}</td>'
        "</tr>"
        for r in table.to_dict("records")
    )
    cards = "".join(
        f'<li><img src="{url}" alt="Photograph of class {e(a.truth)}" width="{_SIDE}" '
        f'height="{_SIDE}"><p><b>{e(a.guess)}</b> {100 * a.probability:.0f}&nbsp;%<br>is '
        f"{e(a.truth)} ({100 * a.of_truth:.0f}&nbsp;%)</p>"
        f'<p class="file">{e(Path(a.file).name)}</p></li>'
        for a, url in pictures
    )
    count = len(wrong)
    shown = (
        f"The {len(pictures)} of {count}" if count > len(pictures) else f"All {count}"
    )
    worst = (
        f"<h2>Mistakes</h2><p>{shown}, those first of which the network was surest; "
        f'<a href="{MISTAKES}">{MISTAKES}</a> lists all with their files.</p>'
        f'<ul class="cards">{cards}</ul>'
        if wrong
        else "<h2>Mistakes</h2><p>None on this split.</p>"
    )
    curve = (
        f"<h2>Training</h2><figure>{_inline(figures[CURVE], 'Loss and accuracy')}"
        "</figure>"
        if CURVE in figures
        else ""
    )
    said = "".join(f"<p>{e(note)}</p>" for note in notes if note)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{e(title)}</title>
<style>
{_STYLE.read_text(encoding="utf-8")}</style>
</head>
<body>
<main>
<h1>{e(title)}</h1>
<p class="lead">{lead}</p>
{said}
{curve}
<h2>Confusions</h2>
<figure>{_inline(figures[CONFUSION], "Confusion matrix")}</figure>
<h2>Classes</h2>
<div class="wide" tabindex="0" role="region" aria-label="Scores by class">
<table>
<thead><tr><th scope="col">class</th><th scope="col">images</th>
<th scope="col">right</th><th scope="col">recall</th><th scope="col">precision</th>
<th scope="col" class="word">most often taken for</th></tr></thead>
<tbody>{rows}</tbody>
</table>
</div>
{worst}
</main>
</body>
</html>
"""


def _inline(svg: str, alt: str) -> str:
    """Return a figure as an image of its own, so that its names cannot collide."""
    data = base64.b64encode(svg.encode()).decode()
    return f'<img class="figure" src="data:image/svg+xml;base64,{data}" alt="{alt}">'
