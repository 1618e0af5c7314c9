"""Arrays on memory that another object owns, which lives for as long as any view of them."""
from typing import Any


class Owner:
    """Owns the memory of an array for numpy: `np.asarray` gives an array of it that keeps `owner` alive.

    So do all views of that array; the array's `base` is this object, and a weak reference to it tells when all are
    gone. interface: what describes the memory, as an array's `__array_interface__`.
    """

    __slots__ = ("__array_interface__", "__weakref__", "owner")

    def __init__(self, interface: dict[str, Any], owner: object) -> None:
        self.__array_interface__ = interface
        self.owner = owner
