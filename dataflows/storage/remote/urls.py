"""Which paths are URLs, and what may be in one: any protocol that fsspec knows."""
import re

_URL = re.compile(r"([a-z][a-z0-9+.-]+)://")


def is_url(path: object) -> bool:
    """Whether a path names a file in another place than this machine's file systems.

    >>> is_url("s3://bucket/train.lmdb"), is_url("train.lmdb"), is_url("C:/train.lmdb")
    (True, False, False)
    """
    return isinstance(path, str) and _URL.match(path) is not None


def protocol_of(url: str) -> str:
    """What stands before "://"."""
    found = _URL.match(url)
    assert found is not None
    return found[1]


def refuse_secrets(url: str) -> None:
    """Raises ValueError for a URL with a password, or with a query, as signed ones have: paths are shown in messages,
    and a signature is of one file, and not of its index. The message shows neither.

    >>> refuse_secrets("https://me:secret@example.com/train.lmdb")
    Traceback (most recent call last):
    ValueError: https://.../train.lmdb has a user or a password in it, and paths are shown in messages. Give it in ...
    """
    protocol, rest = protocol_of(url), url.partition("://")[2]
    place, slash, path = rest.partition("/")
    if "@" in place:
        raise ValueError(f"{protocol}://...{slash}{path.partition('?')[0]} has a user or a password in it, and paths "
                         f"are shown in messages. Give it in storage_options, or in the environment")
    if protocol in ("http", "https") and ("?" in rest or "#" in rest):
        raise ValueError(f"{re.split('[?#]', url)[0]} is followed by a query or a fragment. A signed URL is of one "
                         f"file, and an LMDB needs its index beside it: give a URL of a folder that may be read, and "
                         f"credentials in storage_options")
