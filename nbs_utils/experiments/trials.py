"""Several variants over several seeds: the same data, order and steps for all."""

import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from .. import runtime
from ..distributed import world
from ..training import Recipe
from ..training.run import describe_seconds
from .plan import (
    Variant,
    check_same_images,
    make_seeds,
    make_variants,
    shared_starts,
)
from .processes import side_by_side
from .result import METRICS, Comparison, check_against
from .runs import Job, work


def experiment(
    variants: dict,
    data=None,
    recipe: str | Recipe = "short",
    *,
    seeds: int | Sequence[int] = 3,
    epochs: int | None = None,
    metric: str | Callable = "top1",
    on: str = "val",
    against: str | None = None,
    folder: str | Path | None = None,
    keep: bool = False,
    parallel: bool = False,
    progress: str = "auto",
) -> Comparison:
    """Train several variants with several seeds, and compare them seed by seed.

    At a seed all variants see the same images in the same order with the same
    augmentation, take the same steps, and draw their first weights from the same
    numbers (layers that are built in the same order and shapes begin alike). A
    variant's score is that of the last epoch: the best epoch would be chosen on the
    images that it is then scored on, which flatters whoever fluctuates most. Whatever
    a recipe says in `keep` is therefore replaced by "last".

    Runs follow one another, each with all of the machine. With `parallel=True` on a
    CPU they work side by side, each with its share of the cores in a process of its
    own, and the table says that their timings are spoiled. On two cores that was 1.1 to
    1.3 times as fast (`benchmarks/side_by_side.py`), too little to be the default; it
    was not measured on more. The numbers are those of one after another with equally
    many threads (`torch.set_num_threads`), to the last digit; sums with other numbers
    of threads differ in it. In a quick run there are at most two seeds and one epoch.

    Args:
        variants: name -> a function without arguments that builds the network, or
            `dict(network=function, recipe=..., data=...)` where a variant has a
            recipe or data of its own.
        data: what `load_data` returned; or a function of the seed that returns such
            data, for fresh training images with every seed. The images that are
            scored must be the same for all.
        recipe: a name, the path of a YAML file, or a `Recipe`.
        seeds: how many (3 means 0, 1 and 2), or which.
        epochs: another length for the recipes; schedules are stretched to it.
        metric: "top1" or "loss" (cross entropy), which also say how sure they are for
            other images; or a function (network, data) -> number, whose name stands
            in the table.
        on: the split that is scored, "val" or "test".
        against: the variant that the others are compared with; by default the first.
        folder: keeps every run. Called again, finished runs are read back and a
            stopped one goes on where it stopped.
        keep: hold the trained networks in `result.networks`.
        parallel: side by side, see above. What a variant refers to must then be
            something that can be written down, not an open file or a lock.
        progress: "auto" shows one line for all runs on stderr, "off" none.

    Returns:
        Comparison: `values` (seeds x variants), `runs[name][seed]`, `table()`,
        `figure()`; in a notebook it shows its table.

    Raises:
        TypeError: a variant is no function that builds a network, or, with
            parallel=True, cannot be handed to another process.
        ValueError: an argument is wrong, variants would be scored on different
            images, or the folder holds another experiment.
        KeyboardInterrupt: a run was stopped; the message says where it goes on.
    """
    if runtime.is_quick():
        epochs = 1
    chosen = make_seeds(seeds)
    plans = make_variants(variants, data, recipe, epochs)
    against = check_against(against, [plan.name for plan in plans])
    _check(on, metric, parallel, progress)
    check_same_images(plans, chosen, on)
    count = len(plans) * len(chosen)
    device = plans[0].data_for(chosen[0]).device
    processes = _processes(parallel, device, count)
    threads = max(1, runtime.cpu_cores() // processes) if processes > 1 else None
    jobs = [
        Job(plan, seed, _place(folder, plan.name, seed), on, metric, keep, threads)
        for seed in chosen
        for plan in plans
    ]
    outcomes = _collect(jobs, processes, progress != "off")
    return _compare(plans, chosen, outcomes, against, metric, on, processes)


def _check(on, metric, parallel, progress) -> None:
    if on not in ("val", "test"):
        raise ValueError(f"on is {on!r}; it must be val or test.")
    if not callable(metric) and metric not in METRICS:
        raise ValueError(
            f"metric is {metric!r}; it must be {' or '.join(METRICS)}, or a function "
            "of (network, data) that returns a number."
        )
    if not isinstance(parallel, bool):
        raise TypeError(f"parallel is {parallel!r}; it must be True or False.")
    if progress not in ("auto", "off"):
        raise ValueError(f"progress is {progress!r}; it must be auto or off.")


def _place(folder, name: str, seed: int) -> Path | None:
    if folder is None:
        return None
    word = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "variant"
    return Path(folder) / word / f"seed-{seed}"


def _processes(parallel: bool, device: torch.device, runs: int) -> int:
    """Return how many runs work at the same time."""
    if not parallel or device.type != "cpu" or runtime.is_quick() or world().size > 1:
        return 1
    return min(runs, runtime.cpu_cores())


def _collect(jobs: list[Job], processes: int, show: bool) -> dict:
    """Do all runs; return (variant, seed) -> outcome."""
    line, outcomes = _Line(len(jobs), show), {}
    if processes > 1:
        line.write(f"{processes} side by side")
        for job, outcome in side_by_side(jobs, processes):
            if outcome is not None:
                outcomes[job.variant.name, job.seed] = outcome
                line.done += 1
            line.write(f"{processes} side by side")
    for job in jobs:
        if (job.variant.name, job.seed) not in outcomes:
            line.write(f"{job.variant.name}, seed {job.seed}")
            outcomes[job.variant.name, job.seed] = work(job)
            line.done += 1
    line.finish()
    return outcomes


class _Line:
    """The one line of progress."""

    def __init__(self, runs: int, show: bool):
        self.runs, self.show, self.done = runs, show, 0
        self.started = time.monotonic()

    def write(self, what: str) -> None:
        if self.show:
            seconds = describe_seconds(time.monotonic() - self.started)
            text = f"\r{self.done} of {self.runs} runs, {seconds}: {what}\033[K"
            print(text, end="", file=sys.stderr, flush=True)

    def finish(self) -> None:
        if self.show:
            seconds = describe_seconds(time.monotonic() - self.started)
            print(f"\r{self.runs} runs in {seconds}\033[K", file=sys.stderr, flush=True)


def _compare(plans, seeds, outcomes, against, metric, on, processes) -> Comparison:
    names = [plan.name for plan in plans]
    index = pd.Index(seeds, name="seed")
    values = {n: [outcomes[n, seed].value for seed in seeds] for n in names}
    # Errors over images are of the seeds at which nothing diverged.
    whole = [s for s in seeds if all(outcomes[n, s].run is not None for n in names)]
    per_image = {}
    if whole and not callable(metric):
        per_image = {
            n: np.stack([outcomes[n, seed].per_image for seed in whole]) for n in names
        }
    runs = {n: {s: outcomes[n, s].run for s in seeds} for n in names}
    networks = {
        plan.name: {
            seed: _rebuilt(plan, seed, outcomes[plan.name, seed].network)
            for seed in seeds
            if outcomes[plan.name, seed].network is not None
        }
        for plan in plans
    }
    return Comparison(
        values=pd.DataFrame(values, index=index),
        metric=metric if isinstance(metric, str) else metric.__name__,
        percent=not callable(metric) and METRICS[metric][1],
        against=against,
        n_images=outcomes[names[0], seeds[0]].n_images,
        per_image=per_image,
        setting=_setting(plans, seeds, runs, on, processes),
        remark=shared_starts(plans, against, seeds[0]),
        runs=runs,
        networks=networks,
    )


def _rebuilt(plan: Variant, seed: int, weights: dict) -> torch.nn.Module:
    network = plan.build(seed)
    network.load_state_dict(weights)
    return network.to(plan.data_for(seed).device).eval()


def _setting(plans, seeds, runs, on, processes) -> str:
    """Return on what, how long and where the variants were trained."""
    done = [run for of in runs.values() for run in of.values() if run is not None]
    data = [plan.data_for(seeds[0]) for plan in plans]
    parts = [f"{data[0].title}, {'validation' if on == 'val' else 'test'} split"]
    parts.append(f"{_range(len(one.train) for one in data)} training images")
    if done:
        parts.append(
            f"{_range(run.steps for run in done)} steps "
            f"({_range(run.epochs for run in done)} epochs), last epoch"
        )
        precisions = " and ".join(dict.fromkeys(run.precision for run in done))
        parts.append(f"{precisions}, {done[0].device_name}")
    if processes > 1:
        parts.append(f"{processes} runs side by side, which spoils their timings")
    return ", ".join(parts)


def _range(numbers) -> str:
    low, high = min(found := list(numbers)), max(found)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"
