"""The fsspec file system that serves a URL. Always a new one: those of fsspec must not be used in a forked process.

Two packages serve most protocols: obstore, which takes a fifth of the processor time, and fsspec's own (s3fs, gcsfs,
adlfs, aiohttp). obstore hangs in a process whose parent has used it before the fork, whatever is made anew. So:

- what opens a data set is fsspec's own, if that is installed: a program that opens one and then forks workers, as
  torch's DataLoader does, leaves them obstore;
- what reads records is obstore, unless the parent of this process has used it, or it does not understand the options
  or would not find the credentials or the region;
- where neither is left, that is an error, and not a hang.
"""
import importlib.util
import os
from typing import Any, Awaitable, Callable, Mapping, Sequence

from dataflows.storage.remote.urls import protocol_of

Content = bytes  # of a range; or obstore's Bytes, which have their length, and are a buffer as they are

_OWN = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
        "http": "aiohttp", "https": "aiohttp"}  # the package behind fsspec's own file system
# Where credentials of AWS are that obstore finds by itself; it does not read ~/.aws.
_FOUND = ("AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
          "AWS_CONTAINER_CREDENTIALS_FULL_URI")
_PLACED = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_DEFAULT_REGION")
_INSTALL = "Install the extra: pip install 'imagenet-lmdb[remote]'"

_used = False  # obstore, in this process
_lost = False  # obstore: it was used in the parent of this process


def _after_fork() -> None:
    global _used, _lost
    _used, _lost = False, _lost or _used


os.register_at_fork(after_in_child=_after_fork)


def open_filesystem(url: str, options: Mapping[str, Any], *, opening: bool) -> Any:
    """A new asynchronous file system of fsspec for a URL, with a loop in a thread of fsspec's.

    opening: a data set is opened, so few requests are made, and workers may be forked later. Raises ImportError where a
    package is missing, and ValueError where fsspec does not know the protocol or an option.
    """
    global _used
    protocol = protocol_of(url)
    own = _has(_OWN.get(protocol, "fsspec"))
    translated = _for_obstore(protocol, options)
    if translated is not None and not _lost and not (own and (opening or not _finds_all(protocol, options))):
        _used = True
        return _obstore(protocol, translated)
    if not own:
        _refuse(protocol, forked=_lost and translated is not None)
    return _fsspec(protocol, options)


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _refuse(protocol: str, *, forked: bool) -> None:
    package = _OWN[protocol]
    if forked:
        raise ImportError(f"this process was forked from one that has used obstore, which hangs then. Install "
                          f"{package} (pip install {package}), or start workers by spawn or forkserver "
                          f"(multiprocessing_context='spawn' of DataLoader)")
    raise ImportError(f"reading {protocol}:// needs {package}, or obstore for the options that it understands. "
                      f"{_INSTALL}, or {package}")


def _fsspec(protocol: str, options: Mapping[str, Any]) -> Any:
    if not _has("fsspec"):
        raise ImportError(f"reading {protocol}:// needs fsspec. {_INSTALL}")
    import fsspec
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

    s3 = protocol in ("s3", "s3a")
    own = {"config_kwargs": {"max_pool_connections": 64, "retries": {"max_attempts": 0}}} if s3 else {}
    try:
        made = fsspec.filesystem(protocol, **own | dict(options), skip_instance_cache=True)
    except TypeError as error:
        raise ValueError(f"storage_options has what {protocol}:// does not take: {error}") from error
    if s3:
        made.retries = 1  # Connection repeats requests, and a second repetition would multiply the wait
    return made if made.async_impl else AsyncFileSystemWrapper(made, asynchronous=False)


def _obstore(protocol: str, translated: dict[str, Any]) -> Any:
    from obstore.fsspec import FsspecStore

    return FsspecStore(protocol, **translated, retry_config={"max_retries": 0}, skip_instance_cache=True)


def several_ranges(filesystem: Any) -> Callable[[str, Sequence[int], Sequence[int]], Awaitable[list[Content]]] | None:
    """What gives several ranges of a file, of these starts and ends, by one call; None where nothing does.

    obstore's own `_cat_ranges` would read up to 1 MB between two of them in vain.
    """
    if not hasattr(filesystem, "_construct_store"):
        return None

    async def ranges(url: str, starts: Sequence[int], ends: Sequence[int]) -> list[Content]:
        bucket, path = filesystem._split_path(url)
        store = filesystem._construct_store(bucket)
        return [_as_they_lie(part) for part in await store.get_ranges_async(path, starts=starts, ends=ends, coalesce=0)]

    return ranges


def _as_they_lie(part: Any) -> Content:
    try:
        memoryview(part)  # not kept: each buffer has two more objects for the garbage collector
    except TypeError:  # as obstore for Python 3.10 is built
        part = part.to_bytes()
    content: Content = part
    return content


def _for_obstore(protocol: str, options: Mapping[str, Any]) -> dict[str, Any] | None:
    """Options for fsspec's own as those for obstore; None where it is missing, or has no word for one of them."""
    if not _has("obstore"):
        return None
    left = dict(options)
    if protocol in ("s3", "s3a"):
        return _s3(left)
    if protocol in ("gs", "gcs", "az", "abfs", "abfss"):
        return {} if not left else None
    return {"client_options": {"allow_http": True}} if protocol in ("http", "https") and not left else None


def _s3(left: dict[str, Any]) -> dict[str, Any] | None:
    client = dict(left.pop("client_kwargs", None) or {})
    endpoint = (left.pop("endpoint_url", None) or client.pop("endpoint_url", None)
                or os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"))
    config = {"endpoint": endpoint, "region": client.pop("region_name", None), "access_key_id": left.pop("key", None),
              "secret_access_key": left.pop("secret", None), "session_token": left.pop("token", None),
              "skip_signature": left.pop("anon", None) or None}
    if left or client:
        return None
    return {"config": {name: value for name, value in config.items() if value is not None},
            "client_options": {"allow_http": str(endpoint).startswith("http://")}}


def _finds_all(protocol: str, options: Mapping[str, Any]) -> bool:
    """Whether obstore would find credentials and, where there is no endpoint, the region: it does not ask for that."""
    if protocol not in ("s3", "s3a"):
        return True
    client = options.get("client_kwargs") or {}
    placed = (options.get("endpoint_url") or client.get("endpoint_url") or client.get("region_name")
              or any(map(os.environ.get, _PLACED)))
    return bool(placed and (options.get("key") or options.get("anon") or any(map(os.environ.get, _FOUND))))
