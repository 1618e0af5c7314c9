"""Limits of a process, so that an absurd size is an error and not the end of the machine."""
import contextlib
import resource

import psutil


@contextlib.contextmanager
def limited_memory(more_bytes=2**30):
    """Lets the body map this much more memory, so that an absurd size is an error and not the end of the machine."""
    previous = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + more_bytes, previous[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, previous)
