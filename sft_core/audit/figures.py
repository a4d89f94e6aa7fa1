"""The figures of a data set, as values. All counts; shares lie in [0, 1]."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Final

from sft_core.dealing import Layouts

NAMED_ROWS: Final = 20
"""How many rows of each kind are named; all are counted."""
BINS: Final = 24
"""How many bars a histogram of lengths has at most."""
SHARES: Final = 10
"""How many bars the histogram of trained shares has, from 0 to 1."""


@dataclass(frozen=True, slots=True)
class Bar:
    """``rows`` rows have a value of at least ``start`` and less than ``stop``; in the last bar of
    shares, 1 is included. ``over`` of them are longer than the length limit."""

    start: float
    stop: float
    rows: int
    over: int = 0


@dataclass(frozen=True, slots=True)
class Limit:
    """With a length limit of ``tokens``, ``rows`` rows would stay whole, and ``trained`` trained
    tokens would be kept."""

    tokens: int
    rows: int
    trained: int


@dataclass(frozen=True, slots=True)
class Row:
    """A row by its id, with its figures.

    ``tokens`` counts the whole row, ``kept`` those within the length limit; ``trained`` of the
    kept ones are trained, and ``lost`` trained tokens fall behind the limit. ``forged`` tokens
    spell a special token inside a message. ``duplicate_of`` is an earlier row that says exactly
    the same, ``same_prompt_as`` an earlier row that answers the same prompt otherwise, and
    ``held_out_as`` a held-out row whose prompt this row answers, at its end or on the way. A row
    that cannot be rendered or encoded has an ``error`` and no counts.
    """

    row: str
    tokens: int = 0
    kept: int = 0
    trained: int = 0
    lost: int = 0
    forged: int = 0
    duplicate_of: str | None = None
    same_prompt_as: str | None = None
    held_out_as: str | None = None
    error: str | None = None

    @property
    def share(self) -> float:
        """Trained tokens among the kept ones; 0 where none is kept."""
        return self.trained / self.kept if self.kept else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """A row that cannot be rendered or encoded, and why."""

    row: str
    message: str


@dataclass(frozen=True, slots=True)
class Pair:
    """A row, and the one that stood before it (or is held out) and says the same."""

    row: str
    other: str


@dataclass(frozen=True, slots=True)
class Audit:
    """Figures over ``rows`` rows; those that failed are in ``failed`` and in no other figure but
    those of repeats, which look at what a row says and not at its tokens.

    ``tokens`` and ``trained_tokens`` count what is kept within ``max_length``. ``lengths`` counts
    whole rows, before anything is cut off; ``longest`` is the longest of them, in tokens.
    ``limits`` says what other length limits would keep. Rows in ``worst`` have the smallest
    trained share. Lists of rows are cut at ``NAMED_ROWS``.

    ``duplicate_rows`` repeat an earlier row exactly; ``conflict_rows`` answer an earlier row's
    prompt otherwise; ``leaked_rows`` answer the prompt of one of the ``held_out_rows``, which then
    no longer measure what a model has not seen.

    ``layouts`` says what padding and packing would take for the rows that training would use; it is
    worked out once all rows were counted, and None before, or where there are no such rows.
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
    duplicate_rows: int = 0
    conflict_rows: int = 0
    leaked_rows: int = 0
    held_out_rows: int = 0
    lengths: tuple[Bar, ...] = ()
    shares: tuple[Bar, ...] = ()
    limits: tuple[Limit, ...] = ()
    worst: tuple[Row, ...] = ()
    truncated: tuple[Row, ...] = ()
    untrained: tuple[Row, ...] = ()
    forged: tuple[Row, ...] = ()
    duplicates: tuple[Pair, ...] = ()
    conflicts: tuple[Pair, ...] = ()
    leaked: tuple[Pair, ...] = ()
    failures: tuple[Failure, ...] = ()
    layouts: Layouts | None = None

    @property
    def done(self) -> int:
        """Rows that could be rendered and encoded."""
        return self.rows - self.failed

    @property
    def trained_share(self) -> float:
        """Trained tokens among the kept ones; 0 where there are none."""
        return self.trained_tokens / self.tokens if self.tokens else 0.0

    @property
    def lost_share(self) -> float:
        """Of all trained tokens, those that fall behind the limit; 0 where there are none."""
        whole = self.trained_tokens + self.dropped_trained_tokens
        return self.dropped_trained_tokens / whole if whole else 0.0

    @property
    def mean_length(self) -> float:
        """Kept tokens a row; 0 where there are no rows."""
        return self.tokens / self.done if self.done else 0.0

    def derived(self) -> dict[str, float]:
        """What follows from the counts, by name."""
        names = ("trained_share", "lost_share", "mean_length")
        return {name: getattr(self, name) for name in names}

    def to_json(self, indent: int | None = 2) -> str:
        return json.dumps({**asdict(self), **self.derived()}, indent=indent, ensure_ascii=False)
