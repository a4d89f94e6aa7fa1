"""The compute process: torch and model weights live in it, and nowhere else (law 11).

``ProcessCompute`` carries jobs out in one warm child, a clean interpreter that is started once and
replaced when it dies. Which kind of compute a host gets is decided in ``compute()``.

The talk between the two: the child says ``Ready`` once torch is imported; the parent sends a
``Job``, and ``Stop`` if it should end early; the child answers with events, then ``Done``, or
with a ``Problem`` and ``Done``.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

from sft_core.compute import Compute, Job, Problem, guarded
from sft_core.disk import cores
from sft_core.events import Event
from sft_core.types import LabError, WorkerDiedError
from sft_core.zerogpu import ZeroGPUCompute, on_zero_gpu

log = logging.getLogger(__name__)

GRACE_SECONDS: Final = 0.7
"""How long a job that has nothing to lose may take to stop by itself before it is killed."""
ORPHAN_SECONDS: Final = 60.0
"""How long training may take to save and end once the lab that started it is gone."""
CLOSE_SECONDS: Final = 15.0
POLL_SECONDS: Final = 0.1
NICENESS: Final = 5
ROOT: Final = Path(__file__).resolve().parents[1]


def compute() -> Compute:
    """The compute of this host: ZeroGPU where Spaces offers it, else a process of our own. On
    ZeroGPU this must be called before the page is launched, which reports what needs a GPU."""
    return ZeroGPUCompute() if on_zero_gpu() else ProcessCompute()


# -- what is said on the line -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ready:
    """The child is up and waits for a job."""


@dataclass(frozen=True, slots=True)
class Stop:
    """The job that is being carried out should end."""


@dataclass(frozen=True, slots=True)
class Done:
    """The job is over."""


@dataclass(frozen=True, slots=True)
class Leave:
    """There will be no more jobs: stop what is running, save, and end."""


# -- the parent's side ------------------------------------------------------------------------


class _Child:
    """One compute process, and the line to it."""

    def __init__(self) -> None:
        self.line, theirs = Pipe()
        paths = [str(ROOT), os.environ.get("PYTHONPATH", "")]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(filter(None, paths)),
            "PYTHONSAFEPATH": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        # A session of its own keeps the terminal's Ctrl-C away from it: the lab says when to stop.
        self.process = subprocess.Popen(
            [sys.executable, "-c", f"from sft_core.worker import serve; serve({theirs.fileno()})"],
            env=environment,
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=sys.__stderr__.fileno() if sys.__stderr__ else None,  # stdout is the caller's
            start_new_session=True,
        )
        theirs.close()
        self.ready = False
        self._speaking = threading.Lock()

    def usable(self) -> bool:
        return self.process.poll() is None

    def hear(self) -> Any:
        """The next message, or None where there is none within the polling time. Raises
        WorkerDiedError at the end of the line."""
        try:
            return self.line.recv() if self.line.poll(POLL_SECONDS) else None
        except (EOFError, OSError):
            raise WorkerDiedError(self.last_words()) from None

    def say(self, message: Job | Stop | Leave) -> None:
        try:
            with self._speaking:
                self.line.send(message)
        except OSError:
            raise WorkerDiedError(self.last_words()) from None

    def last_words(self) -> str:
        """Why the process is gone, as a sentence."""
        try:
            code = self.process.wait(CLOSE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = self.process.returncode
        if code == -signal.SIGKILL:
            cause = "was killed, most likely because memory ran out"
        elif code < 0:
            cause = f"crashed ({signal.Signals(-code).name})"
        else:
            cause = f"ended unexpectedly (exit code {code})"
        return (
            f"The compute process {cause}. What was saved until then is kept, and the next job "
            "gets a fresh process. If it happens again, choose a smaller batch or model."
        )

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def dismiss(self) -> None:
        """Lets the process end by itself, and kills it where it takes too long."""
        with suppress(WorkerDiedError), suppress(subprocess.TimeoutExpired):
            self.say(Leave())
            self.process.wait(CLOSE_SECONDS)
        self.kill()


class ProcessCompute(Compute):
    """Carries jobs out in one warm child process."""

    def __init__(self) -> None:
        self._child: _Child | None = None
        self._turn = threading.Lock()
        self._starting = threading.Lock()
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The number of the process that carries jobs out, or None where there is none."""
        child = self._child
        return child.process.pid if child and child.usable() else None

    def warm(self) -> None:
        self._at_hand()

    def close(self) -> None:
        with self._starting:
            self._closed = True
            child, self._child = self._child, None
        if child:
            child.dismiss()

    def conduct(self, job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
        if not self._take_turn(stop):
            job.stopped_early()
            return
        try:
            child = self._at_hand()
            if self._begin(child, job, stop):
                yield from self._hear_out(child, job, stop)
            else:
                job.stopped_early()
        except WorkerDiedError as error:
            job.died(str(error))
            raise
        finally:
            self._turn.release()

    def _take_turn(self, stop: Callable[[], bool]) -> bool:
        """Waits until no other job is running. False where the job was stopped meanwhile."""
        while not self._turn.acquire(timeout=POLL_SECONDS):
            if stop():
                return False
        return True

    def _begin(self, child: _Child, job: Job, stop: Callable[[], bool]) -> bool:
        """Gives a job to the child once it is up. False where the job was stopped before."""
        while not child.ready:
            child.ready = isinstance(child.hear(), Ready)
            if stop():
                return False
        child.say(job)
        return True

    def _hear_out(self, child: _Child, job: Job, stop: Callable[[], bool]) -> Iterator[Event]:
        asked_at: float | None = None
        problem: LabError | None = None
        while True:
            match child.hear():
                case Done():
                    break
                case Problem(error=error):
                    problem = error
                case None:
                    pass
                case event:
                    yield event
            if asked_at is None and stop():
                asked_at = time.monotonic()
                child.say(Stop())
            overdue = asked_at is not None and time.monotonic() - asked_at > GRACE_SECONDS
            if overdue and job.nothing_to_lose():
                child.kill()
                job.stopped_early()
                self.warm()
                return
        if problem:
            raise problem

    def _at_hand(self) -> _Child:
        """The child, started where there is none that lives."""
        with self._starting:
            if self._closed:
                raise WorkerDiedError("The lab is closing, so no new job can start.")
            if self._child is None or not self._child.usable():
                self._child = _Child()
            return self._child


# -- the child's side -------------------------------------------------------------------------


def serve(handle: int) -> None:
    """The life of the compute process: jobs from the line, one after the other, until the parent
    hangs up. ``handle`` is the file descriptor of the child's end."""
    logging.basicConfig(level=logging.WARNING, format="%(name)s: %(message)s")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _be_modest()
    line = Connection(handle)
    jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
    stop = threading.Event()
    threading.Thread(target=_listen, args=(line, jobs, stop), daemon=True).start()
    use_cores()
    _tell(line, Ready())
    while (job := jobs.get()) is not None:
        for message in guarded(job, stop.is_set):
            _tell(line, message)
        _tell(line, Done())


def _listen(line: Connection, jobs: queue.SimpleQueue[Job | None], stop: threading.Event) -> None:
    """Takes the parent's messages in, also while a job keeps the main thread busy."""
    while True:
        try:
            message = line.recv()
        except (EOFError, OSError):
            break
        match message:
            case Leave():
                break
            case Stop():
                stop.set()
            case job:
                stop.clear()
                jobs.put(job)
    stop.set()
    jobs.put(None)
    time.sleep(ORPHAN_SECONDS)
    os._exit(1)


def _tell(line: Connection, message: object) -> None:
    # Nobody listens where the parent is gone; a training run still goes on to its own end.
    with suppress(OSError):
        line.send(message)


def use_cores() -> None:
    """Has torch use every core it may, unless the environment says how many."""
    import torch

    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(cores())


def _be_modest() -> None:
    """Lets the page go first on the cores, and lets this process die first for want of memory."""
    with suppress(OSError, AttributeError):
        os.nice(NICENESS)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800")
