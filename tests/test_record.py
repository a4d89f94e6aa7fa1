"""A run's record follows from its events alone."""

from __future__ import annotations

import pytest

from sft_core.config import LabConfig
from sft_core.events import (
    EvalLogged,
    PhaseEntered,
    RunEvent,
    RunFailed,
    RunInterrupted,
    RunStopped,
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
