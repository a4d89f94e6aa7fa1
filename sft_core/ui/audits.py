"""Audits of whole data sets, made in the background: one at a time, bounded, kept for a while.

An audit belongs to the server, as a run does. Whoever started it holds its id, asks now and then
how far it is, and may stop it; nobody else knows the id. One thread does them all, so that at most
one process of the template sandbox is ever taken by audits, and those who type keep the others.
"""

from __future__ import annotations

import atexit
import os
import queue
import secrets
import shutil
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import Any, Final

from sft_core import doctor
from sft_core.audit import Audit, FigureTable, RowTable, Tally, rows
from sft_core.config import LabConfig
from sft_core.disk import started
from sft_core.doctor import Findings
from sft_core.settings import HOST, Host
from sft_core.tokenizer import Tokenizer
from sft_core.types import BusyError, Example, Finding, LabError, Template
from sft_core.ui.session import sentence
from sft_core.ui.words import duration

KEPT: Final = 40
"""So many audits that are over are kept, the newest."""
SHARED_SECONDS: Final = 120.0
"""How long an audit may take where strangers wait for theirs."""
SURVEYED: Final = 100
"""The doctor looks at no more rows than this, spread evenly: it renders each of them many times."""
FRESH_SECONDS: Final = 0.25
"""How often the figures are renewed while rows stream in."""


_PREFIX: Final = "sft-audits-"


class State(StrEnum):
    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    STOPPED = "stopped"
    FAILED = "failed"

    @property
    def over(self) -> bool:
        return self not in (State.WAITING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to audit. ``key`` names the choices that it comes from, ``held`` the data among them,
    packed, and ``title`` says them in words."""

    examples: Sequence[Example]
    held_out: Sequence[Example]
    template: Template
    tokenizer: Tokenizer
    config: LabConfig
    max_length: int
    key: str
    held: str
    title: str


@dataclass(frozen=True, slots=True)
class Progress:
    """How far an audit is. ``version`` grows with everything that changes. ``text`` says why it is
    over where that needs saying. The files are there once it is over: figures as JSON and as CSV,
    and a line for each row. ``findings`` are what the doctor says of ``surveyed`` of the rows."""

    state: State
    audit: Audit
    total: int
    config: LabConfig
    key: str
    held: str
    title: str
    version: int = 0
    ahead: int = 0
    text: str = ""
    files: tuple[Path, ...] = ()
    surveyed: int = 0
    findings: tuple[Finding, ...] = ()


class _Job:
    """One audit. ``plan`` is let go of once it is over; its rows may be many."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan: Plan | None = plan
        self.folder = folder
        self.stop = threading.Event()
        self.progress = Progress(
            State.WAITING,
            Audit(max_length=plan.max_length),
            len(plan.examples),
            plan.config,
            plan.key,
            plan.held,
            plan.title,
        )

    def tell(self, **news: Any) -> None:
        """``news`` are fields of ``Progress``."""
        self.progress = replace(self.progress, version=self.progress.version + 1, **news)


class Audits:
    """The audits of this server. Nothing happens, and no thread runs, before the first."""

    def __init__(self, host: Host = HOST) -> None:
        self._host = host
        self._seconds = min(60 * host.max_minutes, SHARED_SECONDS if host.on_space else 1e9)
        self._lock = threading.Lock()
        self._jobs: OrderedDict[str, _Job] = OrderedDict()
        self._todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._folder: Path | None = None

    def start(self, plan: Plan) -> str:
        """Queues an audit -> its id. Raises BusyError where too many wait already."""
        id = secrets.token_urlsafe(12)
        with self._lock:
            if sum(not job.progress.state.over for job in self._jobs.values()) >= (
                self._host.queue_size
            ):
                raise BusyError("Too many audits wait already. Try again in a minute.")
            job = self._jobs[id] = _Job(plan, self._home() / id)
            self._forget()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="audits", daemon=True)
                self._thread.start()
            self._todo.put(job)
        return id

    def get(self, id: str | None) -> Progress | None:
        """How far an audit is; None where it is not kept (any more)."""
        with self._lock:
            job = self._find(id)
            if job is None:
                return None
            progress = job.progress
            if progress.state is not State.WAITING:
                return progress
            others = list(self._jobs.values())
            ahead = sum(not it.progress.state.over for it in others[: others.index(job)])
        # Its place in the queue changes without the audit itself being told.
        return replace(progress, version=-1 - ahead, ahead=ahead)

    def stop(self, id: str | None) -> None:
        """Ends an audit after the row that it is at; its figures until then stay. One that waits
        ends at once."""
        with self._lock:
            job = self._find(id)
            if job is None:
                return
            job.stop.set()
            if job.progress.state is State.WAITING:
                job.tell(state=State.STOPPED, text="It had not begun.")

    def _find(self, id: object) -> _Job | None:
        """What the browser sends may be anything."""
        return self._jobs.get(id) if isinstance(id, str) else None

    def close(self) -> None:
        """Stops everything and deletes the files."""
        with self._lock:
            jobs, thread, folder = list(self._jobs.values()), self._thread, self._folder
            self._thread = self._folder = None
        for job in jobs:
            job.stop.set()
        if thread is not None:
            self._todo.put(None)
            thread.join(10)
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _home(self) -> Path:
        if self._folder is None:
            _sweep()
            self._folder = Path(tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-"))
            atexit.register(self.close)
        return self._folder

    def _forget(self) -> None:
        """Lets go of the oldest that are over, with their files."""
        over = [id for id, job in self._jobs.items() if job.progress.state.over]
        for id in over[: max(0, len(over) - KEPT)]:
            shutil.rmtree(self._jobs.pop(id).folder, ignore_errors=True)

    def _work(self) -> None:
        while (job := self._todo.get()) is not None:
            try:
                self._audit(job)
            except Exception as error:  # noqa: BLE001 - sentence() logs what nobody foresaw
                job.tell(state=State.FAILED, text=sentence(error))
            job.plan = None

    def _audit(self, job: _Job) -> None:
        """Raises LabError or OSError where the audit cannot go on."""
        with self._lock:
            plan = job.plan
            if plan is None or job.progress.state.over:
                return
            job.tell(state=State.RUNNING)
        job.folder.mkdir()
        tally = Tally(plan.max_length, plan.held_out)
        end = time.monotonic() + self._seconds
        state, text = State.DONE, ""
        table_file = job.folder / "audit-rows.csv"
        with table_file.open("w", encoding="utf-8", newline="") as file:
            table = RowTable(file)
            shown = time.monotonic()
            for example, result in rows(
                plan.examples, plan.template, plan.tokenizer, plan.config.policy, plan.max_length
            ):
                table.add(tally.add(example, result))
                now = time.monotonic()
                if job.stop.is_set() or now > end:
                    state, text = State.STOPPED, self._why(job, tally.rows)
                    break
                if now - shown > FRESH_SECONDS:
                    job.tell(audit=tally.audit())
                    shown = now
        found = tally.audit(laid_out=True)
        job.tell(audit=found, files=(*_written(found, job.folder), table_file))
        if tally.rows == len(plan.examples):
            state, text = State.DONE, ""
            job.tell(text="The doctor looks at some of them")
            try:
                survey = self._survey(job, plan, end)
                job.tell(surveyed=survey.rows, findings=survey.items)
            except LabError as error:
                text = f"The doctor could not look at them: {error}"
        job.tell(state=state, text=text)

    def _survey(self, job: _Job, plan: Plan, end: float) -> Findings:
        """What the doctor says of rows from all over the set, as many as there is time for."""
        step = -(-len(plan.examples) // SURVEYED)
        sample = (plan.examples[at] for at in range(0, len(plan.examples), step))
        in_time = takewhile(lambda _: not job.stop.is_set() and time.monotonic() < end, sample)
        return doctor.doctor(
            plan.template,
            plan.tokenizer,
            in_time,
            plan.config.policy,
            plan.config.generate,
            max_length=plan.max_length,
        )

    def _why(self, job: _Job, done: int) -> str:
        figures = f"The figures are those of the first {done:,} of {job.progress.total:,} rows."
        if job.stop.is_set():
            return figures
        return (
            f"An audit may take {duration(self._seconds)} here. {figures} Read fewer rows, or run "
            "the lab on your own machine."
        )


def _sweep() -> None:
    """Deletes the files of servers that were killed before they could."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        if pid.isdigit() and started(int(pid)) is None:
            shutil.rmtree(folder, ignore_errors=True)


def _written(audit: Audit, folder: Path) -> tuple[Path, Path]:
    """The figures as files: JSON and CSV."""
    plain, table = folder / "audit.json", folder / "audit-figures.csv"
    plain.write_text(audit.to_json(), encoding="utf-8", errors="backslashreplace")
    with table.open("w", encoding="utf-8", newline="") as file:
        FigureTable(file).add(audit)
    return plain, table
