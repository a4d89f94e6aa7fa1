"""One tokenizer: what its ids are, what they stand for, and which of them steer a conversation."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from enum import Enum
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken

from sft_core.tokenizer.spelling import Spelling, members, unprefixed
from sft_core.types import TokenizerError

NAMED: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)
"""The names under which tokenizer files give special tokens a part to play."""

# Some families (DeepSeek, Aya) leave their turn markers without the "special" flag.
_SPELLED_AS_CONTROL: Final = re.compile("<[|\uff5c][^\\s<>]+[|\uff5c]>")


class Prefix(Enum):
    """Where a tokenizer puts a space in front of text that has none."""

    NEVER = "never"
    AT_START = "at start"  # of the whole text only
    EVERY_PIECE = "every piece"  # at the start, and again after each special token


class Tokenizer:
    """A ``tokenizers`` backend with its special tokens and chat templates.

    The backend never adds, cuts or pads anything by itself: a template prints everything that a
    model reads. It belongs to this object; use ``with_tokens`` for a changed copy.
    ``special_tokens`` maps "bos_token", "eos_token", "pad_token", "unk_token" and the like, where
    defined, to their text; ``chat_templates`` maps "default" and other names to Jinja source.
    """

    def __init__(
        self,
        name: str,
        backend: tokenizers.Tokenizer,
        special_tokens: Mapping[str, str] | None = None,
        chat_templates: Mapping[str, str] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """``settings`` are further entries for the saved tokenizer_config.json."""
        backend.no_truncation()
        backend.no_padding()
        # It would add BOS, and trim the whitespace off offsets that labels are found by.
        self._post_processor = backend.post_processor
        backend.post_processor = None
        self.name = name
        self.backend = backend
        self.special_tokens: Mapping[str, str] = dict(special_tokens or {})
        self.chat_templates: Mapping[str, str] = dict(chat_templates or {})
        self.settings: Mapping[str, Any] = dict(settings or {})
        self._bare: dict[bool, tokenizers.Tokenizer] = {}
        self._add_named()

    def _add_named(self) -> None:
        """Named tokens must be whole wherever they are printed, whatever the files forgot."""
        known = {token.content for token in self.backend.get_added_tokens_decoder().values()}
        missing = [text for text in self.special_tokens.values() if text not in known]
        self.backend.add_special_tokens([_special(text) for text in dict.fromkeys(missing)])

    def __repr__(self) -> str:
        return f"Tokenizer({self.name!r}, vocab_size={self.vocab_size})"

    # -- what there is ------------------------------------------------------------------------

    @cached_property
    def added(self) -> Mapping[str, int]:
        """Every added token's text -> id. These are found in text before anything is split."""
        decoder = self.backend.get_added_tokens_decoder()
        return {token.content: id for id, token in sorted(decoder.items())}

    @cached_property
    def added_ids(self) -> frozenset[int]:
        """The ids that stand for an added token in the text. The unknown token's is not among
        them, although files list it: text that is merely unknown becomes it too."""
        return frozenset(self.added.values()) - {self.unk_id}

    @cached_property
    def control_ids(self) -> frozenset[int]:
        """Added tokens that steer: flagged special, named, or spelled ``<|like this|>``. Others,
        such as runs of spaces or ``<think>``, may stand in anybody's text."""
        decoder = self.backend.get_added_tokens_decoder()
        named = set(self.special_tokens.values())
        steering = {
            id
            for id, token in decoder.items()
            if token.special
            or token.content in named
            or _SPELLED_AS_CONTROL.fullmatch(token.content)
        }
        return self.added_ids & steering

    @property
    def vocab_size(self) -> int:
        """One more than the largest id, so that an embedding of this many rows has them all."""
        return max(self.backend.get_vocab_size(False), 1 + max(self.added.values(), default=-1))

    @property
    def bos_id(self) -> int | None:
        return self._named_id("bos_token")

    @property
    def eos_id(self) -> int | None:
        return self._named_id("eos_token")

    @property
    def pad_id(self) -> int | None:
        return self._named_id("pad_token")

    @property
    def unk_id(self) -> int | None:
        """The id of what the vocabulary cannot write; None where it writes everything, whatever
        the files name as unk_token."""
        return self.spelling.unknown_id

    @cached_property
    def adds_bos(self) -> bool:
        """Whether its files put BOS in front of every text, as its model has always read it. The
        lab never does that by itself: a template must print it."""
        if self._post_processor is None or self.bos_id is None:
            return False
        bare = self.backend.encode("a", add_special_tokens=False)
        return bool(self._post_processor.process(bare).ids[:1] == [self.bos_id])

    def _named_id(self, name: str) -> int | None:
        text = self.special_tokens.get(name)
        return None if text is None else self.token_to_id(text)

    # -- ids and text -------------------------------------------------------------------------

    def token_to_id(self, text: str) -> int | None:
        """The id of a token by its spelling in the vocabulary ("Ġthe", "<|im_end|>")."""
        return self.backend.token_to_id(text)

    def id_to_text(self, id: int) -> str:
        """What one id looks like to a person. Half a character shows its bytes as ``\\xf0``."""
        raw = self.id_to_bytes(id)
        if raw is not None:
            return raw.decode("utf-8", "backslashreplace")
        return self.backend.id_to_token(id) or f"[no token {id}]"

    def id_to_bytes(self, id: int) -> bytes | None:
        """The bytes that one id stands for; None where its vocabulary does not say, as with
        tokenizers that drop the spaces between words, or where there is no such id."""
        token = self.backend.id_to_token(id)
        if token is None:
            return None
        if token in self.added and not self.spelling.spaced:
            return token.encode()
        return self.spelling.bytes_of(token)  # added runs of spaces are spelled like the others

    def decode(self, ids: Sequence[int], skip_special: bool = False) -> str:
        """Ids -> text, special tokens included unless ``skip_special``."""
        return self.backend.decode(list(ids), skip_special_tokens=skip_special)

    # -- how it treats the start of text ------------------------------------------------------

    @cached_property
    def spelling(self) -> Spelling:
        """What its vocabulary can write, and how."""
        return Spelling(self.backend)

    @cached_property
    def prefix(self) -> Prefix:
        """Where a space is put in front of text, which matters wherever text is cut."""
        found = Prefix.NEVER
        for part in chain.from_iterable(map(members, self.spelling.states[:2])):
            scheme = part.get("prepend_scheme")
            if part["type"] == "Prepend" or part.get("add_prefix_space") or scheme == "always":
                return Prefix.EVERY_PIECE
            if scheme == "first":
                found = Prefix.AT_START
        return found

    def bare(self, prefixed: bool) -> tokenizers.Tokenizer:
        """The same model without added tokens, for text that must stay text. Only where
        ``prefixed`` does it put its space in front. The model's memory is shared."""
        if prefixed not in self._bare:
            normalizer, pre_tokenizer, _ = self.spelling.states
            if not prefixed:
                normalizer, pre_tokenizer = unprefixed(normalizer), unprefixed(pre_tokenizer)
            shell: dict[str, Any] = {
                "version": "1.0",
                "added_tokens": [],
                "normalizer": normalizer,
                "pre_tokenizer": pre_tokenizer,
                "model": {"type": "WordLevel", "vocab": {}, "unk_token": ""},
            }
            backend = tokenizers.Tokenizer.from_str(json.dumps(shell))
            backend.model = self.backend.model
            self._bare[prefixed] = backend
        return self._bare[prefixed]

    # -- copies -------------------------------------------------------------------------------

    def with_tokens(self, tokens: Sequence[str]) -> Tokenizer:
        """A copy in which each of ``tokens`` is one special token. Tokens that the vocabulary
        already has keep their id; new ones follow at the end."""
        if any(not token.strip() for token in tokens):
            raise TokenizerError("A token to add must have at least one visible character.")
        backend = tokenizers.Tokenizer.from_str(self.backend.to_str())
        backend.post_processor = self._post_processor
        backend.add_special_tokens([_special(token) for token in dict.fromkeys(tokens)])
        return Tokenizer(
            self.name, backend, self.special_tokens, self.chat_templates, self.settings
        )

    def to_json(self) -> str:
        """The text of tokenizer.json, with the post-processor that came with the tokenizer."""
        text = self.backend.to_str()
        if self._post_processor is None:
            return text
        state = self._post_processor.__getstate__().decode()
        # Quotes inside strings are escaped, so this key is found nowhere else.
        return text.replace('"post_processor":null', f'"post_processor":{state}', 1)

    def save(self, directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and the chat templates into a folder that
        transformers' ``AutoTokenizer`` loads with the same ids."""
        from sft_core.tokenizer import files

        files.write(self, Path(directory))


def _special(text: str) -> AddedToken:
    return AddedToken(text, normalized=False, special=True)
