"""The ZeroGPU variant, run for real where ``spaces.GPU`` is the identity."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sft_core.config import LabConfig, TrainConfig
from sft_core.jobs import TrainJob
from sft_core.types import BusyError, LabError, RowError, WorkerDiedError
from sft_core.zerogpu import ZeroGPUCompute, duration, on_zero_gpu
from tests.small_jobs import Count, Deaf, Facts, Fall, LastingCount, phases, wait_for


@pytest.fixture(scope="module")
def zero() -> ZeroGPUCompute:
    return ZeroGPUCompute()


def test_it_is_chosen_by_what_spaces_looks_at(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, expected in (("true", True), ("1", True), ("0", False), ("", False)):
        monkeypatch.setenv("SPACES_ZERO_GPU", value)
        assert on_zero_gpu() is expected


def test_a_job_gives_its_events(zero: ZeroGPUCompute) -> None:
    assert len(phases(zero.run(Facts()))) == 4


def test_a_stop_goes_through_a_file(zero: ZeroGPUCompute, tmp_path: Path) -> None:
    file = tmp_path / "count"
    stop = threading.Event()
    said: list[str] = []
    for event in zero.run(Count(file), stop.is_set):
        said += phases([event])
        if len(said) == 10:
            stop.set()
    assert said[-1] == "stopped"
    assert len(said) < 60


def test_errors_arrive_as_what_they_are(zero: ZeroGPUCompute) -> None:
    with pytest.raises(RowError, match="no answer"):
        list(zero.run(Fall(RowError("7", "This row has no answer."))))
    with pytest.raises(LabError, match=r"ZeroDivisionError: by nothing"):
        list(zero.run(Fall(ZeroDivisionError("by nothing"))))


@pytest.mark.parametrize("lasting", [True, False])
def test_only_a_lasting_job_outlives_its_listener(
    zero: ZeroGPUCompute, tmp_path: Path, lasting: bool
) -> None:
    file = tmp_path / "count"
    events = zero.run((LastingCount if lasting else Count)(file, upto=60))
    next(events)
    alone = threading.active_count()
    events.close()
    wait_for(lambda: threading.active_count() < alone)
    assert (file.read_text() == "end") == lasting


class PageError(Exception):
    """What the spaces package raises, in shape: a page's error with a title and a message."""

    def __init__(self, title: str, message: str) -> None:
        super().__init__(message)
        self.title, self.message = title, message


@dataclass(frozen=True, slots=True)
class Told(Deaf):
    """Notes that it was told of its death."""

    def died(self, message: str) -> None:
        self.note.write_text(message)


@dataclass
class Refusing:
    """Stands where the decorated task stands, and ends as ZeroGPU ends one."""

    error: Exception
    asked: list[object] = field(default_factory=list)

    def __call__(self, *arguments: object) -> Iterator[object]:
        self.asked.extend(arguments)
        raise self.error
        yield


def refused(error: Exception, job: Told) -> None:
    zero = ZeroGPUCompute()
    zero._task = Refusing(error)  # type: ignore[assignment]
    list(zero.run(job))


def test_a_lost_gpu_is_a_dead_worker(tmp_path: Path) -> None:
    note = tmp_path / "note"
    with pytest.raises(WorkerDiedError, match="taken away"):
        refused(PageError("ZeroGPU worker error", "GPU task aborted"), Told(note))
    assert "taken away" in note.read_text()


def test_no_quota_is_told_in_its_words(tmp_path: Path) -> None:
    with pytest.raises(BusyError, match=r"You have exceeded your free quota\. Try again later"):
        refused(
            PageError("ZeroGPU quota exceeded", "You have exceeded your free quota."),
            Told(tmp_path / "note"),
        )
    assert not (tmp_path / "note").exists()


def test_the_time_asked_for_grows_with_the_run(tmp_path: Path) -> None:
    def seconds(**train: object) -> int:
        config = LabConfig(train=TrainConfig(**train))  # type: ignore[arg-type]
        return duration(TrainJob(tmp_path, config), "flag")

    assert seconds(max_steps=10) < seconds(max_steps=1000) < seconds(max_steps=1000, accumulation=4)
    assert seconds(max_steps=1000, max_minutes=0.5) < 60


def test_training_ends_before_the_gpu_goes(tmp_path: Path) -> None:
    job = TrainJob(tmp_path, LabConfig(train=TrainConfig(max_steps=100)))
    minutes = job.within(job.gpu_seconds()).minutes
    assert 0 < minutes * 60 < job.gpu_seconds()
    assert job.within(60).within(600).minutes < 1
    assert job.within(60).config == job.config  # the run's own limit stays, for its later parts
