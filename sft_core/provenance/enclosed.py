"""What the author's ``{% generation %}`` tags enclose, as one bit of each character's tag; and how
the bits of tags are read.

The bit goes wherever the character goes, so it does not matter whether the tags stand in a macro,
a loop, a set block or a call block, or what is done to their output afterwards.
"""

from __future__ import annotations

import re
from typing import Any, Final

from jinja2.runtime import Macro

from sft_core.provenance.dialect import GenerationTag
from sft_core.provenance.tagged import ENCLOSED, GIVEN, NOBODIES, NOBODY, Tagged, plain, tagged

OPENING: Final = "\ue0a7"
CLOSING: Final = "\ue0a8"
"""Characters for private use, which no template has a reason to treat as anything but text."""

_RUNS: Final = {
    bit: re.compile(
        "["
        + "".join(
            f"{chr(start)}-{chr(min(start + bit - 1, 0x10FFFF))}"
            for start in range(bit, 0x110000, 2 * bit)
        )
        + "]+"
    )
    for bit in (ENCLOSED, GIVEN)
}
"""Runs of tags that have a bit."""


class FollowedTag(GenerationTag):
    """The tag in a trace: it notes on every character of its body that it is enclosed."""

    def body(self, caller: Macro) -> Any:
        return enclosed(tagged(super().body(caller)))


class WrittenTag(GenerationTag):
    """The tag in a plain render: it prints where it opens and closes."""

    def body(self, caller: Macro) -> Any:
        return f"{OPENING}{super().body(caller)}{CLOSING}"


def enclosed(text: Tagged) -> Tagged:
    """``text`` with the bit set for each of its characters."""
    table = {ord(tag): ord(tag) | ENCLOSED for tag in set(text._tags)}
    return Tagged(plain(text), text._tags.translate(table))


def without(text: Tagged, bit: int) -> Tagged:
    """``text`` with ``bit`` cleared in each of its tags."""
    table = {ord(tag): ord(tag) & ~bit for tag in set(text._tags)}
    return Tagged(plain(text), text._tags.translate(table))


def claimed(text: Tagged, tag: str) -> Tagged:
    """``text`` with what nobody has a claim on given to ``tag``; the bit stays as it is."""
    if tag == NOBODY or not any(nobody in text._tags for nobody in NOBODIES):
        return text
    table = {ord(nobody): ord(tag) | ord(nobody) for nobody in NOBODIES}
    return Tagged(plain(text), text._tags.translate(table))


def ranges(text: Tagged, bit: int) -> tuple[tuple[int, int], ...]:
    """The ranges of characters whose tags have ``bit``, in order and apart."""
    return tuple(match.span() for match in _RUNS[bit].finditer(text._tags))


def written(text: str) -> tuple[str, tuple[tuple[int, int], ...]] | None:
    """What ``WrittenTag`` printed, taken apart: the text, and the ranges that it encloses, in
    order and apart. None where the signs do not come in pairs."""
    pieces: list[str] = []
    ranges: list[tuple[int, int]] = []
    at = depth = 0
    for piece in re.split(f"([{OPENING}{CLOSING}])", text):
        if piece in (OPENING, CLOSING):
            depth += 1 if piece == OPENING else -1
            if depth < 0:
                return None
            continue
        if depth and piece:
            touching = bool(ranges) and ranges[-1][1] == at
            start = ranges.pop()[0] if touching else at
            ranges.append((start, at + len(piece)))
        pieces.append(piece)
        at += len(piece)
    return None if depth else ("".join(pieces), tuple(ranges))
