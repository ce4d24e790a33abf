"""The commands for authors: new, tidy, export, record, check.

They need a clone of the repository and run nothing of the library themselves.
"""

import argparse
from pathlib import Path


def add_authoring(command) -> None:
    """Add the commands for authors.

    Args:
        command: called with a name, a function and a description; returns the parser.
    """
    one = command("new", run_new, "begin a chapter: notebook, test, contents, tree")
    one.add_argument("chapter", help="folder and name, as in classics/lenet")
    one.add_argument("--title", help="of the page, without the year (from the name)")
    one.add_argument(
        "--year", type=int, help="of the paper (from book/family.yml, if it is there)"
    )

    one = command("tidy", run_tidy, "undo what an editor left; outputs stay")
    one.add_argument("chapter", nargs="?", help="as in residual/resnet")
    one.add_argument(
        "--all", action="store_true", help="every chapter, and the table in README.md"
    )
    one.add_argument(
        "--prose-read",
        action="store_true",
        help="somebody has gone through the text since the last recording",
    )

    one = command("export", run_export, "write the networks of chapters to the zoo")
    one.add_argument("chapter", nargs="?", help="as in residual/resnet; all by default")
    one.add_argument("--check", action="store_true", help="only say what differs")

    one = command("record", run_record, "run a chapter and keep what it shows")
    one.add_argument("chapter", nargs="?", help="as in residual/resnet")
    one.add_argument("--quick", action="store_true", help="try it; write nothing")
    one.add_argument("--timeout", type=int, metavar="SECONDS", help="for each cell")
    one.add_argument(
        "--all",
        action="store_true",
        help="every chapter whose code is not the recorded one, in the book's order",
    )
    one.add_argument(
        "--every", action="store_true", help="with --all: also those that are recorded"
    )
    one.add_argument(
        "--archive",
        type=Path,
        metavar="FILE",
        help="also put what was written into a .tar.gz",
    )

    one = command("check", run_check, "hold chapters to the rules of the book")
    one.add_argument("chapter", nargs="?", help="as in residual/resnet; all by default")


def run_new(options: argparse.Namespace) -> int:
    from ..authoring.new import new
    from ..authoring.notebook import repository_root

    root = repository_root()
    for path in new(options.chapter, root, title=options.title, year=options.year):
        print(path.relative_to(root).as_posix())
    return 0


def run_tidy(options: argparse.Namespace) -> int:
    from ..authoring.notebook import AuthoringError, repository_root
    from ..authoring.tidy import tidy

    if bool(options.chapter) == options.all:
        raise AuthoringError("Name one chapter, or give --all.")
    changed = tidy(repository_root(), options.chapter, prose_read=options.prose_read)
    for name in changed:
        print(f"Tidied {name}.")
    return 0


def run_export(options: argparse.Namespace) -> int:
    from ..authoring.export import export
    from ..authoring.notebook import repository_root

    changed = export(repository_root(), options.chapter, check=options.check)
    for name in changed:
        print(f"{'The zoo differs from' if options.check else 'Exported'} {name}.")
    return 1 if options.check and changed else 0


def run_record(options: argparse.Namespace) -> int:
    from ..authoring.notebook import AuthoringError, repository_root
    from ..authoring.record import record
    from ..authoring.record_all import record_all, write_archive

    root = repository_root()
    if bool(options.chapter) == options.all:
        raise AuthoringError("Name one chapter, or give --all.")
    if options.quick and (options.all or options.archive):
        raise AuthoringError("--quick writes nothing; give it one chapter alone.")
    if options.every and not options.all:
        raise AuthoringError("--every belongs to --all.")
    if options.all:
        return record_all(
            root,
            everything=options.every,
            timeout=options.timeout,
            archive=options.archive,
        )
    made = record(options.chapter, root, quick=options.quick, timeout=options.timeout)
    if options.archive:
        write_archive(options.archive, made.files, root)
    return 0


def run_check(options: argparse.Namespace) -> int:
    from ..authoring.check import check
    from ..authoring.notebook import repository_root

    return check(repository_root(), options.chapter)
