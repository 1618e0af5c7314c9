"""What errors of requests mean: which another attempt may mend, and what readers are told."""
import asyncio
import errno
from typing import Any

_AGAIN = (408, 425, 429)  # of 4xx, those that another time may answer otherwise
_LONGEST = 300  # characters of another package's message
_PLACES = ("endpoint_url", "region_name")
_REMEDY = "Check the URL, the network, and the credentials and endpoint in storage_options or the environment"


def told(url: str, error: Exception, attempts: int, secrets: list[str]) -> OSError:
    """What readers get, with the URL and without any of the secrets."""
    if _not_found(error):
        return FileNotFoundError(errno.ENOENT, "there is no such file. Check the URL", url)
    if isinstance(error, NoRanges):
        return OSError(errno.EIO, str(error), url)
    lines = (str(error) or type(error).__name__).splitlines()
    text = lines[0][:_LONGEST] if lines else ""
    for secret in secrets:
        text = text.replace(secret, "***")
    if _refused(error):
        return PermissionError(errno.EACCES, f"it may not be read ({type(error).__name__}: {text}). Check the "
                                             f"credentials in storage_options or the environment", url)
    tries = f" in {attempts} attempts" * (attempts > 1)
    return OSError(errno.EIO, f"the request failed{tries} ({type(error).__name__}: {text}). {_REMEDY}", url)


class NoRanges(OSError):
    """The server sends whole files."""


def texts(options: Any) -> list[str]:
    """The texts in some options that may be secrets: all but those that say where the server is."""
    if isinstance(options, dict):
        return [text for name, value in options.items() if name not in _PLACES for text in texts(value)]
    return [options] if isinstance(options, str) and len(options) > 3 else []


def _status(error: BaseException | None) -> int | None:
    """What HTTP's status was, as far as the package tells."""
    status = getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _not_found(error: Exception) -> bool:
    # fsspec calls it so whenever HTTP's HEAD fails, for whatever reason.
    return isinstance(error, FileNotFoundError) and (error.__cause__ is None or _status(error.__cause__) in (None, 404)
                                                     and not _is_network(error.__cause__))


def _is_network(error: BaseException) -> bool:
    aiohttp = type(error).__module__.partition(".")[0] == "aiohttp"
    return isinstance(error, (ConnectionError, asyncio.TimeoutError)) or aiohttp and _status(error) is None


def _refused(error: Exception) -> bool:
    names = {cls.__name__ for cls in type(error).__mro__}
    return (isinstance(error, PermissionError) or _status(error) in (401, 403)
            or bool(names & {"PermissionDeniedError", "UnauthenticatedError", "NoCredentialsError"}))


def may_pass(error: Exception) -> bool:
    """Whether it may be otherwise another time."""
    if isinstance(error, FileNotFoundError):
        return not _not_found(error)
    status = _status(error)
    if status is not None and 400 <= status < 500:
        return status in _AGAIN
    if type(error).__name__ == "NotSupportedError":  # obstore's, of a server without ranges
        return False
    return not (_refused(error) or isinstance(error, (NoRanges, ValueError, TypeError, AttributeError, ImportError,
                                                      NotImplementedError, IsADirectoryError)))
