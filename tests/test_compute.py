"""What every compute promises, whatever carries the jobs out."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sft_core.compute import Problem, guarded
from sft_core.settings import HOST
from sft_core.types import LabError, RowError
from tests.small_jobs import Count, Facts, Fall, Here, LastingCount, phases, wait_for


def test_a_problem_is_the_last_thing_that_is_said(caplog: pytest.LogCaptureFixture) -> None:
    known = RowError("7", "This row has no answer.")
    *_, last = guarded(Fall(known), lambda: False)
    assert last == Problem(known)
    assert not caplog.records
    *_, last = guarded(Fall(KeyError("x")), lambda: False)
    assert isinstance(last, Problem)
    assert "did not foresee" in str(last.error)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info, "what nobody foresaw is logged whole"


@pytest.mark.parametrize("lasting", [True, False])
def test_only_a_lasting_job_outlives_its_listener(tmp_path: Path, lasting: bool) -> None:
    file = tmp_path / "count"
    events = Here().run((LastingCount if lasting else Count)(file, upto=30))
    next(events)
    events.close()
    wait_for(lambda: file.read_text() in ("end", "stopped"))
    assert (file.read_text() == "end") == lasting


def test_an_error_without_a_listener_is_no_crash(tmp_path: Path) -> None:
    events = Here().run(Fall(LabError("nobody hears this")))
    next(events)
    events.close()
    assert len(phases(Here().run(Facts()))) == 4


def test_a_job_promises_little_by_itself(tmp_path: Path) -> None:
    job = Facts()
    job.check(HOST)
    assert job.nothing_to_lose()
    assert not job.uses(tmp_path)
    assert job.within(1.0) is job
    assert job.gpu_seconds() > 0
