"""What a longer run would take, from the log of one that was measured."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import Final

from sft_core.events import RunStarted, StepLogged
from sft_core.record import RunRecord
from sft_core.types import ConfigError, DataError

SECONDS: Final = 3600
"""In an hour."""


@dataclass(frozen=True, slots=True)
class Cost:
    """``tokens`` are processed in all, answers and what stands around them, padding not counted;
    ``rate`` is what the measured run did a second in training, ``beside`` how much longer it took
    with evaluation, samples and saving (1 is nothing). ``price`` is in the currency of
    ``price_per_hour``, which is for the whole machine."""

    tokens: int
    rows: int
    tokens_per_row: float
    epochs: float
    rate: float
    trained_rate: float
    beside: float
    gpus: int
    speedup: float
    hours: float
    price_per_hour: float
    price: float


def estimate(
    record: RunRecord,
    price_per_hour: float,
    *,
    rows: int | None = None,
    epochs: float | None = None,
    gpus: int = 1,
    speedup: float = 1.0,
) -> Cost:
    """What ``rows`` (default: those of the run) for so many ``epochs`` would take on ``gpus``
    devices that are each ``speedup`` times as fast as the one that was measured.

    Raises DataError where the run logged no step to measure, ConfigError for a number that makes
    no sense.
    """
    _sensible(price_per_hour, rows, epochs, gpus, speedup)
    started, steps = _measured(record)
    rate = median(step.tokens_per_second for step in steps)
    first, last = steps[0], steps[-1]
    # What comes before the first step comes once, however long a run is, so it is left out.
    learning = (last.epoch - first.epoch) * started.tokens / rate
    beside = max(1.0, (last.time - first.time) / learning)
    per_row = started.tokens / started.train_rows
    rows = started.train_rows if rows is None else rows
    if epochs is None:
        epochs = started.total_steps / last.step * last.epoch
    tokens = round(per_row * rows * epochs)
    hours = tokens / rate * beside / (gpus * speedup) / SECONDS
    return Cost(
        tokens=tokens,
        rows=rows,
        tokens_per_row=per_row,
        epochs=epochs,
        rate=rate,
        trained_rate=rate * started.trained_tokens / started.tokens,
        beside=beside,
        gpus=gpus,
        speedup=speedup,
        hours=hours,
        price_per_hour=price_per_hour,
        price=hours * price_per_hour,
    )


def _sensible(
    price: float, rows: int | None, epochs: float | None, gpus: int, speedup: float
) -> None:
    if price < 0:
        raise ConfigError("The price of an hour cannot be negative.")
    wrong = [
        name
        for name, number in (("rows", rows), ("epochs", epochs), ("gpus", gpus))
        if number is not None and number <= 0
    ]
    if wrong or speedup <= 0:
        raise ConfigError(f"{(wrong or ['speedup'])[0]} must be more than 0.")


def _measured(record: RunRecord) -> tuple[RunStarted, tuple[StepLogged, ...]]:
    """The latest start of a run and the steps that it logged since."""
    started = record.last(RunStarted)
    since = record.of(StepLogged)
    if started is not None:
        since = tuple(step for step in since if step.time >= started.time)
    if started is None or len(since) < 2:
        raise DataError(
            "This run logged no two steps, so there is no rate to measure. Train a few steps "
            "first (--set max_steps=50)."
        )
    return started, since
