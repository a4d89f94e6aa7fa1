"""The clock of a run: when it must stop, how fast it goes, how long it still takes, how much memory
it needs."""

from __future__ import annotations

import math
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, NamedTuple

import psutil  # type: ignore[import-untyped]
import torch

from sft_core.events import ON_REQUEST

RECENT: Final = 20
"""So many of the latest durations of a kind speak for the next ones."""
MEGABYTE: Final = 1024 * 1024


def never() -> bool:
    """The ``should_stop`` of a run that nobody can stop."""
    return False


class Halted(Exception):  # noqa: N818  (no error: it leads out of the middle of a run)
    """The brake holds."""


class Brake:
    """Asks whether a run should stop, and remembers why. Once it holds, it stays. ``minutes``
    count from now; ``told`` is the limit that the reason names where that is another one."""

    def __init__(
        self,
        should_stop: Callable[[], bool],
        minutes: float = math.inf,
        now: Callable[[], float] = time.monotonic,
        told: float | None = None,
    ) -> None:
        self._should_stop = should_stop
        self._minutes = minutes
        self._told = minutes if told is None else told
        self._now = now
        self._began = now()
        self.reason = ""

    def __call__(self) -> bool:
        if not self.reason:
            if self._should_stop():
                self.reason = ON_REQUEST
            elif self.seconds_left() <= 0:
                self.reason = f"The time limit of {self._told:g} minutes was reached."
        return bool(self.reason)

    def elapsed(self) -> float:
        """Seconds since the brake was made."""
        return self._now() - self._began

    def seconds_left(self) -> float:
        """Until the time limit; infinite where there is none."""
        return self._minutes * 60 - self.elapsed()


class Clock:
    """How long each kind of work takes, from what it took so far."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._began = now()
        self._durations: dict[str, deque[float]] = defaultdict(lambda: deque(maxlen=RECENT))

    @contextmanager
    def timing(self, kind: str) -> Iterator[None]:
        began = self._now()
        yield
        self._durations[kind].append(self._now() - began)

    def last(self, kind: str) -> float:
        """Seconds that the latest work of this kind took."""
        return self._durations[kind][-1]

    def left(self, remaining: Mapping[str, int]) -> float:
        """Seconds that so many pieces of each kind will take. A kind that was never timed counts
        nothing."""
        return sum(count * self._mean(kind) for kind, count in remaining.items())

    def _mean(self, kind: str) -> float:
        durations = self._durations[kind]
        return sum(durations) / len(durations) if durations else 0.0

    def elapsed(self) -> float:
        """Seconds since the clock was made."""
        return self._now() - self._began


class Done(NamedTuple):
    """What was done: tokens that the model read (padding is none), tokens that it was trained on,
    and the floating point operations that this needs; as a sum, or a second."""

    tokens: float = 0.0
    trained: float = 0.0
    operations: float = 0.0


class Meter:
    """What training steps did a second since the last reading."""

    def __init__(self) -> None:
        self._done = Done()
        self._seconds = 0.0

    def add(self, done: Done, seconds: float) -> None:
        self._done = Done(*map(sum, zip(self._done, done, strict=True)))
        self._seconds += seconds

    def read(self) -> Done:
        """A second; all 0 where nothing was done since."""
        rates = Done(*(part / self._seconds for part in self._done)) if self._seconds else Done()
        self._done, self._seconds = Done(), 0.0
        return rates


def still_due(every: int, step: int, total: int) -> int:
    """How often something that happens every so many steps, and once at the end, is still to come
    after ``step`` of ``total``. ``every`` 0 means only at the end."""
    if every == 0:
        return 1
    regular = (total - 1) // every - step // every
    return max(0, regular) + 1


def forget_peak(device: torch.device) -> None:
    """Lets the peak that ``memory_mb`` tells begin anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def memory_mb(device: torch.device) -> float:
    """Megabytes in use: the peak of a CUDA device's allocator, else this process's resident set."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / MEGABYTE
    return float(psutil.Process().memory_info().rss) / MEGABYTE


def device_name(device: torch.device) -> str:
    """What a person calls the device: "cpu, 2 threads", or the model of the GPU."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu, {threads} thread{'s' if threads > 1 else ''}"
    return str(device)
