"""`nbs report`: the page of a run again, on its own test split or other photographs."""

import argparse
import sys
from pathlib import Path

from .training import use_device


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nbs report` understands to its parser."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="a run's folder")
    parser.add_argument("--data", help="other photographs than the run's own")
    parser.add_argument("--split", choices=("val", "test"), default="test")
    parser.add_argument("--folder", type=Path, help="where the page goes (the run's)")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N images")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 or mps")


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    from ..scoring.loading import give
    from ..scoring.report import write_report
    from .evaluating import read_run, split_for

    use_device(options.device)
    saved, request = read_run(options.run_folder)
    network = give(saved)
    split, note = split_for(saved, request, options.data, options.split, options.limit)
    home = options.run_folder
    folder = options.folder or (home if home.is_dir() else home.parent)
    page = write_report(
        folder, network, split, history=history_of(saved.file), notes=[note]
    )
    print(f"{saved.file} on {split}", file=sys.stderr)
    print(page)
    return 0


def history_of(file: Path):
    """Return the history of the run that a checkpoint lies in; None where it is lost."""
    import pandas as pd

    from ..training.checkpoints import LAST, CheckpointError, read_checkpoint

    try:
        return pd.DataFrame(read_checkpoint(file.parent / LAST).get("history", []))
    except CheckpointError:
        return None
