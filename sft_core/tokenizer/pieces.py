"""Text that is cut at given places -> ids and offsets, as generation will meet them.

A model is trained on an answer after it has read a prompt, and at generation it reads that
prompt alone. So the text is cut where an answer starts, and what stands before and after is
tokenised apart; then no token reaches across, and both see the same ids. Three things need care:

- A tokenizer that puts a space in front of text must not do so at a cut in the middle of a line.
  It does only where it would in the uncut text: at the very start, and, if that is its habit,
  behind a special token.
- A special token that somebody spelled inside a message is text, not a command: the stretch
  between two real special tokens that holds it is tokenised without special tokens.
- Offsets are characters of the text as it was rendered, also where the tokenizer composes,
  lower-cases or replaces characters first.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from collections.abc import Sequence
from itertools import chain, pairwise
from operator import itemgetter
from typing import NamedTuple

import tokenizers

from sft_core.tokenizer.core import Prefix, Tokenizer
from sft_core.types import EncodeError

Range = tuple[int, int]


class Cut(NamedTuple):
    """``text``, the places where it is cut (ascending), and the ranges, in order, that messages
    wrote, in which a special token is forged."""

    text: str
    places: tuple[int, ...] = ()
    written: tuple[Range, ...] = ()


class Pieces(NamedTuple):
    """Ids with the characters that each stands for, and the ranges of forged special tokens."""

    ids: list[int]
    offsets: list[Range]
    forged: list[Range]


class _Segment(NamedTuple):
    """What stands between two cuts, as the backend tokenises it; offsets are of the text."""

    start: int
    end: int
    ids: list[int]
    offsets: list[Range]


def tokenize(tokenizer: Tokenizer, cuts: Sequence[Cut]) -> list[Pieces | EncodeError]:
    """One result for each of ``cuts``, whatever stands beside it in the batch. An EncodeError
    says which text the tokenizer cannot write."""
    ranges = [tuple(pairwise((0, *cut.places, len(cut.text)))) for cut in cuts]
    texts = [
        cut.text[start:end] for cut, own in zip(cuts, ranges, strict=True) for start, end in own
    ]
    encodings = _encode(tokenizer.backend, texts)
    if encodings is None:
        if len(cuts) == 1:
            return [_explain(tokenizer, cuts[0].text)]
        return list(chain.from_iterable(tokenize(tokenizer, [cut]) for cut in cuts))
    results: list[Pieces | EncodeError] = []
    at = 0
    for cut, own in zip(cuts, ranges, strict=True):
        try:
            results.append(_assemble(tokenizer, cut, own, encodings[at : at + len(own)]))
        except EncodeError as error:
            results.append(error)
        at += len(own)
    return results


def _encode(
    backend: tokenizers.Tokenizer, texts: Sequence[str]
) -> Sequence[tokenizers.Encoding] | None:
    """None where the backend cannot write some text."""
    try:
        if len(texts) < 8:  # not worth waking the thread pool for
            return [backend.encode(text, add_special_tokens=False) for text in texts]
        return backend.encode_batch(texts, add_special_tokens=False)
    except BaseException as error:
        # The backend raises nothing narrower; on a damaged file it panics, which is no Exception.
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            return None
        raise


def _explain(tokenizer: Tokenizer, text: str) -> EncodeError:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        return EncodeError(
            f"The text holds half a character (U+{ord(text[error.start]):04X}) at position "
            f"{error.start}: an emoji that was cut in two. Mend or drop this row."
        )
    lost = tokenizer.spelling.unspellable(text)
    if lost is None:
        return EncodeError(f"The tokenizer {tokenizer.name} cannot write this text: {text[:80]!r}.")
    return EncodeError(
        f"The tokenizer {tokenizer.name} has no token for {lost!r}, so that it would be lost. "
        "Take it out of the text, or choose another tokenizer."
    )


def _assemble(
    tokenizer: Tokenizer,
    cut: Cut,
    ranges: Sequence[Range],
    encodings: Sequence[tokenizers.Encoding],
) -> Pieces:
    """Raises EncodeError."""
    pieces = Pieces([], [], [])
    for (start, end), encoding in zip(ranges, encodings, strict=True):
        if start == end:
            continue
        if (
            tokenizer.spelling.incomplete
            and tokenizer.spelling.unspellable(cut.text[start:end]) is not None
        ):
            raise _explain(tokenizer, cut.text[start:end])
        offsets = _offsets(tokenizer, cut.text, start, end, encoding)
        segment = _Segment(start, end, encoding.ids, offsets)
        forged = _forged(tokenizer, cut.written, segment)
        if forged or (start and tokenizer.prefix is not Prefix.NEVER):
            after_added = bool(pieces.ids) and pieces.ids[-1] in tokenizer.added_ids
            segment = _mend(tokenizer, cut.text, segment, set(forged), after_added)
        pieces.forged.extend(offsets[index] for index in forged)
        pieces.ids.extend(segment.ids)
        pieces.offsets.extend(segment.offsets)
    return pieces


def _offsets(
    tokenizer: Tokenizer, text: str, start: int, end: int, encoding: tokenizers.Encoding
) -> list[Range]:
    """The characters of ``text`` that each token stands for, each range inside [start, end)."""
    offsets = encoding.offsets
    if start:
        offsets = [(a + start, b + start) for a, b in offsets]
    if tokenizer.backend.normalizer is None or not offsets:
        return offsets
    if not text.isascii():
        offsets = _with_composed(text, offsets, end)
    # A character that a normaliser only added may claim the place behind the last one.
    if offsets[-1][0] >= end:
        offsets = [(min(a, end - 1), b) for a, b in offsets]
    return offsets


def _with_composed(text: str, offsets: list[Range], end: int) -> list[Range]:
    """Let a token that ends in a composed character (e + accent -> \u00e9) own all of it: backends
    map what was composed to its first character only."""
    starts = {start for start, _ in offsets}

    def whole(b: int) -> int:
        after = b
        while after < end and after not in starts and _composed(text[b - 1 : after + 1]):
            after += 1
        return after

    return [(a, whole(b) if b and text[b : b + 1] > "\x7f" else b) for a, b in offsets]


def _composed(characters: str) -> bool:
    marks = characters[1:]
    return all(map(unicodedata.combining, marks)) or (
        len(unicodedata.normalize("NFC", characters)) < len(characters)
        and not any(map(str.isspace, marks))
    )


def _forged(tokenizer: Tokenizer, written: Sequence[Range], segment: _Segment) -> list[int]:
    """Indices of control tokens all of whose characters a message wrote."""
    control = tokenizer.control_ids
    found = [index for index, id in enumerate(segment.ids) if id in control]
    return [index for index in found if _inside(segment.offsets[index], written)]


def _inside(place: Range, ranges: Sequence[Range]) -> bool:
    at = bisect_right(ranges, place[0], key=itemgetter(0)) - 1
    return at >= 0 and place[1] <= ranges[at][1]


def _mend(
    tokenizer: Tokenizer, text: str, segment: _Segment, forged: set[int], after_added: bool
) -> _Segment:
    """A segment again, piece by piece between its real added tokens, where a piece holds forged
    tokens or has a space in front that the uncut text would not have."""
    real = [
        index
        for index, id in enumerate(segment.ids)
        if id in tokenizer.added_ids and index not in forged
    ]
    mended = _Segment(segment.start, segment.end, [], [])
    for before, after in pairwise((-1, *real, len(segment.ids))):
        start = segment.offsets[before][1] if before >= 0 else segment.start
        end = segment.offsets[after][0] if after < len(segment.ids) else segment.end
        inside = slice(before + 1, after)
        marks = [segment.offsets[index] for index in range(before + 1, after) if index in forged]
        prefixed = _prefixed(tokenizer.prefix, start, after_added or before >= 0)
        if start < end and (marks or (before < 0 and segment.start and not prefixed)):
            ids, offsets = _as_text(tokenizer, text, (start, end), prefixed, marks)
        else:
            ids, offsets = segment.ids[inside], segment.offsets[inside]
        mended.ids.extend([*ids, *segment.ids[after : after + 1]])
        mended.offsets.extend([*offsets, *segment.offsets[after : after + 1]])
    return mended


def _prefixed(prefix: Prefix, start: int, after_added: bool) -> bool:
    """Whether the uncut text would have a space put in front of a piece that starts here."""
    if prefix is Prefix.NEVER:
        return False
    return start == 0 or (prefix is Prefix.EVERY_PIECE and after_added)


def _as_text(
    tokenizer: Tokenizer, text: str, place: Range, prefixed: bool, marks: Sequence[Range]
) -> tuple[list[int], list[Range]]:
    """A piece without special tokens. Some vocabularies list them as words too; then each mark
    is cut in the middle, so that it cannot be one. Raises EncodeError."""
    whole = _in_parts(tokenizer, text, (place[0], place[1]), prefixed)
    if whole is None and not marks:
        raise _explain(tokenizer, text[slice(*place)])
    if whole is not None and tokenizer.control_ids.isdisjoint(whole[0]):
        return whole
    middles = [(start + end) // 2 for start, end in marks]
    parts = _in_parts(tokenizer, text, (place[0], *middles, place[1]), prefixed)
    if parts is not None and tokenizer.control_ids.isdisjoint(parts[0]):
        return parts
    raise EncodeError(
        f"The tokenizer {tokenizer.name} cannot write {text[marks[0][0] : marks[0][1]]!r} as plain "
        "text, and as a special token it must not stand inside a message. Take it out of the row."
    )


def _in_parts(
    tokenizer: Tokenizer, text: str, places: Sequence[int], prefixed: bool
) -> tuple[list[int], list[Range]] | None:
    """What stands between each two of ``places``, without special tokens, or None where the
    vocabulary has no tokens for it."""
    ids: list[int] = []
    offsets: list[Range] = []
    for start, end in pairwise(places):
        backend = tokenizer.bare(prefixed and start == places[0])
        encodings = _encode(backend, [text[start:end]])
        if encodings is None:
            return None
        ids += encodings[0].ids
        offsets += _offsets(tokenizer, text, start, end, encodings[0])
    return ids, offsets
