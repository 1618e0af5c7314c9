"""Printing: names are escaped, progress is shown, and a stream that fails never undoes finished work.

Names of files and classes come from whoever made the data, a stream may know few characters, and whoever reads it may
be gone. So all that is printed passes through here. Nothing here raises because of the stream.
"""
import contextlib
import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tqdm

# What stands for our own characters where a stream has none of them. All else becomes a backslash escape.
_PLAIN = str.maketrans(dict.fromkeys("▏▎▍▌▋▊▉█", "#") | {"…": "~", "·": "-", "µ": "u"})


def printable(text: str) -> str:
    """The text with all that a terminal, a page or a font might take for a command as backslash escapes.

    That is undecodable bytes of file names (surrogates), line ends, escape sequences, and marks that reverse the
    direction of writing. What is printable already stays as it is.

    >>> printable("caf\\udce9\\n\\x1b[2J")
    'caf\\\\udce9\\\\n\\\\x1b[2J'
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def say(text: str) -> bool:
    """Prints lines, each escaped by `printable`, to stdout. Returns whether somebody may have read them.

    False if they could not be written, as on a full disk; stderr says why then. `| head`, which has read enough, is no
    such failure.
    """
    try:
        _write("".join(f"{printable(line)}\n" for line in text.split("\n")), sys.stdout)
    except BrokenPipeError:
        return True
    except (OSError, ValueError) as error:
        warn(f"what there is to say could not be printed: {error}")
        return False
    return True


def warn(text: str) -> None:
    """Prints one line to stderr, escaped by `printable`, if that is possible."""
    with contextlib.suppress(OSError, ValueError):
        _write(f"{printable(text)}\n", sys.stderr)


def plural(count: int, one: str, more: str = "") -> str:
    """The number with its noun.

    >>> plural(1, "class", "classes"), plural(1200, "image")
    ('1 class', '1,200 images')
    """
    return f"{count:,} {one if count == 1 else more or one + 's'}"


def progress_bar(description: str, total: int | None, *, shown: bool, **options: Any) -> "tqdm.tqdm[Any]":
    """tqdm's bar on stderr, if it is to be shown and there is a stderr; one that nobody can see disturbs nothing."""
    import tqdm  # what only looks at files needs no bar

    disabled = not shown or sys.stderr is None
    return tqdm.tqdm(total=total, desc=printable(description), disable=disabled, dynamic_ncols=True,
                     file=None if disabled else _Lenient(sys.stderr), **options)


def fill_standard_streams() -> None:
    """Opens /dev/null for each of stdin, stdout and stderr that this process was started without.

    The next file would get such a number, and what C libraries print would be written into it.
    """
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)


class _Lenient:
    """A text stream whose failures are not reported."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            _write(text, self._stream)

    def flush(self) -> None:
        self.write("")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _write(text: str, stream: Any) -> None:
    """Writes and flushes in the stream's encoding. Raises OSError or ValueError if it takes no more, and forgets it."""
    if stream is None:
        raise ValueError("it was closed when the program was started")
    try:
        stream.write(_encodable(text, getattr(stream, "encoding", None) or "utf-8"))
        stream.flush()
    except (OSError, ValueError):
        _forget(stream)
        raise


def _encodable(text: str, encoding: str) -> str:
    try:
        text.encode(encoding)
        return text
    except UnicodeEncodeError:
        return text.translate(_PLAIN).encode(encoding, "backslashreplace").decode(encoding)


def _forget(stream: Any) -> None:
    """Sends what a stream could not write nowhere, or the interpreter would fail to write it at its end: exit code 120.
    """
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)
