"""Loads and stores at addresses, the place of a word's lowest set bit, the clock: what numba has no operations for.

Parts of a kernel that are compiled into it get addresses, not arrays: numba counts the references of an array wherever
it is given to a function, which takes longer than all else in a step of the decoder. Nothing here checks its bounds:
the docstring of each kernel says why every address is within an array. That array must be an argument of the kernel:
numba frees one of the kernel's own behind the last place where it has its name, whatever knows its address.
"""
import time
from typing import Any, Callable, cast

import numpy as np
from llvmlite import ir
from numba import carray, types  # type: ignore[attr-defined]
from numba.extending import intrinsic

from dataflows.jpeg.compiled import Int, compiled, inlined


def _pointer(builder: Any, address: Any, bits: Int) -> Any:
    return builder.inttoptr(address, ir.IntType(bits).as_pointer())


def _loader(bits: Int, *, swapped: bool = False) -> Any:
    def load(typing: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = builder.load(_pointer(builder, arguments[0], bits))
            word.align = 1
            if swapped:
                return builder.bswap(word)
            return word if bits == 64 else builder.zext(word, ir.IntType(64))

        return types.uint64(types.uint64), generate

    return intrinsic(load)


Load = Callable[[np.uint64], np.uint64]
load_u16: Load = _loader(16)  # in the machine's order of bytes
load_u32: Load = _loader(32)
load_u64: Load = _loader(64)
load_bits: Load = _loader(64, swapped=True)  # the next 64 bits of a stream: the first byte is the highest


def _store_i16(typing: Any, address: Any, value: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.trunc(arguments[1], ir.IntType(16))
        builder.store(word, _pointer(builder, arguments[0], 16)).align = 1
        return context.get_dummy_value()

    return types.void(types.uint64, types.int64), generate


def _storer(*, swapped: bool = False) -> Any:
    def store(typing: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            word = builder.bswap(arguments[1]) if swapped else arguments[1]
            builder.store(word, _pointer(builder, arguments[0], 64)).align = 1
            return context.get_dummy_value()

        return types.void(types.uint64, types.uint64), generate

    return intrinsic(store)


def _lowest_bit(typing: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate


def _transpose_16x16(typing: Any, source: Any, step: Any, there: Any, target: Any, target_step: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        source, step, there, target, target_step = arguments
        row_type = ir.VectorType(ir.IntType(8), 16)
        low, high = ([ir.Constant(ir.IntType(32), half + i // 2 + 16 * (i % 2)) for i in range(16)] for half in (0, 8))
        masks = [ir.Constant(ir.VectorType(ir.IntType(32), 16), half) for half in (low, high)]
        rows = []
        for y in range(16):
            number = ir.Constant(there.type, y)
            number = builder.select(builder.icmp_unsigned("<", number, there), number, there)
            at = builder.add(source, builder.mul(number, step))
            row = builder.load(builder.inttoptr(at, row_type.as_pointer()))
            row.align = 1
            rows.append(row)
        for _ in range(4):  # each interleaves rows y and y + 8
            rows = [builder.shuffle_vector(rows[y], rows[y + 8], mask) for y in range(8) for mask in masks]
        for row in rows:
            builder.store(row, builder.inttoptr(target, row_type.as_pointer())).align = 1
            target = builder.add(target, target_step)
        return context.get_dummy_value()

    return types.void(*[types.uint64] * 5), generate


# From an address, in rows a step apart, of which `there` is the number of the last one, to another address.
transpose_16x16 = cast(Callable[[np.uint64, np.uint64, np.uint64, np.uint64, np.uint64], None],
                       intrinsic(_transpose_16x16))
store_i16 = cast(Callable[[np.uint64, np.int64], None], intrinsic(_store_i16))  # the lowest 16 bits
store_u64 = cast(Callable[[np.uint64, np.uint64], None], _storer())  # in the machine's order of bytes
store_bits = cast(Callable[[np.uint64, np.uint64], None], _storer(swapped=True))  # the highest byte first
lowest_bit = cast(Load, intrinsic(_lowest_bit))  # how many bits of a word, not 0, are below its lowest set one


@inlined
def bits_at_ff(word: np.uint64) -> np.uint64:
    """A word whose lowest set bit is in the first byte that is FF, in the machine's order; 0 where none is.

    Callers branch on 0: a number of bytes, 8 or fewer, would have the next load wait for it (0.06 ms for 0.03).
    """
    other = ~word
    return (other - np.uint64(0x0101010101010101)) & ~other & np.uint64(0x8080808080808080)


_BYTES: Any = types.CPointer(types.uint8)  # type: ignore[no-untyped-call]


def _as_pointer(typing: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], ir.IntType(8).as_pointer())

    return _BYTES(types.int64), generate


_pointer_to = cast(Any, intrinsic(_as_pointer))
_clock_gettime: Any = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.uint64))
_CLOCK = time.CLOCK_MONOTONIC


@compiled
def array_at(address: Int, size: Int) -> np.ndarray:
    """The bytes that are there, uint8 (size,), without a copy. The caller's caller holds them."""
    array: np.ndarray = carray(_pointer_to(address), size)
    return array


@compiled
def nanoseconds() -> Any:
    """Of the system's monotonic clock, int64."""
    now = np.zeros(2, np.int64)
    _clock_gettime(_CLOCK, np.uint64(now.ctypes.data))
    return now[0] * 1_000_000_000 + now[1]
