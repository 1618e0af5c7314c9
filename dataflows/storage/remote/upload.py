"""Writes files of this machine to URLs, and removes them there."""
import os

from dataflows.storage.remote.connection import TIMEOUT_SECONDS, connect
from dataflows.storage.remote.options import RemoteOptions
from dataflows.storage.remote.urls import protocol_of

_SLOWEST = 2**20  # bytes a second that an upload has to reach


def refuse_unwritable(url: str) -> None:
    """Raises ValueError for a URL that nothing can be written to."""
    if protocol_of(url) in ("http", "https"):
        raise ValueError(f"{url} is on a web server, which takes no files. Give a target in object storage, or a "
                         f"folder")


def put_file(path: str, url: str, options: RemoteOptions) -> None:
    """Makes the file at a URL equal to one here: nobody sees a part of it. Large ones go in parts.

    Raises OSError, with the URL, where that fails, or where less came there.
    """
    connection, size = connect(url, options), os.path.getsize(path)
    connection.call(url, "_put_file", path, url, seconds=TIMEOUT_SECONDS + size / _SLOWEST)
    found = connection.size(url)
    if found != size:
        raise OSError(f"{url} has {found:,} bytes after {size:,} were written. Try again")


def remove_file(url: str, options: RemoteOptions) -> None:
    """Removes a file at a URL, if there is one."""
    connection = connect(url, options)
    if connection.exists(url):
        connection.call(url, "_rm_file", url, seconds=TIMEOUT_SECONDS)
