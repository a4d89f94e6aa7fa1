"""The lab's tokens and a rival's laid over one text, and where the two part."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from typing import Final, NamedTuple

from sft_core.rivals.methods import RivalMask
from sft_core.types import Encoded, Reason, Region, Rendered, Token

NOWHERE: Final = -1
_MOST_COMPARED: Final = 4_000_000  # characters squared: difflib's time grows with it

Range = tuple[int, int]


class Run(NamedTuple):
    """``text[start:end]`` lies in one span of the rendered text, and under tokens that the lab
    treats for one reason; None where no token of the lab stands."""

    start: int
    end: int
    region: Region
    message: int | None
    reason: Reason | None


def ends(run: Run) -> bool:
    """Whether it ends an answer; its first characters may share a token with the answer."""
    if run.reason is Reason.WHOLE_TEXT:
        return False
    return run.reason is Reason.END_OF_TURN or run.region is Region.END_OF_TURN


class Patch(NamedTuple):
    """``text[start:end]`` is other tokens on each side; indices of the lab's and the rival's."""

    start: int
    end: int
    lab: tuple[int, ...]
    theirs: tuple[int, ...]


@dataclass(frozen=True)
class Sides:
    """One conversation as the lab encodes it and as a rival does. Characters are those of
    ``rendered.text``; the lab's tokens count kept and dropped alike. The first token of a text is
    trained by neither: nothing predicts it."""

    encoded: Encoded
    rendered: Rendered
    mask: RivalMask

    @property
    def text(self) -> str:
        return self.rendered.text

    @cached_property
    def lab(self) -> tuple[Token, ...]:
        return (*self.encoded.tokens, *self.encoded.dropped)

    @cached_property
    def _aligned(self) -> list[int]:
        if self.mask.text == self.text or not self.mask.turns:
            return align(self.mask.text, self.text)
        # Prompt and answer apart: the answer must not be found anywhere but in its own turn.
        known = self.mask.turns[-1]
        size = len(known.prompt)
        start = dict(self.rendered.answer_starts()).get(known.message, len(self.text))
        prompt = align(known.prompt, self.text[:start])
        row, printed = self.mask.text[size:], self.answer(known.message)
        # What a template adds to an answer, such as its reasoning, comes before it.
        last = printed.rfind(row)
        answer = [*range(last, last + len(row))] if last >= 0 else align(row, printed)
        return [*prompt, *(at if at == NOWHERE else at + start for at in answer)]

    @cached_property
    def places(self) -> tuple[Range, ...]:
        """Where each of the rival's tokens stands in the rendered text; an empty range, at the
        place reached so far, for one of text that the lab does not render."""
        found: list[Range] = []
        reached = 0
        for start, end in self.mask.offsets:
            at = [place for place in self._aligned[start:end] if place != NOWHERE]
            found.append((at[0], at[-1] + 1) if at else (reached, reached))
            reached = found[-1][1]
        return tuple(found)

    @cached_property
    def _own(self) -> bytearray:
        flags = bytearray(len(self.text))
        for token in self.lab[1:]:
            if token.reason.trained:
                flags[token.start : token.end] = b"\1" * (token.end - token.start)
        return flags

    @cached_property
    def _theirs(self) -> bytearray:
        flags = bytearray(len(self.text))
        for (start, end), trained in list(zip(self.places, self.mask.trained, strict=True))[1:]:
            if trained:
                flags[start:end] = b"\1" * (end - start)
        return flags

    @property
    def extra(self) -> Iterator[Run]:
        """What the rival alone trains."""
        return self._runs(bytearray(b > a for a, b in zip(self._own, self._theirs, strict=True)))

    @property
    def missed(self) -> Iterator[Run]:
        """What the lab alone trains."""
        return self._runs(bytearray(a > b for a, b in zip(self._own, self._theirs, strict=True)))

    @cached_property
    def reasons(self) -> list[Reason | None]:
        """The lab's reason for each character."""
        found: list[Reason | None] = [None] * len(self.text)
        for token in self.lab:
            for at in range(token.start, token.end):
                kept = found[at]
                found[at] = kept if kept is not None and kept.trained else token.reason
        return found

    def _runs(self, flags: bytearray) -> Iterator[Run]:
        for span in self.rendered.spans:
            marked = (at for at in range(span.start, span.end) if flags[at])
            runs = groupby(enumerate(marked), lambda it: (it[1] - it[0], self.reasons[it[1]]))
            for (_, reason), members in runs:
                places = [at for _, at in members]
                yield Run(places[0], places[-1] + 1, span.region, span.message, reason)

    def answer(self, message: int) -> str:
        """An answer as the template prints it, from where a prompt ends."""
        start = dict(self.rendered.answer_starts()).get(message, len(self.text))
        spans = [span for span in self.rendered.spans if span.message == message]
        said = [span.end for span in spans if span.region is Region.CONTENT]
        return self.text[start : max(said, default=start)]

    def tokens(self, start: int, end: int) -> tuple[int, ...]:
        """The lab's tokens that overlap a stretch."""
        return tuple(i for i, it in enumerate(self.lab) if it.start < end and it.end > start)

    @cached_property
    def patches(self) -> tuple[Patch, ...]:
        """Where the rival's tokens are others than the lab's, neighbours joined. Text that the
        rival leaves out is no patch."""
        lab = [(token.start, token.end, token.id) for token in self.lab]
        theirs = [(*place, id) for place, id in zip(self.places, self.mask.ids, strict=True)]
        odd = sorted(
            [(a, b, 0, i) for i, (a, b, _) in _unmatched(lab, theirs)]
            + [(a, b, 1, i) for i, (a, b, _) in _unmatched(theirs, lab)]
        )
        found: list[Patch] = []
        for start, end, side, index in odd:
            if not found or start > found[-1].end or (start == found[-1].end and start < end):
                found.append(Patch(start, end, (), ()))
            last = found[-1]
            sides = [last.lab, last.theirs]
            sides[side] = (*sides[side], index)
            found[-1] = Patch(last.start, max(last.end, end), *sides)
        return tuple(patch for patch in found if patch.theirs)


def _unmatched(
    these: Sequence[tuple[int, int, int]], those: Sequence[tuple[int, int, int]]
) -> Iterator[tuple[int, tuple[int, int, int]]]:
    left = Counter(those)
    for index, token in enumerate(these):
        if left[token]:
            left[token] -= 1
        else:
            yield index, token


def shared(one: str, other: str) -> int:
    """How many characters both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def align(source: str, target: str) -> list[int]:
    """For each character of ``source`` its place in ``target``, or NOWHERE; ascending."""
    head = shared(source, target)
    rest, behind = source[head:], target[head:]
    tail = shared(rest[::-1], behind[::-1])
    middle, other = rest[: len(rest) - tail], behind[: len(behind) - tail]
    found = [*range(head), *[NOWHERE] * len(middle), *range(len(target) - tail, len(target))]
    if len(middle) * len(other) <= _MOST_COMPARED:
        matcher = difflib.SequenceMatcher(None, middle, other, autojunk=False)
        for at, to, size in matcher.get_matching_blocks():
            found[head + at : head + at + size] = range(head + to, head + to + size)
    return found
