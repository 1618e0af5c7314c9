"""What users' callables raise, with the record that they were called for."""
from types import TracebackType

from dataflows.storage.store import Store


class Noted:
    """In a `with`, names file and key in what a callable raises.

    Raises RuntimeError for its StopIteration, which would silently end the loops and iterators that called it. A
    contextlib.contextmanager cannot: it takes such a RuntimeError for Python's own, and lets StopIteration pass.
    """

    def __init__(self, what: str, store: Store, number: int) -> None:
        self._what, self._store, self._number = what, store, number

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None,
                 traceback: TracebackType | None) -> None:
        if isinstance(error, StopIteration):
            raise RuntimeError(f"the {self._what} raised StopIteration for {self._store.place(self._number)}. Where it "
                               f"calls next(iterator), that was at its end: give next a default, or begin "
                               f"anew") from error
        if isinstance(error, Exception) and hasattr(error, "add_note"):  # Python 3.11 and later
            error.add_note(f"raised by the {self._what} of {self._store.place(self._number)}")
