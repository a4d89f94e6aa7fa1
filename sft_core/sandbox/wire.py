"""What travels between the lab and a child: JSON behind its length, and never a pickle."""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

LONGEST: Final = 2**28
"""Bytes that a message may have."""


class Raw(Protocol):
    """An unbuffered stream of bytes: it may read and write less than it is asked to."""

    def read(self, size: int, /) -> bytes | None: ...

    def write(self, data: memoryview, /) -> int | None: ...


def send(pipe: Raw, value: Any) -> None:
    """``value`` as one message. Raises OSError where nobody listens any more."""
    data = json.dumps(value).encode("ascii")
    view = memoryview(len(data).to_bytes(8, "big") + data)
    while view:
        view = view[pipe.write(view) or 0 :]


def receive(pipe: Raw) -> Any:
    """The next message. Raises EOFError where none will come, ValueError where it is none."""
    length = int.from_bytes(_exactly(pipe, 8), "big")
    if length > LONGEST:
        raise ValueError("a message that is too long")
    return json.loads(_exactly(pipe, length))


def _exactly(pipe: Raw, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = pipe.read(min(length - len(data), 2**20))
        if not piece:
            raise EOFError
        data += piece
    return bytes(data)
