"""The queue: who stands where, what a full one says, and that it survives what jobs do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sft_core.compute import Job
from sft_core.events import Event
from sft_core.jobqueue import JobQueue, Ticket
from sft_core.types import BusyError, LabError, StorageError
from tests.small_jobs import WAIT, Count, Facts, Fall, Here, phases, wait_for


@dataclass
class Listener:
    """Hears everything of one ticket."""

    places: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    ends: list[LabError | None] = field(default_factory=list)

    def ticket(self, id: str, job: Job) -> Ticket:
        return Ticket(id, job, self.places.append, self.events.append, self.ends.append)


@pytest.fixture
def line() -> Iterator[JobQueue]:
    line = JobQueue(Here(), size=3)
    yield line
    line.close("closed")


def held(line: JobQueue, tmp_path: Path) -> Ticket:
    listener = Listener()
    ticket = listener.ticket("held", Count(tmp_path / "held", pause=0.005))
    line.add(ticket)
    wait_for(lambda: bool(listener.events))
    return ticket


def test_places_are_told_once_each(line: JobQueue, tmp_path: Path) -> None:
    first = held(line, tmp_path)
    listeners = [Listener(), Listener()]
    for number, listener in enumerate(listeners):
        line.add(listener.ticket(str(number), Facts()))
    assert len(line) == 3
    line.take_back(first)
    wait_for(lambda: all(listener.ends for listener in listeners))
    assert [listener.places for listener in listeners] == [[1, 0], [2, 1, 0]]
    assert [listener.ends for listener in listeners] == [[None], [None]]
    assert [len(phases(listener.events)) for listener in listeners] == [4, 4]


def test_a_full_queue_says_so(line: JobQueue, tmp_path: Path) -> None:
    held(line, tmp_path)
    for number in range(3):
        line.add(Listener().ticket(str(number), Facts()))
    with pytest.raises(BusyError, match="3 jobs are waiting"):
        line.add(Listener().ticket("one too many", Facts()))
    assert line.find("one too many") is None


def test_who_cannot_be_told_its_place_is_not_let_in(line: JobQueue) -> None:
    def refuse(place: int) -> None:
        raise StorageError("The disk is full.")

    listener = Listener()
    ticket = listener.ticket("unwritten", Facts())
    ticket.on_place = refuse
    with pytest.raises(StorageError):
        line.add(ticket)
    assert len(line) == 0


@dataclass(frozen=True, slots=True)
class Noted(Count):
    """Notes that it was stopped before it could begin."""

    def stopped_early(self) -> None:
        self.file.write_text("never began")


def test_who_leaves_the_queue_never_begins(line: JobQueue, tmp_path: Path) -> None:
    held(line, tmp_path)
    listener = Listener()
    ticket = listener.ticket("leaves", Noted(tmp_path / "note"))
    line.add(ticket)
    line.take_back(ticket)
    line.take_back(ticket)
    assert (listener.ends, listener.events) == ([None], [])
    assert (tmp_path / "note").read_text() == "never began"
    assert line.find("leaves") is None


@pytest.mark.parametrize("error", [LabError("known"), ZeroDivisionError("unforeseen")])
def test_a_failing_job_does_not_stop_the_line(line: JobQueue, error: Exception) -> None:
    failing, next_one = Listener(), Listener()
    line.add(failing.ticket("failing", Fall(error)))
    line.add(next_one.ticket("next", Facts()))
    wait_for(lambda: bool(next_one.ends))
    assert str(error) in str(failing.ends[0])
    assert next_one.ends == [None]


def test_closing_ends_what_runs_and_what_waits(tmp_path: Path) -> None:
    line = JobQueue(Here(), size=3)
    running, waiting = Listener(), Listener()
    line.add(running.ticket("running", Count(tmp_path / "count", pause=0.005)))
    wait_for(lambda: bool(running.events))
    line.add(waiting.ticket("waiting", Facts()))
    line.close("The lab is over.")
    assert running.ends == [None]
    assert phases(running.events)[-1] == "stopped"
    assert [str(end) for end in waiting.ends] == ["The lab is over."]
    with pytest.raises(BusyError, match="closing"):
        line.add(Listener().ticket("late", Facts()))
    line.close("again")


def test_many_visitors_at_once_are_all_served(tmp_path: Path) -> None:
    line = JobQueue(Here(), size=100)
    listeners = [Listener() for _ in range(30)]

    def visit(number: int) -> Callable[[], None]:
        return lambda: line.add(listeners[number].ticket(str(number), Facts()))

    threads = [threading.Thread(target=visit(number)) for number in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    wait_for(lambda: all(listener.ends for listener in listeners))
    for listener in listeners:
        assert listener.places == sorted(set(listener.places), reverse=True)
        assert listener.places[-1] == 0
        assert len(phases(listener.events)) == 4
    line.close("over")
