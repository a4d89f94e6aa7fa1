"""A run's record follows from its events alone."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sft_core.config import LabConfig
from sft_core.events import (
    EvalLogged,
    PhaseEntered,
    RunEvent,
    RunFailed,
    RunInterrupted,
    RunStopped,
    StepLogged,
    is_end,
)
from sft_core.record import RunRecord, RunStatus
from tests.test_events import EVENTS, QUEUED, STARTED, STEP

STOPPED = RunStopped(step=2, reason="asked", run_dir="d")
FAILED = RunFailed(kind="TrainingError", message="x", run_dir="d")
INTERRUPTED = RunInterrupted(message="x", run_dir="d")


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ([], RunStatus.QUEUED),
        ([QUEUED], RunStatus.QUEUED),
        ([QUEUED, PhaseEntered(phase="Loading")], RunStatus.PREPARING),
        ([QUEUED, STARTED], RunStatus.RUNNING),
        ([QUEUED, STARTED, STEP, PhaseEntered(phase="Scoring")], RunStatus.RUNNING),
        ([STARTED, STEP, EVENTS[7]], RunStatus.FINISHED),
        ([STARTED, STOPPED], RunStatus.STOPPED),
        ([FAILED], RunStatus.FAILED),
        ([STARTED, INTERRUPTED], RunStatus.INTERRUPTED),
        ([STARTED, STOPPED, QUEUED], RunStatus.QUEUED),
        ([STARTED, STOPPED, PhaseEntered(phase="Loading")], RunStatus.PREPARING),
        ([STARTED, STOPPED, QUEUED, PhaseEntered(phase="Loading")], RunStatus.PREPARING),
        ([STARTED, STOPPED, QUEUED, STARTED], RunStatus.RUNNING),
        ([STARTED, STOPPED, QUEUED, STOPPED], RunStatus.STOPPED),
    ],
)
def test_the_status_follows_from_the_events(events: list[RunEvent], status: RunStatus) -> None:
    record = RunRecord(LabConfig(), events)
    assert record.status is status
    assert status.over == (bool(events) and is_end(events[-1]))


def test_a_record_finds_its_best_evaluation() -> None:
    record = RunRecord(LabConfig(), [STARTED, STEP])
    assert record.best_eval is None
    for step, loss in ((1, 2.0), (2, 1.0), (3, 1.5)):
        record.add(EvalLogged(step=step, loss=loss, trained_tokens=9, best=loss < 2))
    assert record.best_eval is not None
    assert (record.best_eval.step, record.step, record.total_steps) == (2, 2, 3)


def test_a_resumed_run_tells_each_step_once() -> None:
    """Killed after step 5, resumed after step 3, where the state had been saved."""

    def steps(*numbers: int, loss: float) -> list[RunEvent]:
        return [replace(STEP, step=number, loss=loss) for number in numbers]

    def look(step: int, loss: float) -> EvalLogged:
        return EvalLogged(step=step, loss=loss, trained_tokens=9, best=False)

    record = RunRecord(LabConfig(), [STARTED, look(0, 9), *steps(1, 2, 3, loss=1), look(3, 1)])
    for event in (*steps(4, 5, loss=1), look(4, 1), INTERRUPTED, QUEUED):
        record.add(event)
    assert record.step == 5
    heard = record.heard
    record.add(replace(STARTED, resumed_from=3))
    assert (record.step, record.status, record.heard) == (3, RunStatus.RUNNING, heard + 1)
    for event in (look(3, 2), *steps(4, 5, 6, loss=2), look(4, 2)):
        record.add(event)
    told = [(event.step, event.loss) for event in record.of(StepLogged)]
    assert told == [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (6, 2)]
    assert [(event.step, event.loss) for event in record.of(EvalLogged)] == [(0, 9), (3, 2), (4, 2)]


def test_a_run_that_began_anew_in_its_place_tells_each_look_once() -> None:
    look = EvalLogged(step=0, loss=9.0, trained_tokens=9, best=False)
    record = RunRecord(LabConfig(), [STARTED, look, STEP, INTERRUPTED, STARTED, look])
    assert len(record.of(EvalLogged)) == 1
    assert record.step == 0


def test_a_run_that_was_not_resumed_keeps_every_look() -> None:
    twice = [EvalLogged(step=2, loss=1.0, trained_tokens=9, best=True)] * 2
    assert len(RunRecord(LabConfig(), [STARTED, STEP, *twice]).of(EvalLogged)) == 2
