"""A reader of dumps written from docs/format.md alone: Python's standard library and any LMDB binding, nothing else.

    python tests/helpers/independent_reader.py FILE.lmdb OUT [BOXES]

writes into the folder OUT report.json, with all that the index and the keys say, and each record's image: its own
bytes, or raw rows of RGB. BOXES is JSON, {key: [[top, left, height, width], ...]}: of these records it writes the small
JPEGs that show the boxes.
"""
import ast
import json
import math
import os
import struct
import sys
import zipfile
import zlib

import lmdb

# The index.

def read_index(path):
    """(columns by name, meta)."""
    with open(path, "rb") as file:
        content = file.read()
    if content[-14:-8] != b"crc32 " or int(content[-8:], 16) != zlib.crc32(content[:-8]):
        raise ValueError("the index is damaged")
    with zipfile.ZipFile(path) as archive:
        columns = {name.removesuffix(".npy"): read_npy(archive.read(name)) for name in archive.namelist()}
    meta = json.loads(bytes(columns.pop("meta")).decode())
    if meta["version"] not in (2, 3):
        raise ValueError("the index is of another version")
    return columns, meta


def read_npy(content):
    """The values of a one-dimensional array, or the rows of one of two dimensions."""
    if content[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("not an array of version 1.0")
    [length] = struct.unpack_from("<H", content, 8)
    header = ast.literal_eval(content[10:10 + length].decode("latin1"))
    (count, *rest), descr, data = header["shape"], header["descr"], content[10 + length:]
    if rest:
        if descr != "<f4" or header["fortran_order"]:
            raise ValueError("not rows of float32")
        return [list(struct.unpack_from(f"<{rest[0]}f", data, 4 * rest[0] * row)) for row in range(count)]
    if descr.startswith("|S"):
        size = int(descr[2:])
        return [data[i * size:(i + 1) * size].rstrip(b"\0") for i in range(count)]
    return list(struct.unpack(f"<{count}" + {"<i4": "i", "<i8": "q", "<u4": "I", "|u1": "B"}[descr], data))


def rest_crc32(path, columns):
    """The checksum of all bytes outside of records."""
    with open(path, "rb") as file:
        content = file.read()
    rest, at = 0, 0
    for offset, nbytes in sorted(zip(columns["offset"], columns["nbytes"])):
        rest, at = zlib.crc32(content[at:offset], rest), offset + nbytes
    return zlib.crc32(content[at:], rest)


# Records.

def unpack(data, at):
    """(the value at this place, where it ends)."""
    tag = data[at]
    if tag < 0x80:
        return tag, at + 1
    if tag >= 0xE0:
        return tag - 256, at + 1
    if tag == 0xC3:
        return True, at + 1
    if tag in NUMBERS:
        return struct.unpack_from(NUMBERS[tag], data, at + 1)[0], at + 1 + struct.calcsize(NUMBERS[tag])
    if tag & 0xE0 == 0xA0:
        length, at = tag & 0x1F, at + 1
        return data[at:at + length].decode(), at + length
    if tag & 0xF0 == 0x80:
        return unpack_items(data, at + 1, 2 * (tag & 0x0F))
    if tag & 0xF0 == 0x90:
        return unpack_items(data, at + 1, tag & 0x0F)
    form = LENGTHS[tag]
    [length] = struct.unpack_from(form, data, at + 1)
    at += 1 + struct.calcsize(form)
    return unpack_items(data, at, length) if tag in (0xDC, 0xDD) else (data[at:at + length], at + length)


NUMBERS = {0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q"}
LENGTHS = {0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xDC: ">H", 0xDD: ">I"}


def unpack_items(data, at, count):
    items = []
    for _ in range(count):
        item, at = unpack(data, at)
        items.append(item)
    return items, at


def read_record(value):
    """(the shape of pixels or None for a JPEG, the bytes, the label)."""
    (image, label), end = unpack(value, 0)
    if end != len(value):
        raise ValueError("something follows the record")
    if isinstance(label, list):
        vector = dict(zip(label[::2], label[1::2]))
        if vector[b"nd"] is not True or vector[b"type"] != "<f4":
            raise ValueError("not a vector of float32")
        label = list(struct.unpack(f"<{vector[b'shape'][0]}f", vector[b"data"]))
    if isinstance(image, bytes):
        return None, image, label
    array = dict(zip(image[::2], image[1::2]))
    if array[b"nd"] is not True or array[b"type"] != "|u1" or array[b"shape"][2] != 3:
        raise ValueError("not RGB pixels")
    if len(array[b"data"]) != math.prod(array[b"shape"]):
        raise ValueError("the pixels do not fit their shape")
    return array[b"shape"], array[b"data"], label


# Tiled JPEGs.

def read_tiles(jpeg):
    """What the list and the frame say, or None for a JPEG that is not tiled."""
    list_at = 2
    if jpeg[2:4] == b"\xff\xe0":
        list_at += 2 + int.from_bytes(jpeg[4:6], "big")
    listing, at = b"", list_at
    while jpeg[at:at + 2] == b"\xff\xe9" and jpeg[at + 4:at + 16] == b"RSTINDEX v2\0":
        end = at + 2 + int.from_bytes(jpeg[at + 2:at + 4], "big")
        listing, at = listing + jpeg[at + 16:end], end
    if not listing:
        return None
    core_at, size_at, scan_at, size, _, blank_bits = struct.unpack_from("<IIIBBH", listing)
    [interval] = struct.unpack_from(">H", jpeg, core_at + 4)
    height, width, components = struct.unpack_from(">HHB", jpeg, size_at)
    factors = [divmod(jpeg[size_at + 6 + 3 * i], 16) for i in range(components)]
    if components == 1:
        factors = [(1, 1)]
    across, down = max(h for h, _ in factors), max(v for _, v in factors)
    columns, rows = -(-width // (8 * across)), -(-height // (8 * down))
    count = -(-columns * rows // interval)
    first = 16 + (blank_bits + 7) // 8 + size  # behind the 0 that the lengths start with
    lengths = [int.from_bytes(listing[first + i * size:first + (i + 1) * size], "little") for i in range(count)]
    if scan_at + sum(lengths) > len(jpeg):
        raise ValueError("the list does not fit the file")
    return {"header": jpeg[:list_at] + jpeg[core_at:scan_at], "size_at": size_at - core_at + list_at,
            "scan_at": scan_at, "height": height, "width": width, "mcu_height": 8 * down, "mcu_width": 8 * across,
            "margin_y": int(min(v for _, v in factors) < down), "margin_x": int(min(h for h, _ in factors) < across),
            "columns": columns, "rows": rows, "interval": interval, "lengths": lengths}


def cut(jpeg, tiles, box):
    """(a small JPEG that shows the box, the row and the column of the image that its first pixel is)."""
    top, left, height, width = box
    t = tiles
    row = max(top - t["margin_y"], 0) // t["mcu_height"]
    row_end = min(-(-(top + height + t["margin_y"]) // t["mcu_height"]), t["rows"])
    if t["columns"] % t["interval"]:
        period = t["interval"] // math.gcd(t["interval"], t["columns"])
        row, row_end = row - row % period, min(-(-row_end // period) * period, t["rows"])
        first = row * t["columns"] // t["interval"]
        last = -(-row_end * t["columns"] // t["interval"])
        chosen, x, x_end = list(range(first, last)), 0, t["width"]
    else:
        step, interval_width = t["columns"] // t["interval"], t["interval"] * t["mcu_width"]
        first = max(left - t["margin_x"], 0) // interval_width
        last = min(-(-(left + width + t["margin_x"]) // interval_width), step)
        x_end = min(last * interval_width, t["width"])
        if t["margin_x"] and first and x_end - first * interval_width < 5:
            first -= 1
        chosen = [r * step + column for r in range(row, row_end) for column in range(first, last)]
        x = first * interval_width
    starts = [0]
    for length in t["lengths"]:
        starts.append(starts[-1] + length)
    small = bytearray(t["header"])
    small_height = min(row_end * t["mcu_height"], t["height"]) - row * t["mcu_height"]
    struct.pack_into(">HH", small, t["size_at"], small_height, x_end - x)
    for i, number in enumerate(chosen):
        piece = jpeg[t["scan_at"] + starts[number]:t["scan_at"] + starts[number + 1]]
        if piece[-2] != 0xFF:
            raise ValueError("an interval does not end with a marker")
        small += piece[:-2] + bytes([0xFF, 0xD0 + i % 8])
    small[-1] = 0xD9
    return bytes(small), (row * t["mcu_height"], x)


def main(path, out, boxes="{}"):
    """Reads everything, and writes what it has found."""
    columns, meta = read_index(path + ".index.npz")
    if os.path.getsize(path) != meta["file_size"]:
        raise ValueError("the index is of another file")
    environment = lmdb.open(path, subdir=False, readonly=True, lock=False)
    with environment.begin() as transaction:
        values = {key.decode(): value for key, value in transaction.cursor()}
    keys = [key.decode() for key in unpack(values.pop("__keys__"), 0)[0]]
    if list(values) != keys or keys != [f"{number:08d}" for number in range(meta["count"])]:
        raise ValueError("the keys are not those of a dump")
    boxes, records = json.loads(boxes), []
    with open(path, "rb") as file:
        content = file.read()
    for number, key in enumerate(keys):
        offset, nbytes = columns["offset"][number], columns["nbytes"][number]
        value = content[offset:offset + nbytes]
        if value != values[key] or zlib.crc32(value) != columns["crc32"][number]:
            raise ValueError(f"record {key} is damaged")
        shape, image, label = read_record(value)
        with open(os.path.join(out, key), "wb") as file:
            file.write(image)
        tiles = read_tiles(image) if shape is None else None
        places = []
        for i, box in enumerate(boxes.get(key, []) if tiles else []):
            small, place = cut(image, tiles, box)
            places.append(place)
            with open(os.path.join(out, f"{key}.{i}"), "wb") as file:
                file.write(small)
        records.append({"key": key, "shape": shape, "label": label, "tiled": tiles is not None, "places": places})
    columns["name"] = [name.decode("latin1") for name in columns["name"]]
    with open(os.path.join(out, "report.json"), "w") as file:
        json.dump({"meta": meta, "columns": columns, "records": records, "rest_crc32": rest_crc32(path, columns),
                   "modules": sorted(sys.modules)}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
