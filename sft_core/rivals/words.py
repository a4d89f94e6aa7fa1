"""How texts, tokens and turns are named in a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sft_core.rivals.sides import Sides

_MOST: Final = 36
_MOST_TOKENS: Final = 6


def quoted(text: str) -> str:
    """A text with its line breaks visible, its middle left out where it is long.

    >>> quoted("a\\n")
    "'a\\\\n'"
    """
    half = _MOST // 2
    return repr(text if len(text) <= _MOST else f"{text[:half]}…{text[-half:]}")


def listed(pieces: Sequence[str]) -> str:
    """Tokens by their text.

    >>> listed(["a", " b"])
    "'a', ' b'"
    """
    shown = [repr(piece) for piece in pieces[:_MOST_TOKENS]]
    return ", ".join([*shown, "…"] if len(pieces) > _MOST_TOKENS else shown)


def tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def turn(sides: Sides, message: int) -> str:
    """A turn as a person counts: "message 2 (assistant)"."""
    return f"message {message + 1} ({sides.rendered.roles[message]})"


def lab_pieces(sides: Sides, indices: Sequence[int]) -> list[str]:
    return [sides.mask.spell(sides.lab[index].id) for index in indices]


def their_pieces(sides: Sides, indices: Sequence[int]) -> list[str]:
    return [sides.mask.spell(sides.mask.ids[index]) for index in indices]


def parted(one: Sequence[str], other: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
    """Both without what they begin and end with in common, but neither empty.

    >>> parted(["<|", "user", "|>"], ["<|", "user", "|>", "W"])
    (['|>'], ['|>', 'W'])
    """
    least = min(len(one), len(other))
    head = 0
    while head < least and one[head] == other[head]:
        head += 1
    tail = 0
    while tail < least - head and one[-tail - 1] == other[-tail - 1]:
        tail += 1
    if head + tail == least and least:
        head, tail = (head - 1, tail) if head else (head, tail - 1)
    return one[head : len(one) - tail], other[head : len(other) - tail]
