"""Takes no more than there is time or room for."""
import time
from typing import Callable, Iterable, Iterator, TypeVar

T = TypeVar("T")


def until(deadline: float, items: Iterable[T]) -> Iterator[T]:
    """The items, one at least, until `deadline`, by time.monotonic: whoever takes the last one ends little later."""
    for item in items:
        yield item
        if time.monotonic() > deadline:
            return


def up_to(nbytes: int, items: Iterable[T], size: Callable[[T], int]) -> Iterator[T]:
    """The items, one at least, until they have so many bytes together, or little more."""
    for item in items:
        yield item
        nbytes -= size(item)
        if nbytes <= 0:
            return
