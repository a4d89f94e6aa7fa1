"""Which rows say the same, found by digests, so that no text is kept.

A conversation is hashed message by message. The digest before an answer stands for the prompt of
that answer, the digest behind the last message for the whole conversation. Digests have 64 bits:
among a million rows two different prompts fall together with a probability of about 3e-8
(n^2 / 2^65). For each prompt one digest of it, one of its row and a reference to an id are kept.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import blake2b
from typing import Final, NamedTuple

from sft_core.types import Example, Message

_BYTES: Final = 8


class Digests(NamedTuple):
    """``prompts`` are those of each answer in turn, the last answer's at the end; ``whole`` is
    the conversation's."""

    prompts: tuple[int, ...]
    whole: int


class Found(NamedTuple):
    """Which rows a row repeats, by id."""

    duplicate_of: str | None = None
    same_prompt_as: str | None = None
    held_out_as: str | None = None


class Repeats:
    """Told of rows one after the other, says of each which earlier row it repeats.

    ``held_out`` are rows that training must not have seen: their prompts, as a model is asked
    them, are looked for before every answer of a row.
    """

    def __init__(self, held_out: Iterable[Example] = ()) -> None:
        self.held_out_rows = 0
        self._held_out: dict[int, str] = {}
        for example in held_out:
            self.held_out_rows += 1
            if prompts := digests(example).prompts:
                self._held_out.setdefault(prompts[-1], example.id)
        self._first: dict[int, tuple[int, str]] = {}  # prompt -> (whole, id) of its first row
        self._others: dict[int, str] = {}  # whole -> id, of rows with a prompt that came before

    def add(self, example: Example) -> Found:
        prompts, whole = digests(example)
        leaks = (self._held_out[it] for it in prompts if it in self._held_out)
        held_out_as = next(leaks, None)
        # What asks nothing has no prompt to share: it is told apart by all that it says.
        prompt = prompts[-1] if prompts else whole
        if prompt not in self._first:
            self._first[prompt] = (whole, example.id)
            return Found(held_out_as=held_out_as)
        first_whole, first = self._first[prompt]
        if whole == first_whole:
            return Found(first, None, held_out_as)
        if whole in self._others:
            return Found(self._others[whole], None, held_out_as)
        self._others[whole] = example.id
        return Found(None, first, held_out_as)


def digests(example: Example) -> Digests:
    """The digests of a conversation. Ids, weights and categories take no part, nor do the ids of
    tool calls, since a model reads none of them; tools and template variables do."""
    state = blake2b(digest_size=_BYTES)
    if example.tools or example.extra:
        given = [list(map(dict, example.tools)), dict(example.extra)]
        state.update(json.dumps(given, sort_keys=True, default=repr).encode())
    prompts = []
    for at, message in enumerate(example.messages):
        if at and message.role == "assistant":
            prompts.append(_number(state.digest()))
        state.update(_said(message))
    return Digests(tuple(prompts), _number(state.digest()))


def _said(message: Message) -> bytes:
    """What a turn says, in an unambiguous form."""
    parts = message.content
    if not isinstance(parts, str):
        parts = json.dumps([(part.type, part.text) for part in parts])
    calls = [(call.name, call.arguments) for call in message.tool_calls]
    said = (message.role, parts, message.context, message.name, message.reasoning, calls)
    # repr() quotes, so that no text can look like the border of two fields; and it can write what
    # UTF-8 cannot, such as half of a character.
    return repr(said).encode("utf-8", "backslashreplace")


def _number(digest: bytes) -> int:
    return int.from_bytes(digest, "little")
