"""Bytes of a file by offset: the same however they are read, and in the page cache when they were asked for."""
import gc
import multiprocessing
import os
import pathlib
import re
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dataflows.storage.paged_file import PAGE, PagedFile, extents, on_network, readahead_bytes
from helpers.page_cache import resident_pages

stretches = st.lists(st.tuples(st.integers(0, 40 * PAGE), st.integers(1, 5 * PAGE)), min_size=1, max_size=30)


@pytest.fixture
def file(tmp_path):
    """A file of 300 pages and a half, on the disk and not in memory."""
    path = tmp_path / "content"
    path.write_bytes(np.random.default_rng(0).bytes(300 * PAGE + PAGE // 2))
    with open(path, "rb+") as handle:
        os.fsync(handle.fileno())
        os.posix_fadvise(handle.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return path


@given(stretches)
def test_extents_are_the_pages_of_all_stretches_each_once(given_stretches):
    offsets, nbytes = np.array(given_stretches).T
    starts, lengths = extents(offsets, nbytes)
    assert not (starts % PAGE).any() and not (lengths % PAGE).any() and (lengths > 0).all()
    assert (starts[1:] > starts[:-1] + lengths[:-1]).all()  # ascending, and joined where they touch
    covered = {page for start, length in zip(starts, lengths)
               for page in range(start // PAGE, (start + length) // PAGE)}
    assert covered == {page for offset, count in given_stretches
                       for page in range(offset // PAGE, (offset + count - 1) // PAGE + 1)}


@pytest.mark.parametrize("copies", [False, True], ids=["mmap", "pread"])
def test_bytes_are_those_of_the_file(file, copies):
    content, expected = PagedFile(str(file), os.path.getsize(file), copies=copies), file.read_bytes()
    for start, nbytes in ((0, 1), (PAGE - 1, 2), (5, 100 * PAGE), (len(expected) - 7, 7)):
        view = content.read(start, nbytes)
        assert view.tobytes() == expected[start:start + nbytes]
        assert view.dtype == np.uint8 and not view.flags.writeable
    del content
    gc.collect()
    assert view.tobytes() == expected[-7:]  # what is held stays valid


@pytest.mark.parametrize("copies", [False, True], ids=["mmap", "pread"])
def test_a_forked_child_goes_on_with_it(file, copies):
    content = PagedFile(str(file), os.path.getsize(file), copies=copies)
    context = multiprocessing.get_context("fork")
    received, sent = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sent.send(content.read(PAGE, 9).tobytes()))
    child.start()
    assert received.recv() == content.read(PAGE, 9).tobytes()
    child.join()


def test_a_file_that_became_shorter_is_named(file):
    content = PagedFile(str(file), os.path.getsize(file), copies=True)
    os.truncate(file, 10 * PAGE)
    with pytest.raises(OSError, match=f"the file ends at byte {10 * PAGE:,}, .*{re.escape(str(file))}"):
        content.read(9 * PAGE, 2 * PAGE)


@pytest.mark.skipif(not hasattr(os, "RWF_NOWAIT"), reason="mincore is called as Linux has it")
@pytest.mark.parametrize("copies", [False, True], ids=["mmap", "pread"])
def test_exactly_what_is_asked_for_comes_into_memory_and_leaves_it_again(file, copies):
    if resident_pages(file):
        pytest.skip("this file system keeps files in memory")
    content = PagedFile(str(file), os.path.getsize(file), copies=copies)
    wanted = {*range(20, 23), *range(100, 180), 299, 300}
    offsets = np.array([20, 100, 160, 299]) * PAGE + 16
    nbytes = np.array([2 * PAGE + 9, 60 * PAGE, 20 * PAGE - 16, PAGE])
    content.will_need(extents(offsets, nbytes))
    deadline = time.monotonic() + 30
    while resident_pages(file) != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
    assert resident_pages(file) == wanted and content.resident(offsets)
    expected = content.read(100 * PAGE, 80 * PAGE).tobytes()  # mapped now, which the kernel does not evict by itself
    content.drop(extents(np.array([100 * PAGE, 300 * PAGE]), np.array([80 * PAGE, 10])))
    assert resident_pages(file) == wanted - set(range(100, 180)) - {300}
    assert content.read(100 * PAGE, 80 * PAGE).tobytes() == expected


def test_a_local_folder_is_not_on_the_network(tmp_path):
    assert not on_network(str(tmp_path))


def test_requests_are_as_large_as_the_device_reads_at_once(tmp_path):
    """And never larger, because the kernel cuts off the rest; in whole pages."""
    with open(tmp_path / "file", "wb") as file:
        most = readahead_bytes(file.fileno())
    assert most >= 128 * 1024 and most % PAGE == 0
    device = os.stat(tmp_path).st_dev
    limit = pathlib.Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    if not limit.exists():
        pytest.skip("this file system has no readahead limit of its own")
    assert most == max(128, int(limit.read_text())) * 1024 // PAGE * PAGE
