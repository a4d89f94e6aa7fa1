"""Tokenizers of every family, trained in the process on a few sentences. Nothing is fetched.

Each knows the ChatML markers as special tokens, and <s> and </s>.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, pre_tokenizers, trainers

from sft_core.tokenizer import Tokenizer

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>"]
CORPUS = [
    "user assistant system Hello there, how are you today?",
    "The capital of France is Paris, and the capital of Italy is Rome.",
    "You are a helpful assistant. Answer in one sentence.",
    "def main():\n    print('hello world')\n    return 0\n",
    "A list of fruit: apple, banana, cherry.\n\n1. one\n2. two\n3. three",
    "Caf\u00e9 na\u00efve fa\u00e7ade \u00fcber \u4f60\u597d \U0001f600",
] * 8


def _backend(model: Any, normalizer: Any, pre: Any, decoder: Any) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(model)
    if normalizer is not None:
        backend.normalizer = normalizer
    if pre is not None:
        backend.pre_tokenizer = pre
    if decoder is not None:
        backend.decoder = decoder
    return backend


def _finished(name: str, backend: tokenizers.Tokenizer) -> Tokenizer:
    backend.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in SPECIAL]
    )
    named = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "</s>"}
    return Tokenizer(name, backend, named)


@cache
def byte_level(normalizer: str = "", add_prefix_space: bool = False) -> Tokenizer:
    """Byte-level BPE, as GPT-2 (plain), Qwen ("nfc") or RoBERTa (a prefix space) have it."""
    backend = _backend(
        models.BPE(),
        {"": None, "nfc": normalizers.NFC(), "lower": normalizers.Lowercase()}[normalizer],
        pre_tokenizers.ByteLevel(add_prefix_space=add_prefix_space),
        decoders.ByteLevel(),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=500,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    return _finished(f"byte-level {normalizer} {add_prefix_space}", backend)


@cache
def metaspace(scheme: str = "always") -> Tokenizer:
    """Unigram with sentencepiece's spaces, as T5 and XLM-R have it."""
    backend = _backend(
        models.Unigram(),
        None,
        pre_tokenizers.Metaspace(prepend_scheme=scheme),
        decoders.Metaspace(prepend_scheme=scheme),
    )
    trainer = trainers.UnigramTrainer(
        vocab_size=300, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return _finished(f"metaspace {scheme}", backend)


@cache
def byte_fallback(prepend: bool = False) -> Tokenizer:
    """BPE on characters that writes unknown ones as bytes, as Llama 2 (which also prepends a
    space, by a normaliser) and Gemma have it."""
    replace = normalizers.Replace(" ", "\u2581")
    backend = _backend(
        models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True),
        normalizers.Sequence([normalizers.Prepend("\u2581"), replace]) if prepend else replace,
        None,
        decoders.Sequence(
            [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse()]
        ),
    )
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        special_tokens=[*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256))],
        limit_alphabet=60,
        show_progress=False,
    )
    backend.train_from_iterator(CORPUS, trainer)
    trained = backend.to_str().split('"added_tokens":[')
    # Byte tokens are ordinary entries of the vocabulary, not added tokens.
    end = trained[1].index("],")
    plain = tokenizers.Tokenizer.from_str(trained[0] + '"added_tokens":[' + trained[1][end:])
    return _finished(f"byte-fallback {prepend}", plain)


@cache
def word_piece() -> Tokenizer:
    """WordPiece that lower-cases, as BERT has it."""
    backend = _backend(
        models.WordPiece(unk_token="<unk>"),
        normalizers.BertNormalizer(lowercase=True),
        pre_tokenizers.BertPreTokenizer(),
        decoders.WordPiece(),
    )
    trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL, show_progress=False)
    backend.train_from_iterator(CORPUS, trainer)
    return _finished("word-piece", backend)


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": byte_level,
    "byte-level-nfc": lambda: byte_level("nfc"),
    "byte-level-lower": lambda: byte_level("lower"),
    "byte-level-prefixed": lambda: byte_level("", True),
    "metaspace-always": metaspace,
    "metaspace-first": lambda: metaspace("first"),
    "metaspace-never": lambda: metaspace("never"),
    "byte-fallback": byte_fallback,
    "byte-fallback-prepended": lambda: byte_fallback(True),
    "word-piece": word_piece,
}
EXACT = tuple(name for name in FAMILIES if name not in ("byte-level-lower", "word-piece"))
"""Families that keep upper case and spaces."""
