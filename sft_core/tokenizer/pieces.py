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

import sys
import unicodedata
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import chain, compress, count, pairwise
from typing import Final, NamedTuple

import tokenizers

from sft_core.tokenizer.core import Prefix, Tokenizer
from sft_core.types import EncodeError

Range = tuple[int, int]
_NOWHERE: Final[Range] = (sys.maxsize, sys.maxsize)


class Cut(NamedTuple):
    """``text``, the places where it is cut (ascending), and the ranges, in order, that messages
    wrote, in which a special token is forged."""

    text: str
    places: tuple[int, ...] = ()
    written: tuple[Range, ...] = ()


class _Segment(NamedTuple):
    """What stands between two cuts, as the backend tokenises it. ``offsets`` are of the text;
    where they are None they are those of ``encoding``, counted from ``start``."""

    start: int
    end: int
    ids: list[int]
    offsets: list[Range] | None
    encoding: tokenizers.Encoding

    def places(self) -> list[Range]:
        """The characters of the text that each token stands for."""
        if self.offsets is not None:
            return self.offsets
        found: list[Range] = self.encoding.offsets
        start = self.start
        return [(a + start, b + start) for a, b in found] if start else found

    def place(self, index: int) -> Range:
        """The same for one token, without making a list of all."""
        found = None if self.offsets is not None else self.encoding.token_to_chars(index)
        if found is None:
            return self.places()[index]
        return found[0] + self.start, found[1] + self.start


class Pieces:
    """The ids of a text, and ``forged``, the ranges of its forged special tokens. ``offsets`` are
    the characters that each id stands for, worked out when they are asked for."""

    def __init__(self, segments: Sequence[_Segment], forged: list[Range]) -> None:
        self._segments = segments
        self.forged = forged
        self.ids: list[int] = []
        for segment in segments:
            self.ids += segment.ids

    @cached_property
    def offsets(self) -> list[Range]:
        return list(chain.from_iterable(segment.places() for segment in self._segments))

    def before(self, places: Iterable[int]) -> list[int] | None:
        """How many tokens stand before each of ``places``, which ascend and are not 0; None where
        a token reaches across one of them, or where only a look at all offsets can tell."""
        counts: list[int] = []
        segments, base = iter(self._segments), 0
        segment = next(segments, None)
        for place in places:
            while segment is not None and segment.end < place:
                base += len(segment.ids)
                segment = next(segments, None)
            if segment is None or segment.offsets is not None:
                return None
            here, encoding = place - segment.start, segment.encoding
            count = len(segment.ids)
            if place < segment.end:
                at = encoding.char_to_token(here)
                found = None if at is None else encoding.token_to_chars(at)
                if at is None or found is None or found[0] != here:
                    return None
                count = at
            if count:
                found = encoding.token_to_chars(count - 1)
                if found is None or found[0] >= here or found[1] > here:
                    return None
            counts.append(base + count)
        return counts


def tokenize(tokenizer: Tokenizer, cuts: Sequence[Cut]) -> list[Pieces | EncodeError]:
    """One result for each of ``cuts``, whatever stands beside it in the batch. An EncodeError
    says which text the tokenizer cannot write."""
    return assembled(tokenizer, cuts, encoded(tokenizer, cuts))


Encodings = Sequence[tokenizers.Encoding]


def encoded(tokenizer: Tokenizer, cuts: Sequence[Cut]) -> Encodings | None:
    """The backend's part of ``tokenize``, which needs no interpreter and so may run in a thread
    beside other work: what it makes of the text between each two places, for all ``cuts`` in
    their order. None where it cannot write some text."""
    return _encode(tokenizer.backend, [cut.text[a:b] for cut in cuts for a, b in _ranges(cut)])


def assembled(
    tokenizer: Tokenizer, cuts: Sequence[Cut], encodings: Encodings | None
) -> list[Pieces | EncodeError]:
    """The rest of ``tokenize``."""
    if encodings is None:
        if len(cuts) == 1:
            return [_explain(tokenizer, cuts[0].text)]
        return list(chain.from_iterable(tokenize(tokenizer, [cut]) for cut in cuts))
    spelled = tokenizer.spelling.surely_spells(cut.text for cut in cuts)
    results: list[Pieces | EncodeError] = []
    at = 0
    for cut in cuts:
        ranges = _ranges(cut)
        try:
            own = encodings[at : at + len(ranges)]
            results.append(_assemble(tokenizer, cut, ranges, own, spelled))
        except EncodeError as error:
            results.append(error)
        at += len(ranges)
    return results


def _ranges(cut: Cut) -> Sequence[Range]:
    return tuple(pairwise((0, *cut.places, len(cut.text))))


def _encode(backend: tokenizers.Tokenizer, texts: Sequence[str]) -> Encodings | None:
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
    encodings: Encodings,
    spelled: bool,
) -> Pieces:
    """Raises EncodeError, unless the text is ``spelled`` for sure."""
    segments: list[_Segment] = []
    forged: list[Range] = []
    exact = tokenizer.spelling.keeps_places(cut.text)
    for (start, end), encoding in zip(ranges, encodings, strict=True):
        if start == end:
            continue
        if not spelled and tokenizer.spelling.unspellable(cut.text[start:end]) is not None:
            raise _explain(tokenizer, cut.text[start:end])
        offsets = None if exact else _offsets(tokenizer, cut.text, start, end, encoding)
        segment = _Segment(start, end, encoding.ids, offsets, encoding)
        found = _forged(tokenizer, cut.written, segment) if cut.written else ()
        forged += [segment.place(index) for index in found]
        if found or (start and tokenizer.prefix is not Prefix.NEVER):
            behind = segments[-1].ids[-1:] if segments else []
            after_added = not tokenizer.added_ids.isdisjoint(behind)
            segment = _mend(tokenizer, cut.text, segment, set(found), after_added)
        segments.append(segment)
    return Pieces(segments, forged)


def _offsets(
    tokenizer: Tokenizer, text: str, start: int, end: int, encoding: tokenizers.Encoding
) -> list[Range]:
    """The characters of ``text`` that each token stands for, each range inside [start, end)."""
    offsets = encoding.offsets
    if start:
        offsets = [(a + start, b + start) for a, b in offsets]
    if not tokenizer.spelling.normalizes or not offsets:
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


def _forged(tokenizer: Tokenizer, written: Sequence[Range], segment: _Segment) -> Sequence[int]:
    """Indices of control tokens all of whose characters a message wrote."""
    found: list[int] = []
    ranges, start, end = iter(written), 0, 0
    place = segment.place
    for index in compress(count(), map(tokenizer.control_ids.__contains__, segment.ids)):
        a, b = place(index)
        if a < start:
            ranges, end = iter(written), 0
        while end <= a:
            start, end = next(ranges, _NOWHERE)
        if start <= a and b <= end:
            found.append(index)
    return found


def _mend(
    tokenizer: Tokenizer, text: str, segment: _Segment, forged: set[int], after_added: bool
) -> _Segment:
    """A segment again, piece by piece between its real added tokens, where a piece holds forged
    tokens or has a space in front that the uncut text would not have."""
    places = segment.places()
    real = [
        index
        for index, id in enumerate(segment.ids)
        if id in tokenizer.added_ids and index not in forged
    ]
    ids: list[int] = []
    offsets: list[Range] = []
    for before, after in pairwise((-1, *real, len(segment.ids))):
        start = places[before][1] if before >= 0 else segment.start
        end = places[after][0] if after < len(segment.ids) else segment.end
        marks = [places[index] for index in range(before + 1, after) if index in forged]
        prefixed = _prefixed(tokenizer.prefix, start, after_added or before >= 0)
        if start < end and (marks or (before < 0 and segment.start and not prefixed)):
            new = _as_text(tokenizer, text, (start, end), prefixed, marks)
        else:
            new = segment.ids[before + 1 : after], places[before + 1 : after]
        ids += [*new[0], *segment.ids[after : after + 1]]
        offsets += [*new[1], *places[after : after + 1]]
    return segment._replace(ids=ids, offsets=offsets)


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
