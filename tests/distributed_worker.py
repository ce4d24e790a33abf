"""What several processes do in the tests; run by torchrun, and by one process alone.

    torchrun --nproc-per-node 2 tests/distributed_worker.py FOLDER

All demonstrations share one launch, since starting Python and torch takes seconds. The
results lie in FOLDER/results.pt, written by the first process.
"""

import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

import nbs_utils as nbs
from nbs_utils import distributed
from nbs_utils.distributed import begin_step, in_parallel, joined, world
from nbs_utils.syncnorm import synchronize_batch_norm
from nbs_utils.training.checkpoints import CheckpointError
from nbs_utils.training.shared_folder import check_folder

CPU = torch.device("cpu")
RECIPE = nbs.Recipe(
    epochs=2,
    batch_size=32,
    lr=0.05,
    weight_decay=1e-3,
    schedule="cosine",
    label_smoothing=0.1,
    clip_norm=1.0,
    precision="float32",
    channels_last=False,
    keep="last",
)


def small_network(norm: bool = True) -> nn.Module:
    """Return a smooth network.

    With ReLU, rounding that moves an activation across zero changes a gradient as a
    whole, and the difference of two runs tells nothing about their code any more.
    """
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.BatchNorm2d(8) if norm else nn.Identity(),
        nn.GELU(),
        nn.Conv2d(8, 16, 3, stride=2, padding=1),
        nn.BatchNorm2d(16) if norm else nn.Identity(),
        nn.GELU(),
        nn.Flatten(),
        nn.Linear(16 * 64, 10),
    )


class TwoHeads(nn.Module):
    """A network with an auxiliary head, and weights that nothing uses."""

    def __init__(self):
        super().__init__()
        self.network = small_network(norm=False)
        self.aux, self.unused = nn.Linear(1024, 10), nn.Linear(64, 10)

    def forward(self, x):
        logits = self.network(x)
        return (logits, self.aux(x.flatten(1))) if self.training else logits


def trained_with_two_heads() -> dict:
    """Return the weights after training with an auxiliary loss."""
    network = TwoHeads()
    nbs.fit(network, digits(), RECIPE, seed=5, progress="off")
    return network.state_dict()


def digits():
    # 203 validation and 57 test images: neither fills whole batches, or equal shares
    return nbs.load_data(
        "digits", batch_size=32, augment="crop-flip", limit=203, device="cpu"
    )


def gradients(norm: bool, parts: int) -> tuple[dict, dict, int]:
    """Return gradients of a batch in float64, the buffers, and the sums it took."""
    network = small_network(norm).double()
    if world().size > 1:
        network = synchronize_batch_norm(network, CPU)
    forward, sums = in_parallel(network, CPU), []
    if world().size > 1:
        from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import (
            allreduce_hook,
        )

        def counting_hook(group, bucket):
            sums.append(bucket.buffer().numel())
            return allreduce_hook(group, bucket)

        forward.register_comm_hook(None, counting_hook)
    x, y = next(world().share(digits().train).batches(32, epoch=1))
    begin_step(forward, parts)
    for part_x, part_y in zip(x.chunk(parts), y.chunk(parts), strict=True):
        loss = F.cross_entropy(forward(part_x.double()), part_y) / parts
        loss.backward()
    found = {name: p.grad.clone() for name, p in network.named_parameters()}
    return found, dict(network.named_buffers()), sum(sums)


def trained(norm: bool, **changes) -> dict:
    """Train for two epochs; return weights, history and the scores of a split."""
    data, network = digits(), small_network(norm)
    recipe = RECIPE.replace(sync_batchnorm=norm, **changes)
    run = nbs.fit(network, data, recipe, seed=5, progress="off")
    scores = nbs.evaluate(network, data.test, batch_size=10, precision="float32")
    return {
        "weights": network.state_dict(),
        "history": run.history.to_dict("list"),
        "confusion": torch.from_numpy(scores.confusion),
        "correct5": scores.correct5,
        "n": scores.n,
        "loss": scores.loss,
    }


def scored() -> list:
    """Score one network on a split, whatever the number of processes."""
    scores = nbs.evaluate(
        small_network(), digits().test, batch_size=10, precision="float32"
    )
    return [scores.confusion.tolist(), scores.correct5, scores.n, scores.loss]


def with_plain_batch_norm() -> dict:
    """Return each process's weights after training with its own batch statistics."""
    data, network = digits(), small_network()
    nbs.fit(network, data, RECIPE.replace(ema=0.9), seed=5, progress="off")
    return network.state_dict()


def error_of(kind: type, call, *arguments, **options) -> str:
    try:
        call(*arguments, **options)
    except kind as error:
        return str(error)
    return "no error"


def hidden_folder(folder: Path) -> str:
    """Return what is said when a folder is on a disk that one process does not see."""
    exists, distributed._FOLDER_SECONDS = distributed.os.path.exists, 0.2
    if world().rank == 1:
        distributed.os.path.exists = lambda path: False
    try:
        return error_of(CheckpointError, check_folder, folder / "run")
    finally:
        distributed.os.path.exists = exists


def work(folder: Path) -> dict:
    """Do all of it; every process returns the same."""
    torch.set_num_threads(1)
    me = world()
    results = {
        "gradients": gradients(norm=False, parts=1),
        "gradients, sync": gradients(norm=True, parts=1),
        "gradients, parts": gradients(norm=False, parts=4),
        "trained": trained(norm=False),
        "trained, sync": trained(norm=True),
        "trained, parts": trained(norm=False, accumulate=4),
        "two heads": trained_with_two_heads(),
        "scored": scored(),
    }
    if me.size > 1:
        results["plain"] = me.gather(with_plain_batch_norm())
        results["all"] = me.gather(results["trained, sync"]["weights"])
        results["indivisible"] = error_of(
            ValueError, nbs.fit, small_network(), digits(), RECIPE.replace(batch_size=9)
        )
        results["hidden"] = me.gather(hidden_folder(folder))
    return results


if __name__ == "__main__":
    place = Path(sys.argv[1])
    with joined() as me:
        results = work(place)
        if me.first:
            torch.save(results, place / "results.pt")
