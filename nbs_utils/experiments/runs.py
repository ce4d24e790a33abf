"""One run of an experiment: build, train, score; kept on disk and read back."""

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from ..scoring import predict
from ..training import Recipe, Run, TrainingDiverged, fit
from ..training.checkpoints import read_checkpoint, write_checkpoint
from .plan import Variant, fingerprint

RESULT = "result.pt"


@dataclass(frozen=True)
class Job:
    """What one run needs, as it travels to another process.

    Attributes:
        threads: that the run computes with, or None for those that there are. Sums
            depend on it in their last digits, so that it belongs to the run.
    """

    variant: Variant | str
    seed: int
    folder: Path | None
    on: str
    metric: str | Callable
    keep: bool
    threads: int | None = None


@dataclass(frozen=True)
class Outcome:
    """What a run leaves behind.

    Attributes:
        value: of the metric; NaN where training diverged.
        per_image: float32 (N,) scores of each image, or None.
        network: weights of the trained network, or None.
        run: None where training diverged; why then says how.
    """

    value: float
    per_image: np.ndarray | None
    n_images: int
    network: dict | None
    run: Run | None
    why: str = ""


def work(job: Job) -> Outcome:
    """Do one run, or read it back where the folder holds it finished.

    Raises:
        KeyboardInterrupt: the run was stopped; what it reached is in the folder.
    """
    with _threads(job.threads):
        data = job.variant.data_for(job.seed)
        network = job.variant.build(job.seed)
        mark = None
        if job.folder is not None:
            mark = identity(job, network, data)
            kept = read(job.folder / RESULT, mark, job.keep)
            if kept is not None:
                return kept
        outcome = _train(job, network, data)
        if job.folder is not None:
            write_checkpoint({"identity": mark, **_plain(outcome)}, job.folder / RESULT)
        return outcome


def identity(job: Job, network, data) -> dict:
    """Return what must be the same for a kept result to be that of this run."""
    metric = job.metric if isinstance(job.metric, str) else job.metric.__name__
    values = job.variant.recipe.as_dict().items()
    return {
        **{f"recipe {k}": v for k, v in values if k not in ("name", "source")},
        "seed": job.seed,
        "network and data": fingerprint(network, data, job.on, metric),
    }


def read(path: Path, mark: dict, keep: bool) -> Outcome | None:
    """Return the finished run of a file, or None where there is none.

    Raises:
        ValueError: the file holds another run.
    """
    if not path.is_file():
        return None
    saved = read_checkpoint(path)
    found = saved.pop("identity")
    other = [k for k, v in mark.items() if found.get(k) != v]
    if other:
        raise ValueError(
            f"{path} holds another run: {', '.join(other)} differ. Give another "
            "folder, or delete this one to train again."
        )
    outcome = _restored(saved)
    return None if keep and outcome.run and outcome.network is None else outcome


def _plain(outcome: Outcome) -> dict:
    """Return an outcome as tensors, numbers and words, which are safe to read."""
    values = dict(vars(outcome))
    if outcome.per_image is not None:
        values["per_image"] = torch.from_numpy(outcome.per_image)
    if outcome.run is not None:
        run = {key.name: getattr(outcome.run, key.name) for key in fields(Run)}
        run["history"] = run["history"].to_dict("list")
        run["recipe"] = run["recipe"].as_dict()
        run["folder"] = str(run["folder"])
        values["run"] = run
    return values


def _restored(values: dict) -> Outcome:
    if values["per_image"] is not None:
        values["per_image"] = values["per_image"].numpy()
    if values["run"] is not None:
        run = dict(values["run"])
        run["history"] = pd.DataFrame(run["history"])
        run["recipe"] = Recipe(**run["recipe"])
        run["folder"] = Path(run["folder"])
        values["run"] = Run(**run)
    return Outcome(**values)


def _train(job: Job, network, data) -> Outcome:
    split = getattr(data, job.on)
    folder = job.folder
    try:
        run = fit(
            network, data, job.variant.recipe,
            seed=job.seed, folder=folder, progress="off",
        )  # fmt: skip
    except TrainingDiverged as error:
        return Outcome(math.nan, None, len(split), None, None, str(error))
    if run.status == "interrupted":
        kept = f"; {folder} goes on from there" if folder else ", and nothing was kept"
        raise KeyboardInterrupt(
            f"Stopped in {job.variant.name}, seed {job.seed}, after {run.steps:,} "
            f"steps{kept}."
        )
    per_image = None
    if callable(job.metric):
        value = float(job.metric(network, data))
    else:
        per_image = score(network, data, job.on, job.metric, run.precision)
        value = float(per_image.mean(dtype=np.float64))
    weights = None
    if job.keep:
        weights = {k: v.detach().cpu() for k, v in network.state_dict().items()}
    return Outcome(value, per_image, len(split), weights, run)


def score(network, data, on: str, metric: str, precision: str) -> np.ndarray:
    """Return each image's score, float32 (N,): 1 where it is right, or its loss."""
    split = getattr(data, on)
    p, y = predict(network, split, batch_size=data.batch_size, precision=precision)
    if metric == "top1":
        return (p.argmax(1) == y).float().numpy()
    own = p.gather(1, y[:, None])[:, 0]
    # a probability below what float32 holds: its loss is at least 87
    return -own.clamp_min(torch.finfo(torch.float32).tiny).log().numpy()


@contextlib.contextmanager
def _threads(count: int | None):
    before = torch.get_num_threads()
    if count is not None:
        torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
