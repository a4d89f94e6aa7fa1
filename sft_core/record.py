"""The record that a run's events make: what the page, the console and the figures read."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TypeVar

from sft_core.config import LabConfig
from sft_core.events import (
    EvalLogged,
    PhaseEntered,
    RunEvent,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunQueued,
    RunStarted,
    RunStopped,
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


class RunRecord:
    """A run as its events tell it. ``add`` is the only way that it grows."""

    __slots__ = ("_events", "config")

    def __init__(self, config: LabConfig, events: Iterable[RunEvent] = ()) -> None:
        self.config = config
        self._events: list[RunEvent] = []
        for event in events:
            self.add(event)

    def add(self, event: RunEvent) -> None:
        self._events.append(event)

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
        for event in reversed(self._events):
            match event:
                case RunFinished():
                    return RunStatus.FINISHED
                case RunStopped():
                    return RunStatus.STOPPED
                case RunFailed():
                    return RunStatus.FAILED
                case RunInterrupted():
                    return RunStatus.INTERRUPTED
                case RunStarted() | StepLogged():
                    return RunStatus.RUNNING
                case RunQueued():
                    return RunStatus.QUEUED
                case PhaseEntered() if self.last(RunStarted) is None:
                    return RunStatus.PREPARING
        return RunStatus.QUEUED

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
