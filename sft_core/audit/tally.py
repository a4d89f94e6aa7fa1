"""Rows -> figures, one row after the other."""

from __future__ import annotations

from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from heapq import nsmallest
from itertools import accumulate, count, tee
from typing import Final, TypeVar

from sft_core import sandbox
from sft_core.audit.figures import (
    BINS,
    NAMED_ROWS,
    SHARES,
    Audit,
    Bar,
    Failure,
    Limit,
    Pair,
    Row,
)
from sft_core.audit.repeats import Found, Repeats
from sft_core.config import MaskPolicy, TrainConfig
from sft_core.dealing import layouts
from sft_core.encode import encode_many
from sft_core.tokenizer import Tokenizer
from sft_core.types import Encoded, Example, LabError, Template

T = TypeVar("T")
_TRAIN: Final = TrainConfig()


def audit(
    examples: Iterable[Example],
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
    held_out: Iterable[Example] = (),
    train: TrainConfig = _TRAIN,
) -> Audit:
    """The figures of all rows. Rows that fail are counted and named, and stop nothing. ``train``
    says in which batches they would be laid out."""
    steps = progress(
        examples, template, tokenizer, policy, max_length, held_out=held_out, train=train
    )
    return deque(steps, maxlen=1).pop()


def progress(
    examples: Iterable[Example],
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
    every: int = 500,
    held_out: Iterable[Example] = (),
    each: Callable[[Row], None] | None = None,
    train: TrainConfig = _TRAIN,
) -> Iterator[Audit]:
    """The figures after each ``every`` rows, and at the end. ``each`` is told of every row, so
    that it can be written down. Training rows that answer the prompt of a row in ``held_out`` are
    named as leaked."""
    tally = Tally(max_length, held_out, train)
    for example, result in rows(examples, template, tokenizer, policy, max_length):
        if tally.rows and tally.rows % every == 0:
            yield tally.audit()
        row = tally.add(example, result)
        if each is not None:
            each(row)
    yield tally.audit(laid_out=True)


def rows(
    examples: Iterable[Example],
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
) -> Iterator[tuple[Example, Encoded | LabError]]:
    """Each row with what encoding it gives, in order; an error stops no other row."""
    ours, theirs = tee(examples)
    rendered = sandbox.render_many(template, theirs, tokenizer.special_tokens)
    return zip(ours, encode_many(rendered, tokenizer, policy, max_length), strict=True)


class Tally:
    """Sums so far; ``sums`` are counted under the names that they have in ``Audit``."""

    def __init__(
        self,
        max_length: int | None,
        held_out: Iterable[Example] = (),
        train: TrainConfig = _TRAIN,
    ) -> None:
        self.max_length = max_length
        self.train = train
        self.used = array("i")  # the kept tokens of each row that has something to train
        self.repeats = Repeats(held_out)
        self.sums: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.shares: Counter[int] = Counter()
        self.places: Counter[int] = Counter()  # trained tokens by their position in the row
        self.worst: list[tuple[float, Row]] = []
        self.truncated: list[Row] = []
        self.untrained: list[Row] = []
        self.forged: list[Row] = []
        self.duplicates: list[Pair] = []
        self.conflicts: list[Pair] = []
        self.leaked: list[Pair] = []
        self.failures: list[Failure] = []

    @property
    def rows(self) -> int:
        return self.sums["rows"]

    def add(self, example: Example, result: Encoded | LabError) -> Row:
        """Counts a row, and says what was counted."""
        self.sums["rows"] += 1
        found = self.repeats.add(example)
        self._repeats(example.id, found)
        if isinstance(result, LabError):
            self.sums["failed"] += 1
            _name(self.failures, Failure(example.id, str(result)))
            return Row(example.id, **found._asdict(), error=str(result))
        row = self._row(example.id, result, found)
        self._count(row)
        self.lengths[row.tokens] += 1
        self.shares[min(int(row.share * SHARES), SHARES - 1)] += 1
        self.worst.append((row.share, row))
        if len(self.worst) > 2 * NAMED_ROWS:
            self.worst = self._worst()
        return row

    def _row(self, id: str, result: Encoded, found: Found) -> Row:
        at = 0
        for length, reason, _ in result.runs:
            if reason.trained:
                self.places.update(range(at, at + length))
            at += length
        dropped, lost = result.beyond
        kept = len(result)
        figures = (kept + dropped, kept, result.trained, lost, len(result.forged))
        return Row(id, *figures, **found._asdict())

    def _count(self, row: Row) -> None:
        self.sums["tokens"] += row.kept
        self.sums["trained_tokens"] += row.trained
        self.sums["dropped_tokens"] += row.tokens - row.kept
        self.sums["dropped_trained_tokens"] += row.lost
        if row.tokens > row.kept:
            self.sums["truncated_rows"] += 1
            _name(self.truncated, row)
        if not row.trained:
            self.sums["untrained_rows"] += 1
            _name(self.untrained, row)
        else:
            self.used.append(row.kept)
        if row.forged:
            self.sums["forged_rows"] += 1
            _name(self.forged, row)

    def _repeats(self, id: str, found: Found) -> None:
        for name, others, other in (
            ("duplicate_rows", self.duplicates, found.duplicate_of),
            ("conflict_rows", self.conflicts, found.same_prompt_as),
            ("leaked_rows", self.leaked, found.held_out_as),
        ):
            if other is not None:
                self.sums[name] += 1
                _name(others, Pair(id, other))

    def _worst(self) -> list[tuple[float, Row]]:
        return nsmallest(NAMED_ROWS, self.worst, key=lambda it: it[0])

    def audit(self, laid_out: bool = False) -> Audit:
        """The figures so far; with ``laid_out`` also ``layouts``, which look at all rows anew."""
        window = self.max_length or max(self.used, default=0)
        train = self.train
        lengths = _length_bars(self.lengths, self.max_length)
        return Audit(
            **self.sums,
            held_out_rows=self.repeats.held_out_rows,
            max_length=self.max_length,
            longest=max(self.lengths, default=0),
            lengths=lengths,
            shares=tuple(
                Bar(index / SHARES, (index + 1) / SHARES, self.shares[index])
                for index in range(SHARES if self.shares else 0)
            ),
            limits=self._limits([int(bar.stop) for bar in lengths]),
            worst=tuple(row for _, row in self._worst()),
            truncated=tuple(self.truncated),
            untrained=tuple(self.untrained),
            forged=tuple(self.forged),
            duplicates=tuple(self.duplicates),
            conflicts=tuple(self.conflicts),
            leaked=tuple(self.leaked),
            failures=tuple(self.failures),
            layouts=layouts(self.used, train.batch_size, window, seed=train.seed)
            if laid_out
            else None,
        )

    def _limits(self, limits: list[int]) -> tuple[Limit, ...]:
        """What each limit would keep; the limit in force is among them where it cuts anything."""
        if not limits:
            return ()
        top = limits[-1]
        own = [self.max_length] if self.max_length and self.max_length < top else []
        whole = list(accumulate(self.lengths[length] for length in range(top + 1)))
        kept = [0, *accumulate(self.places[place] for place in range(top))]
        return tuple(Limit(it, whole[it], kept[it]) for it in sorted({*limits, *own}))


def _name(named: list[T], item: T) -> None:
    if len(named) < NAMED_ROWS:
        named.append(item)


def _length_bars(lengths: Counter[int], limit: int | None) -> tuple[Bar, ...]:
    """Bars of equal, round width from 0 to the longest row, at most ``BINS`` of them."""
    if not lengths:
        return ()
    longest = max(lengths)
    width = next(w for w in _round_numbers() if longest // w < BINS)
    bars: Counter[int] = Counter()
    over: Counter[int] = Counter()
    for length, times in lengths.items():
        bars[length // width] += times
        if limit is not None and length > limit:
            over[length // width] += times
    return tuple(
        Bar(index * width, (index + 1) * width, bars[index], over[index])
        for index in range(longest // width + 1)
    )


def _round_numbers() -> Iterator[int]:
    """1, 2, 5, 10, 20, 50, ..."""
    return (digit * 10**power for power in count() for digit in (1, 2, 5))
