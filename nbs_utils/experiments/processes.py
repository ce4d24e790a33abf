"""Runs side by side: one process for each core, started afresh and never forked.

A function that was defined in a notebook cannot be imported by another process;
cloudpickle writes its code down. The processes are those of joblib, which comes with
scikit-learn: they are started without the threads and the state of this one.
"""

import functools
import pickle
import tempfile
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from .plan import Variant
from .runs import Job, Outcome, work

_IDLE_SECONDS = 60  # then processes without work end, and free their memory


def write_plans(plans: list[Variant], folder: str) -> Path:
    """Write variants, with their data, for other processes to read.

    Raises:
        TypeError: something that a variant refers to cannot be written.
    """
    try:
        import cloudpickle
    except ImportError:  # joblib brings its own
        from joblib.externals import cloudpickle

    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, value):
            # torch.classes is a module of a class of its own, which cloudpickle does
            # not take for one; any function that says `.classes` may refer to it.
            if isinstance(value, ModuleType) and type(value) is not ModuleType:
                return import_module, (value.__name__,)
            return super().reducer_override(value)

    path = Path(folder) / "variants.pickle"
    try:
        with open(path, "wb") as file:
            Pickler(file).dump({plan.name: plan for plan in plans})
    except (pickle.PicklingError, AttributeError, RuntimeError, TypeError) as error:
        raise TypeError(
            "The variants cannot be handed to another process, since something that "
            f"they refer to cannot be written down ({error}). Use parallel=False."
        ) from error
    return path


def side_by_side(
    jobs: list[Job], processes: int
) -> Iterator[tuple[Job, Outcome | None]]:
    """Do jobs in several processes; yield each as it ends, in any order.

    Yields:
        the job, and its outcome; None where it failed there, so that it can be done
        again here, where an error can be read. Where a process dies, the jobs that
        are left are not yielded.
    """
    from joblib import Parallel, delayed, parallel_config

    plans = list({job.variant.name: job.variant for job in jobs}.values())
    with tempfile.TemporaryDirectory() as folder:
        path = write_plans(plans, folder)
        bare = [replace(job, variant=job.variant.name) for job in jobs]
        with parallel_config(
            "loky", inner_max_num_threads=jobs[0].threads,
            idle_worker_timeout=_IDLE_SECONDS,
        ):  # fmt: skip
            pool = Parallel(
                n_jobs=processes,
                batch_size=1,
                pre_dispatch=processes,
                return_as="generator_unordered",
            )
            calls = (delayed(_work)(str(path), i, job) for i, job in enumerate(bare))
            try:
                for i, outcome in pool(calls):
                    yield jobs[i], outcome
            except BrokenProcessPool:
                return  # the system ended one, mostly for want of memory


def _work(path: str, i: int, job: Job) -> tuple[int, Outcome | None]:
    try:
        return i, work(replace(job, variant=_plans(path)[job.variant]))
    except Exception:  # noqa: BLE001
        return i, None


@functools.lru_cache(maxsize=1)
def _plans(path: str) -> dict[str, Variant]:
    """Read the variants once in each process, not once for each run."""
    return pickle.loads(Path(path).read_bytes())
