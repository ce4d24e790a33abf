"""`nbs train` twice in several processes; in the second run one is killed.

    torchrun --nproc-per-node 2 --max-restarts 1 tests/killed_worker.py FOLDER

The first run is not disturbed. In the second, process 1 kills itself with SIGKILL in
the middle of an epoch, which leaves it no time to say anything; torchrun starts both
processes again.
"""

import os
import signal
import sys
from pathlib import Path

import torch

from nbs_utils.cli.main import main
from nbs_utils.distributed import joined, restarts
from nbs_utils.training import loop as train

COMMAND = [
    "train",
    "--model",
    "cifar_resnet20",
    "--data",
    "digits",
    "--batch-size",
    "32",
    "--limit",
    "160",
    "--set",
    "epochs=2",
    "--set",
    "precision=float32",
    "--set",
    "ema=0.9",
    "--set",
    "accumulate=2",
    "--checkpoint-every",
    "2",
    "--folder",
]
STEP = (1, 3)  # epoch and step, from 0; the last checkpoint is then one step old


def kill_at(step: tuple[int, int], real):
    """Return a training step before which this process dies."""

    def train_step(state, setup, x, y):
        if (state.epoch, state.step) == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(state, setup, x, y)

    return train_step


if __name__ == "__main__":
    place = Path(sys.argv[1])
    torch.set_num_threads(1)
    with joined() as me:
        status = main([*COMMAND, str(place / "whole")])
        if me.rank == 1 and not restarts():
            train.train_step = kill_at(STEP, train.train_step)
        status = status or main([*COMMAND, str(place / "killed")])
    sys.exit(status)
