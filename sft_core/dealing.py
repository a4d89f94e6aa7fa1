"""The order of a run: which rows make a batch, which batches a step, how many steps there are, and
how much of each batch would be padding if it were laid out in one way or another.

All of it follows from the lengths of the rows, so the page can know it without a tensor.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from sft_core.packing import Windows, pack
from sft_core.recipe import TrainConfig

Plan = tuple[tuple[int, ...], ...]
"""Batches as the positions of their rows."""

POOL_BATCHES: Final = 50
"""Rows are sorted by length within pools of at most so many batches."""
POOLS: Final = 4
"""A data set is dealt into at least so many pools, so that batches differ between epochs."""


def plan(
    lengths: Sequence[int],
    batch_size: int,
    *,
    seed: int,
    epoch: int = 0,
    group_by_length: bool = False,
    packing_window: int | None = None,
) -> Plan:
    """Deals every row into exactly one batch of ``batch_size``; the last one may be smaller.

    The same ``seed`` and ``epoch`` give the same plan on every machine. Companions are drawn at
    random. With a ``packing_window`` a batch is ``batch_size`` windows of so many tokens, filled
    with whole rows (``packing``); ``batch_windows`` says which rows share one. ``group_by_length``
    gives each batch rows of like length instead: the shuffled rows fall into pools, each pool is
    cut along its lengths, and the batches are shuffled again. That saves padding, but like
    lengths are like tasks, and steps that see one task at a time learn worse (a quarter of the
    answers on the six tasks).
    """
    if packing_window is not None:
        dealt = batch_windows(lengths, batch_size, packing_window, seed=seed, epoch=epoch)
        return tuple(tuple(row for window in batch for row in window) for batch in dealt)
    rng = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    rng.shuffle(order)
    if not group_by_length:
        return _cut(order, batch_size)
    # Only whole batches are shuffled, so a smaller one stays last and steps keep their size.
    rest = order[len(order) - len(order) % batch_size :]
    batches: list[tuple[int, ...]] = []
    for pool in _cut(order[: len(order) - len(rest)], _pool_size(len(order), batch_size)):
        batches += _cut(sorted(pool, key=lambda row: lengths[row]), batch_size)
    rng.shuffle(batches)
    return (*batches, *_cut(rest, batch_size))


def batch_windows(
    lengths: Sequence[int], batch_size: int, window: int, *, seed: int, epoch: int = 0
) -> tuple[Windows, ...]:
    """The windows of each batch of ``plan`` with that packing window. Raises DataError for a row
    that is longer than a window."""
    windows = pack(lengths, window, seed=seed, epoch=epoch).windows
    return tuple(windows[at : at + batch_size] for at in range(0, len(windows), batch_size))


def by_length(lengths: Sequence[int], batch_size: int) -> Plan:
    """Batches with the least padding, longest rows first, so that memory runs out at once or
    never. For evaluation, where the order of rows changes nothing."""
    return _cut(sorted(range(len(lengths)), key=lambda row: -lengths[row]), batch_size)


def _pool_size(rows: int, batch_size: int) -> int:
    batches = max(1, min(POOL_BATCHES, rows // batch_size // POOLS))
    return batches * batch_size


def _cut(rows: Sequence[int], size: int) -> Plan:
    return tuple(tuple(rows[at : at + size]) for at in range(0, len(rows), size))


# -- steps ------------------------------------------------------------------------------------


def epoch_plan(lengths: Sequence[int], train: TrainConfig, epoch: int) -> Plan:
    """The batches of one epoch of a run."""
    window = train.max_length if train.packing else None
    return plan(lengths, train.batch_size, seed=train.seed, epoch=epoch, packing_window=window)


def steps(lengths: Sequence[int], train: TrainConfig, total: int) -> Iterator[Plan]:
    """The batches of each of the first ``total`` optimiser steps of a run, epoch after epoch."""
    done = epoch = 0
    while done < total:
        dealt = epoch_plan(lengths, train, epoch)
        for at in range(0, len(dealt), train.accumulation):
            if done < total:
                yield dealt[at : at + train.accumulation]
                done += 1
        epoch += 1


def steps_an_epoch(lengths: Sequence[int], train: TrainConfig, epoch: int = 0) -> int:
    """How many optimiser steps one epoch takes: with packing, epochs can differ by a few."""
    if not train.packing:
        return expected_steps_an_epoch(train, len(lengths))
    windows = len(pack(lengths, train.max_length, seed=train.seed, epoch=epoch).windows)
    return _steps_of(windows, train)


def total_steps(lengths: Sequence[int], train: TrainConfig) -> int:
    """How many optimiser steps a run takes. Every epoch is dealt where rows are packed, so that
    the last one ends where its rows do."""
    if train.max_steps is not None or not train.packing:
        return expected_steps(train, len(lengths))
    whole = int(train.epochs)
    found = sum(steps_an_epoch(lengths, train, epoch) for epoch in range(whole))
    part = train.epochs - whole
    return found + (math.ceil(part * steps_an_epoch(lengths, train, whole)) if part else 0)


def expected_steps(train: TrainConfig, rows: int, mean_length: float | None = None) -> int:
    """How many optimiser steps a run over ``rows`` rows takes, as far as that is known before
    their lengths are. Exact without packing; with it, windows of rows of ``mean_length`` tokens
    that are filled to the brim, or where that is not known one row a window: never too few."""
    if train.max_steps is not None:
        return train.max_steps
    return max(1, math.ceil(train.epochs * expected_steps_an_epoch(train, rows, mean_length)))


def expected_steps_an_epoch(train: TrainConfig, rows: int, mean_length: float | None = None) -> int:
    """The same for one epoch."""
    if train.packing and mean_length is not None:
        rows = math.ceil(rows * mean_length / train.max_length)
    return _steps_of(rows, train)


def _steps_of(units: int, train: TrainConfig) -> int:
    """``units`` are rows, or windows where they are packed."""
    return max(1, math.ceil(math.ceil(units / train.batch_size) / train.accumulation))


# -- what padding costs -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Waste:
    """``slots`` positions were computed for ``tokens`` tokens."""

    tokens: int
    slots: int

    @property
    def share(self) -> float:
        """The share of positions that hold padding, in [0, 1]."""
        return 1 - self.tokens / self.slots if self.slots else 0.0


def waste(lengths: Sequence[int], dealt: Plan) -> Waste:
    """What padding each batch of ``dealt`` to its longest row wastes."""
    slots = sum(len(rows) * max(lengths[row] for row in rows) for rows in dealt)
    return Waste(sum(lengths[row] for rows in dealt for row in rows), slots)


def waste_at(lengths: Sequence[int], length: int) -> Waste:
    """What padding every row to one fixed ``length`` wastes; longer rows are cut off there."""
    return Waste(sum(min(size, length) for size in lengths), len(lengths) * length)


@dataclass(frozen=True, slots=True)
class Layouts:
    """The places that one epoch of ``rows`` rows with ``tokens`` tokens takes, laid out in batches
    of ``batch_size`` in four ways: every row padded to ``window``; to the longest row of its batch;
    the same with rows of like length together; packed into ``windows`` windows. The lab itself
    lays the rows of a batch end to end, which takes as many places as there are tokens."""

    rows: int
    tokens: int
    shortest: int
    longest: int
    batch_size: int
    window: int
    windows: int
    to_window: int
    to_longest: int
    grouped: int
    packed: int

    def empty(self, slots: int) -> float:
        """The share of ``slots`` places that hold no token, in [0, 1]."""
        return Waste(self.tokens, slots).share

    def table(self) -> tuple[tuple[str, int, float], ...]:
        """(layout, places, share of them that is empty), the most wasteful first."""
        ways = (
            ("padded to the limit", self.to_window),
            ("padded to each batch's longest", self.to_longest),
            ("padded, like lengths together", self.grouped),
            ("packed", self.packed),
            ("end to end, as the lab computes", self.tokens),
        )
        return tuple((name, slots, self.empty(slots)) for name, slots in ways)

    def sentence(self) -> str:
        """The figures in words."""
        span = f"{self.shortest:,}"
        if self.longest > self.shortest:
            span += f" to {self.longest:,}"
        limit, longest, packed = (
            percent(self.empty(slots)) for slots in (self.to_window, self.to_longest, self.packed)
        )
        return (
            f"{self.rows:,} row{'s'[: self.rows != 1]} of {span} tokens in {self.window:,}: padded "
            f"to the limit {limit} of the places are empty, padded to each batch's longest "
            f"{longest}, packed {packed}."
        )


def layouts(
    lengths: Sequence[int], batch_size: int, window: int, *, seed: int, epoch: int = 0
) -> Layouts | None:
    """What each layout takes for rows of these lengths, longer ones cut to ``window``; None where
    there are no rows."""
    if not lengths:
        return None
    kept = [min(length, window) for length in lengths]
    loose = plan(kept, batch_size, seed=seed, epoch=epoch)
    grouped = plan(kept, batch_size, seed=seed, epoch=epoch, group_by_length=True)
    packed = pack(kept, window, seed=seed, epoch=epoch)
    return Layouts(
        rows=len(kept),
        tokens=sum(kept),
        shortest=min(kept),
        longest=max(kept),
        batch_size=batch_size,
        window=window,
        windows=len(packed.windows),
        to_window=waste_at(kept, window).slots,
        to_longest=waste(kept, loose).slots,
        grouped=waste(kept, grouped).slots,
        packed=packed.slots,
    )


def percent(part: float) -> str:
    """A share of one in words: "0.4 %", "88 %"."""
    if 0 < part < 0.001:
        return "under 0.1 %"
    return f"{100 * part:.{1 if 0 < part < 0.0995 else 0}f} %"
