"""Tokenizers from before tokenizer.json: vocab.json with merges.txt, vocab.txt, sentencepiece.

What such files leave out, a class of transformers knows: how text is split before BPE, or which ids
are moved. The lab builds the classes whose rules it knows, named in tokenizer_config.json or usual
for the file, and refuses the others with a sentence, since a guess would give other ids than the
model was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from sft_core.tokenizer import sentencepiece
from sft_core.tokenizer.spelling import BYTE_ALPHABET
from sft_core.types import TokenizerError

FILES: Final = ("tokenizer.model", "spiece.model", "vocab.json", "merges.txt", "vocab.txt")
"""What is read, beside what ``files`` reads of every tokenizer."""

_OTHERS: Final = ("*.model", "*.tiktoken", "tekken.json", "*.spm", "bpe.codes")
_SENTENCEPIECE: Final = frozenset(
    {"", "Llama", "CodeLlama", "Gemma", "T5", "MT5", "Phi3", "PreTrained", "Tokenizers"}
    | {"BigBird", "Albert", "Baichuan", "InternLM2", "Yi", "Mistral"}
)
_BYTE_LEVEL: Final = frozenset(
    {"", "GPT2", "Roberta", "Bart", "LED", "Longformer", "CodeGen", "Whisper", "Qwen2"}
    | {"Blenderbot", "Mvp", "PreTrained", "Tokenizers", "GPTNeoX"}
)
_WORD_PIECE: Final = frozenset(
    {"", "Bert", "DistilBert", "Electra", "MobileBert", "ConvBert", "SqueezeBert", "Lxmert"}
    | {"PreTrained", "Tokenizers"}
)
# How Qwen2's text is split before BPE: contractions, letters with one sign before them, single
# digits, signs with the line breaks behind them, and spaces but for the last one before a word.
_QWEN2: Final = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

Built = tuple[tokenizers.Tokenizer, dict[str, str]]


def read(folder: Path, name: str, config: Mapping[str, Any]) -> Built:
    """The backend of a folder without a tokenizer.json, and the special tokens that its files or
    its class name. ``config`` is tokenizer_config.json. Raises TokenizerError."""
    for file in ("tokenizer.model", "spiece.model"):
        if (folder / file).is_file() and not _is_text(folder / file):
            return _from_sentencepiece(folder / file, name, config)
    if (folder / "vocab.json").is_file() and (folder / "merges.txt").is_file():
        return _byte_level(folder, name, config)
    if (folder / "vocab.txt").is_file():
        return _word_piece(folder / "vocab.txt", name, config)
    raise _refusal(folder, name)


def _refusal(folder: Path, name: str) -> TokenizerError:
    if any(path for pattern in _OTHERS for path in folder.glob(pattern)):
        return _other_class(name, "the lab does not read its files")
    return TokenizerError(
        f"{name} has no tokenizer.json. Name a folder that save_pretrained of transformers wrote, "
        "or a model on the hub that has this file."
    )


def _other_class(name: str, what: str) -> TokenizerError:
    return TokenizerError(
        f"{name} holds a tokenizer in an older form, without a tokenizer.json: {what}. Convert "
        f'it once: AutoTokenizer.from_pretrained("{name}").save_pretrained("a-folder"), and name '
        "that folder."
    )


def _is_text(file: Path) -> bool:
    """Whether a file that should be a model is the table of a tiktoken one, or a pointer to it."""
    with file.open("rb") as opened:
        start = opened.read(64)
    return start.isascii() and b"\n" not in start[:2] and start[:1].isalnum()


def _class(name: str, config: Mapping[str, Any], known: frozenset[str]) -> str:
    """The class that the files name, without its ending. Raises TokenizerError where the lab does
    not know the rules of that class for these files."""
    full = config.get("tokenizer_class")
    full = full if isinstance(full, str) else ""
    kind = full.removesuffix("Fast").removesuffix("Tokenizer")
    if kind == "TokenizersBackend":
        kind = "Tokenizers"
    if kind not in known:
        raise _other_class(name, f"its class {full} has rules that the lab does not know")
    return kind


# -- sentencepiece --------------------------------------------------------------------------------


def _from_sentencepiece(file: Path, name: str, config: Mapping[str, Any]) -> Built:
    kind = _class(name, config, _SENTENCEPIECE)
    backend, named = sentencepiece.build(file, name, config.get("legacy") is not False)
    if kind in ("T5", "MT5"):
        # T5 counts its extra tokens backwards behind the vocabulary.
        count = config.get("extra_ids", 100)
        extra = [f"<extra_id_{number}>" for number in reversed(range(count))]
        backend.add_special_tokens([_special(text) for text in extra])
        named |= {"pad_token": "<pad>"}
    return backend, named


# -- byte-level BPE -------------------------------------------------------------------------------


def _byte_level(folder: Path, name: str, config: Mapping[str, Any]) -> Built:
    kind = _class(name, config, _BYTE_LEVEL)
    try:
        vocabulary, merges = models.BPE.read_file(
            str(folder / "vocab.json"), str(folder / "merges.txt")
        )
        model = models.BPE(vocabulary, merges)
    except Exception as error:  # noqa: BLE001  (the backend raises nothing narrower)
        raise TokenizerError(
            f"The vocab.json and merges.txt of {name} cannot be read ({error}). Fetch them again."
        ) from None
    if sum(spelled in vocabulary for spelled in BYTE_ALPHABET) < 200:
        raise _other_class(name, "its vocabulary is not one of bytes")
    backend = tokenizers.Tokenizer(model)
    spaced = config.get("add_prefix_space") is True
    if kind == "Qwen2":
        backend.normalizer = normalizers.NFC()
        backend.pre_tokenizer = pre_tokenizers.Sequence(
            [
                pre_tokenizers.Split(Regex(_QWEN2), "isolated"),
                pre_tokenizers.ByteLevel(add_prefix_space=spaced, use_regex=False),
            ]
        )
    else:
        backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaced)
    backend.decoder = decoders.ByteLevel()
    end = "<|endoftext|>"
    if end not in vocabulary:
        usual = {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "unk_token": "<unk>",
            "pad_token": "<pad>",
        }
    elif kind == "Qwen2":
        usual = {"eos_token": end, "pad_token": end}
    else:
        usual = {"bos_token": end, "eos_token": end, "unk_token": end}
    return backend, {role: text for role, text in usual.items() if text in vocabulary}


# -- WordPiece ------------------------------------------------------------------------------------


def _word_piece(file: Path, name: str, config: Mapping[str, Any]) -> Built:
    _class(name, config, _WORD_PIECE)
    try:
        vocabulary = models.WordPiece.read_file(str(file))
    except Exception as error:  # noqa: BLE001  (the backend raises nothing narrower)
        raise TokenizerError(f"The vocab.txt of {name} cannot be read ({error}).") from None
    unknown = config.get("unk_token", "[UNK]")
    unknown = unknown if isinstance(unknown, str) else unknown["content"]
    if unknown not in vocabulary:
        raise _other_class(name, f"its vocabulary has no {unknown}")
    backend = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=unknown))
    backend.normalizer = normalizers.BertNormalizer(
        handle_chinese_chars=config.get("tokenize_chinese_chars") is not False,
        strip_accents=config.get("strip_accents"),
        lowercase=config.get("do_lower_case") is not False,
    )
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece(cleanup=False)
    named = {role: f"[{role[:-6].upper()}]" for role in ("cls_token", "sep_token", "mask_token")}
    named |= {"unk_token": unknown, "pad_token": "[PAD]"}
    return backend, {role: text for role, text in named.items() if text in vocabulary}


def _special(text: str) -> AddedToken:
    return AddedToken(text, normalized=False, special=True)
