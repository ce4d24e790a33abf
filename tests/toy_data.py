"""A data set of random images that a small network learns in a few steps."""

import torch
from torch import nn

from nbs_utils.runtime import derive_seed


class ToySplit:
    """What `fit` needs of a split: batches in order, or shuffled for an epoch."""

    def __init__(self, x, y, classes, seed):
        self.x, self.labels, self.classes, self.seed = x, y, classes, seed

    def __len__(self):
        return len(self.labels)

    def num_batches(self, batch_size, training=True):
        if training:
            return max(1, len(self) // batch_size)
        return -(-len(self) // batch_size)

    def batches(self, batch_size=None, *, epoch=None, start=0, device=None):
        order = torch.arange(len(self))
        count = self.num_batches(batch_size, training=epoch is not None)
        if epoch is not None:
            seed = derive_seed(self.seed, epoch)
            order = torch.randperm(
                len(self), generator=torch.Generator().manual_seed(seed)
            )
        for step in range(start, count):
            chosen = order[step * batch_size : (step + 1) * batch_size]
            yield self.x[chosen], self.labels[chosen]


class ToyData:
    """256 training and 70 validation images of 1 x 8 x 8 pixels in 10 classes."""

    def __init__(self, train=256, val=70, classes=10, seed=0):
        generator = torch.Generator().manual_seed(7)
        x = torch.randn(train + val, 1, 8, 8, generator=generator)
        rule = torch.randn(64, classes, generator=generator)
        y = (x.flatten(1) @ rule).argmax(1)
        names = [f"class {i}" for i in range(classes)]
        self.train = ToySplit(x[:train], y[:train], names, seed)
        self.val = ToySplit(x[train:], y[train:], names, seed)
        self.name, self.title, self.classes = "toy", "Toy", names
        self.num_classes, self.channels, self.image_size = classes, 1, 8
        self.batch_size, self.device, self.seed = 32, torch.device("cpu"), seed


def toy_network(*, norm=True, dropout=0.0, classes=10, seed=0):
    """Return a small convolutional network, always with the same first weights."""
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Flatten(),
        nn.Linear(8 * 64, classes),
    )


def same(a, b):
    """Tell whether two networks hold bit-identical weights and buffers."""
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)
