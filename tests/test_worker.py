"""The compute process: events come back live, a stop gets through, a death costs only the job.

The jobs are small ones of our own, carried out by the real process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sft_core.rundir import started
from sft_core.types import LabError, RowError, WorkerDiedError
from sft_core.worker import ProcessCompute, compute
from sft_core.zerogpu import ZeroGPUCompute
from tests.small_jobs import WAIT, Count, Deaf, Facts, Fall, LastingCount, phases, wait_for

ROOT = Path(__file__).resolve().parents[1]
LAB = """
import sys
from pathlib import Path
from sft_core.worker import ProcessCompute
from tests.small_jobs import LastingCount

compute = ProcessCompute()
events = compute.run(LastingCount(Path(sys.argv[1])))
next(events)
print(compute.pid, flush=True)
for _ in events:
    pass
"""


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessCompute]:
    process = ProcessCompute()
    process.warm()
    yield process
    process.close()


def pid(process: ProcessCompute) -> int:
    return int(phases(process.run(Facts()))[0])


def test_the_child_has_torch_and_no_page_and_steps_back(
    process: ProcessCompute, capfd: pytest.CaptureFixture[str]
) -> None:
    number, torch, gradio, niceness = phases(process.run(Facts()))
    assert int(number) == process.pid != os.getpid()
    assert (torch, gradio) == ("True", "False")
    assert int(niceness) > os.nice(0)
    assert "library" not in capfd.readouterr().out


def test_the_child_stays_warm(process: ProcessCompute) -> None:
    assert pid(process) == pid(process)


def test_events_come_back_as_they_happen(process: ProcessCompute, tmp_path: Path) -> None:
    file = tmp_path / "count"
    events = process.run(Count(file, pause=0.3))
    next(events)
    assert file.read_text() in ("0", "1")
    events.close()


def test_a_stop_gets_through_within_a_second(process: ProcessCompute, tmp_path: Path) -> None:
    asked: list[float] = []

    def stop() -> bool:
        if file.exists() and len(file.read_text()) == 2 and not asked:
            asked.append(time.monotonic())
        return bool(asked)

    file = tmp_path / "count"
    said = phases(process.run(Count(file), stop))
    assert said[-1] == "stopped"
    assert time.monotonic() - asked[0] < 1.5


def test_a_job_that_does_not_listen_is_ended_all_the_same(
    process: ProcessCompute, tmp_path: Path
) -> None:
    note = tmp_path / "note"
    before = pid(process)
    begun = time.monotonic()
    assert phases(process.run(Deaf(note), lambda: True)) == ["deaf"]
    assert time.monotonic() - begun < 3.0
    assert note.read_text() == "stopped early"
    assert pid(process) != before


def test_a_stop_before_the_start_is_a_stop(tmp_path: Path) -> None:
    process = ProcessCompute()
    try:
        assert phases(process.run(Deaf(tmp_path / "note"), lambda: True)) == []
        assert (tmp_path / "note").read_text() == "stopped early"
    finally:
        process.close()


@pytest.mark.parametrize("signal_number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_is_told_and_the_next_job_gets_a_fresh_process(
    process: ProcessCompute, tmp_path: Path, signal_number: int
) -> None:
    events = process.run(Count(tmp_path / "count"))
    next(events)
    assert process.pid
    os.kill(process.pid, signal_number)
    with pytest.raises(WorkerDiedError, match=r"memory ran out|SIGSEGV"):
        list(events)
    assert pid(process) > 0


def test_a_death_between_two_jobs_costs_nothing(process: ProcessCompute) -> None:
    before = pid(process)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: process.pid is None)
    assert pid(process) != before


def test_errors_arrive_as_what_they_are(process: ProcessCompute) -> None:
    with pytest.raises(RowError, match="no answer") as caught:
        list(process.run(Fall(RowError("7", "This row has no answer."))))
    assert caught.value.row == "7"
    with pytest.raises(LabError, match=r"ZeroDivisionError: by nothing"):
        list(process.run(Fall(ZeroDivisionError("by nothing"))))


@pytest.mark.parametrize("lasting", [True, False])
def test_only_a_lasting_job_outlives_its_listener(
    process: ProcessCompute, tmp_path: Path, lasting: bool
) -> None:
    file = tmp_path / "count"
    events = process.run((LastingCount if lasting else Count)(file, upto=60))
    next(events)
    events.close()
    assert len(phases(process.run(Facts()))) == 4, "the next job waits for its turn"
    assert (file.read_text() == "end") == lasting


def test_jobs_take_turns(process: ProcessCompute, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    seen: list[bool] = []

    def later() -> None:
        seen.extend(first.read_text() == "end" for _ in process.run(Count(second, upto=2)))

    thread = threading.Thread(target=later)
    events = process.run(Count(first, upto=20))
    next(events)
    thread.start()
    assert len(phases(events)) == 19
    thread.join(WAIT)
    assert seen == [True, True]


def test_where_the_lab_runs_decides_the_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    ZeroGPUCompute()  # spaces reads the environment when it is imported, which must be before
    monkeypatch.delenv("SPACES_ZERO_GPU", raising=False)
    assert isinstance(compute(), ProcessCompute)
    monkeypatch.setenv("SPACES_ZERO_GPU", "true")
    assert isinstance(compute(), ZeroGPUCompute)


def test_a_child_whose_lab_was_killed_stops_and_ends(tmp_path: Path) -> None:
    file = tmp_path / "count"
    lab = subprocess.Popen([sys.executable, "-c", LAB, str(file)], cwd=ROOT, stdout=subprocess.PIPE)
    with lab:
        assert lab.stdout
        child = int(lab.stdout.readline())
        lab.kill()
    wait_for(lambda: started(child) is None)
    assert file.read_text() == "stopped"


def test_closing_ends_the_child(tmp_path: Path) -> None:
    process = ProcessCompute()
    number = pid(process)
    process.close()
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    with pytest.raises(WorkerDiedError, match="closing"):
        list(process.run(Facts()))
