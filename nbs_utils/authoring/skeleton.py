"""What a new chapter holds: cells that run, and `TODO` wherever words are missing.

`nbs check` lists every TODO, so that none is forgotten.
"""

from .book import PARTS
from .rules_structure import SETUP

START = """\
import torch
from torch.nn import functional as F

import nbs_utils as nbs

nbs.start(seed=0)
"""
START_FOUNDATION = """\
import torch

import nbs_utils as nbs

nbs.start(seed=0)
"""
GLANCE = """\
nbs.glance(
    {{
        "Paper": "TODO: authors: title, where it appeared",
        "New": "TODO",
        "Published top-1": "TODO: figure, data set and year, split, protocol",
    }},
    network=nbs.create_model("{network}"),
)
"""
IMPORTS = """\
from torch import nn

from nbs_utils.zoo import register, require_side
"""
NETWORK = '''\
class {class_name}(nn.Module):
    """TODO: say what the network is.

    Args:
        num_classes: number of outputs.
        in_channels: channels C of the images.

    Shape: (B, C, H, W) -> (B, num_classes).
    """

    def __init__(self, num_classes=1000, in_channels=3):
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 16, 3, stride=2, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.fc = nn.Linear(32, num_classes)

    def forward(self, x):
        require_side(x, 4)
        x = self.conv1(x).relu()  # (B, 16, H/2, W/2)
        x = self.conv2(x).relu()  # (B, 32, H/4, W/4)
        return self.fc(x.mean(dim=(2, 3)))  # (B, num_classes)


register({class_name}, {{"{network}": {{}}}}, image_size=224)
'''
COUNTS = """\
nbs.stage_table(nbs.create_model("{network}"))
"""
PARITY = """\
ours = nbs.create_model("{network}").eval()
x = torch.randn(2, 3, 64, 64)
by_hand = F.conv2d(x, ours.conv1.weight, ours.conv1.bias, stride=2, padding=1)
torch.allclose(ours.conv1(x), by_hand)
"""
TRAIN_DATA = """\
data = nbs.load_data(
    "imagenette",
    image_size=nbs.budget(gpu=128, cpu=64, quick=32),
    batch_size=nbs.budget(gpu=128, cpu=64, quick=16),
    limit=nbs.budget(gpu=None, cpu=1_000, quick=32),
)
network = nbs.create_model("{network}", data.num_classes)
epochs = nbs.budget(gpu=10, cpu=2, quick=1)
run = nbs.fit(network, data, epochs=epochs, progress="off")
scores = nbs.evaluate(network, data.test)
"""
SAVE = """\
nbs.save_card("{network}", run=run, scores=scores, network=network, data=data)
scores
"""
FIGURE = """\
nbs.figures.show_filters(network.conv1.weight)
"""
FIGURE_FOUNDATION = """\
figure, ax = nbs.figures.canvas(height=3)
ax.plot([0, 1, 2], [0, 1, 4])
ax.set_xlabel("TODO (unit)")
ax.set_ylabel("TODO (unit)")
nbs.figures.show(figure)
"""
ANSWERS = (
    "2 + 2",
    "nbs.device()",
    "torch.arange(4).sum().item()",
    "torch.ones(2, 3).shape",
)
TITLES = {
    "why": "Why it was invented",
    "idea": "The idea",
    "build": "Build it",
    "network": "The whole network",
    "right": "Is it right?",
    "practice": "Paper and practice",
    "train": "Train it",
    "inside": "Look inside",
    "worth": "What is each idea worth?",
    "exercises": "Exercises",
    "references": "References",
}
TEST = '''\
"""The network of the {title} chapter against arithmetic."""

import torch

from nbs_utils import count_parameters, create_model


def test_counts():
    network = create_model("{network}", num_classes=10)
    conv1, conv2 = 16 * (3 * 3 * 3) + 16, 32 * (16 * 3 * 3) + 32
    assert count_parameters(network) == conv1 + conv2 + 10 * 32 + 10


def test_images_of_an_odd_size_and_gray_ones():
    network = create_model("{network}", num_classes=10, in_channels=1)
    assert network(torch.zeros(2, 1, 33, 47)).shape == (2, 10)
'''


def model_cells(
    title: str, year: int, slug: str, network: str, class_name: str, repository: str
) -> list[dict]:
    """Return the cells of a chapter on a network: the twelve parts, all code runs."""
    names = {"network": network, "class_name": class_name}
    cells = [
        _text(
            f"# {title} ({year})\n\nTODO: the idea in one sentence, with its source."
        ),
        _setup(repository),
        _code(START),
        _code(GLANCE, names, tags=["nbval-check-output"]),
    ]
    inside = {
        "build": [
            _code(IMPORTS, tags=["export"]),
            _code(NETWORK, names, tags=["export"]),
        ],
        "network": [_code(COUNTS, names, tags=["nbval-check-output"])],
        "right": [_code(PARITY, names, tags=["nbval-check-output"])],
        "train": [_code(TRAIN_DATA, names), _code(SAVE, names)],
        "inside": [
            _code(FIGURE, names, figure=f"fig-{slug}-filters"),
            _text(f"{{numref}}`fig-{slug}-filters` shows TODO: say what to see."),
        ],
        "exercises": _exercises(slug),
    }
    for part in PARTS[1:]:
        words = "" if part in ("exercises", "references") else "\n\nTODO"
        if part == "references":
            words = "\n\n- TODO: what was cited, and what it is good for."
        cells.append(_text(f"## {TITLES[part]}\n<!-- part: {part} -->{words}"))
        cells += inside.get(part, [])
    return cells


def foundation_cells(title: str, slug: str, repository: str) -> list[dict]:
    """Return the cells of a chapter on something that all networks share."""
    return [
        _text(f"# {title}\n\nTODO: what the chapter is for, in one sentence."),
        _setup(repository),
        _code(START_FOUNDATION),
        _text("## TODO: a heading\n\nTODO"),
        _code(FIGURE_FOUNDATION, figure=f"fig-{slug}-first"),
        _text(f"{{numref}}`fig-{slug}-first` shows TODO: say what to see."),
        _text("## Exercises\n<!-- part: exercises -->"),
        *_exercises(slug),
        _text("## References\n<!-- part: references -->\n\n- TODO: what was cited."),
    ]


def _setup(repository: str) -> dict:
    setup = SETUP.format(repository=repository)
    return {**_code(setup), "metadata": {"tags": ["setup", "hide-input"]}}


def _exercises(slug: str) -> list[dict]:
    cells = []
    for number, answer in enumerate(ANSWERS, start=1):
        label = f"{slug}-ex-{number}"
        cells += [
            _text(
                f":::{{exercise}} TODO: a name\n:label: {label}\n\nTODO: a question.\n"
                f":::\n\n:::{{solution-start}} {label}\n:class: dropdown\n:::\n\nTODO"
            ),
            _code(answer, tags=["solution"]),
            _text(":::{solution-end}\n:::"),
        ]
    return cells


def _text(text: str) -> dict:
    return {"cell_type": "markdown", "metadata": {}, "source": _lines(text)}


def _code(
    text: str,
    names: dict[str, str] | None = None,
    *,
    tags: list[str] | None = None,
    figure: str = "",
) -> dict:
    metadata: dict = {"tags": tags} if tags else {}
    if figure:
        metadata["mystnb"] = {
            "figure": {"name": figure, "caption": "TODO: what the figure shows."},
            "image": {"alt": "TODO: what a reader would see, in one sentence."},
        }
    code = text.format(**names) if names else text
    return {
        "cell_type": "code",
        "execution_count": None,
        "metadata": metadata,
        "outputs": [],
        "source": _lines(code.strip("\n")),
    }


def _lines(text: str) -> list[str]:
    return text.splitlines(keepends=True)
