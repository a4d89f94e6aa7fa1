"""What a vocabulary can write, and which bytes its tokens stand for.

Vocabularies spell in different ways: byte-level ones map each byte to a printable character,
sentencepiece ones write a space as U+2581 and single bytes as <0xF0>. Some cannot write every
text, and the backend then drops characters without a word; this room says where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any, Final

import tokenizers
from tokenizers import models


def _byte_alphabet() -> dict[str, int]:
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in set(printable)]
    alphabet = {chr(byte): byte for byte in printable}
    return alphabet | {chr(0x100 + index): byte for index, byte in enumerate(others)}


BYTE_ALPHABET: Final[Mapping[str, int]] = _byte_alphabet()
"""Character -> byte, as byte-level BPE spells bytes: printable Latin-1 stands for itself, the
other bytes in order are the characters from U+0100 on (GPT-2's ``bytes_to_unicode``)."""

_BYTE_TOKEN: Final = re.compile(r"<0x([0-9A-F]{2})>")
_BYTE_TOKENS: Final = tuple(f"<0x{byte:02X}>" for byte in range(256))
_SPELLED_BY_NOBODY: Final = "\U0010fffd"  # a private character of the last plane
_SPACE: Final = "\u2581"


class Spelling:
    """How one backend spells. ``states`` are the settings of its normaliser, pre-tokeniser and
    decoder as plain JSON values, None for those that it does not have; ``spaced`` says whether
    U+2581 stands for a space."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        parts = (backend.normalizer, backend.pre_tokenizer, backend.decoder)
        self.states = tuple(
            None if part is None else json.loads(part.__getstate__()) for part in parts
        )
        types = frozenset(part["type"] for state in self.states for part in members(state))
        self._byte_level = "ByteLevel" in types
        self._byte_fallback = "ByteFallback" in types
        self.spaced = _SPACE in json.dumps(self.states, ensure_ascii=False)
        self.normalizes = self.states[0] is not None
        self._one_for_one = all(map(_one_for_one, members(self.states[0])))
        model = backend.model
        self._drops = isinstance(model, models.BPE) and model.unk_token is None

    def bytes_of(self, token: str) -> bytes | None:
        """The bytes of a vocabulary entry; None where the vocabulary does not say, as where the
        spaces between words are dropped."""
        if self._byte_level:
            if all(character in BYTE_ALPHABET for character in token):
                return bytes(BYTE_ALPHABET[character] for character in token)
            return token.encode()
        if self._byte_fallback and (found := _BYTE_TOKEN.fullmatch(token)):
            return bytes.fromhex(found[1])
        return token.replace(_SPACE, " ").encode() if self.spaced else None

    @cached_property
    def unknown_id(self) -> int | None:
        """The id that text without a token of its own becomes; None where there is no such text,
        because every byte has a token, or where the model has no such id."""
        try:
            tokens = self._backend.model.tokenize(_SPELLED_BY_NOBODY)
        except Exception:  # noqa: BLE001  (the backend raises nothing narrower)
            return None
        return tokens[0].id if len(tokens) == 1 else None

    @cached_property
    def incomplete(self) -> bool:
        """Whether there may be text that the backend drops without a word."""
        if self._byte_level:
            return bool(self._lost_bytes)
        return self._drops and not all(map(self._has, _BYTE_TOKENS))

    def unspellable(self, text: str) -> str | None:
        """The first character or word of ``text`` for which there is neither a token nor an
        unknown token; None where all is well. The backend would drop such a character and shift
        the offsets of everything after it, or would fail."""
        model = self._backend.model
        if isinstance(model, models.WordLevel) and not self._has(model.unk_token):
            return self._first(text, self._has)
        if not self.incomplete:
            return None
        if not self._byte_level:
            return self._first(text, lambda word: all(map(self._has_character, word)))
        raw = self._normalized(text).encode()
        if len(raw.translate(None, self._lost_bytes)) == len(raw):
            return None
        lost = set(self._lost_bytes)
        return next(
            character for character in self._normalized(text) if lost & {*character.encode()}
        )

    def surely_spells(self, texts: Iterable[str]) -> bool:
        """Whether the backend drops nothing of any of ``texts`` or of pieces of them; False also
        where only a closer look can tell."""
        if not self.incomplete or not self._byte_level:
            return not self.incomplete
        # Nothing composes with a line break, so no text hides what stands beside it.
        raw = self._normalized("\n".join(texts)).encode("utf-8", "replace")
        return len(raw.translate(None, self._lost_bytes)) == len(raw)

    def keeps_places(self, text: str) -> bool:
        """Whether the normaliser certainly turns each character of ``text`` into just one."""
        return not self.normalizes or (self._one_for_one and text.isascii())

    @cached_property
    def _lost_bytes(self) -> bytes:
        """Bytes that a byte-level vocabulary forgot. Some did: SmolLM2's has no token for 0x04."""
        if not self._drops:
            return b""
        return bytes(byte for spelled, byte in BYTE_ALPHABET.items() if not self._has(spelled))

    def _normalized(self, text: str) -> str:
        normalizer = self._backend.normalizer
        return text if normalizer is None else str(normalizer.normalize_str(text))

    def _first(self, text: str, known: Callable[[str], bool]) -> str | None:
        return next((word for word in self._words(text) if not known(word)), None)

    def _words(self, text: str) -> Iterator[str]:
        """The words that the model is asked for; added tokens never are."""
        split = self._backend.pre_tokenizer
        for piece in filter(None, self._between_added.split(text)):
            normalized = self._normalized(piece)
            yield from (
                [word for word, _ in split.pre_tokenize_str(normalized)] if split else [normalized]
            )

    @cached_property
    def _between_added(self) -> re.Pattern[str]:
        added = (token.content for token in self._backend.get_added_tokens_decoder().values())
        longest_first = sorted(added, key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def _has(self, entry: str) -> bool:
        return self._backend.model.token_to_id(entry) is not None

    def _has_character(self, character: str) -> bool:
        model = self._backend.model
        before, after = model.continuing_subword_prefix or "", model.end_of_word_suffix or ""
        if any(map(self._has, (character, before + character, character + after))):
            return True
        return model.byte_fallback and all(self._has(_BYTE_TOKENS[b]) for b in character.encode())


def _one_for_one(normalizer: Mapping[str, Any]) -> bool:
    """Whether a normaliser turns each ASCII character into just one, wherever it stands."""
    if normalizer["type"] == "Replace":
        pattern = normalizer["pattern"].get("String", "")
        return len(pattern) == 1 == len(normalizer["content"])
    return normalizer["type"] in ("Sequence", "NFC", "NFD", "NFKC", "NFKD", "Lowercase")


def members(state: Any) -> Iterable[dict[str, Any]]:
    """A component's settings and, where it is a sequence, those of its parts."""
    if state is None:
        return
    yield state
    for key in ("normalizers", "pretokenizers", "decoders"):
        for member in state.get(key, ()):
            yield from members(member)


def unprefixed(state: Any) -> Any:
    """A component's settings without what puts a space in front; None if nothing is left."""
    if state is None or state["type"] == "Prepend":
        return None
    state = dict(state)
    if "add_prefix_space" in state:
        state["add_prefix_space"] = False
    if "prepend_scheme" in state:
        state["prepend_scheme"] = "never"
    for key in ("normalizers", "pretokenizers"):
        if key in state:
            kept = (unprefixed(member) for member in state[key])
            state[key] = [member for member in kept if member is not None]
    return state
