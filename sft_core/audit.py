"""What a whole data set looks like to training: lengths, the trained share, and which rows fail.

``progress`` goes through the rows once and gives a fresh ``Audit`` now and then, so that a page
can show figures while they grow; memory does not grow with the rows. ``audit`` gives the last one.
"""

from __future__ import annotations

import json
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from heapq import nsmallest
from itertools import count, tee
from typing import Final, TypeVar

from sft_core import sandbox
from sft_core.config import MaskPolicy
from sft_core.encode import encode_many
from sft_core.tokenizer import Tokenizer
from sft_core.types import Encoded, Example, LabError, Template

T = TypeVar("T")

NAMED_ROWS: Final = 20
"""How many rows of each kind are named; all are counted."""
BINS: Final = 24
"""How many bars a histogram of lengths has at most."""
SHARES: Final = 10
"""How many bars the histogram of trained shares has, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Bar:
    """``rows`` rows have a value of at least ``start`` and less than ``stop``; in the last bar of
    shares, 1 is included."""

    start: float
    stop: float
    rows: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its id, with its figures. ``lost`` trained tokens fall behind the limit."""

    row: str
    tokens: int
    trained: int
    lost: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that cannot be rendered or encoded, and why."""

    row: str
    message: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Figures over ``rows`` rows; those that failed are in ``failed`` and in no other figure.

    ``tokens`` and ``trained_tokens`` count what is kept within ``max_length``. ``lengths`` counts
    whole rows, before anything is cut off; ``longest`` is the longest of them, in tokens. Rows in
    ``worst`` have the smallest trained share. Lists of rows are cut at ``NAMED_ROWS``.
    """

    rows: int = 0
    failed: int = 0
    tokens: int = 0
    trained_tokens: int = 0
    dropped_tokens: int = 0
    dropped_trained_tokens: int = 0
    longest: int = 0
    max_length: int | None = None
    truncated_rows: int = 0
    untrained_rows: int = 0
    forged_rows: int = 0
    lengths: tuple[Bar, ...] = ()
    shares: tuple[Bar, ...] = ()
    worst: tuple[Row, ...] = ()
    truncated: tuple[Row, ...] = ()
    untrained: tuple[str, ...] = ()
    forged: tuple[str, ...] = ()
    failures: tuple[Failure, ...] = ()

    @property
    def trained_share(self) -> float:
        """Trained tokens among the kept ones, in [0, 1]; 0 where there are none."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    @property
    def mean_length(self) -> float:
        """Kept tokens a row; 0 where there are no rows."""
        done = self.rows - self.failed
        return self.tokens / done if done else 0.0

    def to_json(self, indent: int | None = 2) -> str:
        derived = {"trained_share": self.trained_share, "mean_length": self.mean_length}
        return json.dumps({**asdict(self), **derived}, indent=indent, ensure_ascii=False)


def audit(
    examples: Iterable[Example],
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
) -> Audit:
    """The figures of all rows. Rows that fail are counted and named, and stop nothing."""
    return deque(progress(examples, template, tokenizer, policy, max_length), maxlen=1).pop()


def progress(
    examples: Iterable[Example],
    template: Template,
    tokenizer: Tokenizer,
    policy: MaskPolicy,
    max_length: int | None = None,
    every: int = 500,
) -> Iterator[Audit]:
    """The figures after each ``every`` rows, and at the end."""
    ours, theirs = tee(examples)
    rendered = sandbox.render_many(template, theirs, tokenizer.special_tokens)
    results = encode_many(rendered, tokenizer, policy, max_length)
    tally = _Tally(max_length)
    for example, result in zip(ours, results, strict=True):
        tally.add(example.id, result)
        if tally.sums["rows"] % every == 0:
            yield tally.audit()
    if tally.sums["rows"] % every or not tally.sums["rows"]:
        yield tally.audit()


class _Tally:
    """Sums so far; ``sums`` are counted under the names that they have in ``Audit``."""

    def __init__(self, max_length: int | None) -> None:
        self.max_length = max_length
        self.sums: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self.shares: Counter[int] = Counter()
        self.worst: list[tuple[float, Row]] = []
        self.truncated: list[Row] = []
        self.untrained: list[str] = []
        self.forged: list[str] = []
        self.failures: list[Failure] = []

    def add(self, id: str, result: Encoded | LabError) -> None:
        self.sums["rows"] += 1
        if isinstance(result, LabError):
            self.sums["failed"] += 1
            _name(self.failures, Failure(id, str(result)))
            return
        dropped, lost = result.beyond
        row = Row(id, len(result) + dropped, result.trained, lost)
        share = row.trained / len(result) if len(result) else 0.0
        self._count(result, row)
        self.lengths[row.tokens] += 1
        self.shares[min(int(share * SHARES), SHARES - 1)] += 1
        self.worst.append((share, row))
        if len(self.worst) > 2 * NAMED_ROWS:
            self.worst = self._worst()

    def _count(self, result: Encoded, row: Row) -> None:
        self.sums["tokens"] += len(result)
        self.sums["trained_tokens"] += row.trained
        self.sums["dropped_tokens"] += row.tokens - len(result)
        self.sums["dropped_trained_tokens"] += row.lost
        if row.tokens > len(result):
            self.sums["truncated_rows"] += 1
            _name(self.truncated, row)
        if not row.trained:
            self.sums["untrained_rows"] += 1
            _name(self.untrained, row.row)
        if result.forged:
            self.sums["forged_rows"] += 1
            _name(self.forged, row.row)

    def _worst(self) -> list[tuple[float, Row]]:
        return nsmallest(NAMED_ROWS, self.worst, key=lambda it: it[0])

    def audit(self) -> Audit:
        return Audit(
            **self.sums,
            max_length=self.max_length,
            longest=max(self.lengths, default=0),
            lengths=_length_bars(self.lengths),
            shares=tuple(
                Bar(index / SHARES, (index + 1) / SHARES, self.shares[index])
                for index in range(SHARES if self.shares else 0)
            ),
            worst=tuple(row for _, row in self._worst()),
            truncated=tuple(self.truncated),
            untrained=tuple(self.untrained),
            forged=tuple(self.forged),
            failures=tuple(self.failures),
        )


def _name(named: list[T], item: T) -> None:
    if len(named) < NAMED_ROWS:
        named.append(item)


def _length_bars(lengths: Counter[int]) -> tuple[Bar, ...]:
    """Bars of equal, round width from 0 to the longest row, at most ``BINS`` of them."""
    if not lengths:
        return ()
    longest = max(lengths)
    width = next(w for w in _round_numbers() if longest // w < BINS)
    bars: Counter[int] = Counter()
    for length, rows in lengths.items():
        bars[length // width] += rows
    return tuple(
        Bar(index * width, (index + 1) * width, bars[index])
        for index in range(longest // width + 1)
    )


def _round_numbers() -> Iterator[int]:
    """1, 2, 5, 10, 20, 50, ..."""
    return (digit * 10**power for power in count() for digit in (1, 2, 5))
