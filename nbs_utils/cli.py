"""`nbs`: the book from the shell."""

import argparse
import sys


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="nbs", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    export = commands.add_parser("export")
    export.add_argument("chapter", nargs="?")
    export.add_argument("--check", action="store_true")
    record = commands.add_parser("record")
    record.add_argument("chapter")
    record.add_argument("--quick", action="store_true")
    record.add_argument("--timeout", type=float)
    check = commands.add_parser("check")
    check.add_argument("chapter", nargs="?")
    options = parser.parse_args(argv)
    from .authoring import notebook

    try:
        root = notebook.repository_root()
        if options.command == "export":
            from .authoring.export import export as write

            changed = write(root, options.chapter, check=options.check)
            for name in changed:
                print(("differs: " if options.check else "written: ") + name)
            return int(options.check and bool(changed))
        if options.command == "record":
            from .authoring.record import record as run

            run(options.chapter, root, quick=options.quick, timeout=options.timeout)
            return 0
        from .authoring.check import check as look

        return look(root, options.chapter)
    except notebook.AuthoringError as error:
        print(error, file=sys.stderr)
        return 2
