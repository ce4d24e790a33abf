"""Images per second of `fit` beside a bare loop and the loops of other libraries.

    python benchmarks/loops.py                     # both CIFAR networks
    python benchmarks/loops.py --networks resnet18 --rounds 5
    python benchmarks/loops.py --notebook          # the same inside a notebook kernel
    python benchmarks/loops.py --networks resnet18,resnet50    # on a GPU

The machine's speed changes while a benchmark runs, so all contestants take turns: in
each round every one of them trains once, and is compared with the bare loop of that
round. The table shows medians over the rounds.

A stopwatch inside the network takes the time from its first training step to its last,
two epochs later. So nobody pays for setting up, but everybody for what happens at each
step and between epochs: reading and augmenting images, metrics, progress, starting
workers, drawing a curve; in `fit`, d2l and fastai also validation, on 16 images. The
bare loop is forward, backward and step on float32 images that lie in memory, augmented
and normalized beforehand. The peers read images through a `DataLoader` with a transform
for each image, as their documentation shows.

On a CPU, `fit` tells the C library to keep freed memory (`runtime.keep_freed_memory`).
That holds for the whole process, so here it holds for everybody, the bare loop too; how
fast the bare loop is before that is measured first and printed below the table.
"""

import argparse
import contextlib
import dataclasses
import importlib.util
import io
import logging
import os
import platform
import statistics
import sys
import time
import warnings
from functools import partial

import torch
import torch.nn.functional as F
from torch import nn

import nbs_utils as nbs
from nbs_utils.data.storage import ArrayStore

LR, MOMENTUM, DECAY = 0.01, 0.9, 5e-4
FEW = 16  # images of a validation split that must not count


class Stopwatch(nn.Module):
    """A network that notes when it is called to train."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.times, self.images = network, [], []

    def forward(self, x):
        if self.training and torch.is_grad_enabled():  # `fit` looks before it trains
            if x.is_cuda:
                self._wait_at_the_ends()
            self.times.append(time.perf_counter())
            self.images.append(len(x))
        return self.network(x)

    def _wait_at_the_ends(self):
        # A GPU works on after the call returns: wait before the first step is timed,
        # and whenever the last one may have come.
        if not self.times or len(self.times) >= self.expected - 1:
            torch.cuda.synchronize()

    def speed(self) -> float:
        """Return images per second between the first step and the last."""
        return sum(self.images[:-1]) / (self.times[-1] - self.times[0])


def lenet() -> nn.Module:
    """Return a network of LeNet-5's size for 3 x 32 x 32 images."""
    return nn.Sequential(
        *(nn.Conv2d(3, 6, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()),
        *(nn.Linear(576, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU()),
        nn.Linear(84, 10),
    )


@dataclasses.dataclass
class Task:
    """What every contestant trains: a network, on the same random images.

    Attributes:
        make: builds the network.
        pixels: side of an image.
        images: in an epoch, on a CPU and on a GPU.
    """

    name: str
    make: object
    pixels: int
    images: tuple[int, int]
    batch_size: int = 128
    epochs: int = 2

    def prepare(self, device: torch.device) -> None:
        """Make the images: bytes for those who read, tensors for the bare loop."""
        on_gpu = device.type != "cpu"
        self.device, self.n = device, self.images[on_gpu]
        stored = self.pixels if self.pixels <= 64 else self.pixels * 5 // 4
        shape = (self.n, 3, stored, stored)
        generator = torch.Generator().manual_seed(0)
        self.bytes = torch.randint(0, 256, shape, generator=generator).byte()
        self.labels = torch.randint(0, 10, (self.n,), generator=generator)
        self.data = self._image_data()
        batches = self.data.train.batches(self.batch_size, epoch=0)
        self.tensors = [(x.clone(), y.clone()) for x, y in batches]
        self.val = [(x[:FEW], y[:FEW]) for x, y in self.tensors[:1]]
        self.steps = self.epochs * len(self.tensors)

    def _image_data(self):
        """Return an `ImageData` of these images, in the form of a small real one."""
        data = nbs.load_data(
            "digits",
            image_size=self.pixels,
            channels=3,
            batch_size=self.batch_size,
            augment="crop-flip" if self.pixels <= 64 else "resized-crop-flip",
            device=self.device,
        )
        images = self.bytes.to(self.device)

        def split(like, count):
            store = ArrayStore(images, self.labels, torch.arange(count))
            labels = store.labels.to(like.labels.device)
            return dataclasses.replace(like, store=store, labels=labels, _view=None)

        train, val = split(data.train, self.n), split(data.val, FEW)
        return dataclasses.replace(data, train=train, val=val, title="random images")

    def network(self) -> Stopwatch:
        torch.manual_seed(0)
        watch = Stopwatch(self.make()).to(self.device).train()
        watch.expected = self.steps
        return watch

    def sgd(self, network):
        return torch.optim.SGD(
            network.parameters(), LR, MOMENTUM, weight_decay=DECAY, nesterov=True
        )

    def loader(self):
        """Return a DataLoader in the usual style."""
        return torch.utils.data.DataLoader(
            PerImage(self.bytes, self.labels, self.pixels),
            batch_size=self.batch_size,
            shuffle=True,
            num_workers=min(2, os.cpu_count() or 1),
            drop_last=True,
            pin_memory=self.device.type == "cuda",
        )


class PerImage(torch.utils.data.Dataset):
    """Images that are augmented one at a time, as torchvision's data sets are."""

    def __init__(self, images, labels, pixels):
        from torchvision import transforms as T

        self.images = images.permute(0, 2, 3, 1).numpy()
        self.labels = labels.tolist()
        crop = (
            T.RandomCrop(pixels, padding=4)
            if pixels <= 64
            else T.RandomResizedCrop(pixels)
        )
        norm = T.Normalize([0.5] * 3, [0.25] * 3)
        self.transform = T.Compose([crop, T.RandomHorizontalFlip(), T.ToTensor(), norm])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        from PIL import Image

        return self.transform(Image.fromarray(self.images[i])), self.labels[i]


# The contestants. Each trains a network for the epochs of a task.


def bare(task: Task, network: nn.Module) -> None:
    """Forward, backward, step: nothing else."""
    optimizer = task.sgd(network)
    for _ in range(task.epochs):
        for x, y in task.tensors:
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()


def bare_channels_last(task: Task, network: nn.Module) -> None:
    """The bare loop in the memory format that `fit` chooses on a CPU."""
    optimizer = task.sgd(network)
    network.to(memory_format=torch.channels_last)
    for _ in range(task.epochs):
        for x, y in task.tensors:
            x = x.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()


def bare_auto(task: Task, network: nn.Module) -> None:
    """The bare loop in the precision and memory format that `fit` chooses."""
    optimizer = task.sgd(network)
    network.to(memory_format=torch.channels_last)
    chosen = nbs.runtime.precision("auto", task.device)
    scaler = torch.amp.GradScaler(task.device.type, enabled=chosen.scaler)
    for _ in range(task.epochs):
        for x, y in task.tensors:
            x = x.contiguous(memory_format=torch.channels_last)
            optimizer.zero_grad()
            with torch.autocast(task.device.type, chosen.dtype):
                logits = network(x)
            scaler.scale(F.cross_entropy(logits.float(), y)).backward()
            scaler.step(optimizer)
            scaler.update()


def fit(task: Task, network: nn.Module, precision: str = "float32") -> None:
    """This book's loop: augmentation, metrics, validation and progress are on."""
    recipe = nbs.Recipe(
        lr=LR,
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=DECAY,
        schedule="constant",
        precision=precision,
    )
    nbs.fit(network, task.data, recipe, epochs=task.epochs)


def fit_auto(task: Task, network: nn.Module) -> None:
    """This book's loop with `precision: auto`, its default."""
    fit(task, network, "auto")


def handwritten(task: Task, network: nn.Module) -> None:
    """The loop of many tutorials: a DataLoader, .item() at every step, tqdm."""
    from tqdm import tqdm

    optimizer, loader = task.sgd(network), task.loader()
    for _ in range(task.epochs):
        network.train()
        total = correct = seen = 0
        for x, y in (bar := tqdm(loader)):
            x, y = x.to(task.device), y.to(task.device)
            optimizer.zero_grad()
            logits = network(x)
            loss = F.cross_entropy(logits, y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
            correct += (logits.argmax(1) == y).sum().item()
            seen += len(y)
            bar.set_postfix(loss=total / seen, top1=correct / seen)


def d2l_trainer(task: Task, network: nn.Module) -> None:
    """Dive into Deep Learning's Trainer, with its board."""
    from d2l import torch as d2l

    class Model(d2l.Classifier):
        def __init__(self):
            super().__init__()
            self.net = network

        def configure_optimizers(self):
            return task.sgd(self.net)

    class Data(d2l.DataModule):
        def get_dataloader(self, train):
            return task.loader() if train else task.val

    on_gpu = int(task.device.type == "cuda")
    trainer = d2l.Trainer(max_epochs=task.epochs, num_gpus=on_gpu)
    trainer.fit(Model(), Data())


def lightning(task: Task, network: nn.Module) -> None:
    """Lightning's Trainer with its default callbacks."""
    import lightning as L

    class Model(L.LightningModule):
        def __init__(self):
            super().__init__()
            self.net = network

        def training_step(self, batch, _):
            x, y = batch
            logits = self.net(x)
            loss = F.cross_entropy(logits, y)
            self.log("loss", loss, prog_bar=True)
            self.log("top1", (logits.argmax(1) == y).float().mean(), prog_bar=True)
            return loss

        def configure_optimizers(self):
            return task.sgd(self.net)

    trainer = L.Trainer(
        max_epochs=task.epochs,
        accelerator="gpu" if task.device.type == "cuda" else "cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
    )
    trainer.fit(Model(), task.loader())


def fastai(task: Task, network: nn.Module) -> None:
    """fastai's Learner."""
    from fastai.data.core import DataLoaders
    from fastai.learner import Learner
    from fastai.metrics import accuracy
    from fastai.optimizer import SGD

    loaders = DataLoaders(task.loader(), task.val, device=task.device)
    learner = Learner(
        loaders,
        network,
        loss_func=F.cross_entropy,
        metrics=accuracy,
        opt_func=partial(SGD, mom=MOMENTUM),
        wd=DECAY,
    )
    learner.fit(task.epochs, LR)


def accelerate(task: Task, network: nn.Module) -> None:
    """A loop that is prepared by accelerate."""
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=task.device.type == "cpu")
    network, optimizer, loader = accelerator.prepare(
        network, task.sgd(network), task.loader()
    )
    for _ in range(task.epochs):
        network.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(x), y)
            accelerator.backward(loss)
            optimizer.step()
            total += loss.item()


# name: (function, package it needs)
CONTESTANTS = {
    "bare loop": (bare, None),
    "fit, float32": (fit, None),
    "fit, auto": (fit_auto, None),
    "bare, channels last": (bare_channels_last, None),
    "bare, auto": (bare_auto, None),
    "DataLoader loop": (handwritten, None),
    "d2l.Trainer": (d2l_trainer, "d2l"),
    "Lightning": (lightning, "lightning"),
    "fastai": (fastai, "fastai"),
    "accelerate": (accelerate, "accelerate"),
}
TASKS = {
    "lenet": Task("LeNet-sized net, 32 px", lenet, 32, (12_800, 51_200)),
    "resnet18": Task(
        "CIFAR ResNet-18, 32 px",
        lambda: nbs.create_model("resnet18", num_classes=10, stem="cifar"),
        32,
        (768, 51_200),
    ),
    "resnet50": Task(
        "ResNet-50, 128 px",
        lambda: nbs.create_model("resnet50", num_classes=10),
        128,
        (128, 10_240),
        batch_size=64,
    ),
}


@contextlib.contextmanager
def quiet():
    """Keep the contestants' own output off the screen, but let them produce it.

    In a notebook it goes to the notebook, as it would for a reader.
    """
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    if in_notebook():
        yield
        return
    with (
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        yield


def in_notebook() -> bool:
    module = sys.modules.get("IPython")
    return getattr(module and module.get_ipython(), "kernel", None) is not None


def measure(task: Task, names: list[str], rounds: int) -> dict[str, list[float]]:
    """Return images per second of each contestant in each round."""
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(-1, rounds):  # the first one warms up
        for i in range(len(names)):
            # each round begins with another one, so that nobody is always first
            name = names[(i + max(turn, 0)) % len(names)]
            network = task.network()
            with quiet():
                CONTESTANTS[name][0](task, network)
            if turn >= 0:
                speeds[name].append(network.speed())
    return speeds


def measure_before(task: Task, rounds: int) -> list[float]:
    """Return the bare loop's images per second before freed memory is kept."""
    speeds = []
    for _ in range(rounds):
        network = task.network()
        bare(task, network)
        speeds.append(network.speed())
    return speeds


def report(task: Task, speeds: dict[str, list[float]], before: list[float]) -> str:
    """Return the table: images per second and shares of the bare loops."""
    reference = speeds["bare loop"]
    lines = [
        f"{task.name}, batch {task.batch_size}, {task.n:,} images x {task.epochs} epochs",
        f"  {'':<20}{'images/s':>10}{'share of bare loop':>22}{'lowest-highest':>18}",
    ]
    for name, values in speeds.items():
        shares = sorted(a / b for a, b in zip(values, reference, strict=True))
        lines.append(
            f"  {name:<20}{statistics.median(values):>10,.0f}"
            f"{statistics.median(shares):>22.2f}"
            f"{f'{shares[0]:.2f}-{shares[-1]:.2f}':>18}"
        )
    for mine, like in (
        ("fit, float32", "bare, channels last"),
        ("fit, auto", "bare, auto"),
    ):
        if mine in speeds and like in speeds:
            pairs = zip(speeds[mine], speeds[like], strict=True)
            share = statistics.median(a / b for a, b in pairs)
            lines.append(f"  {mine}, as a share of {like}: {share:.2f}")
    if before:
        lines.append(
            "  the bare loop before freed memory is kept: "
            f"{statistics.median(before):,.0f} images/s "
            f"({min(before):,.0f} to {max(before):,.0f})"
        )
    return "\n".join(lines)


def describe(device: torch.device) -> str:
    """Return the machine and the versions of everything that took part."""
    from importlib.metadata import PackageNotFoundError, version

    parts = [f"Python {platform.python_version()}", f"torch {torch.__version__}"]
    for package in ("torchvision", "d2l", "lightning", "fastai", "accelerate"):
        with contextlib.suppress(PackageNotFoundError):
            parts.append(f"{package} {version(package)}")
    chosen = nbs.runtime.precision("auto", device)
    where = "in a notebook kernel" if in_notebook() else "in a shell"
    return (
        f"{nbs.runtime.device_name(device)}, {torch.get_num_threads()} threads, {where}\n"
        f"{', '.join(parts)}\nauto is {chosen} ({chosen.why})"
    )


def run_in_a_notebook(arguments: list[str]) -> None:
    """Run this script in a kernel, and print what it prints."""
    from jupyter_client import KernelManager

    folder = os.path.dirname(os.path.abspath(__file__))
    code = (
        f"import sys; sys.path.insert(0, {folder!r})\n"
        f"import loops; loops.main({arguments!r}, mark=True)"
    )
    kernel = KernelManager(kernel_name="python3")
    kernel.start_kernel()
    client = kernel.client()
    client.start_channels()
    try:
        client.wait_for_ready(timeout=60)
        client.execute_interactive(code, output_hook=show_marked, timeout=None)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


MARK = "\N{ZERO WIDTH SPACE}"  # begins what the script itself prints


def show_marked(message: dict) -> None:
    """Print the script's own lines; the contestants' output goes nowhere."""
    content = message["content"]
    if message["msg_type"] == "error":
        print("\n".join(content["traceback"]))
    if message["msg_type"] == "stream" and content["name"] == "stdout":
        for line in content["text"].splitlines():
            if line.startswith(MARK):
                print(line.removeprefix(MARK), flush=True)


def main(arguments: list[str] | None = None, mark: bool = False) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--networks", default="lenet,resnet18", help="of " + ", ".join(TASKS)
    )
    parser.add_argument("--only", help="contestants, as in 'fit, float32;fit, auto'")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--images", type=int, help="in an epoch, instead of the default"
    )
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--notebook", action="store_true", help="run in a kernel")
    options = parser.parse_args(arguments)
    if options.notebook:
        rest = [a for a in (arguments or sys.argv[1:]) if a != "--notebook"]
        return run_in_a_notebook(rest)

    def say(text: str) -> None:
        for line in text.splitlines() or [""]:
            print(MARK + line if mark else line, flush=True)

    if options.threads:
        torch.set_num_threads(options.threads)
    device = nbs.device()
    say(describe(device))
    wanted = options.only.split(";") if options.only else list(CONTESTANTS)
    names = ["bare loop"]
    for name in wanted:
        _, package = CONTESTANTS[name]
        if package and importlib.util.find_spec(package) is None:
            say(f"{name}: not installed")
        elif name not in names:
            names.append(name)
    before = {}
    tasks = [TASKS[key] for key in options.networks.split(",")]
    for task in tasks:
        if options.images:
            task.images = (options.images, options.images)
        task.batch_size = options.batch_size or task.batch_size
        task.prepare(device)
        on_cpu = device.type == "cpu"
        before[task.name] = measure_before(task, options.rounds) if on_cpu else []
    nbs.runtime.keep_freed_memory()
    for task in tasks:
        say("")
        speeds = measure(task, names, options.rounds)
        say(report(task, speeds, before[task.name]))
    return None


if __name__ == "__main__":
    main()
