"""A job's events, heard in a thread of their own, so that a Stop need not wait for the next one."""

from __future__ import annotations

import queue
import threading
from collections.abc import Generator, Iterator
from contextlib import closing
from contextvars import copy_context
from dataclasses import dataclass
from typing import Final, TypeVar, cast

from sft_core.events import Event

T = TypeVar("T")
TICK_SECONDS: Final = 0.2
STOPS_KEPT: Final = 1000


@dataclass(frozen=True, slots=True)
class _Raised:
    """What the job ended on."""

    error: BaseException


class Tickets:
    """Stops by the name of what they stop. A Stop may come before what it stops has begun."""

    def __init__(self) -> None:
        self._stops: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    def of(self, name: str) -> threading.Event:
        with self._lock:
            while len(self._stops) >= STOPS_KEPT:
                self._stops.pop(next(iter(self._stops)))
            return self._stops.setdefault(name, threading.Event())

    def stop(self, name: str) -> None:
        self.of(name).set()

    def end(self, name: str) -> None:
        with self._lock:
            self._stops.pop(name, None)


def heard(events: Iterator[Event], stop: threading.Event) -> Iterator[Event | None]:
    """The events of a job, and None now and then while there are none. Ends once ``stop`` is set;
    the job itself is taken back with its next event. Raises what the job raised."""
    out: queue.SimpleQueue[Event | _Raised | None] = queue.SimpleQueue()

    def listen() -> None:
        try:
            with closing(cast(Generator[Event, None, None], events)):
                for event in events:
                    out.put(event)
                    if stop.is_set():
                        break
        except BaseException as error:  # noqa: BLE001 - raised where it is listened to
            out.put(_Raised(error))
        out.put(None)

    # Whose visit this is stands in the context, and a job asks for it when it is queued.
    threading.Thread(target=copy_context().run, args=(listen,), daemon=True).start()
    try:
        while not stop.is_set():
            try:
                item = out.get(timeout=TICK_SECONDS)
            except queue.Empty:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, _Raised):
                raise item.error
            yield item
    finally:
        stop.set()
