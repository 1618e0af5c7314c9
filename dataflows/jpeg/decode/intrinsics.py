"""Loads and stores of eight bytes at any place of an array of bytes, and the place of a word's lowest set bit.

numba has no such operations. None of them checks its bounds: the docstring of each kernel that uses them says why the
bytes are within the array.
"""
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numba.np import arrayobj

_WORD = ir.IntType(64)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, place: Any) -> Any:
    data = arrayobj.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), _WORD.as_pointer())


@intrinsic  # type: ignore[misc]
def load(typing: Any, array: Any, place: Any) -> Any:
    """The uint64 whose lowest byte is array[place], a uint8 array."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        word.align = 1
        return word

    return types.uint64(array, types.uint64), generate


@intrinsic  # type: ignore[misc]
def load_bits(typing: Any, array: Any, place: Any) -> Any:
    """The uint64 whose highest byte is array[place]: the next 64 bits of a stream."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        word.align = 1
        return builder.bswap(word)

    return types.uint64(array, types.uint64), generate


@intrinsic  # type: ignore[misc]
def store(typing: Any, array: Any, place: Any, word: Any) -> Any:
    """Writes a uint64 to array[place] and the seven bytes after it, its lowest byte first."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        target = _pointer(context, builder, signature.args[0], arguments[0], arguments[1])
        builder.store(arguments[2], target).align = 1
        return context.get_dummy_value()

    return types.void(array, types.uint64, types.uint64), generate


@intrinsic  # type: ignore[misc]
def lowest_bit(typing: Any, word: Any) -> Any:
    """How many bits of a uint64, which is not 0, are below its lowest set one."""
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 0))

    return types.uint64(types.uint64), generate
