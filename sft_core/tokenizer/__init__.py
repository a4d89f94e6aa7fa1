"""Tokenizers on the ``tokenizers`` backend, so that the page needs neither torch nor transformers.

core      ``Tokenizer``: ids, bytes and special tokens; adding tokens; saving
spelling  which bytes tokens stand for, and what a vocabulary cannot write
loading   ``load_tokenizer``: built-in, packaged, a folder, or a hub id
builtin   "bytes" and "words", the tokenizers of two tutorials
packaged  the tokenizer that a GGUF file describes
files     a folder of tokenizer files <-> ``Tokenizer``
older     folders without a tokenizer.json
sentencepiece  a sentencepiece model, read and built without that package
hub       fetching the tokenizer files of a hub id
pieces    text cut at given places -> ids and offsets, forged special tokens as plain text
"""

from __future__ import annotations

from sft_core.tokenizer.core import Tokenizer
from sft_core.tokenizer.loading import load_tokenizer

__all__ = ["Tokenizer", "load_tokenizer"]
