"""Who gets a child next. First come, first served, except that no template may keep all children.

- A source that was killed lately gets one child at a time, however many visitors bring it.
- A source that nobody knows yet leaves one child free.
- A source that lately rendered quickly may have any child.

So a visitor whose template works renders on while others try hostile ones, whatever their number; a
visitor with a new template may have to wait for those who came before, each for as long as the
sandbox gives a template at most.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Final

_REMEMBERED: Final = 512  # sources
_FORGIVEN: Final = 60.0  # seconds after which a source that was killed is as good as a new one
_QUICK: Final = 0.25  # the share of its time that a template may take to be a quick one


class Standing(Enum):
    """What is known of a template's source."""

    SLOW = "slow"
    NEW = "new"
    QUICK = "quick"


class Line:
    """The order in which requests of any thread get one of some children."""

    def __init__(self, children: int) -> None:
        self._most = {
            Standing.SLOW: 1,
            Standing.NEW: max(1, children - 1),
            Standing.QUICK: children,
        }
        self._moved = threading.Condition()
        self._waiting: OrderedDict[object, int] = OrderedDict()  # ticket -> hash of its source
        self._inside: dict[object, int] = {}
        self._known: OrderedDict[int, tuple[Standing, float]] = OrderedDict()

    @contextmanager
    def place(self, source: str, patience: float) -> Iterator[None]:
        """Waits for a place and holds it. Raises TimeoutError after ``patience`` seconds."""
        ticket, key = object(), hash(source)
        with self._moved:
            self._waiting[ticket] = key
            try:
                if not self._moved.wait_for(lambda: self._is_next(ticket), patience):
                    raise TimeoutError
                self._inside[ticket] = key
            finally:
                del self._waiting[ticket]
                self._moved.notify_all()
        try:
            yield
        finally:
            with self._moved:
                del self._inside[ticket]
                self._moved.notify_all()

    def took(self, source: str, share: float) -> None:
        """Remembers that a source took ``share`` of the time it may take; 1 means it was killed."""
        standing = Standing.QUICK if share < _QUICK else Standing.NEW
        with self._moved:
            self._known[hash(source)] = Standing.SLOW if share >= 1 else standing, time.monotonic()
            self._known.move_to_end(hash(source))
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)

    def _standing(self, key: int) -> Standing:
        standing, since = self._known.get(key, (Standing.NEW, 0.0))
        forgiven = standing is Standing.SLOW and time.monotonic() - since > _FORGIVEN
        return Standing.NEW if forgiven else standing

    def _is_next(self, ticket: object) -> bool:
        """Whether this is the first in the line that may go in now."""
        return ticket is next(filter(self._may_enter, self._waiting), None)

    def _may_enter(self, ticket: object) -> bool:
        """What is slow, and what is slow or new together, keep to their share of the children."""
        order = list(Standing)
        own = order.index(self._standing(self._waiting[ticket]))
        inside = [order.index(self._standing(key)) for key in self._inside.values()]
        return all(
            sum(standing <= level for standing in inside) < self._most[order[level]]
            for level in range(own, len(order))
        )
