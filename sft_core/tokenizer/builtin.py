"""The tokenizers of two tutorials, complete in a few lines each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from sft_core.tokenizer.core import Tokenizer
from sft_core.tokenizer.spelling import BYTE_ALPHABET


def bytes_tokenizer() -> Tokenizer:
    """Ids 0 to 255 are the bytes of UTF-8; <INST> 256, <RESP> 257 and <PAD> 258 follow.

    The tutorial that this layout comes from has no token that ends an answer, so its model can
    only be stopped by guessing. <END> 259 is the lab's addition.
    """
    backend = tokenizers.Tokenizer(models.BPE(vocab=dict(BYTE_ALPHABET), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    _add(backend, "<INST>", "<RESP>", "<PAD>", "<END>")
    return Tokenizer("bytes", backend, {"eos_token": "<END>", "pad_token": "<PAD>"})


WORDS: Final = (
    *("<pad>", "The", "quick", "brown", "fox", "jumps", "over", "lazy", "dog"),
    *("<|user|>", "<|assistant|>", "<|end|>", "What", "is", "a", "?"),
)
"""The sixteen words, each at the index that is its id."""


def words_tokenizer() -> Tokenizer:
    """A vocabulary of sixteen words, as in the tutorial's table. Two things are put right: "the"
    is the same word as "The" (the tutorial's own code has no entry for it), and a word that is
    not in the vocabulary is an error with a name instead of a KeyError."""
    vocabulary = {word: id for id, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocab=vocabulary, unk_token=""))
    backend.normalizer = normalizers.Replace(Regex(r"(?<!\S)t(?=he([\s?]|\z))"), "T")
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split("?", "isolated")]
    )
    _add(backend, "<|user|>", "<|assistant|>", "<|end|>", "<pad>")
    return Tokenizer("words", backend, {"eos_token": "<|end|>", "pad_token": "<pad>"})


def _add(backend: tokenizers.Tokenizer, *texts: str) -> None:
    backend.add_special_tokens([AddedToken(text, normalized=False, special=True) for text in texts])


BUILT_IN: Final[Mapping[str, Callable[[], Tokenizer]]] = {
    "bytes": bytes_tokenizer,
    "words": words_tokenizer,
}
