"""Whole numbers as bits: numbers of one width side by side, most significant bit first, and numbers of any length."""

import numpy as np

from zoo.strict import RefusedError

WIDEST = 32  # bits of a packed number
_CHUNK = 1 << 16  # numbers unpacked at a time: 32 bytes of scratch each; a multiple of 8, so that chunks end on bytes


def width_of(alphabet: int) -> int:
    """Bits that tell `alphabet` numbers apart: ceil(log2(alphabet))."""
    return (alphabet - 1).bit_length()


def pack(values: np.ndarray, width: int) -> bytes:
    """Numbers [n] of 0..2^width - 1 as ceil(n * width / 8) bytes; the bits left over are zero. width: 0..32."""
    chunks = []
    for start in range(0, len(values) if width else 0, _CHUNK):
        words = values[start : start + _CHUNK].astype(">u4")
        bits = np.unpackbits(words.view(np.uint8)).reshape(-1, WIDEST)
        chunks.append(np.packbits(bits[:, WIDEST - width :]).tobytes())
    return b"".join(chunks)


def unpack(data: bytes, count: int, width: int) -> np.ndarray:
    """The int64 [count] that `pack` was given. Raises RefusedError for any other length and for set padding bits."""
    expected = (count * width + 7) // 8
    if len(data) != expected:
        raise RefusedError(f"{count} numbers of {width} bits take {expected} bytes, not {len(data)}")
    check_padding(data, count * width)
    values = np.zeros(count, np.int64)
    if not width:
        return values
    raw = np.frombuffer(data, np.uint8)
    for start in range(0, count, _CHUNK):
        part = min(_CHUNK, count - start)
        bits = np.zeros((part, WIDEST), np.uint8)
        first = start * width // 8
        bits[:, WIDEST - width :] = np.unpackbits(raw[first:], count=part * width).reshape(part, width)
        values[start : start + part] = np.packbits(bits).view(">u4")
    return values


def check_padding(data: bytes, used: int) -> None:
    """Raises RefusedError where a bit is set after the first `used` of the last byte."""
    if used % 8 and data[-1] & ((1 << (8 - used % 8)) - 1):
        raise RefusedError("padding bits are set")


def write_varint(value: int) -> bytes:
    """A number of any size, seven bits a byte, the lowest first (LEB128)."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def read_varint(data: bytes, at: int, limit: int) -> tuple[int, int]:
    """The number that starts at byte `at`, and where it ends. Raises RefusedError above `limit`, and at the end."""
    value = 0
    for place, byte in enumerate(data[at : at + 9]):
        value |= (byte & 127) << (7 * place)
        if byte < 128:
            if value > limit or (place and not byte):
                break
            return value, at + place + 1
    raise RefusedError(f"a number is cut off, padded, or more than {limit}")
