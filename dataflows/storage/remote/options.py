"""What a user says of files at URLs."""
import dataclasses
import os
from typing import Any, Mapping

from dataflows.options import integer


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class RemoteOptions:
    """storage_options, cache_dir and cache_bytes of the loaders, checked; they say more about each. Never shown.

    Raises ValueError or TypeError for other values.
    """

    storage_options: Mapping[str, Any] | None = None
    cache_dir: str | os.PathLike[str] | None = None
    cache_bytes: int | None = None

    def __post_init__(self) -> None:
        given = self.storage_options
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"storage_options must be a mapping of names to values, as fsspec takes them, not a "
                            f"{type(given).__name__}")
        if self.cache_dir is not None:
            object.__setattr__(self, "cache_dir", os.path.abspath(os.fspath(self.cache_dir)))
        if self.cache_bytes is not None:
            object.__setattr__(self, "cache_bytes", integer("cache_bytes", self.cache_bytes, 0))
            if self.cache_dir is None:
                raise ValueError("cache_bytes says how much of cache_dir may be used: give cache_dir, too")

    @property
    def given(self) -> dict[str, Any]:
        """The options for fsspec, as a new dict."""
        return dict(self.storage_options or {})


PLAIN = RemoteOptions()  # what the environment says, and nothing is kept
