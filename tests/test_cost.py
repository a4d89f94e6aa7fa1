"""Hours and price of a longer run follow from a measured one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sft_core.config import LabConfig
from sft_core.console import costs
from sft_core.cost import estimate
from sft_core.events import RunStarted, StepLogged
from sft_core.record import RunRecord
from sft_core.types import ConfigError, DataError
from tests.test_events import STARTED, STEP

BEGAN = replace(
    STARTED,
    train_rows=100,
    tokens=5_000,
    trained_tokens=1_000,
    total_steps=20,
    resumed_from=0,
    time=1000.0,
)


def record(*rates: float, seconds: float = 20.0, start: RunStarted = BEGAN) -> RunRecord:
    """Steps of a tenth of an epoch (500 tokens) that took ``seconds`` in all."""
    steps = [
        replace(
            STEP,
            step=number,
            epoch=number / 10,
            tokens_per_second=rate,
            time=1000.0 + seconds * number / len(rates),
        )
        for number, rate in enumerate(rates, 1)
    ]
    return RunRecord(LabConfig(), [start, *steps])


def test_the_run_itself_costs_what_it_took() -> None:
    # 10 steps of 500 tokens at 250 a second are 20 seconds, and it took 30.
    found = estimate(record(*[250.0] * 10, seconds=30.0), 36.0)
    assert (found.tokens, found.rows, found.epochs) == (10_000, 100, 2.0)
    assert found.beside == pytest.approx(1.5)
    assert found.hours == pytest.approx(60 / 3600)
    assert found.price == pytest.approx(0.6)
    assert found.trained_rate == pytest.approx(50.0)


def test_more_rows_epochs_and_devices() -> None:
    measured = record(*[250.0] * 10)
    found = estimate(measured, 2.0, rows=1_000_000, epochs=3, gpus=4, speedup=50)
    assert found.tokens == 150_000_000
    assert found.hours == pytest.approx(150_000_000 / 250 / 200 / 3600)
    assert found.price == pytest.approx(2 * found.hours)
    told = costs(found)
    assert "150,000,000 tokens: 1,000,000 rows of 50.0 tokens, 3 epochs" in told
    assert "4 devices, each 50 times" in told
    assert told.startswith(f"{found.hours:,.2f} hours, {found.price:,.2f} at 2 an hour")


def test_one_slow_step_does_not_set_the_rate() -> None:
    assert estimate(record(1.0, *[250.0] * 9), 1.0).rate == 250.0


@pytest.mark.parametrize(
    "wrong", [{"rows": 0}, {"epochs": -1.0}, {"gpus": 0}, {"speedup": 0.0}], ids=str
)
def test_numbers_that_make_no_sense(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(wrong))} must be more than 0"):
        estimate(record(250.0, 250.0), 1.0, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="cannot be negative"):
        estimate(record(250.0, 250.0), -1.0)


@pytest.mark.parametrize(
    "empty",
    [
        RunRecord(LabConfig()),
        RunRecord(LabConfig(), [BEGAN]),
        record(250.0),
    ],
    ids=["nothing", "no step", "one step"],
)
def test_a_run_without_a_rate(empty: RunRecord) -> None:
    with pytest.raises(DataError, match="no two steps"):
        estimate(empty, 1.0)


def test_steps_before_the_latest_start_do_not_count() -> None:
    events = [replace(STEP, step=9, tokens_per_second=9.0, time=1.0), *record(250.0, 250.0).events]
    found = RunRecord(LabConfig(), events)
    assert len(found.of(StepLogged)) == 3
    assert estimate(found, 1.0).rate == 250.0
