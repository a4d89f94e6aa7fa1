"""What a job is, and what carries jobs out.

A ``Job`` is a small frozen value that crosses process borders; ``perform`` does its work in
whichever process it is in. ``jobs.py`` has the lab's own. A ``Compute`` carries jobs out;
``worker.py`` and ``zerogpu.py`` hold the two that there are.
"""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from sft_core.disk import explain
from sft_core.events import Event
from sft_core.rundir import never
from sft_core.settings import Host
from sft_core.types import LabError

log = logging.getLogger(__name__)


class Job(ABC):
    """One piece of work. Subclasses are frozen dataclasses of plain values."""

    __slots__ = ()
    lasting: ClassVar[bool] = False
    """Whether the job goes on when nobody listens to it any more."""

    @abstractmethod
    def perform(self, should_stop: Callable[[], bool]) -> Iterator[Event]:
        """Does the work here and now. ``should_stop`` is asked as often as work can end."""

    def check(self, host: Host) -> None:  # noqa: B027
        """Raises LimitError where ``host`` does not allow the job."""

    def uses(self, run_dir: Path) -> bool:
        """Whether the job reads or writes that run."""
        return False

    def gpu_seconds(self) -> float:
        """How long the job may take on a GPU that is lent by the second, estimated upwards."""
        return 60.0

    def within(self, seconds: float) -> Self:
        """The same job, made to end by itself within ``seconds``."""
        return self

    def nothing_to_lose(self) -> bool:
        """Whether killing the job now loses nothing that anybody wants. Asked in the parent."""
        return True

    def stopped_early(self) -> None:  # noqa: B027
        """Called in the parent where the job was stopped and could not say so itself."""

    def died(self, message: str) -> None:  # noqa: B027
        """Called in the parent where the process that carried the job out is gone."""


@dataclass(frozen=True, slots=True)
class Problem:
    """What a job ended on, as a value: exceptions do not cross every process border whole."""

    error: LabError


def guarded(job: Job, should_stop: Callable[[], bool]) -> Iterator[Event | Problem]:
    """A job's events. Never raises: an exception becomes the last item, and one that nobody
    foresaw is logged whole."""
    try:
        yield from job.perform(should_stop)
    except LabError as error:
        yield Problem(error)
    except Exception as error:
        log.exception("%s failed", type(job).__name__)
        yield Problem(LabError(explain(error)))


class Compute(ABC):
    """Where jobs are carried out, one at a time."""

    def run(self, job: Job, should_stop: Callable[[], bool] = never) -> Iterator[Event]:
        """Carries a job out and yields its events as they happen.

        ``should_stop`` is asked several times a second. Closing the iterator stops the job,
        unless the job is ``lasting``: then it goes on without a listener. Raises the job's
        LabError, or WorkerDiedError where the process that carried it out is gone.
        """
        abandoned = threading.Event()
        events = self.conduct(job, lambda: abandoned.is_set() or should_stop())
        try:
            for event in events:  # noqa: UP028 - closing this must not close what is underneath
                yield event
        except GeneratorExit:
            if not job.lasting:
                abandoned.set()
            threading.Thread(target=_see_off, args=(events,), daemon=True).start()
            raise

    @abstractmethod
    def conduct(self, job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
        """One job from start to end. ``run`` sees to it that this iterator is always used up."""

    def warm(self) -> None:  # noqa: B027
        """Gets ready ahead of the first job."""

    def close(self) -> None:  # noqa: B027
        """Stops what is running and frees everything."""


def _see_off(events: Iterator[Event]) -> None:
    """Hears a job out that nobody listens to any more."""
    try:
        for _ in events:
            pass
    except LabError as error:
        log.info("A job without a listener ended: %s", error)
