"""tensorpack's classes, imported without the lines that tensorpack prints.

tensorpack 0.11 prints to stdout that TensorFlow is missing, and logs to stdout whenever a file is opened or saved.
Every other file takes tensorpack's names from here, so that neither reaches a user's terminal.
"""
import contextlib
import io
import logging
from typing import Iterator

with contextlib.redirect_stdout(io.StringIO()):
    from tensorpack.dataflow import (
        BatchData,
        DataFlow,
        LMDBData,
        LMDBSerializer,
        LocallyShuffleData,
        MultiProcessRunnerZMQ,
        ProxyDataFlow,
    )

__all__ = ["BatchData", "DataFlow", "LMDBData", "LMDBSerializer", "LocallyShuffleData",
           "MultiProcessRunnerZMQ", "ProxyDataFlow", "quiet_tensorpack"]


@contextlib.contextmanager
def quiet_tensorpack() -> Iterator[None]:
    """Silences tensorpack's log lines below WARNING while the body runs, and only then."""
    logger = logging.getLogger("tensorpack")
    level = logger.level
    logger.setLevel(logging.WARNING)
    try:
        yield
    finally:
        logger.setLevel(level)
