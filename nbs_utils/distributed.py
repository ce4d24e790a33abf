"""The same training in several processes, started by torchrun.

    torchrun --nproc-per-node 2 -m nbs_utils train --model resnet18 --data cifar10

Each process holds the whole network and works on its share of every batch; PyTorch's
`DistributedDataParallel` averages the gradients, so that all take the same step. The
batch size of a recipe is that of all processes together, and what is drawn for a batch
is drawn for all of it: which images a step sees, and how they are augmented, does not
depend on the number of processes. (What a network draws for itself, as dropout does,
and the partners of mixup and CutMix are drawn by each process for its share.)

With one process, everything here does nothing.
"""

import copy
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from .runtime import derive_seed, device, seed_everything

# Seconds; the environment variables of these names change them.
_TIMEOUTS = {
    "NBS_JOIN_TIMEOUT": 120,  # until all processes have come
    "NBS_TIMEOUT": 600,  # until all have reached the same sum, or loaded their data
}


class DistributedError(RuntimeError):
    """Processes cannot find each other, or have lost each other."""


@dataclass(frozen=True)
class World:
    """This process among all that train together.

    Attributes:
        rank: its number, from 0.
        size: how many there are.
        local_rank, local_size: the same, counted on this machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def first(self) -> bool:
        """True in the one process that writes and speaks."""
        return self.rank == 0

    def describe(self, device_name: str) -> str:
        """Return a device's name, with the number of processes where there are more."""
        return device_name if self.size == 1 else f"{self.size} x {device_name}"

    def share(self, split):
        """Return the part of a split that this process goes through.

        In training it is an equal, contiguous part of each batch; in evaluation every
        `size`-th batch, so that no image is lost and none is counted twice.
        """
        if self.size == 1:
            return split
        if hasattr(split, "stream"):  # photographs in files, only ever evaluated
            return split.part(self.rank, self.size)
        if getattr(split.store, "skip", False):
            raise ValueError(
                "on_bad_image='skip' and streamed files do not go together with "
                f"{self.size} processes, which need equal shares of each batch. Remove "
                "the unreadable files, or load them with on_bad_image='raise'."
            )
        split = copy.copy(split)
        split.share = (self.rank, self.size)
        return split

    def own(self, *numbers: int) -> tuple[int, ...]:
        """Return numbers to derive a seed from, other ones in every process."""
        return numbers if self.size == 1 else (*numbers, self.rank)

    def share_of(self, batch_size: int) -> int:
        """Return how many images of a batch this process works on.

        Raises:
            ValueError: a batch cannot be divided into equal shares.
        """
        if batch_size % self.size:
            below = batch_size - batch_size % self.size
            raise ValueError(
                f"A batch of {batch_size} images cannot be divided into equal shares "
                f"for {self.size} processes. batch_size counts the images of all "
                f"processes together: take {below or self.size}"
                f"{f' or {below + self.size}' if below else ''}."
            )
        return batch_size // self.size

    def sum(self, *tensors: Tensor) -> list[Tensor]:
        """Return the sums of tensors over all processes, the same in each."""
        if self.size == 1:
            return list(tensors)
        sums = [t.clone() for t in tensors]
        for tensor in sums:
            dist.all_reduce(tensor)
        return sums

    def mean(self, number: float) -> float:
        """Return the mean of a number over all processes."""
        if self.size == 1:
            return number
        return sum(self.gather(number)) / self.size

    def gather(self, value: Any) -> list[Any]:
        """Return the values of all processes, by rank."""
        values = [value] * self.size
        if self.size > 1:
            dist.all_gather_object(values, value)
        return values

    def of_all(self, scores: Tensor) -> Tensor:
        """Return the scores of steps, (steps, 3), for whole batches.

        The loss is the mean of the equal shares, the correct images are their sum, and
        the steps that were left out are the same in all.
        """
        if self.size == 1:
            return scores
        (total,) = self.sum(scores)
        total[:, [0, 2]] /= self.size
        return total

    def of_one(self, scores: Tensor) -> Tensor:
        """Return scores that `of_all` turns into these: where a resumed run begins."""
        if self.first:
            return scores
        scores = scores.clone()
        scores[:, 1] = 0
        return scores

    def copy_buffers(self, network: nn.Module | None) -> None:
        """Give the buffers of all processes the values of the first.

        Without synchronous batch norm each process has seen other images, and its
        running statistics are its own; those of the first are kept and validated.
        """
        if self.size == 1 or network is None:
            return
        for buffer in network.buffers():
            dist.broadcast(buffer, src=0)

    def wait(self) -> None:
        """Wait until all processes have come to this line."""
        if self.size > 1:
            self.gather(None)

    def begin_step(self, forward: nn.Module, parts: int, *numbers: int) -> None:
        """Prepare a step of training that all processes take together.

        What the network draws for itself, such as dropout, is drawn anew from the
        numbers and the rank, so that one checkpoint is enough for all of them to go
        on exactly.

        Args:
            forward: what `in_parallel` returned.
            parts: into how many parts the batch is divided.
            numbers: seed, epoch and step.
        """
        if self.size > 1:
            seed_everything(derive_seed(*self.own(*numbers)))
            begin_step(forward, parts)

    def end_epoch(
        self, scores: Tensor, waited: float, *networks: nn.Module | None
    ) -> tuple[Tensor, float]:
        """Bring all processes to one state; return `of_all(scores)`, the mean waited.

        Args:
            scores: of the steps, (steps, 3).
            waited: seconds.
            networks: get the buffers of the first process.
        """
        for network in networks:
            self.copy_buffers(network)
        return self.of_all(scores), self.mean(waited)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first process of each machine go first, and the others follow.

        What it downloads and decodes, they then find.
        """
        if self.local_rank:
            self.wait()
        yield
        if not self.local_rank:
            self.wait()


def world() -> World:
    """Return this process among the others; alone where `joined` was not entered."""
    if not (dist.is_available() and dist.is_initialized()):
        return World()
    return World(
        dist.get_rank(),
        dist.get_world_size(),
        int(os.environ.get("LOCAL_RANK", "0")),
        int(os.environ.get("LOCAL_WORLD_SIZE", "1")),
    )


def is_launched() -> bool:
    """Tell whether torchrun, or something like it, started this process."""
    needed = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    return all(name in os.environ for name in needed)


def restarts() -> int:
    """Return how often torchrun has started this process again."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined() -> Iterator[World]:
    """Work together with the processes that torchrun started beside this one.

    On CUDA each process takes the GPU of its number on this machine and they talk
    through NCCL; else through gloo. Where nothing was launched this does nothing.

    Raises:
        DistributedError: not all processes came in time, the port is in use, there
            are fewer GPUs than processes, or another process was lost on the way.
    """
    if not is_launched() or dist.is_initialized():
        yield world()
        return
    _join()
    me = world()
    try:
        yield me
    except RuntimeError as error:
        if not _is_lost(error):
            raise
        reason = str(error).strip().split("\n")[0]
        raise DistributedError(
            f"Process {me.rank} of {me.size} lost another one, which has ended or does "
            f"not answer (NBS_TIMEOUT is {_seconds('NBS_TIMEOUT'):g} s): {reason} "
            "The first error above says why. torchrun --max-restarts=3 starts all "
            "processes again, and training goes on from its last checkpoint."
        ) from error
    dist.destroy_process_group()  # after an error it might wait for the others


def _join() -> None:
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
    seconds = _seconds("NBS_JOIN_TIMEOUT")
    backend = _choose_device()
    try:
        store, _, _ = next(
            dist.rendezvous("env://", timeout=timedelta(seconds=seconds))
        )
        word, missing = _meet(store, rank, size, seconds)
    except (dist.DistNetworkError, dist.DistStoreError) as error:
        raise DistributedError(_explain(str(error), place, seconds)) from error
    if missing:
        names = ", ".join(map(str, missing))
        raise DistributedError(
            f"Process {rank} of {size} waited {seconds:g} s at {place}, and of the "
            f"others {names} did not come. Look at what they printed; where they only "
            "start slowly, set NBS_JOIN_TIMEOUT to more seconds."
        )
    timeout = timedelta(seconds=_seconds("NBS_TIMEOUT"))
    store = dist.PrefixStore(word, store)
    dist.init_process_group(
        backend, store=store, rank=rank, world_size=size, timeout=timeout
    )


def _meet(store, rank: int, size: int, seconds: float) -> tuple[str, list[int]]:
    """Agree on a word for this start; return it, and who has not come in time.

    torchrun keeps one store over all its restarts, with the addresses of processes
    that have ended. So each process asks with a word of its own, which only a living
    process 0 can answer, and what follows is kept under the word that it answers.
    """
    deadline, question = time.monotonic() + seconds, uuid.uuid4().hex
    if rank:
        store.set(f"nbs/asks/{rank}", question)
        try:
            store.wait([f"nbs/answer/{question}"], timedelta(seconds=seconds))
        except dist.DistStoreError:
            return "", [0]
        word = store.get(f"nbs/answer/{question}").decode()
        store.set(f"nbs/{word}/{rank}", "here")
        return word, []
    word, missing = question, list(range(1, size))
    while missing and time.monotonic() < deadline:
        for other in missing:
            if store.check([f"nbs/asks/{other}"]):
                asked = store.get(f"nbs/asks/{other}").decode()
                store.set(f"nbs/answer/{asked}", word)
        missing = [r for r in missing if not store.check([f"nbs/{word}/{r}"])]
        time.sleep(0.02)
    return word, missing


def _explain(reason: str, place: str, seconds: float) -> str:
    if "EADDRINUSE" in reason or "already in use" in reason:
        return (
            f"The port at {place} is in use, perhaps by another run. Give torchrun "
            "another one, --master-port 29501, or --standalone, which finds a free one."
        )
    return (
        f"The processes could not meet at {place} within {seconds:g} s. Check that the "
        "machine of process 0 has this address, that its firewall lets the port "
        "through, and that torchrun runs on all machines with the same arguments. "
        f"({reason.splitlines()[0]})"
    )


def _choose_device() -> str:
    """Take this process's GPU, if it is to use one; return the backend."""
    kind = device().type
    if kind == "mps":
        raise DistributedError(
            "PyTorch's processes cannot share an Apple GPU. Set NBS_DEVICE=cpu, or "
            "train in one process, without torchrun."
        )
    if kind != "cuda":
        return "gloo"
    index, found = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if index >= found:
        raise DistributedError(
            f"This machine has {found} GPU{'s' if found != 1 else ''}, and process "
            f"{index + 1} was started on it. Start torchrun with --nproc-per-node "
            f"{found}, or set NBS_DEVICE=cpu."
        )
    torch.cuda.set_device(index)
    return "cpu:gloo,cuda:nccl"


def _seconds(name: str) -> float:
    return float(os.environ.get(name, _TIMEOUTS[name]))


def _is_lost(error: RuntimeError) -> bool:
    """Tell the loss of another process from other errors."""
    signs = ("Connection closed by peer", "Connection reset by peer", "Timed out wait",
             "Broken pipe", "Socket Timeout", "NCCL")  # fmt: skip
    known = (dist.DistBackendError, dist.DistNetworkError, dist.DistStoreError)
    return isinstance(error, known) or any(sign in str(error) for sign in signs)


class Parallel(DistributedDataParallel):
    """`DistributedDataParallel` that averages once per step, however many parts it has.

    Where a batch is worked through in parts whose gradients add up, only the backward
    pass of the last part needs the other processes (`no_sync` in PyTorch's words).
    """

    _parts = _seen = 1

    def begin_step(self, parts: int) -> None:
        """Expect this many forward passes before the optimizer's step."""
        self._parts, self._seen = parts, 0

    def forward(self, *args, **kwargs):
        self._seen += 1
        self.require_backward_grad_sync = self._seen >= self._parts
        return super().forward(*args, **kwargs)


def in_parallel(
    network: nn.Module, device: torch.device, unused: bool = False
) -> nn.Module:
    """Return what a training step calls: the network, with shared gradients.

    Args:
        network: on its device, the same in all processes.
        device: where it is.
        unused: some weights have no part in the outputs. Then each backward pass first
            looks for those whose gradients will not come, which takes time.
    """
    me = world()
    if me.size == 1:
        return network
    ids = [torch.cuda.current_device()] if device.type == "cuda" else None
    return Parallel(
        network,
        device_ids=ids,
        gradient_as_bucket_view=True,
        find_unused_parameters=unused,
    )


def begin_step(forward: nn.Module, parts: int) -> None:
    """Tell a network in parallel how many parts the coming step has."""
    if hasattr(forward, "begin_step"):
        forward.begin_step(parts)
