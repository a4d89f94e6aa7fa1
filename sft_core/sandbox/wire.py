"""What travels between the lab and a child: plain values behind their length, never a pickle."""

from __future__ import annotations

import json
import marshal
from typing import Any, Final, Protocol

LONGEST: Final = 2**28
"""Bytes that a message may have."""


class Raw(Protocol):
    """An unbuffered stream of bytes: it may read and write less than it is asked to."""

    def read(self, size: int, /) -> bytes | None: ...

    def write(self, data: memoryview, /) -> int | None: ...


def ask(pipe: Raw, value: Any) -> None:
    """A request, plain values all through, as one message. Raises OSError where nobody listens.

    Requests are marshalled: whoever reads them trusts the lab. What a child says is JSON, because
    a template might have taken it over.
    """
    try:
        data = marshal.dumps(value)
    except ValueError:  # a kind of str or int that somebody derived from the plain one
        data = marshal.dumps(json.loads(json.dumps(value)))
    _send(pipe, data)


def asked(pipe: Raw) -> Any:
    """The next request. Raises EOFError where none will come."""
    return marshal.loads(_message(pipe))


def send(pipe: Raw, value: Any) -> None:
    """``value`` as one message of JSON. Raises OSError where nobody listens any more."""
    _send(pipe, json.dumps(value).encode("ascii"))


def receive(pipe: Raw) -> Any:
    """The next message of JSON. Raises EOFError where none will come, ValueError where it is
    none."""
    return json.loads(_message(pipe))


def _send(pipe: Raw, data: bytes) -> None:
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[pipe.write(view) or 0 :]


def _message(pipe: Raw) -> bytes:
    length = int.from_bytes(_exactly(pipe, 8), "big")
    if length > LONGEST:
        raise ValueError("a message that is too long")
    return _exactly(pipe, length)


def _exactly(pipe: Raw, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = pipe.read(min(length - len(data), 2**20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
