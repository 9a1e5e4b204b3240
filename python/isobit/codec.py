"""Values like JSON's as bytes: the same value gives the same bytes, and reading them runs nothing.

A value is one letter and what belongs to it; lengths are unsigned LEB128:

    N F T            None, False, True
    i length bytes   int: two's complement, little-endian, as short as it goes
    f 8 bytes        float: its bits, little-endian
    s length bytes   str in UTF-8
    b length bytes   bytes
    l count values   list
    d count pairs    dict: keys are length and UTF-8, each once, in the dict's order
"""

from __future__ import annotations

import struct
from typing import Any

#: How deep lists and dicts may be in each other.
DEPTH_MAX = 8
#: How long an object's bytes may be.
BYTES_MAX = 1 << 20

_KINDS = "None, bool, int, float, str, bytes, list, tuple and dict with str keys"


def encode(value: Any) -> bytes:
    """The bytes of a value: `TypeError` for what has none, `ValueError` for what is too deep or too long.

    >>> encode([1, "a", None])
    b'l\\x03i\\x01\\x01s\\x01aN'
    """
    parts = bytearray()
    _write(parts, value, 0)
    if len(parts) > BYTES_MAX:
        raise ValueError(_too_long(len(parts)))
    return bytes(parts)


def decode(data: bytes) -> Any:
    """The value of the bytes; `ValueError` if they are no value's. Tuples come back as lists.

    >>> decode(encode({"loss": -0.0, "steps": (1, 2**70)}))
    {'loss': -0.0, 'steps': [1, 1180591620717411303424]}
    """
    reader = _Reader(data)
    value = reader.value(0)
    if reader.left():
        raise ValueError(f"{reader.left()} bytes follow the object")
    return value


def _too_long(length: int) -> str:
    return f"an object of {length} bytes is too long: at most {BYTES_MAX}, send larger data as arrays"


def _length(parts: bytearray, number: int) -> None:
    while number > 0x7F:
        parts.append(number & 0x7F | 0x80)
        number >>= 7
    parts.append(number)


def _blob(parts: bytearray, data: bytes) -> None:
    if len(parts) + len(data) > BYTES_MAX:
        raise ValueError(_too_long(len(parts) + len(data)))
    _length(parts, len(data))
    parts += data


def _write(parts: bytearray, value: Any, depth: int) -> None:
    match value:
        case None:
            parts += b"N"
        case bool():
            parts += b"T" if value else b"F"
        case int():
            parts += b"i"
            _blob(parts, value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True))
        case float():
            parts += b"f" + struct.pack("<d", value)
        case str():
            parts += b"s"
            _blob(parts, value.encode())
        case bytes() | bytearray():
            parts += b"b"
            _blob(parts, bytes(value))
        case list() | tuple() | dict():
            if depth == DEPTH_MAX:
                raise ValueError(f"an object of more than {DEPTH_MAX} lists and dicts within each other is too deep")
            parts += b"d" if isinstance(value, dict) else b"l"
            _length(parts, len(value))
            if not isinstance(value, dict):
                for item in value:
                    _write(parts, item, depth + 1)
                return
            for key, item in value.items():
                if not isinstance(key, str):
                    raise TypeError(f"the keys of a dict must be str, not {type(key).__name__}")
                _blob(parts, key.encode())
                _write(parts, item, depth + 1)
        case _:
            raise TypeError(f"an object may have {_KINDS} in it, not {type(value).__name__}")
    if len(parts) > BYTES_MAX:
        raise ValueError(_too_long(len(parts)))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def left(self) -> int:
        return len(self._data) - self._at

    def take(self, count: int) -> bytes:
        if count > self.left():
            raise ValueError(f"an object ends at byte {len(self._data)}, in the middle")
        self._at += count
        return self._data[self._at - count : self._at]

    def length(self) -> int:
        number = 0
        for shift in range(0, 35, 7):
            byte = self.take(1)[0]
            number |= (byte & 0x7F) << shift
            if byte <= 0x7F:
                return number
        raise ValueError("a length in an object is too large")

    def value(self, depth: int) -> Any:
        match self.take(1):
            case b"N":
                return None
            case b"F":
                return False
            case b"T":
                return True
            case b"i":
                return int.from_bytes(self.take(self.length()), "little", signed=True)
            case b"f":
                return struct.unpack("<d", self.take(8))[0]
            case b"s":
                return self.take(self.length()).decode()
            case b"b":
                return self.take(self.length())
            case b"l" | b"d" if depth == DEPTH_MAX:
                raise ValueError(f"an object of more than {DEPTH_MAX} lists and dicts within each other")
            case b"l":
                return [self.value(depth + 1) for _ in range(self.length())]
            case b"d":
                found: dict[str, Any] = {}
                for _ in range(self.length()):
                    key = self.take(self.length()).decode()
                    if key in found:
                        raise ValueError(f"an object has the key {key!r} twice")
                    found[key] = self.value(depth + 1)
                return found
            case letter:
                raise ValueError(f"an object has an unknown kind of value, {letter!r}")
