"""The tokenizer that a GGUF file describes in its metadata, for the model that comes in a package.

A GGUF holds no tokenizer.json: only the vocabulary, the merges, a type for each token, and which
ids have a part to play. transformers converts that (``integrations/gguf``), but needs torch to;
this builds the same tokenizer without, and heeds the file's word on what is split before BPE, which
that conversion passes over. Reading the file takes seconds, so the result is kept in the user's
cache folder.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, decoders, models, pre_tokenizers

from sft_core.tokenizer import files
from sft_core.tokenizer.core import Tokenizer
from sft_core.tokenizer.spelling import BYTE_ALPHABET
from sft_core.types import TokenizerError

_LAYOUT: Final = 2
"""Goes up when what is built from the same file changes, so that old cache entries are left."""
_CONTROL: Final = 3
_USER_DEFINED: Final = 4
_ROLES: Final = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}


def from_gguf(file: Path, name: str) -> Tokenizer:
    """The tokenizer of a GGUF file with a byte-level BPE vocabulary ("gpt2" in its metadata),
    through the cache. Raises TokenizerError."""
    try:
        entry = cache_entry(file, name)
    except OSError as error:
        raise TokenizerError(f"{file.name} cannot be read: {error.strerror}.") from None
    if (entry / "tokenizer.json").is_file():
        with suppress(TokenizerError):  # a damaged entry is built again
            return files.read(entry, name)
    tokenizer = build(file, name)
    _keep(tokenizer, entry)
    return tokenizer


def cache_entry(file: Path, name: str) -> Path:
    """Where the tokenizer of this very file is kept: below XDG_CACHE_HOME, or ~/.cache."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    facts = file.stat()
    return root / "sft-lab" / f"{name}-{_LAYOUT}-{facts.st_size:x}-{facts.st_mtime_ns:x}"


def _keep(tokenizer: Tokenizer, entry: Path) -> None:
    """Into the cache, whole or not at all. No cache is no error: a home may be read-only."""
    with suppress(OSError):
        entry.parent.mkdir(parents=True, exist_ok=True)
        building = Path(tempfile.mkdtemp(dir=entry.parent))
        try:
            files.write(tokenizer, building)
            shutil.rmtree(entry, ignore_errors=True)
            building.rename(entry)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def build(file: Path, name: str) -> Tokenizer:
    """The tokenizer of a GGUF file, read from the file itself. Raises TokenizerError."""
    facts = _metadata(file)
    if facts.get("ggml.model") != "gpt2":
        raise TokenizerError(
            f"{file.name} holds a vocabulary of kind {facts.get('ggml.model')!r}; the lab reads "
            "byte-level BPE ('gpt2') from GGUF files. Name a folder with a tokenizer.json instead."
        )
    tokens: list[str] = facts["ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in facts["ggml.merges"]]
    vocabulary = {token: id for id, token in enumerate(tokens)}
    backend = tokenizers.Tokenizer(
        models.BPE(
            vocab=vocabulary, merges=merges, continuing_subword_prefix="", end_of_word_suffix=""
        )
    )
    backend.pre_tokenizer = _splitting(str(facts.get("ggml.pre", "")))
    backend.decoder = decoders.ByteLevel()
    _add_typed(backend, tokens, facts.get("ggml.token_type", ()))
    roles = {role: facts.get(f"ggml.{key}") for role, key in _ROLES.items()}
    special = {role: tokens[id] for role, id in roles.items() if id is not None}
    template = facts.get("chat_template")
    return Tokenizer(name, backend, special, {"default": template} if template else {})


def _splitting(kind: str) -> pre_tokenizers.PreTokenizer:
    """What is split before BPE. "smollm" means GPT-2's words with every digit apart, as SmolLM2's
    own tokenizer.json and llama.cpp (``LLAMA_VOCAB_PRE_TYPE_SMOLLM``) have it: the model never saw
    a token that joins a digit to anything."""
    words = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if kind != "smollm":
        return words
    return pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), words])


def _add_typed(backend: tokenizers.Tokenizer, tokens: list[str], types: Any) -> None:
    """Control tokens become special, user-defined ones plain added tokens. A control token that
    byte-level text could not spell is a mislabel, and would only make the vocabulary grow."""
    control = [
        AddedToken(token, normalized=False, special=True)
        for token, kind in zip(tokens, types, strict=False)
        if kind == _CONTROL and all(character in BYTE_ALPHABET for character in token)
    ]
    own = [
        AddedToken(token, normalized=False, special=False)
        for token, kind in zip(tokens, types, strict=False)
        if kind == _USER_DEFINED
    ]
    backend.add_special_tokens(control)
    backend.add_tokens(own)


def _metadata(file: Path) -> dict[str, Any]:
    """All ``tokenizer.*`` entries without that prefix. Raises TokenizerError."""
    try:
        from gguf import GGUFReader
    except ImportError:
        raise TokenizerError(
            "Reading this tokenizer needs the package gguf, which is not installed here. "
            "Run: pip install --no-deps gguf"
        ) from None
    try:
        fields = GGUFReader(file).fields
    except (OSError, ValueError) as error:
        raise TokenizerError(f"{file.name} cannot be read as a GGUF file: {error}") from None
    wanted = {key: field for key, field in fields.items() if key.startswith("tokenizer.")}
    return {key.removeprefix("tokenizer."): field.contents() for key, field in wanted.items()}
