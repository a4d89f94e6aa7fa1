"""Jobs on a ZeroGPU Space: the same job function, under ``@spaces.GPU``.

What spaces 0.51 does, and what follows from it here:

- The decorated function runs in a forked process that has a GPU for as long as was asked.
  Arguments and yields are pickled, exceptions come back as their class's name alone. So a job's
  error travels as a value, and what a job leaves behind it leaves on disk.
- ``duration`` may be a function of all arguments. A task that outlasts it is killed, so training
  is told to stop, and to save, before that.
- Closing the iterator waits for the task's next yield. A stop goes through a file instead, which
  the job looks at as often as it would ask ``should_stop``.
- Whose daily quota is spent is read from the page's request in a context variable, so whoever
  runs a job for a visitor must do it in a copy of that visitor's context (``runs.py`` does).
"""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from sft_core.compute import Compute, Job, Problem, guarded
from sft_core.events import Event
from sft_core.settings import on_zero_gpu as on_zero_gpu
from sft_core.types import BusyError, LabError, WorkerDiedError

log = logging.getLogger(__name__)

POLL_SECONDS: Final = 0.1


def duration(job: Job, flag: str) -> int:
    """How many whole seconds of GPU to ask for. ``spaces`` passes every argument of the task."""
    return math.ceil(job.gpu_seconds())


def task(job: Job, flag: str) -> Iterator[Event | Problem]:
    """What runs under the decorator. The file ``flag`` appears when the job should stop."""
    yield from guarded(job, Path(flag).exists)


class ZeroGPUCompute(Compute):
    """Carries jobs out under ``@spaces.GPU``. Elsewhere the decorator is the identity, and the
    job runs in this process: that is how the tests run it."""

    def __init__(self) -> None:
        # spaces must be imported before anything touches CUDA, and only where it is needed.
        import spaces

        self._task: Callable[[Job, str], Iterator[Event | Problem]]
        self._task = spaces.GPU(duration=duration)(task)

    def conduct(self, job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
        job = job.within(job.gpu_seconds())
        over = threading.Event()
        with tempfile.TemporaryDirectory(prefix="sft-job-") as folder:
            flag = Path(folder) / "stop"
            watch = threading.Thread(target=_watch, args=(stop, flag, over), daemon=True)
            watch.start()
            try:
                yield from self._events(job, flag)
            finally:
                over.set()
                watch.join()

    def _events(self, job: Job, flag: Path) -> Iterator[Event]:
        problem: LabError | None = None
        try:
            for message in self._task(job, str(flag)):
                if isinstance(message, Problem):
                    problem = message.error
                else:
                    yield message
        except Exception as error:
            log.exception("ZeroGPU ended a job")
            problem = _explained(error)
            if isinstance(problem, WorkerDiedError):
                job.died(str(problem))
        if problem:
            raise problem


def _explained(error: Exception) -> LabError:
    """What the spaces package raises about quota, waiting time and lost GPUs (a page error with a
    title and a message) as one of ours."""
    title, message = getattr(error, "title", ""), str(getattr(error, "message", error))
    if title == "ZeroGPU worker error":
        return WorkerDiedError(
            "The GPU was taken away in the middle of the job, as happens when the job outlasts "
            "its time. What was saved until then is kept; try a smaller run."
        )
    return BusyError(f"No GPU could be had: {message.rstrip('.')}. Try again later.")


def _watch(stop: Callable[[], bool], flag: Path, over: threading.Event) -> None:
    """Raises the flag when the job should stop."""
    while not over.wait(POLL_SECONDS):
        if stop():
            flag.touch()
            return
