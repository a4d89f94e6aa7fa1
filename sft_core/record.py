"""The record that a run's events make: what the page, the console and the figures read."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final, TypeVar

from sft_core.config import LabConfig
from sft_core.events import (
    CheckpointSaved,
    EvalLogged,
    PhaseEntered,
    RunEvent,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunQueued,
    RunStarted,
    RunStopped,
    SampleGenerated,
    ScoreLogged,
    StepLogged,
)

E = TypeVar("E")


class RunStatus(StrEnum):
    """Where a run stands."""

    QUEUED = "queued"
    PREPARING = "preparing"
    RUNNING = "running"
    FINISHED = "finished"
    STOPPED = "stopped"
    FAILED = "failed"
    INTERRUPTED = "interrupted"

    @property
    def over(self) -> bool:
        return self not in (RunStatus.QUEUED, RunStatus.PREPARING, RunStatus.RUNNING)


_ENDS: Final[dict[type, RunStatus]] = {
    RunFinished: RunStatus.FINISHED,
    RunStopped: RunStatus.STOPPED,
    RunFailed: RunStatus.FAILED,
    RunInterrupted: RunStatus.INTERRUPTED,
}
_OF_A_STEP = StepLogged | EvalLogged | ScoreLogged | SampleGenerated | CheckpointSaved


class RunRecord:
    """A run as its events tell it. ``add`` is the only way that it grows.

    A run that was resumed goes on from an earlier step than the one that it was killed after. What
    the log tells of the steps between is superseded, and the record lets go of it: each step is
    there once. ``heard`` counts every event all the same.
    """

    __slots__ = ("_events", "_resumed", "config", "heard")

    def __init__(self, config: LabConfig, events: Iterable[RunEvent] = ()) -> None:
        self.config = config
        self.heard = 0
        self._events: list[RunEvent] = []
        self._resumed = (
            -1
        )  # the step that the latest process went on from, where there were several
        for event in events:
            self.add(event)

    def add(self, event: RunEvent) -> None:
        self.heard += 1
        if isinstance(event, RunStarted) and self.last(RunStarted) is not None:
            self._go_back(event.resumed_from)
        elif isinstance(event, EvalLogged | ScoreLogged | SampleGenerated):
            self._replace(event)
        self._events.append(event)

    def _go_back(self, step: int) -> None:
        """Lets go of what happened after ``step``."""
        self._resumed = step
        self._events = [
            event
            for event in self._events
            if not (isinstance(event, _OF_A_STEP) and event.step > step)
        ]

    def _replace(self, event: EvalLogged | ScoreLogged | SampleGenerated) -> None:
        """Lets go of what ``event`` tells once more: a look at the model that the process before
        had begun is begun again."""
        if event.step <= self._resumed:
            again = _identity(event)
            self._events = [known for known in self._events if _identity(known) != again]

    def __len__(self) -> int:
        return len(self._events)

    @property
    def events(self) -> tuple[RunEvent, ...]:
        return tuple(self._events)

    def of(self, kind: type[E]) -> tuple[E, ...]:
        """The events of one class, in order."""
        return tuple(event for event in self._events if isinstance(event, kind))

    def last(self, kind: type[E]) -> E | None:
        """The latest event of one class."""
        for event in reversed(self._events):
            if isinstance(event, kind):
                return event
        return None

    @property
    def status(self) -> RunStatus:
        preparing = False  # a phase after an end is that of a run that is resumed
        for event in reversed(self._events):
            match event:
                case PhaseEntered():
                    preparing = True
                case RunStarted() | StepLogged():
                    return RunStatus.RUNNING
                case RunQueued():
                    break
                case RunFinished() | RunStopped() | RunFailed() | RunInterrupted():
                    return RunStatus.PREPARING if preparing else _ENDS[type(event)]
        return RunStatus.PREPARING if preparing else RunStatus.QUEUED

    @property
    def step(self) -> int:
        """The last step that was logged."""
        event = self.last(StepLogged)
        return event.step if event else 0

    @property
    def total_steps(self) -> int:
        """How many steps the run will take; 0 until it has started."""
        event = self.last(RunStarted)
        return event.total_steps if event else 0

    @property
    def best_eval(self) -> EvalLogged | None:
        """The evaluation with the lowest loss."""
        return min(self.of(EvalLogged), key=lambda event: event.loss, default=None)


def _identity(event: RunEvent) -> tuple[object, ...]:
    """What tells one look at the model from another."""
    match event:
        case EvalLogged(step=step) | ScoreLogged(step=step):
            return type(event), step
        case SampleGenerated(step=step, prompt=prompt):
            return type(event), step, prompt
    return (id(event),)
