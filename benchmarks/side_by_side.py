"""Runs of an experiment side by side, against one after another, on the CPU.

    python benchmarks/side_by_side.py
    python benchmarks/side_by_side.py --only lenet --rounds 5

Four runs of a few steps are done in three ways: one after another with all threads, one
after another with one thread, and in one process for each core with one thread. They
take turns; the table shows the shortest time of each over the rounds, since whatever
else the machine does only makes it longer. Processes are running and have the data
before the clock starts. That the results are equal is checked too.
"""

import argparse
import time
from dataclasses import dataclass

import torch
from torch import nn

import nbs_utils as nbs
from nbs_utils import runtime
from nbs_utils.experiments.plan import Variant
from nbs_utils.experiments.processes import side_by_side
from nbs_utils.experiments.runs import Job, work

RUNS = 4


@dataclass
class Noise:
    """A split of random images that are cut into batches in order."""

    x: torch.Tensor
    labels: torch.Tensor

    classes = tuple("0123456789")
    seed = 0

    def __len__(self):
        return len(self.labels)

    def num_batches(self, batch_size, training=True):
        return len(self) // batch_size if training else -(-len(self) // batch_size)

    def batches(self, batch_size, *, epoch=None, start=0, device=None):
        parts = zip(self.x.split(batch_size), self.labels.split(batch_size))
        yield from list(parts)[start : self.num_batches(batch_size, epoch is not None)]


class NoiseData:
    """What `fit` needs of a data set: one epoch of some steps, a batch to validate."""

    def __init__(self, channels, side, steps, batch_size):
        def noise(count):
            x = torch.randn(count, channels, side, side)
            return Noise(x, torch.randint(10, (count,)))

        self.train, self.val = noise(steps * batch_size), noise(batch_size)
        self.name = self.title = "noise"
        self.classes, self.num_classes = list(Noise.classes), 10
        self.channels, self.image_size, self.batch_size = channels, side, batch_size
        self.device = torch.device("cpu")


def lenet():
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )


def convolutions(*widths):
    """Return 3x3 convolutions with batch norm; stride 2 where the width grows."""
    layers, before = [], 3
    for width in widths:
        stride = 2 if layers and width > before else 1
        conv = nn.Conv2d(before, width, 3, stride, padding=1, bias=False)
        layers += [conv, nn.BatchNorm2d(width), nn.ReLU()]
        before = width
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(before, 10)]
    return nn.Sequential(*layers, *head)


CASES = {
    "lenet, 28 px": (lenet, (1, 28, 120, 64)),
    "5 convolutions, 16 px": (
        lambda: convolutions(16, 32, 32, 64, 64),
        (3, 16, 60, 128),
    ),
    "resnet20, 32 px": (
        lambda: nbs.create_model("cifar_resnet20", num_classes=10),
        (3, 32, 10, 64),
    ),
    "resnet18, 128 px": (
        lambda: nbs.create_model("resnet18", num_classes=10, stem="imagenet"),
        (3, 128, 2, 32),
    ),
}


def measure(name: str, precision: str, rounds: int) -> dict:
    """Return the row of a case."""
    build, shape = CASES[name]
    recipe = nbs.Recipe.load("short").replace(epochs=1, precision=precision)
    variant = Variant(name, build, recipe, NoiseData(*shape))
    cores = runtime.cpu_cores()

    def jobs(threads):
        return [
            Job(variant, seed, None, "val", "loss", False, threads)
            for seed in range(RUNS)
        ]

    ways = {
        "all threads": lambda: [work(job).value for job in jobs(cores)],
        "one thread": lambda: [work(job).value for job in jobs(1)],
        "side by side": lambda: [
            outcome.value
            for _, outcome in sorted(
                side_by_side(jobs(1), cores), key=lambda pair: pair[0].seed
            )
        ],
    }
    ways["all threads"]()
    if ways["one thread"]() != ways["side by side"]():
        raise AssertionError(f"{name}: side by side gives other numbers")
    seconds = {way: [] for way in ways}
    for _ in range(rounds):
        for way, run in ways.items():
            started = time.perf_counter()
            run()
            seconds[way].append(time.perf_counter() - started)
    best = {way: min(times) for way, times in seconds.items()}
    gain = best["all threads"] / best["side by side"]
    return {"network": name, "precision": precision, **best, "gain": gain}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default="", help="part of a network's name")
    parser.add_argument("--precision", default="auto", help="auto or float32")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    print(runtime.device_name("cpu"))
    for name in CASES:
        if args.only in name:
            row = measure(name, args.precision, args.rounds)
            print(nbs.Table([row]).round(2), flush=True)


if __name__ == "__main__":
    main()
