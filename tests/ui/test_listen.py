"""Hearing a job out, and stopping in between."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar

import pytest

from sft_core.events import Event, PhaseEntered
from sft_core.types import BusyError
from sft_core.ui.listen import STOPS_KEPT, TICK_SECONDS, Tickets, heard

VISITOR: ContextVar[str] = ContextVar("VISITOR", default="nobody")


def test_every_event_arrives_in_order_and_then_it_ends() -> None:
    said = [PhaseEntered(phase=str(number)) for number in range(50)]
    assert [event for event in heard(iter_of(said), threading.Event()) if event] == said


def iter_of(events: list[PhaseEntered]) -> Iterator[Event]:
    yield from events


def test_a_stop_is_answered_while_the_job_says_nothing() -> None:
    stop, let_go, closed = threading.Event(), threading.Event(), threading.Event()

    def silent() -> Iterator[Event]:
        try:
            yield PhaseEntered(phase="loading")
            let_go.wait(10)
            yield PhaseEntered(phase="loaded")
            yield PhaseEntered(phase="never heard")
        finally:
            closed.set()

    listening = heard(silent(), stop)
    assert next(listening) is not None
    assert next(listening) is None
    began = time.monotonic()
    stop.set()
    assert list(listening) == []
    assert time.monotonic() - began < 2 * TICK_SECONDS
    let_go.set()
    assert closed.wait(5), "the job is taken back with its next event"


def test_a_listener_that_leaves_stops_the_job() -> None:
    closed = threading.Event()

    def endless() -> Iterator[Event]:
        try:
            while True:
                yield PhaseEntered(phase="on")
                time.sleep(0.01)
        finally:
            closed.set()

    listening = heard(endless(), threading.Event())
    next(listening)
    listening.close()  # type: ignore[attr-defined]
    assert closed.wait(5)


def test_what_the_job_raises_is_raised_here_and_in_the_visitors_own_context() -> None:
    VISITOR.set("somebody")

    def fails() -> Iterator[Event]:
        yield PhaseEntered(phase=VISITOR.get())
        raise BusyError("Full.")

    listening = heard(fails(), threading.Event())
    assert next(listening) == PhaseEntered(phase="somebody", time=pytest.approx(time.time(), abs=5))
    with pytest.raises(BusyError, match="Full"):
        list(listening)


def test_a_stop_may_come_first_and_tickets_do_not_pile_up() -> None:
    tickets = Tickets()
    tickets.stop("early")
    assert tickets.of("early").is_set()
    tickets.end("early")
    assert not tickets.of("early").is_set()
    for number in range(2 * STOPS_KEPT):
        tickets.stop(str(number))
    assert len(tickets._stops) <= STOPS_KEPT
