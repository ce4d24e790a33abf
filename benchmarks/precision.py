"""Does `precision: auto` cost accuracy? The same training in both, with several seeds.

    python benchmarks/precision.py
    python benchmarks/precision.py --model resnet18 --epochs 10 --seeds 5    # on a GPU

Trains a CIFAR network on a part of CIFAR-10 with the recipe `short`, in float32 and in
the precision that `auto` chooses, in turns. The table shows the validation top-1: the
mean over the seeds, the spread (standard deviation) and the difference seed by seed.
"""

import argparse
import statistics

import torch

import nbs_utils as nbs


def network(name: str, seed: int) -> torch.nn.Module:
    """Return a network for 32-pixel images whose first weights depend on the seed."""
    torch.manual_seed(seed)
    stem = {} if name.startswith("cifar_") else {"stem": "cifar"}
    return nbs.create_model(name, num_classes=10, **stem)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="cifar_resnet20")
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()

    data = nbs.load_data("cifar10", limit=options.images)
    print(f"{options.model} on {data}")
    print(f"{nbs.runtime.device_name()}, torch {torch.__version__}")
    recipe = nbs.Recipe.load("short")
    top1: dict[str, list[float]] = {"float32": [], "auto": []}
    speed: dict[str, list[float]] = {"float32": [], "auto": []}
    used = {}
    for seed in range(options.seeds):
        for precision, scores in top1.items():
            run = nbs.fit(
                network(options.model, seed),
                data,
                recipe.replace(precision=precision),
                epochs=options.epochs,
                seed=seed,
                progress="off",
            )
            scores.append(100 * run.history["val_top1"].iloc[-1])
            speed[precision].append(run.images_per_second)
            used[precision] = run.precision
    print(
        f"{options.epochs} epochs, {options.seeds} seeds, validation top-1 at the end"
    )
    for precision, values in top1.items():
        print(
            f"  {precision:<8} ({used[precision]}): "
            f"{statistics.mean(values):.1f} % +- {statistics.stdev(values):.1f}, "
            f"{statistics.median(speed[precision]):,.0f} images/s"
        )
    differences = [a - b for a, b in zip(top1["auto"], top1["float32"], strict=True)]
    print(
        f"  auto - float32, seed by seed: {statistics.mean(differences):+.1f} "
        f"+- {statistics.stdev(differences):.1f} percentage points"
    )


if __name__ == "__main__":
    main()
