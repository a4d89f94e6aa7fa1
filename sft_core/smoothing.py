"""A running mean: what a noisy curve says at a glance, the same in a run's log and in its plot."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SHARE: Final = 0.2
"""The weight of the newest value. Nine tenths of the mean are its last ten values: runs here have
some hundred steps, in which a slower mean would hang far behind a loss that falls."""


class Smoothed:
    """The exponential moving average of the values that were added, each with weight ``share``
    when it is new, corrected for its start as Adam corrects its moments (Kingma and Ba, 2015), so
    that the first mean is the first value.

    Its ``state`` is two plain numbers, ``average`` (not yet corrected) and ``weight`` (what the
    values in it weigh together, from 0 towards 1). A new one that restores them goes on to the
    last bit where the old one stood.
    """

    def __init__(self, share: float = SHARE) -> None:
        self._share = share
        self._average = 0.0
        self._weight = 0.0

    def add(self, value: float) -> float:
        """The mean with ``value`` in it."""
        self._average += self._share * (value - self._average)
        self._weight += self._share * (1 - self._weight)
        return self._average / self._weight

    def state(self) -> dict[str, float]:
        return {"average": self._average, "weight": self._weight}

    def restore(self, state: Mapping[str, float]) -> None:
        """Goes on from what ``state`` gave. Raises KeyError where a number is missing."""
        self._average, self._weight = float(state["average"]), float(state["weight"])
