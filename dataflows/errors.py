"""Every exception of this package, each with the rule that was broken. Wrong options are ValueError and TypeError."""


class RecordError(ValueError):
    """The bytes are not a record. The message says which rule they break; readers add the file and the key."""


class UnsafePickle(ValueError):
    """The pickle is damaged, or wants more than plain arrays. The message names what it asked for."""


class DamagedMsgpack(ValueError):
    """The bytes are not msgpack, or hold what neither records nor keys do."""


class NoMap(OSError):
    """The system does not map this file into memory: its file system cannot, or a limit on memory is in the way."""


class NoChecksums(ValueError):
    """There is no index, so there is nothing to compare the file with."""


class UnsupportedJPEG(ValueError):
    """This JPEG cannot be tiled; `reason` is one of a few short stable strings, made for counting."""

    def __init__(self, reason: str):
        super().__init__(f"cannot tile this image: {reason}; store its bytes unchanged")
        self.reason = reason

    def __reduce__(self) -> tuple[type["UnsupportedJPEG"], tuple[str]]:
        return UnsupportedJPEG, (self.reason,)


class NoTiling(ImportError):
    """numba does not work here, and tiling needs it."""


class NotStarted(ValueError):
    """The dump did not begin: it wrote no record. What an interrupted dump had left was removed, or, where it was
    complete, got its final name; a warning said so. `main` turns it into exit code 2.
    """


class Refused(NotStarted):
    """The arguments cannot be carried out, and no file was written, renamed or removed."""


class Damaged(OSError):
    """What was read back is not what was written. Nothing of it is kept."""


class Locked(OSError):
    """Another process writes this dump."""


class WorkerDied(RuntimeError):
    """A worker process ended without saying why: it was killed, by a user or for want of memory, or crashed."""


class WorkerTraceback(Exception):
    """Where in a worker an exception was raised, as text: frames do not pickle."""

    def __str__(self) -> str:
        return f"in a worker process:\n{self.args[0]}"
