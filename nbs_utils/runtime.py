"""The machine a notebook runs on: device, precision, seeds, and the two ways to run.

A notebook begins with `nbs.start(seed=0)`. What differs between the recorded run and
the quick one is asked for in one place, with `nbs.budget(gpu=..., cpu=..., quick=...)`.
"""

import ctypes
import functools
import hashlib
import os
import platform
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

_WORDS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True)
class Precision:
    """The arithmetic of a network's forward and backward pass.

    Attributes:
        dtype: what autocast computes in; float32 means that autocast is off.
        scaler: True where gradients must be scaled to survive (float16).
        why: one clause that says why this was chosen.
    """

    dtype: torch.dtype
    scaler: bool
    why: str

    @property
    def name(self) -> str:
        """The word for it: "float32", "bfloat16" or "float16"."""
        return str(self.dtype).removeprefix("torch.")

    def __str__(self) -> str:
        return self.name


def is_quick() -> bool:
    """Tell whether this is a quick run (environment variable NBS_QUICK=1)."""
    return os.environ.get("NBS_QUICK", "").lower() not in ("", "0", "false", "no")


def device() -> torch.device:
    """Return the device to compute on: NBS_DEVICE if set, else CUDA, MPS, CPU.

    Raises:
        ValueError: NBS_DEVICE names a device that PyTorch does not know, or that this
            machine does not have.
    """
    wanted = os.environ.get("NBS_DEVICE")
    if wanted:
        try:
            chosen = torch.device(wanted)
        except RuntimeError as error:
            raise ValueError(
                f"NBS_DEVICE is '{wanted}', which is no device of PyTorch. "
                "Use cpu, cuda, cuda:1 or mps, or unset it."
            ) from error
        missing = (
            chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count()
        ) or (chosen.type == "mps" and not torch.backends.mps.is_available())
        if missing:
            raise ValueError(
                f"NBS_DEVICE is '{wanted}', and this machine has no such device (or "
                "this PyTorch is built without it). Use cpu, or unset it."
            )
        return chosen
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def cpu_cores() -> int:
    """Return how many CPU cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep memory that is freed, for the next step to use.

    On a CPU, glibc hands an activation of a few megabytes back to the system as soon
    as it is freed, and the next step has its pages made and zeroed again: a third of
    the time of a small network, and in some runs but not in others. The process then
    stays as large as it once was. Elsewhere than on Linux with glibc nothing happens.

    Returns:
        True where it was done. Asking again costs nothing.
    """
    mmap_threshold, trim_threshold = -3, -1  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # macOS, musl, Windows
        return False
    # Older versions take 32 MiB at most. Where neither is taken, the other setting
    # would only do harm: it ends glibc's own adaptation.
    taken = any(mallopt(mmap_threshold, size) for size in (2**30, 2**25))
    return taken and bool(mallopt(trim_threshold, 2**31 - 1))


def _cpu_info(key: str) -> str:
    """Return a field of /proc/cpuinfo, or "" where there is no such file."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((x.split(":", 1)[1].strip() for x in lines if x.startswith(key)), "")


def device_name(on: torch.device | str | None = None) -> str:
    """Return the name of a device for people, as in "CPU, 2 cores (AMD EPYC)".

    Args:
        on: the device; by default the one of `device()`.
    """
    on = device() if on is None else torch.device(on)
    if on.type == "cuda":
        return torch.cuda.get_device_name(on)
    if on.type == "mps":
        return f"Apple GPU ({platform.machine()})"
    cores = cpu_cores()
    model = _cpu_info("model name") or platform.processor() or platform.machine()
    return f"CPU, {cores} core{'s' if cores != 1 else ''} ({model})"


def tier() -> str:
    """Return which of the budgets applies: "quick", "gpu" or "cpu"."""
    if is_quick():
        return "quick"
    return "cpu" if device().type == "cpu" else "gpu"


def budget(*, gpu: Any, cpu: Any, quick: Any) -> Any:
    """Return the value for the tier that is running.

    Example: `epochs = nbs.budget(gpu=30, cpu=3, quick=1)`.
    """
    return {"gpu": gpu, "cpu": cpu, "quick": quick}[tier()]


def _cpu_has_bfloat16() -> bool:
    """Tell whether this CPU multiplies bfloat16 itself (AVX-512 BF16 or AMX)."""
    flags = _cpu_info("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _auto_precision(on: torch.device) -> Precision:
    if on.type == "cuda":
        # A T4 answers yes to is_bf16_supported(), but only emulates it, slowly.
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return Precision(torch.bfloat16, False, "native on this GPU")
        return Precision(torch.float16, True, "this GPU only emulates bfloat16")
    if on.type == "cpu" and _cpu_has_bfloat16():
        return Precision(torch.bfloat16, False, "native on this CPU")
    return Precision(torch.float32, False, "no faster type is native here")


def precision(
    wanted: str = "auto", device: torch.device | str | None = None
) -> Precision:
    """Choose the arithmetic for a device.

    Args:
        wanted: "auto" takes bfloat16 where the device computes in it natively,
            float16 with a gradient scaler on older CUDA devices, else float32.
            "float32", "bfloat16" and "float16" are taken at their word.
        device: by default the one of `runtime.device()`.

    Raises:
        ValueError: `wanted` is none of these words.
    """
    on = globals()["device"]() if device is None else torch.device(device)
    if wanted == "auto":
        return _auto_precision(on)
    if wanted not in _WORDS:
        raise ValueError(
            f"precision is '{wanted}'; it must be one of auto, {', '.join(_WORDS)}."
        )
    return Precision(_WORDS[wanted], wanted == "float16", "asked for")


def in_threads(work: Callable[[Any], None], parts: Sequence, threads: int) -> None:
    """Call `work(part)` for each part, several at the same time.

    Made for kernels that let go of Python's lock, such as decoding an image. PyTorch
    would start threads of its own inside each of these, which then wait for each
    other; here it computes with one in each.

    Args:
        work: what is done; an exception stops the parts that have not begun.
        parts: what it is called with.
        threads: how many parts at the same time.
    """
    before = torch.get_num_threads()
    if threads <= 1 or len(parts) <= 1:
        for part in parts:
            work(part)
        return

    def compute_alone() -> None:
        torch.set_num_threads(1)

    try:
        with ThreadPoolExecutor(threads, initializer=compute_alone) as pool:
            futures = [pool.submit(work, part) for part in parts]
            try:
                for future in futures:
                    future.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        torch.set_num_threads(before)  # threads that come later take the last word


@contextmanager
def evaluation_mode(network: nn.Module) -> Iterator[nn.Module]:
    """Put a network in evaluation mode, and each of its modules back afterwards."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield network
    finally:
        for module, training in modes:
            module.training = training


def seed_everything(seed: int) -> None:
    """Seed the generators of Python, NumPy and PyTorch (all devices)."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def derive_seed(*numbers: int) -> int:
    """Return a seed in [0, 2**63) made of several integers, the same everywhere.

    `derive_seed(seed, epoch, step)` gives each step its own stream of random
    numbers, so that a resumed run draws what an uninterrupted one would have drawn.
    """
    text = ",".join(str(int(n)) for n in numbers)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def versions() -> dict[str, str]:
    """Return the versions of what a result depends on, by package name."""
    import torchvision

    from . import __version__

    return {
        "nbs_utils": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }


def start(seed: int = 0) -> None:
    """Begin a notebook: seed everything and print the versions and the device.

    Args:
        seed: for the generators of Python, NumPy and PyTorch.
    """
    seed_everything(seed)
    has = versions()
    print(
        f"nbs_utils {has['nbs_utils']} | Python {has['python']} | "
        f"torch {has['torch']} | torchvision {has['torchvision']} | "
        f"{device_name()} | {precision()}"
    )
    if is_quick():
        print(
            "Quick run: embedded digits, a few steps; "
            "numbers that depend on training mean nothing."
        )
