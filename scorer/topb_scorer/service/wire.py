"""Count what a serialized message repeats, before it is parsed into many times its size."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache

from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def repeated_too_often(content: bytes, message: Descriptor, limits: Mapping[str, int]) -> str | None:
    """Return the full name of a field that occurs more often than its limit, or None if there is none.

    The time grows with the number of fields up to the limit, and hardly with their sizes.

    Args:
        content: a serialized message, perhaps malformed.
        message: its type.
        limits: the limits of repeated fields of any messages, by their full names. A field that occurs in
            several messages is counted in all of them together.

    Raises:
        DecodeError: the message has groups, which no message of topb.v1 has.
    """
    limited = frozenset(limits)
    if all(_at_most(content, number) <= limits[name] for name, number in _limited(message, limited)):
        return None
    left = dict(limits)
    pending = [(message, 0, len(content))]
    try:
        while pending:
            kind, start, stop = pending.pop()
            names, messages = _fields_towards(kind, limited)
            if not (names or messages):
                continue
            for number, value, end in _fields(content, start, stop):
                if name := names.get(number):
                    left[name] -= 1
                    if left[name] < 0:
                        return name
                if number in messages:
                    pending.append((messages[number], value, end))
    except IndexError:
        pass  # It ends in the middle of a field. What is in it before does not exceed the limits.
    return None


def _at_most(content: bytes, number: int) -> int:
    """Return a bound, found fast, of how often a field with a length occurs."""
    # Each has a tag, which may be followed by superfluous zeros.
    tag = (number << 3 | _BYTES) & 0x7F
    return sum(content.count(bytes([first])) for first in (tag, tag | 0x80))


def _fields(content: bytes, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
    """Yield the number of each field that has a length, and where its value starts and ends."""
    while start < stop:
        tag, start = _varint(content, start)
        kind = tag & 7
        if kind == _BYTES:
            size, start = _varint(content, start)
            yield tag >> 3, start, start + size
            start += size
        elif kind == _VARINT:
            _, start = _varint(content, start)
        elif kind in (_FIXED64, _FIXED32):
            start += 8 if kind == _FIXED64 else 4
        else:
            raise DecodeError("it has a group")


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Return a number and the position after it."""
    value = content[at]
    at += 1
    if value < 0x80:
        return value, at
    value &= 0x7F
    for shift in range(7, 70, 7):
        byte = content[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise DecodeError("a number has more than ten bytes")


@cache
def _fields_towards(
    message: Descriptor, limited: frozenset[str]
) -> tuple[dict[int, str], dict[int, Descriptor]]:
    """Return the fields of a message that have a limit, and the messages that lead to such fields."""
    names = {field.number: field.full_name for field in message.fields if field.full_name in limited}
    inner = {field.number: field.message_type for field in message.fields if field.message_type}
    leading = {
        number: kind
        for number, kind in inner.items()
        if kind is not message and any(_fields_towards(kind, limited))
    }
    return names, leading


@cache
def _limited(message: Descriptor, limited: frozenset[str]) -> frozenset[tuple[str, int]]:
    """Return the names and numbers of all fields in a message, and in those inside, that have a limit."""
    names, messages = _fields_towards(message, limited)
    own = frozenset((name, number) for number, name in names.items())
    return own.union(*(_limited(inner, limited) for inner in messages.values()))
