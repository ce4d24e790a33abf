"""`nbs export-model`: a trained network for programs that do not know this library."""

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what `nbs export-model` understands to its parser."""
    parser.add_argument("run_folder", metavar="RUN", type=Path, help="a run's folder")
    parser.add_argument("--to", choices=("onnx", "torch-export"), default="onnx")
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="RUN/model.onnx or RUN/model.pt2"
    )


def run(options: argparse.Namespace) -> int:
    """Do what was asked for."""
    from ..scoring.exporting import ENDINGS, export_model
    from ..scoring.loading import load

    network = load(options.run_folder)
    place = options.run_folder
    folder = place if place.is_dir() else place.parent
    path = options.output or folder / f"model{ENDINGS[options.to]}"
    print(export_model(network, path, options.to))
    return 0
