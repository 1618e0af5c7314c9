"""Shows what a dumped file is and holds, what loading it will cost, and whether its bytes are still intact.

    python -m dataflows info FILE      what it is, how it was made, what is in it
    python -m dataflows sheet FILE     a picture of samples with their labels, or a page with everything
    python -m dataflows advise FILE    what loading it will cost on this machine, and how to do it best
    python -m dataflows verify FILE    whether its bytes are still those that were written

Exit code 0: done, and the file is as it was written; 1: it is not, and what differs is named; 2: nothing could be read,
or what info and advise have to say could not be printed.
"""
import argparse
import io
import json
import os
import sys
from typing import Sequence

from dataflows.arguments import ArgumentParser
from dataflows.terminal import fill_standard_streams, say, warn

# What a command needs is imported by it: plots and Pillow take longer to load than `info` takes to answer.


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(prog="python -m dataflows", description=__doc__,
                            formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(metavar="COMMAND")

    command = commands.add_parser("info", help="what a file is, how it was made, what is in it")
    command.set_defaults(run=_info)
    command.add_argument("file", help="the LMDB, or the manifest of shards; much more is told with an index")
    command.add_argument("--json", action="store_true", help="for programs")

    command = commands.add_parser("sheet", help="samples with their labels, before and after the transform")
    command.set_defaults(run=_sheet)
    command.add_argument("file", help="the LMDB, or the manifest of shards")
    command.add_argument("--transform", choices=("train", "val"), default="train",
                         help="RandomResizedCrop(224) or CenterCrop(224) (default: train)")
    command.add_argument("--count", type=int, default=24, metavar="N",
                         help="samples, 1 to 300, drawn by the seed (default 24)")
    command.add_argument("--seed", type=int, default=0, metavar="N", help="default 0")
    command.add_argument("-o", "--out", type=_picture, default="sheet.png", metavar="FILE",
                         help="the picture, in the format that its suffix says (default: sheet.png)")
    command.add_argument("--report", metavar="DIR", help="write DIR/index.html instead: one page with the sheet, the "
                                                         "histograms, the files that the dump found odd, and plots")
    command.add_argument("--benchmark", nargs="+", default=[], metavar="JSON",
                         help="what benchmark.py wrote, to be plotted in the report")

    command = commands.add_parser("advise", help="what loading will cost on this machine, and how to do it best")
    command.set_defaults(run=_advise)
    command.add_argument("source", help="an LMDB, the manifest of shards, or a folder with one sub-folder per class")
    command.add_argument("--gpu-rate", type=float, metavar="IMG_S", help="images/s that the training takes")
    command.add_argument("--workers", type=int, metavar="N", help="threads (default: one per processor)")
    command.add_argument("--json", action="store_true", help="for programs")

    command = commands.add_parser("verify", help="read a dump again and compare each byte with its checksums")
    command.set_defaults(run=_verify)
    command.add_argument("file", help="the LMDB, with its index beside it, or the manifest of shards")
    command.add_argument("--num-threads", type=int, metavar="N", help="that read (default: one per processor)")
    command.add_argument("--no-progress", dest="progress", action="store_false", help="show no progress bar")

    command = commands.add_parser("compile", help="compile what numba compiles, before it is needed: for images of "
                                                  "containers")
    command.set_defaults(run=_compile)
    return parser


def _picture(path: str) -> str:
    """The path, if a picture can be written there. Drawing one takes long enough to say so before."""
    from PIL import Image

    suffix, folder = os.path.splitext(path)[1], os.path.dirname(path) or "."
    try:
        Image.new("RGB", (1, 1)).save(io.BytesIO(), Image.registered_extensions().get(suffix.lower()))
    except (KeyError, OSError, ValueError) as error:  # that it knows a suffix does not mean that it writes it
        raise argparse.ArgumentTypeError(f"{path!r} must end in the suffix of a format that Pillow writes, such as "
                                         f".png") from error
    if not os.path.isdir(folder):
        raise argparse.ArgumentTypeError(f"there is no folder {folder} to write {os.path.basename(path)} into; make it "
                                         f"first")
    return path


def _info(arguments: argparse.Namespace) -> int:
    from dataflows.tools.info.facts import as_text, describe

    facts = describe(arguments.file)
    return 0 if say(json.dumps(facts, indent=1) if arguments.json else as_text(facts)) else 2


def _sheet(arguments: argparse.Namespace) -> int:
    if arguments.report is None:
        from dataflows.tools.sheet.picture import contact_sheet

        contact_sheet(arguments.file, transform=arguments.transform, count=arguments.count,
                      seed=arguments.seed).save(arguments.out)
        say(f"Wrote {arguments.out}")
        return 0
    from dataflows.tools.sheet.page import write_page

    page = write_page(arguments.file, arguments.report, transform=arguments.transform, count=arguments.count,
                      seed=arguments.seed, benchmarks=arguments.benchmark)
    say(f"Wrote {page}")
    return 0


def _advise(arguments: argparse.Namespace) -> int:
    from dataflows.tools.advise.advise import advise

    advice = advise(arguments.source, gpu_rate=arguments.gpu_rate, num_workers=arguments.workers)
    return 0 if say(json.dumps(advice.as_dict(), indent=1) if arguments.json else str(advice)) else 2


def _verify(arguments: argparse.Namespace) -> int:
    from dataflows.dump.verify import verify

    report = verify(arguments.file, num_threads=arguments.num_threads, progress=arguments.progress)
    say(str(report))
    return 1 if report.bad else 0


def _compile(_: argparse.Namespace) -> int:
    from dataflows.images.compiled import ready
    from dataflows.jpeg import tile

    tile.make_ready(comparing=True)
    if not ready.make_ready():
        return 1
    say("All kernels are compiled, and kept where numba keeps them: beside the package, or where NUMBA_CACHE_DIR says")
    return 0


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; see the module's text for exit codes."""
    from dataflows.errors import NoChecksums

    fill_standard_streams()
    parser = _parser()
    arguments = parser.parse_args(argv)
    if "run" not in arguments:
        parser.print_help(sys.stderr)
        return 2
    try:
        code: int = arguments.run(arguments)
        return code
    except KeyboardInterrupt:
        warn("interrupted")
        return 2
    except (OSError, ValueError, ImportError) as error:
        warn(f"{error}")
        return 2 if isinstance(error, (FileNotFoundError, NoChecksums, ImportError)) else 1


if __name__ == "__main__":
    sys.exit(main())
