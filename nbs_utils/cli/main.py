"""`nbs`: train, evaluate and look at the networks of the book from the shell.

This file reads what a person typed; `commands` does what it says. Heavy imports stand
inside the commands, so that `nbs --help` answers at once.
"""

import argparse
import contextlib
import os
import sys
import time
import warnings

from . import authoring_commands, commands, predicting, reporting, training
from . import evaluating as evaluate_command
from . import exporting_model as export_model
from .words import in_shell_words

DESCRIPTION = "Networks for image classification, from the book that builds them."


def main(argv: list[str] | None = None) -> int:
    """Run one command.

    Args:
        argv: the words after `nbs`; by default those of the shell.

    Returns:
        0 when all went well; 1 when a check found something; 2 for input that cannot
        be used, with one sentence on stderr; 130 when a person stopped it.
    """
    options = make_parser().parse_args(argv)
    device = os.environ.get("NBS_DEVICE")  # --device sets it for this command alone
    try:
        with warnings.catch_warnings():
            warnings.showwarning = show_warning
            status = run_command(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `nbs list | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if not is_for_people(error):
            raise  # a fault of the program: its traceback is what helps
        wait_for_first(options.command)
        print(f"nbs {options.command}: {describe(error)}", file=sys.stderr)
        return 2
    finally:
        os.environ.pop("NBS_DEVICE", None)
        if device is not None:
            os.environ["NBS_DEVICE"] = device


def show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    """Print a warning of the library as a sentence; the source line helps nobody here."""
    text = in_shell_words(str(message))
    if "nbs_utils" not in filename:
        text = warnings.formatwarning(message, category, filename, lineno, line).strip()
    print(text, file=sys.stderr)


def run_command(options: argparse.Namespace) -> int:
    """Run a command, together with the other processes if torchrun started some.

    The first of them speaks; errors are raised in all.
    """
    if options.command not in ("train", "evaluate") or "RANK" not in os.environ:
        return options.run(options)
    from ..distributed import joined

    with joined() as world, contextlib.ExitStack() as stack:
        if not world.first:
            nowhere = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
            stack.enter_context(contextlib.redirect_stderr(nowhere))
        return options.run(options)


def wait_for_first(command: str) -> None:
    """Let the first of several processes speak; torchrun then ends the others.

    Most errors are the same in all of them, and one sentence is enough.
    """
    if command in ("train", "evaluate") and int(os.environ.get("RANK", "0")) > 0:
        time.sleep(3)


def is_for_people(error: Exception) -> bool:
    """Tell whether an error says to a person what to do about their input.

    The rooms raise ValueError and OSError, and sentences of their own, for those.
    """
    own = type(error).__module__.partition(".")[0] == "nbs_utils"
    return own or isinstance(error, (ValueError, OSError))


def describe(error: Exception) -> str:
    """Return the sentence of an error."""
    if isinstance(error, OSError) and error.strerror:
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{where}."
    return in_shell_words(str(error))


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(prog="nbs", description=DESCRIPTION)
    subparsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", title="commands"
    )

    def command(name, run, what):
        made = subparsers.add_parser(
            name, help=what, description=what[0].upper() + what[1:]
        )
        made.set_defaults(run=run)
        return made

    one = command("list", commands.list_networks, "list the networks of the book")
    one.add_argument("pattern", nargs="?", help="only these, as in 'resnet*'")

    one = command("summary", commands.summary, "show a network's stages, size and cost")
    one.add_argument("model", help="a name that `nbs list` shows")
    one.add_argument("--image-size", type=int, metavar="PX")
    one.add_argument("--num-classes", type=int, help="by default the network's own")
    add_model_set(one)

    one = command(
        "train",
        training.train,
        "train a network; the same command goes on where it was stopped or killed",
    )
    training.add_arguments(one, add_model_set)

    one = command(
        "evaluate",
        evaluate_command.run,
        "score a trained network, or published weights, by a paper's protocol",
    )
    evaluate_command.add_arguments(one, add_model_set)

    one = command(
        "predict", predicting.run, "say what is on photographs, with probabilities"
    )
    predicting.add_arguments(one)

    one = command("report", reporting.run, "write a run's report again: report.html")
    reporting.add_arguments(one)

    one = command(
        "export-model",
        export_model.run,
        "write a trained network as ONNX or torch.export, checked against itself",
    )
    export_model.add_arguments(one)

    authoring_commands.add_authoring(command)
    return parser


def add_model_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model-set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change an argument of the network, as in stem=imagenet",
    )
