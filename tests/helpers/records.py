"""Records without a file, for tests of orders."""


class Records:
    """All that keys ask of a Store of so many records."""

    path = "train.lmdb"

    def __init__(self, size):
        self._size = size

    def __len__(self):
        return self._size

    def fingerprint(self):
        return self._size
