"""Flushes files and folders to the disk, as far as their file system can.

Some (of CIFS, 9p, FUSE) refuse to flush folders, or even files. Then nobody can promise what a loss of power leaves;
while the power is on, all is as it should be, so that is no reason to fail. A disk that tries and fails is one.
"""
import errno
import os

_REFUSED = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


def flush_file(fd: int, path: str) -> bool:
    """Flushes an open file; False where its file system refuses to. Raises OSError, with the path, when the disk fails.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _REFUSED:
            raise OSError(error.errno, f"it could not be flushed to the disk: {error.strerror}", path) from error
        return False
    return True


def flush(path: str) -> bool:
    """Flushes a file, or the names in a folder, as `flush_file` does. A folder that may not be read is not flushed."""
    try:
        fd = os.open(path, os.O_RDONLY)
    except PermissionError:
        if os.path.isdir(path):
            return False
        raise
    try:
        return flush_file(fd, path)
    finally:
        os.close(fd)
