"""What of a file is in memory."""
import ctypes
import mmap

import numpy as np

from dataflows.storage.paged_file import PAGE


def resident_pages(path):
    """The numbers of a file's pages that are in memory, which looking does not change."""
    libc = ctypes.CDLL(None, use_errno=True)
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY) as content:
        start = np.frombuffer(content, np.uint8).__array_interface__["data"][0]
        flags = (ctypes.c_ubyte * -(-len(content) // PAGE))()
        assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(content)), flags) == 0
        return {page for page, flag in enumerate(flags) if flag & 1}
