"""A run carried out: its log has everything that happened, and always an end."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import pytest

from sft_core import train as training
from sft_core.config import LabConfig
from sft_core.events import RunFailed, RunInterrupted, RunStopped
from sft_core.execution import execute
from sft_core.record import RunStatus
from sft_core.rundir import ERROR_LOG, RunDirectory
from sft_core.types import LabError


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    config = LabConfig().with_settings(["data.source=no-such-file.jsonl"])
    return RunDirectory.create(tmp_path / "run", config)


def test_an_error_becomes_the_last_line_of_the_log(directory: RunDirectory) -> None:
    events = list(execute(directory.config(), directory))
    last = events[-1]
    assert isinstance(last, RunFailed)
    assert "no-such-file.jsonl" in last.message
    assert directory.read().events == tuple(events)
    assert not directory.alive()
    assert not (directory.path / ERROR_LOG).exists()


def test_what_nobody_foresaw_is_logged_whole_and_told_in_a_sentence(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a slip of ours")

    monkeypatch.setattr(training, "train", broken)
    (last,) = execute(directory.config(), directory)
    assert isinstance(last, RunFailed)
    assert "Traceback" not in last.message
    assert "a slip of ours" in (directory.path / ERROR_LOG).read_text()


def test_a_run_that_nobody_hears_out_is_interrupted(directory: RunDirectory) -> None:
    events = execute(directory.config(), directory)
    next(events)
    assert directory.alive()
    events.close()
    assert directory.read().status is RunStatus.INTERRUPTED
    assert isinstance(directory.read().events[-1], RunInterrupted)
    assert not directory.alive()


def test_the_flag_on_disk_stops_a_run(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", LabConfig())
    directory.request_stop()
    last = list(execute(directory.config(), directory))[-1]
    assert isinstance(last, RunStopped)
    assert last.step == 0


def test_errors_of_the_context_count_as_the_run_s_own(directory: RunDirectory) -> None:
    @contextmanager
    def doomed():  # type: ignore[no-untyped-def]
        raise LabError("A companion failed.")
        yield

    (last,) = execute(directory.config(), directory, within=doomed())
    assert isinstance(last, RunFailed)
    assert last.message == "A companion failed."
