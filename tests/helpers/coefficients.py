"""JPEGs of coefficients that are asked for, and these in the order in which compiled code takes them."""
import struct

import numpy as np

from dataflows.jpeg.decode.inverse_dct import inverse_dct

ZIGZAG = sorted(range(64), key=lambda n: (n // 8 + n % 8, n // 8 if (n // 8 + n % 8) % 2 else n % 8))
_AC = [0x00, 0xF0, *(run << 4 | size for run in range(16) for size in range(1, 11))]
_CODES = {symbol: f"{code:08b}" for code, symbol in enumerate(_AC)}  # 8 bits each: no table must be made


def _extra(value: int) -> tuple[int, str]:
    """The category of a coefficient, and the bits that say which of the category it is."""
    size = abs(value).bit_length()
    return size, f"{value + (value < 0) * ((1 << size) - 1):0{size}b}" if size else ""


def _block(coefficients: list[int], difference: int) -> str:
    size, extra = _extra(difference)
    bits, run = [f"{size:08b}", extra], 0
    for n in ZIGZAG[1:]:
        if coefficients[n]:
            bits += [_CODES[0xF0]] * (run // 16)
            size, extra = _extra(coefficients[n])
            bits += [_CODES[run % 16 << 4 | size], extra]
            run = -1
        run += 1
    return "".join([*bits, _CODES[0]] if run else bits)


def _segment(marker: int, payload: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(payload) + 2) + payload


def jpeg_of(height: int, width: int, components: list[np.ndarray], quantisers: list[np.ndarray],
            factors: list[tuple[int, int]]) -> bytes:
    """A baseline JPEG. components: of each, (rows of blocks, blocks in a row, 64), whole MCUs, natural order, DC within
    +-1023 and the others too. quantisers: of each, 64 in natural order. factors: of each, (horizontal, vertical)."""
    bits, seen = [], [0] * len(components)
    lists = [component.tolist() for component in components]
    for row in range(len(lists[0]) // factors[0][1]):
        for column in range(len(lists[0][0]) // factors[0][0]):
            for c, (h, v) in enumerate(factors):
                for y in range(v):
                    for x in range(h):
                        block = lists[c][row * v + y][column * h + x]
                        bits.append(_block(block, block[0] - seen[c]))
                        seen[c] = block[0]
    data = "".join(bits)
    data += "1" * (-len(data) % 8)
    ids = range(1, 1 + len(components))
    tables = b"".join(bytes([i - 1, *q[ZIGZAG].tolist()]) for i, q in zip(ids, quantisers))
    frame = b"".join(bytes([i, h << 4 | v, i - 1]) for i, (h, v) in zip(ids, factors))
    huffman = b"".join(bytes([kind, *[0] * 7, len(symbols), *[0] * 8, *symbols])
                       for kind, symbols in ((0x00, range(12)), (0x10, _AC)))
    return b"".join([
        b"\xff\xd8", _segment(0xDB, tables), _segment(0xC0, struct.pack(">BHHB", 8, height, width, len(ids)) + frame),
        _segment(0xC4, huffman), _segment(0xDA, bytes([len(ids), *(n for i in ids for n in (i, 0)), 0, 63, 0])),
        int(data, 2).to_bytes(len(data) // 8, "big").replace(b"\xff", b"\xff\0"), b"\xff\xd9"])


def in_lanes(blocks: np.ndarray) -> np.ndarray:
    """int16, 1-D: coefficient n of block j at j // 16 * 1024 + n * 16 + j % 16. blocks: (..., 64), natural order."""
    flat = blocks.reshape(-1, 64)
    padded = np.zeros((-(-len(flat) // 16) * 16, 64), np.int16)
    padded[:len(flat)] = flat
    return padded.reshape(-1, 16, 64).transpose(0, 2, 1).ravel()


def coefficients_of(samples: np.ndarray, quantisers: np.ndarray) -> np.ndarray:
    """What an encoder makes of a plane of whole blocks: (rows of blocks, blocks in a row, 64)."""
    n = np.arange(8)
    dct = np.cos((2 * n + 1) * n[:, None] * np.pi / 16) / 2
    dct[0] /= np.sqrt(2)
    rows, columns = samples.shape[0] // 8, samples.shape[1] // 8
    blocks = samples.reshape(rows, 8, columns, 8).transpose(0, 2, 1, 3) - 128.0
    exact = (dct @ blocks @ dct.T).reshape(rows, columns, 64) / quantisers
    return np.clip(np.rint(exact), -1023, 1023).astype(np.int64)


def samples_of(blocks: np.ndarray, quantisers: np.ndarray, start: int = 0, seed: int = 0) -> np.ndarray:
    """What inverse_dct makes of (rows, columns, 64), as (8 * rows, 8 * columns), with other numbers before `start`.

    Asserts that nothing is written behind the plane.
    """
    rows, columns = blocks.shape[:2]
    before = np.random.default_rng(seed).integers(-999, 999, start)
    coefficients = np.concatenate([before, in_lanes(blocks)]).astype(np.int16)
    words = np.full(16 * rows * columns + 64, 0x5A5A5A5A, np.int32)
    inverse_dct(coefficients, start, rows * columns, columns, quantisers.astype(np.int32), words)
    assert (words[16 * rows * columns:] == 0x5A5A5A5A).all()
    return words.view(np.uint8)[:64 * rows * columns].reshape(8 * rows, 8 * columns)
