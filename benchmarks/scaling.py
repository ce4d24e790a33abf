"""Images per second of `fit` in 1, 2, ... processes, and the scaling efficiency.

    python benchmarks/scaling.py                    # 1 and 2 processes on a CPU
    python benchmarks/scaling.py                    # 1, 2, 4, ... on all GPUs found
    python benchmarks/scaling.py --data imagefolder:PATH --stream   # from the disk

Every process gets equally many images of a batch, however many there are, so that the
batch grows with them (weak scaling); --batch-size keeps the whole batch as it is
instead (strong scaling). On a CPU each process has one thread, also where it is alone:
otherwise one process would use all cores, and there would be nothing to gain.

The machine's speed changes while a benchmark runs, so the numbers of processes take
turns, `--rounds` times. The table shows medians, and of the time of an epoch the share
in which the device waited for data. Efficiency is the speed of P processes over P
times the speed of one.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys

import torch

import nbs_utils as nbs
from nbs_utils.distributed import joined


def main() -> None:
    options = parse()
    if "RANK" in os.environ:
        with joined() as me:
            row = measure(options, me)
            if me.first:
                print("ROW", json.dumps(row))
        return
    device = nbs.device()
    most = torch.cuda.device_count() if device.type == "cuda" else 2
    counts = options.processes or [p for p in (1, 2, 4, 8) if p <= most]
    rounds = [[launch(p, device) for p in counts] for _ in range(options.rounds)]
    print(f"{options.model} on {options.data}, {options.image_size} px,", end=" ")
    whole = f"{options.batch_size} images in a step"
    each = f"{options.images} images a step in each process"
    print(whole if options.batch_size else each, end="; ")
    print(f"torch {torch.__version__}, {nbs.runtime.device_name()}\n")
    print("| processes | images/s | efficiency | waiting for data |\n|--:|--:|--:|--:|")
    for i, count in enumerate(counts):
        speeds = [row[i]["images_per_second"] for row in rounds]
        shares = [  # each round compares with the one process of that round
            row[i]["images_per_second"]
            / count
            * counts[0]
            / row[0]["images_per_second"]
            for row in rounds
        ]
        waiting = statistics.median(row[i]["waiting"] for row in rounds)
        print(
            f"| {count} | {statistics.median(speeds):,.0f} "
            f"({min(speeds):,.0f} to {max(speeds):,.0f}) "
            f"| {statistics.median(shares):.2f} | {100 * waiting:.0f} % |"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="cifar_resnet20")
    parser.add_argument("--data", default="cifar10")
    parser.add_argument("--image-size", type=int, default=32)
    parser.add_argument("--images", type=int, default=64, help="of a step, per process")
    parser.add_argument("--batch-size", type=int, help="of all processes together")
    parser.add_argument("--steps", type=int, default=20, help="of an epoch")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, nargs="*")
    parser.add_argument("--stream", action="store_true", help="decode in every epoch")
    return parser.parse_args()


def launch(count: int, device: torch.device) -> dict:
    """Run this file in several processes with torchrun; return what they measured."""
    settings = {} if device.type == "cuda" else {"OMP_NUM_THREADS": "1"}
    words = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
    done = subprocess.run(
        [sys.executable, *words, str(count), *sys.argv],
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    line = next(x for x in done.stdout.splitlines() if x.startswith("ROW"))
    return json.loads(line.removeprefix("ROW"))


def measure(options: argparse.Namespace, me) -> dict:
    """Train for two epochs; return the speed of the second one, without validation."""
    batch_size = options.batch_size or options.images * me.size
    if nbs.device().type == "cpu":
        torch.set_num_threads(1)
    needed = batch_size * options.steps
    with me.in_turn():
        data = nbs.load_data(
            options.data,
            image_size=options.image_size,
            limit=needed,
            memory_budget=0 if options.stream else None,
        )
    if len(data.train) < needed:
        raise ValueError(
            f"{data.title} has {len(data.train):,} training images, and {needed:,} are "
            "needed: give fewer --steps or --images."
        )
    recipe = nbs.Recipe(epochs=2, batch_size=batch_size)
    torch.manual_seed(0)
    network = nbs.create_model(options.model, num_classes=data.num_classes)
    run = nbs.fit(network, data, recipe, progress="off")
    last = run.history.iloc[-1]
    return {key: float(last[key]) for key in ("images_per_second", "waiting")}


if __name__ == "__main__":
    main()
