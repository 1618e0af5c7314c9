"""Tools for files that were dumped.

    python -m dataflows verify FILE

Exit code 0: the file is as it was written; 1: it is not, and what differs is named; 2: nothing could be compared.
"""
import argparse
import sys
from typing import Sequence

from dataflows.verify import NoChecksums, verify


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m dataflows", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    command = commands.add_parser("verify", help="read a dump again and compare each byte with its checksums")
    command.set_defaults(run=_verify)
    command.add_argument("file", help="the LMDB, with its index beside it")
    command.add_argument("--num-threads", type=int, metavar="N", help="that read (default: one per processor)")
    command.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bar")
    return parser


def _verify(arguments: argparse.Namespace) -> int:
    report = verify(arguments.file, num_threads=arguments.num_threads, progress=arguments.progress)
    print(report)
    return 1 if report.bad else 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text for exit codes."""
    arguments = _parser().parse_args(argv)
    try:
        code: int = arguments.run(arguments)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 2
    except (OSError, ValueError) as error:
        print(f"{error}", file=sys.stderr)
        return 2 if isinstance(error, (FileNotFoundError, NoChecksums)) else 1
    return code


if __name__ == "__main__":
    sys.exit(main())
