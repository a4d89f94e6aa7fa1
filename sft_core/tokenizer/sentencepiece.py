"""A sentencepiece model (``tokenizer.model``, ``spiece.model``) as a ``tokenizers`` backend.

The file is a protocol buffer of pieces, with scores and kinds, and of how text is normalised before
it is cut into them. It is read here, so that neither sentencepiece nor protobuf must be installed,
and built with everything that it says: transformers' own converters go by the name of a class
instead, and pass over some of it. The format: sentencepiece_model.proto of google/sentencepiece.

What comes out gives the ids that sentencepiece gives. It knowingly differs in two things, both as
transformers' fast tokenizers do. A piece that is a command or a symbol of the user's own is found
in text before anything else, and text behind it begins anew, with a space in front if that is the
model's habit. And where the file maps characters (NFKC), an accent that stands behind a character
that was mapped is lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, NamedTuple

import tokenizers
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers

from sft_core.types import TokenizerError

SPACE: Final = "\u2581"
_UNIGRAM: Final = 1
_BPE: Final = 2
_NAMED: Final = ("unk", "bos", "eos", "pad")
_NEVER: Final = "\U0010fffe"  # begins the name of a piece that no text may become


class Kind(IntEnum):
    """What a piece is for."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


class Piece(NamedTuple):
    """One entry of the vocabulary; its place is its id."""

    text: str
    score: float
    kind: Kind


class Settings(NamedTuple):
    """What the file says besides the pieces; the defaults are those of the format."""

    algorithm: int = _UNIGRAM
    byte_fallback: bool = False
    suffix_spaces: bool = False
    ids: Mapping[str, int] = {"unk": 0, "bos": 1, "eos": 2, "pad": -1}
    character_map: bytes = b""
    prefix_space: bool = True
    single_spaces: bool = True
    spelled_spaces: bool = True


# -- reading the file -----------------------------------------------------------------------------


def parse(file: Path, name: str) -> tuple[list[Piece], Settings]:
    """The pieces and settings of a model file. Raises TokenizerError."""
    try:
        top = list(_fields(file.read_bytes()))
        pieces = [_piece(dict(_fields(value))) for number, value in top if number == 1]
        trainer = dict(_fields(b"".join(value for number, value in top if number == 2)))
        normalizer = dict(_fields(b"".join(value for number, value in top if number == 3)))
        settings = _settings(trainer, normalizer)
    except OSError as error:
        raise TokenizerError(f"The {file.name} of {name} cannot be read: {error}") from None
    except (ValueError, TypeError, IndexError, AttributeError, struct.error):
        raise _damaged(file, name) from None
    if not pieces:
        raise _damaged(file, name)
    return pieces, settings


def _damaged(file: Path, name: str) -> TokenizerError:
    return TokenizerError(
        f"The {file.name} of {name} is no sentencepiece model, or it is damaged. "
        "Fetch it again, or name a folder with a tokenizer.json."
    )


def _piece(fields: Mapping[int, Any]) -> Piece:
    (score,) = struct.unpack("<f", fields.get(2, b"\0\0\0\0"))
    return Piece(fields.get(1, b"").decode(), score, Kind(fields.get(3, 1)))


def _settings(trainer: Mapping[int, Any], normalizer: Mapping[int, Any]) -> Settings:
    usual = Settings()
    return Settings(
        algorithm=trainer.get(3, usual.algorithm),
        byte_fallback=bool(trainer.get(35)),
        suffix_spaces=bool(trainer.get(24)),
        ids={
            role: trainer.get(number, usual.ids[role])
            for number, role in enumerate(_NAMED, start=40)
        },
        character_map=normalizer.get(2, b""),
        prefix_space=bool(normalizer.get(3, True)),
        single_spaces=bool(normalizer.get(4, True)),
        spelled_spaces=bool(normalizer.get(5, True)),
    )


def _fields(data: bytes) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: an int, or the bytes of anything longer."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        wire, length = key & 7, 0
        if wire == 0:
            value, at = _varint(data, at)
            yield key >> 3, value - (value >> 63 << 64)  # the sign of an int32
            continue
        if wire == 2:
            length, at = _varint(data, at)
        else:
            length = {1: 8, 5: 4}[wire] if wire in (1, 5) else len(data) + 1
        if at + length > len(data):
            raise ValueError("a field that is longer than its message")
        yield key >> 3, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
        if shift > 63:
            raise ValueError("a number without an end")


# -- building the backend -------------------------------------------------------------------------


def build(file: Path, name: str, legacy: bool) -> tuple[tokenizers.Tokenizer, dict[str, str]]:
    """The backend of a model file, and its named special tokens ("bos_token" -> "<s>").

    ``legacy`` is transformers' name for what sentencepiece itself does: a space in front of every
    piece of text. Without, it goes in front of the whole text only. Raises TokenizerError.
    """
    pieces, settings = parse(file, name)
    if settings.suffix_spaces or not settings.spelled_spaces:
        raise _unusual(file, name, "it writes spaces in a way of its own")
    if settings.algorithm not in (_UNIGRAM, _BPE):
        raise _unusual(file, name, "it knows words or characters only")
    try:
        backend = _backend(pieces, settings, legacy)
    except Exception:  # noqa: BLE001  (the backend raises nothing narrower)
        raise _damaged(file, name) from None
    named = {role: id for role, id in settings.ids.items() if 0 <= id < len(pieces)}
    return backend, {f"{role}_token": pieces[id].text for role, id in named.items()}


def _backend(pieces: list[Piece], settings: Settings, legacy: bool) -> tokenizers.Tokenizer:
    backend = tokenizers.Tokenizer(_model(pieces, settings))
    backend.normalizer = _normalizer(settings, legacy)
    if settings.prefix_space and not legacy:
        backend.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, "first", split=False)
    elif settings.algorithm == _UNIGRAM and settings.byte_fallback:
        # Nobody's text may spell a byte's token, which unigram models would find like any word.
        spelled = Regex("<(?=0x[0-9A-F]{2}>)")
        backend.pre_tokenizer = pre_tokenizers.Split(spelled, "isolated")
    backend.decoder = _decoder(settings)
    backend.add_special_tokens(_added(pieces, Kind.CONTROL))
    backend.add_tokens(_added(pieces, Kind.USER_DEFINED))
    return backend


def _unusual(file: Path, name: str, why: str) -> TokenizerError:
    return TokenizerError(
        f"The lab cannot read the {file.name} of {name}: {why}. Convert it once with "
        f'AutoTokenizer.from_pretrained("{name}").save_pretrained("a-folder"), and name that '
        "folder."
    )


def _added(pieces: list[Piece], kind: Kind) -> list[AddedToken]:
    return [
        AddedToken(piece.text, normalized=False, special=kind is Kind.CONTROL)
        for piece in pieces
        if piece.kind is kind and SPACE not in piece.text
    ]


def _model(pieces: list[Piece], settings: Settings) -> models.Model:
    names = [
        f"{_NEVER}{id}" if piece.kind is Kind.UNUSED else piece.text
        for id, piece in enumerate(pieces)
    ]
    unknown = settings.ids["unk"]
    if settings.algorithm == _UNIGRAM:
        scored = [(name, piece.score) for name, piece in zip(names, pieces, strict=True)]
        return models.Unigram(scored, unknown, settings.byte_fallback)
    return models.BPE(
        {name: id for id, name in enumerate(names)},
        _merges(pieces),
        unk_token=names[unknown],
        fuse_unk=True,
        byte_fallback=settings.byte_fallback,
    )


def _merges(pieces: list[Piece]) -> list[tuple[str, str]]:
    """Sentencepiece joins whichever two neighbours make the piece of the highest score, so each
    way to cut a piece in two is a merge. Symbols of the user's own are joined first; those with
    spaces in them, such as Gemma's runs of spaces, are found in no other way."""
    kinds = (Kind.NORMAL, Kind.USER_DEFINED)
    normal = {piece.text: piece.score for piece in pieces if piece.kind in kinds}
    return [
        (text[:cut], text[cut:])
        for text in sorted(normal, key=lambda text: -normal[text])
        for cut in range(1, len(text))
        if text[:cut] in normal and text[cut:] in normal
    ]


def _normalizer(settings: Settings, legacy: bool) -> normalizers.Normalizer | None:
    steps: list[normalizers.Normalizer] = []
    if settings.character_map:
        steps.append(normalizers.Precompiled(settings.character_map))
    if settings.single_spaces:
        steps.append(normalizers.Replace(Regex(rf"\A +|[ {SPACE}]+\z"), ""))
        steps.append(normalizers.Replace(Regex(" {2,}"), " "))
    if settings.prefix_space and legacy:
        steps.append(normalizers.Prepend(SPACE))
    if legacy or not settings.prefix_space:
        steps.append(normalizers.Replace(" ", SPACE))
    return normalizers.Sequence(steps) if steps else None


def _decoder(settings: Settings) -> decoders.Decoder:
    steps: list[decoders.Decoder] = [decoders.Replace(SPACE, " ")]
    if settings.byte_fallback:
        steps.append(decoders.ByteFallback())
    steps.append(decoders.Fuse())
    if settings.prefix_space:
        steps.append(decoders.Strip(" ", 1, 0))
    return decoders.Sequence(steps)
