"""Reads an LMDB by both loaders in a process of its own that is refused some system calls, for test_refused_calls.py.

    python refused_reading.py LMDB < JSON list of [errno's name, [calls], options of the loaders]

Prints a JSON list: what each case found, of errors their kind and text.
"""
import errno
import hashlib
import json
import logging
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))  # of helpers

import torch  # noqa: F401  (imported once, and not in each fork)

from dataflows import CenterCrop
from helpers.refusing_kernel import refuse
from uint_lmdb_iterloader import LMDBIterLoader
from uint_lmdb_loader import LMDBLoader


def read(path, options):
    """A digest of all pixels and labels, by both loaders in the order of the file."""
    digest = hashlib.sha256()
    for cls, order in ((LMDBLoader, {"shuffle": False}), (LMDBIterLoader, {"order": "sequential"})):
        with cls(path, 5, transform=CenterCrop(32), **order, **options) as loader:
            for images, labels in loader:
                digest.update(images.numpy().tobytes() + labels.numpy().tobytes())
            str(loader.stats())
    return digest.hexdigest()


def refused(path, error, calls, options):
    """What `read` gives in a fork that is refused these calls, and what was logged."""
    received, sent = os.pipe()
    if os.fork() == 0:
        logged = []
        logging.getLogger("dataflows").addHandler(handler := logging.Handler(logging.WARNING))
        handler.emit = lambda entry: logged.append(entry.getMessage())
        try:
            if calls:
                refuse(getattr(errno, error), *calls)
            found = read(path, options)
        except Exception as error:
            found = f"{type(error).__name__}: {error}"
        os.write(sent, json.dumps([found, logged]).encode())
        os._exit(0)
    os.close(sent)
    with os.fdopen(received) as answer:
        text = answer.read()
    os.wait()
    return json.loads(text) if text else ["nothing", []]


if __name__ == "__main__":
    print(json.dumps([refused(sys.argv[1], *case) for case in json.load(sys.stdin)]))
