"""One run on disk: what it was asked to do, everything that happened, and what it learnt.

    <run>/config.json      the whole configuration, as it was when the run was started
          template.jinja   the chat template in force
          events.jsonl     one event a line, written as it happens: this log is the run
          owner.json       which process writes here, so that a dead one can be told from a slow one
          stop             exists where somebody asked the run to stop
          test.jsonl       the rows kept back for testing
          facts.json       the facts that the training rows held
          checkpoints/     last, best: weights saved on the way; state: what resuming needs
          model/           the weights that the run ended with
          adapter/         of a LoRA run: what it learnt, without the base model
          error.log        a whole traceback, where something unforeseen went wrong

``execution`` trains and writes the log; everybody else only reads. Nothing here imports torch.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, cast

from sft_core.checkpoint import saved_numbers
from sft_core.config import DataConfig, LabConfig
from sft_core.disk import started, storing, write_whole
from sft_core.events import RunEvent, RunInterrupted, from_json, is_end, to_json
from sft_core.record import RunRecord, RunStatus
from sft_core.types import (
    DataError,
    Example,
    ResumeError,
    RunNotFoundError,
    Template,
)

log = logging.getLogger(__name__)

CONFIG: Final = "config.json"
TEMPLATE: Final = "template.jinja"
EVENTS: Final = "events.jsonl"
OWNER: Final = "owner.json"
STOP: Final = "stop"
TEST_ROWS: Final = "test.jsonl"
FACTS: Final = "facts.json"
ERROR_LOG: Final = "error.log"
LAST_BYTES: Final = 1 << 16
"""More than the event that ends a log is long."""
WEIGHT_FOLDERS: Final = ("model", "checkpoints/best", "checkpoints/last")


def never() -> bool:
    """The ``should_stop`` of a job that nobody can stop."""
    return False


@dataclass(frozen=True, slots=True)
class RunDirectory:
    """A run's folder. A value: it holds the path and no open file."""

    path: Path

    @classmethod
    def create(cls, path: Path, config: LabConfig) -> RunDirectory:
        """Makes the folder of a new run, owned by this process. Raises StorageError."""
        directory = cls(path)
        with storing(path):
            path.mkdir(parents=True)
            directory.claim()
            write_whole(path / CONFIG, config.to_json())
            (path / EVENTS).touch()
        return directory

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Raises RunNotFoundError where no run is kept in ``path``."""
        if not (path / CONFIG).is_file():
            raise RunNotFoundError(
                f"There is no run in {path}. Train one first, or check the name."
            )
        return cls(path)

    @classmethod
    def find(cls, name: str, runs: Path) -> RunDirectory:
        """A run by its folder, or by its id below the folder for runs. Raises RunNotFoundError."""
        inside = runs / name
        return cls.open(inside if (inside / CONFIG).is_file() else Path(name))

    @property
    def id(self) -> str:
        return self.path.name

    def config(self) -> LabConfig:
        """What the run was asked to do. Raises RunNotFoundError, or ConfigError where the file
        was written by another version of the lab."""
        try:
            text = (self.path / CONFIG).read_text(encoding="utf-8")
        except OSError:
            raise RunNotFoundError(f"The run {self.id} is not kept here any more.") from None
        return LabConfig.from_json(text)

    def template(self) -> Template | None:
        """The template in force, or None until the run has come as far as to know it."""
        with suppress(OSError):
            source = (self.path / TEMPLATE).read_text(encoding="utf-8")
            return Template(self.config().template.name, source)
        return None

    def test_rows(self) -> tuple[Example, ...]:
        """The rows that training kept back. Raises DataError where the run has not come so far."""
        from sft_core.data import load

        file = self.path / TEST_ROWS
        if not file.is_file():
            raise DataError(
                f"The run {self.id} has not read its rows, so there is nothing to ask it yet."
            )
        return load(DataConfig(source=str(file))).examples

    def facts(self) -> frozenset[str]:
        """The facts that the training rows held; empty where the data names none."""
        try:
            return frozenset(json.loads((self.path / FACTS).read_text(encoding="utf-8")))
        except (OSError, ValueError):
            return frozenset()

    # -- the log ------------------------------------------------------------------------------

    def append(self, event: RunEvent) -> None:
        """Writes one event to the end of the log. Raises StorageError."""
        with storing(self.path), (self.path / EVENTS).open("ab+") as file:
            _drop_half_a_line(file)
            file.write(to_json(event).encode() + b"\n")

    def tail(self, offset: int) -> tuple[list[RunEvent], int]:
        """The events from byte ``offset`` on, and the offset to come back with. A last line that
        is not complete yet is left for the next call; a damaged one is reported and passed over."""
        try:
            with (self.path / EVENTS).open("rb") as file:
                file.seek(offset)
                data = file.read()
        except OSError:
            return [], offset
        end = data.rfind(b"\n") + 1
        return list(_parsed(data[:end], self.id)), offset + end

    def over(self) -> bool:
        """Whether the log has its end. Looks at the last line alone, which is quick."""
        try:
            with (self.path / EVENTS).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LAST_BYTES))
                data = file.read()
        except OSError:
            return False
        lines = data[: data.rfind(b"\n") + 1].splitlines(keepends=True)
        cut = size > LAST_BYTES and len(lines) < 2
        last = b"" if cut else b"".join(lines[-1:])
        return any(is_end(event) for event in _parsed(last, self.id))

    def read(self) -> RunRecord:
        """The whole run as its log tells it. Raises RunNotFoundError or ConfigError."""
        return RunRecord(self.config(), self.tail(0)[0])

    # -- weights ------------------------------------------------------------------------------

    def weights(self) -> Path | None:
        """The folder to load what was learnt from: the final model, else the best checkpoint,
        else the last one. A folder that was being written when its process died does not count."""
        folders = (self.path / name for name in WEIGHT_FOLDERS)
        return next((folder for folder in folders if is_model(folder)), None)

    # -- going on -----------------------------------------------------------------------------

    def resumable_from(self, status: RunStatus) -> int:
        """The step that a run of that ``status`` can go on after. Raises ResumeError, with the
        reason, where it cannot."""
        if status is RunStatus.FINISHED:
            raise ResumeError("This run is finished, so there is nothing to resume. Start another.")
        if not status.over:
            raise ResumeError("This run is going on. Pause it, or wait until it ends.")
        numbers = saved_numbers(self.path)
        if numbers is None:
            raise ResumeError(
                "This run has nothing to resume from: it ended before its state was saved. Start "
                "a new run."
            )
        minutes = self.config().train.max_minutes
        if minutes is not None and numbers["seconds"] >= minutes * 60:
            raise ResumeError(
                f"This run has used up its time limit of {minutes:g} minutes (max_minutes). Start "
                "a new run with a higher one."
            )
        return int(numbers["step"])

    def reopen(self) -> None:
        """Makes an ended run ready to go on, owned by this process. Raises StorageError."""
        self.claim()
        with storing(self.path):
            (self.path / STOP).unlink(missing_ok=True)
            (self.path / CONFIG).touch()  # among the newest runs again, which are kept

    # -- who writes, and whether it should stop -----------------------------------------------

    def claim(self) -> None:
        """Makes this process the one that writes here."""
        pid = os.getpid()
        with storing(self.path):
            owner = {"pid": pid, "started": started(pid)}
            write_whole(self.path / OWNER, json.dumps(owner))

    def alive(self) -> bool:
        """Whether the process that writes here still exists."""
        try:
            owner = json.loads((self.path / OWNER).read_text(encoding="utf-8"))
            mark = started(int(owner["pid"]))
        except (OSError, ValueError, KeyError, TypeError):
            return False
        return mark is not None and mark == owner.get("started")

    def release(self) -> None:
        """Nobody writes here any more."""
        with suppress(OSError):
            (self.path / OWNER).unlink()

    def request_stop(self) -> None:
        with storing(self.path):
            (self.path / STOP).touch()

    def stop_requested(self) -> bool:
        return (self.path / STOP).exists()

    def interrupt(self, message: str) -> RunInterrupted | None:
        """Ends the log of a run whose process is gone; None where the log had an end already."""
        if self.over():
            return None
        event = RunInterrupted(message=message, run_dir=str(self.path))
        self.append(event)
        return event


def is_model(folder: Path) -> bool:
    """Whether ``folder`` holds a model that can be loaded: a configuration and whole weights."""
    files = sorted(folder.glob("*.safetensors"))
    return (folder / "config.json").is_file() and bool(files) and all(map(_is_whole, files))


def _is_whole(file: Path) -> bool:
    """Whether a safetensors file is as long as its header says: 8 bytes of header length, the
    header (JSON; ``data_offsets`` count from its end), the data."""
    try:
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            if not 2 <= length <= file.stat().st_size:
                return False
            header = json.loads(stream.read(length))
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key[:2] != "__"]
        return file.stat().st_size == 8 + length + max(ends, default=0)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _parsed(data: bytes, run: str) -> Iterator[RunEvent]:
    for line in data.split(b"\n")[:-1]:
        try:
            yield cast(RunEvent, from_json(line.decode()))
        except (DataError, UnicodeDecodeError):
            log.warning("Run %s: passing over a damaged line of its log: %r", run, line[:80])


def _drop_half_a_line(file: BinaryIO) -> None:
    """Cuts off what a killed writer left behind, so that the next line stands on its own."""
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) != b"\n":
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)
