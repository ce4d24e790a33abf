"""How fast a network is and how much memory it takes, measured or counted."""

import copy
import time
from dataclasses import dataclass
from statistics import median

import torch
import torch.nn.functional as F
from torch import nn

from .. import runtime
from .shapes import on_meta


@dataclass(frozen=True)
class Speed:
    """Images per second of one network, at one batch size, on one device.

    Attributes:
        images_per_second: the median over the repeats.
        lowest, highest: the slowest and the fastest repeat.
        seconds_per_step: the median time of one batch.
    """

    images_per_second: float
    lowest: float
    highest: float
    seconds_per_step: float
    batch_size: int
    training: bool
    precision: str
    device: str

    def __repr__(self) -> str:
        what = "training steps" if self.training else "forward passes"
        return (
            f"{self.images_per_second:,.0f} images/s ({self.lowest:,.0f} to "
            f"{self.highest:,.0f}) in {what} of {self.batch_size}, {self.precision}, "
            f"{self.device}"
        )


@dataclass(frozen=True)
class Memory:
    """Where the memory of one forward pass or training step goes, in bytes.

    Attributes:
        parameters: the weights and buffers.
        gradients: one number per trainable weight; 0 outside training.
        activations: what is kept for the backward pass (training), or the largest
            amount that a layer holds at once, its input and output (inference).
        peak: on CUDA what was allocated at the highest point; elsewhere the sum.
        measured: True where `peak` was measured on the device.
    """

    parameters: int
    gradients: int
    activations: int
    peak: int
    batch_size: int
    measured: bool

    def __repr__(self) -> str:
        how = "measured" if self.measured else "counted"
        return (
            f"{_size(self.peak)} at the peak ({how}) for a batch of {self.batch_size}: "
            f"weights {_size(self.parameters)}, gradients {_size(self.gradients)}, "
            f"activations {_size(self.activations)}"
        )


def _size(count: int) -> str:
    """Write a number of bytes for people."""
    unit = "KiB" if count < 2**20 else "MiB"
    return f"{count / (2**10 if unit == 'KiB' else 2**20):,.1f} {unit}"


def throughput(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    batch_size: int = 32,
    *,
    training: bool = False,
    precision: str = "auto",
    device: torch.device | str | None = None,
    repeats: int = 5,
    seconds: float = 1.0,
) -> Speed:
    """Measure how many images per second a network takes.

    A copy of the network runs on seeded noise that already lies on the device, so
    neither loading nor augmentation is timed. After a warm-up, `repeats` groups of
    batches are timed and the median is reported.

    Args:
        network: any classifier; it is left exactly as it was.
        input_size: shape of one input, for example (3, 224, 224).
        batch_size: images per batch.
        training: time forward, backward and an SGD step instead of the forward pass.
        precision: "auto", "float32", "bfloat16" or "float16".
        device: where to run, by default the device of the notebook.
        repeats: number of groups.
        seconds: how long all groups together should take, about.
    """
    device = runtime.device() if device is None else torch.device(device)
    arithmetic = runtime.precision(precision, device)
    if device.type == "cpu":
        runtime.keep_freed_memory()
    step = _stepper(network, input_size, batch_size, training, arithmetic, device)
    for _ in range(2):  # the first pass chooses algorithms and allocates
        once = _timed(step, 1, device)
    per_group = max(1, round(seconds / repeats / max(once, 1e-6)))
    times = sorted(_timed(step, per_group, device) / per_group for _ in range(repeats))
    return Speed(
        batch_size / median(times),
        batch_size / times[-1],
        batch_size / times[0],
        median(times),
        batch_size,
        training,
        arithmetic.name,
        runtime.device_name(device),
    )


def _stepper(network, input_size, batch_size, training, arithmetic, device):
    """Make the function that is timed: one batch through a copy of the network."""
    network = copy.deepcopy(network).to(device).train(training)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch_size, *input_size, generator=generator).to(device)
    autocast = torch.autocast(
        device.type, arithmetic.dtype, enabled=arithmetic.dtype != torch.float32
    )
    if not training:

        @torch.inference_mode()
        def step():
            with autocast:
                network(x)

        return step

    optimizer = torch.optim.SGD(network.parameters(), lr=1e-6, momentum=0.9)
    scaler = torch.amp.GradScaler(device.type, enabled=arithmetic.scaler)
    y = torch.zeros(batch_size, dtype=torch.int64, device=device)

    def step():
        with autocast:
            output = network(x)
            output = output if isinstance(output, torch.Tensor) else output[0]
            loss = F.cross_entropy(output.float(), y)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return step


def _timed(step, times: int, device: torch.device) -> float:
    """Return the seconds that some calls take, until the device has finished them."""
    _wait(device)
    start = time.perf_counter()
    for _ in range(times):
        step()
    _wait(device)
    return time.perf_counter() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(
    network: nn.Module,
    input_size: tuple[int, ...] = (3, 224, 224),
    batch_size: int = 32,
    *,
    training: bool = True,
    precision: str = "auto",
    device: torch.device | str | None = None,
) -> Memory:
    """Say how much memory a training step or a forward pass needs, and for what.

    On CUDA the step runs on a copy of the network, and `peak` is what was allocated
    at the highest point, above what lay on the device before. Elsewhere nothing
    runs: the tensors that autograd keeps for the backward pass are counted on shapes
    alone, in float32, and `peak` is their sum with weights and gradients. That leaves
    out working space and short-lived tensors. Attention is counted the plain way, with
    its N x N weights, which fused kernels do not keep.

    Args:
        network: any classifier; it is left exactly as it was.
        input_size: shape of one input, for example (3, 224, 224).
        batch_size: images per batch.
        training: a forward and backward pass, or a forward pass alone.
        precision: arithmetic of the measured step (CUDA only).
        device: by default the device of the notebook.
    """
    device = runtime.device() if device is None else torch.device(device)
    weights = [*network.parameters(), *network.buffers()]
    held = sum(t.numel() * t.element_size() for t in weights)
    trainable = [p for p in network.parameters() if p.requires_grad and training]
    gradients = sum(p.numel() * p.element_size() for p in trainable)
    kept = _activations(network, input_size, batch_size, training)
    if device.type != "cuda":
        total = held + gradients + kept
        return Memory(held, gradients, kept, total, batch_size, False)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    arithmetic = runtime.precision(precision, device)
    _stepper(network, input_size, batch_size, training, arithmetic, device)()
    _wait(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    return Memory(held, gradients, kept, peak, batch_size, True)


def _activations(network, input_size, batch_size, training) -> int:
    """Count the bytes of activations that one batch needs, on shapes alone."""
    clone = on_meta(network).train(training)
    own = {t.untyped_storage()._cdata for t in [*clone.parameters(), *clone.buffers()]}
    x = torch.empty(batch_size, *input_size, device="meta")
    if training:
        # kept alive until they are counted, so that no two share an address
        kept: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(
            lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor
        ):
            clone(x)
        storages = {t.untyped_storage()._cdata: t.untyped_storage() for t in kept}
        return sum(s.nbytes() for key, s in storages.items() if key not in own)
    largest = [0]

    def hold(module, args, output):
        tensors = [t for t in (*args, output) if isinstance(t, torch.Tensor)]
        alive = {t.untyped_storage()._cdata: t.untyped_storage() for t in tensors}
        largest.append(sum(s.nbytes() for s in alive.values()))

    for module in clone.modules():
        if next(module.children(), None) is None:
            module.register_forward_hook(hold)
    with torch.no_grad():
        clone(x)
    return max(largest)
