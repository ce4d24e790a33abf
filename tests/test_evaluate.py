"""Scores against hand-computed counts, and what evaluate says to bad input."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from nbs_utils.scoring.evaluation import evaluate


class FixedSplit:
    """Batches whose images are indices into a table of logits."""

    def __init__(self, labels, classes, size=2):
        self.labels = torch.tensor(labels)
        self.classes, self.size, self.device = classes, size, torch.device("cpu")

    def __len__(self):
        return len(self.labels)

    def batches(self, batch_size=None, *, device=None):
        x = torch.arange(len(self)).float().view(-1, 1, 1, 1)
        size = batch_size or self.size
        yield from zip(x.split(size), self.labels.split(size), strict=True)


class Lookup(nn.Module):
    """Returns row i of a table of logits for the image that holds i."""

    def __init__(self, table):
        super().__init__()
        self.table = nn.Parameter(torch.tensor(table))

    def forward(self, x):
        return self.table[x.flatten().long()]


CLASSES = list("abcdefg")


def test_counts_by_hand():
    rows = [
        [9.0, 8, 7, 6, 5, 4, 3],  # true a: rank 0
        [9.0, 8, 7, 6, 5, 4, 3],  # true e: rank 4, within five
        [9.0, 8, 7, 6, 5, 4, 3],  # true f: rank 5, outside
        [0.0, 0, 0, 0, 0, 0, 5],  # true g: rank 0
        [0.0, 5, 0, 0, 0, 0, 0],  # true a, predicted b: rank 1
    ]
    labels = [0, 4, 5, 6, 0]
    scores = evaluate(Lookup(rows), FixedSplit(labels, CLASSES), precision="float32")
    assert (scores.n, scores.correct1, scores.correct5) == (5, 2, 4)
    assert scores.top1 == 0.4
    assert scores.top5 == 0.8
    expected = F.cross_entropy(torch.tensor(rows), torch.tensor(labels)).item()
    assert scores.loss == pytest.approx(expected, rel=1e-6)
    matrix = np.zeros((7, 7), int)
    for truth, guess in zip(labels, [0, 0, 0, 6, 1], strict=True):
        matrix[truth, guess] += 1
    assert (scores.confusion == matrix).all()
    table = scores.per_class.set_index("class")
    assert table.loc["a", "top1"] == 0.5
    assert table.loc["a", "confused_with"] == "b"
    assert table.loc["f", ["top1", "top5"]].tolist() == [0, 0]
    assert np.isnan(table.loc["b", "top1"])  # no image of b


def test_a_short_last_batch_counts_by_images():
    torch.manual_seed(0)
    rows, labels = torch.randn(7, 7).tolist(), [0, 1, 2, 3, 4, 5, 6]
    network = Lookup(rows)
    losses = [
        evaluate(network, FixedSplit(labels, CLASSES, size), precision="float32").loss
        for size in (1, 3, 7)
    ]
    assert losses == pytest.approx([losses[0]] * 3, rel=1e-6)


def test_ties_go_to_the_smaller_class():
    rows = [[1.0] * 7] * 3
    scores = evaluate(Lookup(rows), FixedSplit([0, 4, 5], CLASSES), precision="float32")
    # ranks 0, 4 and 5: the prediction is a, and five are a to e
    assert (scores.correct1, scores.correct5) == (1, 2)
    assert scores.confusion[:, 0].sum() == 3


def test_ties_of_16_bits_are_settled_in_float32():
    class Near(nn.Module):
        """Two logits that differ by less than bfloat16 can tell."""

        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(1, 7, bias=False)
            self.linear.weight.data = torch.tensor(
                [[0.0], [1.0], [1.001], [0], [0], [0], [0]]
            )

        def forward(self, x):
            return self.linear(x.flatten(1) * 0 + 1)

    split = FixedSplit([2, 2], CLASSES)
    with torch.autocast("cpu", torch.bfloat16):
        logits = Near()(torch.ones(1, 1))
    assert logits[0, 1] == logits[0, 2]  # the test would test nothing without this
    assert evaluate(Near(), split, precision="bfloat16").top1 == 1.0


def test_fewer_than_five_classes():
    rows = [[0.0, 1, 2], [2, 1, 0]]
    scores = evaluate(Lookup(rows), FixedSplit([0, 0], ["x", "y", "z"]))
    assert (scores.top1, scores.top5) == (0.5, 1.0)
    assert "top-5" not in repr(scores)


def test_modes_and_gradients_are_left_as_they_were():
    network = nn.Sequential(nn.Dropout(0.9), Lookup([[1.0] * 7]), nn.BatchNorm1d(7))
    network.train()
    network[0].eval()  # a mixed state must survive as well
    before = network[2].running_mean.clone()
    evaluate(network, FixedSplit([0], CLASSES))
    assert [m.training for m in network] == [False, True, True]
    assert torch.equal(network[2].running_mean, before)
    assert all(p.grad is None for p in network.parameters())

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("inside")

    broken = Broken().train()
    with pytest.raises(RuntimeError, match="inside"):
        evaluate(broken, FixedSplit([0], CLASSES))
    assert broken.training


def test_bad_input_is_told_what_to_do():
    split = FixedSplit([0, 1], CLASSES)
    network = Lookup([[1.0] * 7] * 2)

    class Data:
        val = test = split

    with pytest.raises(TypeError, match=r"Pass data\.val .* data\.test once"):
        evaluate(network, Data())
    with pytest.raises(ValueError, match="holds no image"):
        evaluate(network, FixedSplit([], CLASSES))
    with pytest.raises(ValueError, match="num_classes=7"):
        evaluate(Lookup([[1.0] * 5] * 2), split)
    with pytest.raises(ValueError, match="run from 0 to 7"):
        evaluate(network, FixedSplit([0, 7], CLASSES))
    with pytest.raises(ValueError, match="NaN or infinity"):
        evaluate(Lookup([[float("nan")] * 7] * 2), split)
    with pytest.raises(ValueError, match="protocol '10-crop' is unknown"):
        evaluate(network, split, protocol="10-crop")
    with pytest.raises(TypeError, match="returned a tuple"):
        evaluate(TwoHeads(), split)


class TwoHeads(nn.Module):
    def forward(self, x):
        return x, x


def test_a_split_of_the_package_gives_the_same_counts_as_a_plain_loop():
    from nbs_utils import load_data

    torch.manual_seed(0)
    data = load_data("digits", image_size=8, channels=1)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    scores = evaluate(network, data.test, precision="float32", batch_size=50)
    x = data.test.normalize(data.test.images(range(len(data.test))))
    right = (network(x).argmax(1) == data.test.labels).sum().item()
    assert (scores.correct1, scores.n) == (right, len(data.test))
    assert scores.split == "test"
