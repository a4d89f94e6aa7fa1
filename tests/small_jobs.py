"""Small jobs for the real compute process to carry out, and what tests of it need."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from sft_core.catalogue import BYTES_GPT
from sft_core.compute import Compute, Job
from sft_core.config import GenerateConfig, LabConfig, ModelConfig, TrainConfig
from sft_core.events import Event, PhaseEntered, RunFinished
from sft_core.execution import execute
from sft_core.lessons import FROM_SCRATCH
from sft_core.rundir import RunDirectory

WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Facts(Job):
    """Says what the process is like that it runs in."""

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        sys.stdout.write("what a library prints must not reach the caller's output\n")
        sys.stdout.flush()
        for fact in (os.getpid(), "torch" in sys.modules, "gradio" in sys.modules, os.nice(0)):
            yield PhaseEntered(phase=str(fact))


@dataclass(frozen=True, slots=True)
class Count(Job):
    """Counts until it is stopped, and leaves the last number in a file."""

    file: Path
    upto: int = 10**6
    pause: float = 0.02

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        for number in range(self.upto):
            self.file.write_text(str(number))
            yield PhaseEntered(phase=str(number))
            if should_stop():
                self.file.write_text("stopped")
                yield PhaseEntered(phase="stopped")
                return
            time.sleep(self.pause)
        self.file.write_text("end")


@dataclass(frozen=True, slots=True)
class LastingCount(Count):
    """The same, going on when nobody listens."""

    lasting: ClassVar[bool] = True

    def nothing_to_lose(self) -> bool:
        return False


@dataclass(frozen=True, slots=True)
class Deaf(Job):
    """Never asks whether it should stop, as a download that hangs does not."""

    note: Path

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        yield PhaseEntered(phase="deaf")
        time.sleep(WAIT)

    def stopped_early(self) -> None:
        self.note.write_text("stopped early")


@dataclass(frozen=True, slots=True)
class Fall(Job):
    """Ends on an error."""

    error: Exception

    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        yield PhaseEntered(phase="falling")
        raise self.error


class Here(Compute):
    """Carries jobs out in this process: for tests of what stands before a compute."""

    def conduct(self, job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
        yield from job.perform(stop)


def perform(job: Job) -> list[Event]:
    """All that a job says, carried out here."""
    return list(job.perform(lambda: False))


def phases(events: Iterable[Event]) -> list[str]:
    return [event.phase for event in events if isinstance(event, PhaseEntered)]


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT
    while not what():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def tiny(**train: Any) -> LabConfig:
    """A run of a few seconds: real rows, a real model, too small to learn much."""
    settings = {"max_steps": 6, "batch_size": 4, "eval_every": 3, "sample_every": 0, **train}
    return FROM_SCRATCH.but(
        model=ModelConfig(BYTES_GPT, width=16, depth=1, heads=2),
        train=TrainConfig(**settings),
        generate=GenerateConfig(max_new_tokens=4),
    )


def trained(folder: Path, **train: Any) -> RunDirectory:
    """A finished run, trained here."""
    directory = RunDirectory.create(folder, tiny(**train))
    events = list(execute(directory.config(), directory))
    assert isinstance(events[-1], RunFinished), events[-1]
    return directory
