"""The runs of this lab: which there are, which waits, which is being carried out, what is kept.

One job at a time goes to the compute process, first come, first served; training, comparing and
measuring stand in the same bounded queue. A run lives in its directory (``rundir.py``): whoever
has its id can follow it, leave, come back, or stop it, from any session. Ids cannot be guessed,
since a page's link holds one.
"""

from __future__ import annotations

import logging
import queue
import re
import secrets
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from sft_core.compute import Compute, Job
from sft_core.config import LabConfig
from sft_core.events import Event, PhaseEntered, RunInterrupted, RunQueued
from sft_core.jobqueue import JobQueue, Ticket
from sft_core.jobs import TrainJob
from sft_core.record import RunRecord
from sft_core.rundir import CONFIG, EVENTS, RunDirectory
from sft_core.settings import HOST, Host
from sft_core.types import BusyError, LabError, RunNotFoundError, StorageError

log = logging.getLogger(__name__)

ALPHABET: Final = "23456789abcdefghjkmnpqrstvwxyz"
ID_LENGTH: Final = 12  # 30 ** 12 is about 2 ** 59
RECORDS_KEPT: Final = 48
PULSE_SECONDS: Final = 1.0
ENDING_SECONDS: Final = 5.0
GONE: Final = "The lab ended while this run was going on. What was saved until then is kept."
LEFT_WAITING: Final = "The lab ended while this run waited in the queue. Start it again."
Heard = queue.SimpleQueue[Event | LabError | None]
_ID: Final = re.compile(rf"[{ALPHABET}]{{{ID_LENGTH}}}")


def new_id() -> str:
    """A name for a run: short enough for a link, too long to be guessed."""
    return "".join(secrets.choice(ALPHABET) for _ in range(ID_LENGTH))


@dataclass(slots=True)
class _Followed:
    """A record in memory, and how far its log has been read."""

    record: RunRecord
    offset: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)


class Runs:
    """The registry. Every method may be called from any thread."""

    def __init__(self, root: Path, compute: Compute, host: Host = HOST) -> None:
        self.root = root
        self.host = host
        compute.warm()
        self._queue = JobQueue(compute, host.queue_size)
        self._lock = threading.Lock()
        self._resuming = threading.Lock()
        self._followed: OrderedDict[str, _Followed] = OrderedDict()
        self._ends: dict[str, RunInterrupted] = {}
        for directory in self._directories():
            self._settle(directory)
        self.sweep()

    # -- asking for work ----------------------------------------------------------------------

    def start(self, config: LabConfig) -> str:
        """Queues a training run and returns its id. Raises LimitError, BusyError, StorageError."""
        self.host.check(config)
        self.sweep()
        directory = RunDirectory.create(self.root / new_id(), config)

        try:
            self._queue_up(directory, TrainJob(directory.path, config))
        except LabError:
            self._delete(directory)
            raise
        return directory.id

    def resume(self, id: str) -> None:
        """Queues a run that was paused or broken off, to go on where it was. Raises ResumeError
        where it cannot, RunNotFoundError, LimitError, BusyError, StorageError."""
        directory = self.directory(id)
        with self._resuming:
            self.resumable_from(id)
            self._wait_for_the_end(id)
            config = directory.config()
            self.host.check(config)
            directory.reopen()
            try:
                self._queue_up(directory, TrainJob(directory.path, config, resume=True))
            except LabError:
                directory.release()
                raise
            self._ends.pop(id, None)

    def resumable_from(self, id: str) -> int:
        """The step that a run can go on after. Raises ResumeError where it cannot, or
        RunNotFoundError."""
        return self.directory(id).resumable_from(self.record(id).status)

    def _wait_for_the_end(self, id: str) -> None:
        """A run's log ends a moment before its job does. Raises BusyError where that takes long."""
        deadline = time.monotonic() + ENDING_SECONDS
        while self._queue.find(id) is not None:
            if time.monotonic() > deadline:
                raise BusyError("This run is still being put away. Try again in a moment.")
            time.sleep(0.02)

    def _queue_up(self, directory: RunDirectory, job: TrainJob) -> None:
        """Its events are in the run's log, where everybody reads them. Raises BusyError."""

        def on_place(place: int) -> None:
            directory.append(RunQueued(run=directory.id, position=place))

        def on_end(error: LabError | None) -> None:
            self._end(directory, str(error) if error else GONE)

        self._queue.add(Ticket(directory.id, job, on_place, lambda event: None, on_end))

    def ask(self, job: Job) -> Iterator[Event]:
        """Queues a job and yields its events, among them RunQueued while others stand before it.
        Where a job stands is repeated every second that nothing else happens, so that whoever
        listens gets a chance to leave. Closing the iterator takes the job back. Raises
        LimitError, BusyError, the job's error."""
        job.check(self.host)
        heard: Heard = queue.SimpleQueue()
        id = new_id()
        ticket = Ticket(
            id,
            job,
            lambda place: heard.put(RunQueued(run=id, position=place)),
            heard.put,
            heard.put,
        )
        self._queue.add(ticket)
        try:
            yield from _events(heard)
        except GeneratorExit:
            self._queue.take_back(ticket)
            raise

    def stop(self, id: str) -> None:
        """Stops a run that waits or goes on; nothing happens to one that is over. Raises
        RunNotFoundError."""
        directory = self.directory(id)
        ticket = self._queue.find(id)
        if ticket:
            self._queue.take_back(ticket)
        if not directory.over() and directory.alive():
            # Where the disk takes no flag, the ticket has carried the word already.
            with suppress(StorageError) if ticket else nullcontext():
                directory.request_stop()

    # -- looking ------------------------------------------------------------------------------

    def directory(self, id: str) -> RunDirectory:
        """Raises RunNotFoundError where no run of that id is kept."""
        path = self.root / id
        if not _ID.fullmatch(id) or not (path / CONFIG).is_file():
            raise RunNotFoundError(f"There is no run {id!r} here. {self._kept()}")
        return RunDirectory(path)

    def record(self, id: str) -> RunRecord:
        """The run as it stands now. One record a run is kept and grows; each call reads only what
        the log has gained. Raises RunNotFoundError."""
        directory = self.directory(id)
        followed = self._follow(directory)
        with followed.lock:
            self._read_on(directory, followed)
            if not followed.record.status.over and self._queue.find(id) is None:
                self._settle(directory)
                self._read_on(directory, followed)
                if (end := self._ends.get(id)) and not followed.record.status.over:
                    followed.record.add(end)
        return followed.record

    def recent(self, limit: int = 20) -> tuple[str, ...]:
        """Ids of the runs on disk, newest first. On a shared host these are everybody's runs, so
        a page shows a visitor only ids that the visitor has already."""
        return tuple(directory.id for directory in self._directories()[:limit])

    def waiting(self) -> int:
        """How many jobs a new one would have to wait for."""
        return len(self._queue)

    # -- keeping house ------------------------------------------------------------------------

    def sweep(self) -> None:
        """Deletes runs beyond what this host keeps, oldest first; never one that is in use."""
        oldest = time.time() - self.host.keep_hours * 3600
        for place, directory in enumerate(self._directories()):
            expired = self.host.keep_hours > 0 and _touched(directory) < oldest
            if (expired or place >= self.host.keep_runs) and not self._in_use(directory):
                self._delete(directory)

    def close(self) -> None:
        """Stops what is running, saving what was learnt, and ends the compute process."""
        self._queue.close(LEFT_WAITING)

    # -- runs on disk -------------------------------------------------------------------------

    def _directories(self) -> list[RunDirectory]:
        """Every run below the root, newest first."""
        found = []
        with suppress(OSError):
            for path in self.root.iterdir():
                with suppress(OSError):
                    if _ID.fullmatch(path.name):
                        found.append(((path / CONFIG).stat().st_mtime_ns, path))
        return [RunDirectory(path) for _, path in sorted(found, reverse=True)]

    def _follow(self, directory: RunDirectory) -> _Followed:
        with self._lock:
            followed = self._followed.get(directory.id)
            if followed is None:
                followed = self._followed[directory.id] = _Followed(RunRecord(directory.config()))
            self._followed.move_to_end(directory.id)
            while len(self._followed) > RECORDS_KEPT:
                self._followed.popitem(last=False)
        return followed

    def _read_on(self, directory: RunDirectory, followed: _Followed) -> None:
        events, followed.offset = directory.tail(followed.offset)
        for event in events:
            followed.record.add(event)

    def _settle(self, directory: RunDirectory) -> None:
        """Ends the log of a run that nobody carries out any more."""
        if not directory.alive() and not directory.over():
            self._end(directory, GONE)

    def _end(self, directory: RunDirectory, message: str) -> None:
        try:
            directory.interrupt(message)
        except StorageError as error:
            log.warning("Run %s: %s", directory.id, error)
            end = RunInterrupted(message=f"{message} {error}", run_dir=str(directory.path))
            self._ends[directory.id] = end
        directory.release()

    def _in_use(self, directory: RunDirectory) -> bool:
        busy = any(ticket.job.uses(directory.path) for ticket in self._queue.tickets())
        return busy or (not directory.over() and directory.alive())

    def _delete(self, directory: RunDirectory) -> None:
        with self._lock:
            self._followed.pop(directory.id, None)
            self._ends.pop(directory.id, None)
        grave = directory.path.with_name(f".gone-{directory.id}")
        with suppress(OSError):
            directory.path.rename(grave)
        shutil.rmtree(grave, ignore_errors=True)

    def _kept(self) -> str:
        if not self.host.keep_hours:
            return "Check the link, or start a new run."
        return f"Runs are kept for {self.host.keep_hours:g} hours; start a new one."


def _events(heard: Heard) -> Iterator[Event]:
    """What a ticket heard, until it ends; see ``Runs.ask``."""
    stand: Event | None = None
    while True:
        try:
            message = heard.get(timeout=PULSE_SECONDS)
        except queue.Empty:
            if stand:
                yield stand
            continue
        if message is None:
            return
        if isinstance(message, LabError):
            raise message
        stand = message if isinstance(message, RunQueued | PhaseEntered) else None
        yield message


def _touched(directory: RunDirectory) -> float:
    """When the run last wrote to its log."""
    try:
        return (directory.path / EVENTS).stat().st_mtime
    except OSError:
        return 0.0
