"""Giving a finished dump its final names, in an order that may be interrupted anywhere.

    1  the index is written under a temporary name, and both files and their folder are on the disk
    2  the journal says so
    3  two renames, the LMDB's first: should all end between them, an older index is refused as another file's
    4  the journal is removed

Between 2 and 4, whoever comes next does what is left of it.
"""
import os

from dataflows.dump.recovery.journal import Journal
from dataflows.storage.flush import flush
from dataflows.storage.index import Index, index_path, temporary_index_path, write_index


def partial_path(lmdb_path: str) -> str:
    """Where an LMDB file is written, before it is renamed."""
    return lmdb_path + ".partial"


def prepare(path: str, index: Index, journal: Journal) -> None:
    """Steps 1 and 2, for the verified file under its temporary name."""
    write_index(index, path)
    flush(partial_path(path))
    flush(os.path.dirname(path) or ".")
    journal.mark_verified()


def rename(path: str) -> None:
    """Step 3, or what is left of it."""
    for temporary, final in ((partial_path(path), path), (temporary_index_path(path), index_path(path))):
        if os.path.exists(temporary):
            os.replace(temporary, final)
    flush(os.path.dirname(path) or ".")


def discard(path: str, journal: Journal) -> None:
    """Removes an unfinished dump: the journal last, for a file without one could not be told from others' files."""
    clear(path)
    journal.remove()


def clear(path: str) -> None:
    """Removes the temporary files."""
    for name in leftovers(path):
        os.unlink(name)


def leftovers(path: str) -> list[str]:
    """The temporary files that there are."""
    return [name for name in (partial_path(path), temporary_index_path(path)) if os.path.lexists(name)]
