"""`nbs train --folds K`: an honest estimate where the test split is small."""

import argparse
from pathlib import Path

from .commands import prepare
from .training import say


def estimate(
    options: argparse.Namespace, request: dict, recipe, data, folder: Path
) -> str:
    """Train once for each fold, and return a sentence with the pooled accuracy.

    Every photograph is tested once. The folds share most of their training images, so
    the interval is that of the number of images alone.

    Args:
        request: what `prepare` takes; each network begins as the run's own did.
        data: of the run.
        folder: of the run; a fold is kept in `fold-1` and so on, and goes on from
            there when the command is given again.
    """
    from ..data.folds import folds
    from ..scoring.evaluation import evaluate
    from ..scoring.reliability import wilson
    from ..training.loop import fit

    right, images, single = 0, 0, []
    for i, fold in enumerate(folds(data, options.folds, options.seed), 1):
        say(f"Fold {i} of {options.folds}")
        _, network, _ = prepare(request)
        if request.get("weights") is not None:
            from ..scoring.starting import with_statistics

            mean, std = data.mean.tolist(), data.std.tolist()  # of the weights
            fold = with_statistics(fold, mean, std)
        run = fit(
            network,
            fold,
            recipe,
            folder=folder / f"fold-{i}",
            resume=not options.fresh,
            seed=options.seed,
            on_out_of_memory=options.on_out_of_memory,
        )
        if run.status == "interrupted":
            raise KeyboardInterrupt
        scores = evaluate(network, fold.test)
        right, images = right + scores.correct1, images + scores.n
        single.append(scores.top1)
    low, high = wilson(right, images)
    shares = ", ".join(f"{100 * share:.1f}" for share in single)
    return (
        f"Over {options.folds} folds, each of {images:,} photographs tested once: top-1 "
        f"{100 * right / images:.1f} % (95 % interval {100 * low:.1f} to "
        f"{100 * high:.1f} %); the folds: {shares} %."
    )
