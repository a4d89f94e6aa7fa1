"""The queue before the compute process: one job at a time, first come, first served, bounded."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from dataclasses import dataclass, field
from typing import Final

from sft_core.compute import Compute, Job
from sft_core.disk import explain
from sft_core.events import Event
from sft_core.types import BusyError, LabError

log = logging.getLogger(__name__)

CLOSING: Final = "The lab is closing. Start it again to train or compare."


@dataclass(slots=True, eq=False)
class Ticket:
    """A job's place in the queue, and who wants to hear of it.

    ``on_place`` hears how many jobs stand before it, whenever that changes; ``on_event`` each of
    its events; ``on_end``, last and once, what it ended on: None, or the error. All are called
    from the queue's threads and must be quick.
    """

    id: str
    job: Job
    on_place: Callable[[int], None]
    on_event: Callable[[Event], None]
    on_end: Callable[[LabError | None], None]
    # ZeroGPU reads from the context whose quota is spent, so each job runs in its visitor's own.
    context: Context = field(default_factory=copy_context)
    stop: threading.Event = field(default_factory=threading.Event)
    place: int | None = None

    def tell(self, place: int) -> None:
        if place != self.place:
            self.place = place
            self.on_place(place)


class JobQueue:
    """Hands jobs to ``compute``, at most ``size`` of them waiting. Callable from any thread."""

    def __init__(self, compute: Compute, size: int) -> None:
        self._compute = compute
        self._size = size
        self._changed = threading.Condition()
        self._waiting: deque[Ticket] = deque()
        self._running: Ticket | None = None
        self._closed = False
        self._thread = threading.Thread(target=self._serve, name="jobs", daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        """How many jobs a new one would stand behind."""
        with self._changed:
            return len(self._tickets())

    def add(self, ticket: Ticket) -> None:
        """Puts a job at the end and tells it its place. Raises BusyError where there is no room,
        and whatever ``on_place`` raises; the job is not in the queue then."""
        with self._changed:
            if self._closed:
                raise BusyError(CLOSING)
            if len(self._waiting) >= self._size:
                raise BusyError(
                    f"{len(self._waiting)} jobs are waiting already, which is all that this host "
                    "takes. Try again in a few minutes."
                )
            ticket.tell(len(self._tickets()))
            self._waiting.append(ticket)
            self._changed.notify_all()

    def find(self, id: str) -> Ticket | None:
        """The ticket of that id, waiting or running."""
        return next((ticket for ticket in self.tickets() if ticket.id == id), None)

    def tickets(self) -> tuple[Ticket, ...]:
        """Everything that runs or waits, in order."""
        with self._changed:
            return self._tickets()

    def _tickets(self) -> tuple[Ticket, ...]:
        return (*([self._running] if self._running else []), *self._waiting)

    def take_back(self, ticket: Ticket) -> None:
        """Ends a job: at once where it waits, within a second or so where it runs."""
        with self._changed:
            ticket.stop.set()
            if ticket not in self._waiting:
                return
            self._waiting.remove(ticket)
            self._announce()
        ticket.job.stopped_early()
        ticket.on_end(None)

    def close(self, message: str) -> None:
        """Ends everything. Jobs that wait end on an error that says ``message``."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            waiting, running = list(self._waiting), self._running
            self._waiting.clear()
            self._changed.notify_all()
        for ticket in waiting:
            ticket.on_end(LabError(message))
        if running:
            running.stop.set()
        self._compute.close()
        self._thread.join()

    def _announce(self) -> None:
        """Tells everybody where they stand now. The caller holds the lock."""
        for place, ticket in enumerate(self._tickets()):
            try:
                ticket.tell(place)
            except LabError as error:
                log.warning("Job %s could not be told its place: %s", ticket.id, error)

    def _serve(self) -> None:
        """The one thread that hands jobs to the compute."""
        while True:
            with self._changed:
                self._running = None
                self._changed.wait_for(lambda: self._waiting or self._closed)
                if self._closed:
                    return
                ticket = self._running = self._waiting.popleft()
                self._announce()
            ticket.context.run(self._carry_out, ticket)

    def _carry_out(self, ticket: Ticket) -> None:
        error: LabError | None = None
        try:
            for event in self._compute.run(ticket.job, ticket.stop.is_set):
                ticket.on_event(event)
        except LabError as problem:
            error = problem
        except Exception as problem:
            log.exception("A job failed in a way that nobody foresaw")
            error = LabError(explain(problem))
        ticket.on_end(error)
