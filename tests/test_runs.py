"""The registry: a fair and bounded queue, runs that outlive sessions, and what is kept."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path

import pytest

from sft_core.config import DataConfig, GenerateConfig, LabConfig, TrainConfig
from sft_core.events import (
    Answered,
    CheckpointSaved,
    Event,
    PhaseEntered,
    RunFailed,
    RunFinished,
    RunInterrupted,
    RunQueued,
    RunStarted,
    RunStopped,
    Side,
    StepLogged,
)
from sft_core.jobs import CompareJob
from sft_core.record import RunStatus
from sft_core.rundir import RunDirectory
from sft_core.runs import Runs, new_id
from sft_core.settings import Host
from sft_core.types import (
    BusyError,
    LimitError,
    Message,
    ResumeError,
    RunNotFoundError,
    StorageError,
    WorkerDiedError,
)
from sft_core.worker import ProcessCompute
from tests.small_jobs import WAIT, Count, Facts, phases, tiny, wait_for

HOST = Host.from_environment({})
END = RunFinished(step=1, restored_step=1, seconds=1.0, run_dir="r")


@pytest.fixture(scope="module")
def process() -> Iterator[ProcessCompute]:
    process = ProcessCompute()
    process.warm()
    yield process
    process.close()


class Shared(ProcessCompute):
    """The module's process, which one registry's end must not end."""

    def __init__(self, process: ProcessCompute) -> None:
        self.conduct = process.conduct  # type: ignore[method-assign]
        self.warm = process.warm  # type: ignore[method-assign]

    def close(self) -> None:
        pass


@pytest.fixture
def runs(process: ProcessCompute, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(tmp_path / "runs", Shared(process), HOST)
    yield runs
    runs.close()


def hold(runs: Runs, tmp_path: Path) -> Iterator[Event]:
    """A job that keeps the compute process busy until its iterator is closed."""
    events = runs.ask(Count(tmp_path / "held"))
    while not isinstance(next(events), PhaseEntered):
        pass
    return events


def kept_run(root: Path, *events: Event, age: float = 0.0) -> RunDirectory:
    """A run that another process left behind, ``age`` seconds ago."""
    directory = RunDirectory.create(root / new_id(), LabConfig())
    for event in events:
        directory.append(event)  # type: ignore[arg-type]
    directory.release()
    for name in ("config.json", "events.jsonl"):
        os.utime(directory.path / name, (time.time() - age,) * 2)
    return directory


# -- the queue --------------------------------------------------------------------------------


def test_an_answer_comes_back_through_the_queue(runs: Runs) -> None:
    assert len(phases(runs.ask(Facts()))) == 4


def test_jobs_are_served_in_the_order_of_their_coming(runs: Runs, tmp_path: Path) -> None:
    held = hold(runs, tmp_path)
    heard: dict[str, list[Event]] = {"first": [], "second": [], "third": []}
    order: list[str] = []

    def visitor(name: str) -> None:
        for event in runs.ask(Count(tmp_path / name, upto=3)):
            heard[name].append(event)
            order.append(name)

    threads = []
    for number, name in enumerate(heard, start=1):
        threads.append(threading.Thread(target=visitor, args=(name,)))
        threads[-1].start()
        wait_for(lambda number=number: runs.waiting() == number + 1)
    held.close()
    for thread in threads:
        thread.join(WAIT)
    work = [name for name in order if heard[name]]
    for name, positions in (("first", [1, 0]), ("second", [2, 1, 0]), ("third", [3, 2, 1, 0])):
        said = [event.position for event in heard[name] if isinstance(event, RunQueued)]
        assert list(dict.fromkeys(said)) == positions
        assert phases(heard[name]) == ["0", "1", "2"]
    last = {name: len(work) - work[::-1].index(name) for name in heard}
    assert last["first"] < last["second"] < last["third"]


def test_who_leaves_gives_the_place_up(runs: Runs, tmp_path: Path) -> None:
    held = hold(runs, tmp_path)
    waiting = runs.ask(Count(tmp_path / "waiting"))
    assert isinstance(next(waiting), RunQueued)
    waiting.close()
    assert runs.waiting() == 1
    held.close()
    wait_for(lambda: runs.waiting() == 0)
    assert not (tmp_path / "waiting").exists()


def test_who_waits_is_told_again_and_can_leave(runs: Runs, tmp_path: Path) -> None:
    held = hold(runs, tmp_path)
    waiting = runs.ask(Facts())
    first, again = next(waiting), next(waiting)
    assert isinstance(first, RunQueued)
    assert again == first
    waiting.close()
    assert runs.waiting() == 1
    held.close()


def test_the_queue_is_bounded(process: ProcessCompute, tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs", Shared(process), replace(HOST, queue_size=1))
    held = hold(runs, tmp_path)
    waiting = runs.ask(Facts())
    next(waiting)
    with pytest.raises(BusyError, match="1 jobs are waiting"):
        next(runs.ask(Facts()))
    with pytest.raises(BusyError):
        runs.start(LabConfig())
    assert runs.recent() == ()
    waiting.close()
    held.close()
    runs.close()


VISITOR: ContextVar[str] = ContextVar("VISITOR", default="nobody")


def test_a_job_runs_in_its_visitor_s_context(process: ProcessCompute, tmp_path: Path) -> None:
    """ZeroGPU reads there whose quota is spent."""

    class Watched(Shared):
        def run(self, *arguments: object) -> Iterator[Event]:  # type: ignore[override]
            yield PhaseEntered(phase=VISITOR.get())

    runs = Runs(tmp_path / "runs", Watched(process), HOST)
    VISITOR.set("somebody")
    assert phases(runs.ask(Facts())) == ["somebody"]
    runs.close()


def test_a_death_reaches_who_asked_and_the_next_is_served(
    runs: Runs, process: ProcessCompute, tmp_path: Path
) -> None:
    held = hold(runs, tmp_path)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="memory"):
        list(held)
    assert len(phases(runs.ask(Facts()))) == 4


# -- runs that wait ---------------------------------------------------------------------------


def test_a_run_waits_and_moves_up(runs: Runs, tmp_path: Path) -> None:
    held, ahead = hold(runs, tmp_path), runs.ask(Count(tmp_path / "ahead"))
    next(ahead)
    run = runs.start(LabConfig())
    assert runs.record(run).status is RunStatus.QUEUED
    assert [event.position for event in runs.record(run).of(RunQueued)] == [2]
    held.close()
    wait_for(lambda: len(runs.record(run).of(RunQueued)) == 2)
    assert [event.position for event in runs.record(run).of(RunQueued)] == [2, 1]
    runs.stop(run)
    assert runs.record(run).status is RunStatus.STOPPED
    assert runs.waiting() == 1
    ahead.close()


def test_a_run_that_waited_when_the_lab_ended_says_so(
    process: ProcessCompute, tmp_path: Path
) -> None:
    runs = Runs(tmp_path / "runs", Shared(process), HOST)
    held = hold(runs, tmp_path)
    run = runs.start(LabConfig())
    closing = threading.Thread(target=runs.close)
    closing.start()
    held.close()
    closing.join(WAIT)
    assert runs.directory(run).read().status is RunStatus.INTERRUPTED
    with pytest.raises(BusyError, match="closing"):
        runs.start(LabConfig())


def test_what_the_host_does_not_allow_is_refused(runs: Runs) -> None:
    with pytest.raises(LimitError):
        runs.start(LabConfig(train=TrainConfig(max_steps=10**9)))
    assert runs.recent() == ()


def test_a_folder_that_cannot_be_written_is_one_sentence(
    process: ProcessCompute, tmp_path: Path
) -> None:
    (tmp_path / "runs").write_text("no folder")
    runs = Runs(tmp_path / "runs", Shared(process), HOST)
    with pytest.raises(StorageError, match="cannot be written to"):
        runs.start(LabConfig())
    assert len(phases(runs.ask(Facts()))) == 4
    runs.close()


# -- runs that train --------------------------------------------------------------------------

LONG = tiny(max_steps=50_000, eval_every=0)
GREETING = ((Message("user", "What is the capital of Peru?"),),)


def until(runs: Runs, run: str, kind: type[Event]) -> None:
    wait_for(lambda: runs.record(run).last(kind) is not None or runs.record(run).status.over)
    assert runs.record(run).last(kind), runs.record(run).events[-1]


def answers(runs: Runs, directory: RunDirectory) -> list[Answered]:
    job = CompareJob(directory.path, LabConfig(), GREETING, GenerateConfig(max_new_tokens=3))
    return [event for event in runs.ask(job) if isinstance(event, Answered)]


def test_a_run_goes_on_without_a_listener_to_its_end(runs: Runs) -> None:
    run = runs.start(tiny())
    wait_for(lambda: RunDirectory(runs.root / run).over())
    record = runs.record(run)
    assert record.status is RunStatus.FINISHED
    assert [event.step for event in record.of(StepLogged)] == [1, 2, 3, 4, 5, 6]
    assert {answer.side for answer in answers(runs, runs.directory(run))} == set(Side)


def test_a_killed_process_leaves_a_run_that_opens(runs: Runs, process: ProcessCompute) -> None:
    run = runs.start(LONG)
    until(runs, run, CheckpointSaved)
    assert process.pid
    os.kill(process.pid, signal.SIGKILL)
    wait_for(lambda: runs.record(run).status.over)
    end = runs.record(run).last(RunInterrupted)
    assert end
    assert "memory ran out" in end.message
    assert runs.directory(run).read().events == runs.record(run).events
    assert {answer.side for answer in answers(runs, runs.directory(run))} == set(Side)


@pytest.mark.parametrize("stage", [RunQueued, PhaseEntered, RunStarted, StepLogged])
def test_a_stop_gets_through_at_every_stage(runs: Runs, stage: type[Event]) -> None:
    run = runs.start(replace(LONG, train=replace(LONG.train, eval_every=1)))
    until(runs, run, stage)
    asked = time.monotonic()
    runs.stop(run)
    wait_for(lambda: runs.record(run).status.over)
    assert time.monotonic() - asked < 3.0
    assert runs.record(run).status is RunStatus.STOPPED
    wait_for(lambda: runs.waiting() == 0)
    if stage is StepLogged:
        assert len(answers(runs, runs.directory(run))) == 2


def test_a_stop_gets_through_while_answers_are_scored(runs: Runs) -> None:
    slow = replace(LONG, generate=GenerateConfig(max_new_tokens=200))
    run = runs.start(replace(slow, train=replace(slow.train, score_every=1)))
    until(runs, run, PhaseEntered)
    wait_for(lambda: "Asking 40 test rows" in phases(runs.record(run).events))
    asked = time.monotonic()
    runs.stop(run)
    wait_for(lambda: runs.record(run).status.over)
    assert time.monotonic() - asked < 3.0
    assert runs.record(run).status is RunStatus.STOPPED


def test_a_run_that_fails_says_why(runs: Runs, tmp_path: Path) -> None:
    run = runs.start(replace(LONG, data=DataConfig(source=str(tmp_path / "nothing.jsonl"))))
    wait_for(lambda: runs.record(run).status.over)
    end = runs.record(run).last(RunFailed)
    assert end
    assert end.kind == "DataError"
    assert "nothing.jsonl" in end.message


# -- runs that go on --------------------------------------------------------------------------


def test_a_paused_run_goes_on_to_its_end(runs: Runs, process: ProcessCompute) -> None:
    run = runs.start(tiny(max_steps=400, eval_every=0))
    until(runs, run, StepLogged)
    with pytest.raises(ResumeError, match="going on"):
        runs.resume(run)
    runs.stop(run)
    wait_for(lambda: runs.record(run).status.over)
    paused = runs.record(run).step
    assert 0 < paused < 400
    assert runs.resumable_from(run) == paused
    runs.resume(run)
    assert not runs.record(run).status.over
    with pytest.raises(ResumeError, match="going on"):
        runs.resume(run)
    wait_for(lambda: runs.record(run).status.over)
    record = runs.record(run)
    assert record.status is RunStatus.FINISHED
    assert [event.step for event in record.of(StepLogged)] == list(range(1, 401))
    assert [event.resumed_from for event in record.of(RunStarted)] == [0, paused]
    with pytest.raises(ResumeError, match="finished"):
        runs.resume(run)


def test_a_resumed_run_that_waits_can_be_paused_again(runs: Runs, tmp_path: Path) -> None:
    run = runs.start(LONG)
    until(runs, run, StepLogged)
    runs.stop(run)
    wait_for(lambda: runs.record(run).status.over and runs.waiting() == 0)
    paused = runs.resumable_from(run)
    held = hold(runs, tmp_path)
    runs.resume(run)
    assert runs.record(run).status is RunStatus.QUEUED
    runs.stop(run)
    end = runs.record(run).last(RunStopped)
    assert end
    assert end.step == runs.resumable_from(run) == paused
    held.close()


def test_a_run_that_cannot_be_queued_stays_paused(process: ProcessCompute, tmp_path: Path) -> None:
    runs = Runs(tmp_path / "runs", Shared(process), replace(HOST, queue_size=1))
    run = runs.start(LONG)
    until(runs, run, StepLogged)
    runs.stop(run)
    wait_for(lambda: runs.record(run).status.over and runs.waiting() == 0)
    held, waiting = hold(runs, tmp_path), runs.ask(Facts())
    next(waiting)
    with pytest.raises(BusyError):
        runs.resume(run)
    assert runs.record(run).status is RunStatus.STOPPED
    assert runs.resumable_from(run) > 0
    waiting.close()
    held.close()
    runs.close()


# -- runs on disk -----------------------------------------------------------------------------


def test_a_record_grows_with_its_log(runs: Runs) -> None:
    directory = RunDirectory.create(runs.root / new_id(), LabConfig())
    record = runs.record(directory.id)
    assert len(record) == 0
    directory.append(PhaseEntered(phase="Reading rows"))
    assert runs.record(directory.id) is record
    assert record.status is RunStatus.PREPARING
    directory.append(END)
    assert runs.record(directory.id).status is RunStatus.FINISHED


def test_many_readers_read_each_event_once(runs: Runs) -> None:
    directory = RunDirectory.create(runs.root / new_id(), LabConfig())
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            runs.record(directory.id)

    readers = [threading.Thread(target=read) for _ in range(4)]
    for reader in readers:
        reader.start()
    for number in range(200):
        directory.append(PhaseEntered(phase=str(number)))
    stop.set()
    for reader in readers:
        reader.join(WAIT)
    said = phases(runs.record(directory.id).events)
    assert said == [str(number) for number in range(200)]


@pytest.mark.parametrize("id", ["", "..", "../runs", "a/b", "x" * 400, "\0"])
def test_no_name_leads_out_of_the_folder(runs: Runs, id: str) -> None:
    (runs.root / "config.json").parent.mkdir(exist_ok=True)
    (runs.root / "config.json").write_text(LabConfig().to_json())
    with pytest.raises(RunNotFoundError):
        runs.record(id)


def test_a_run_of_a_dead_process_is_interrupted(process: ProcessCompute, tmp_path: Path) -> None:
    orphan = kept_run(tmp_path, PhaseEntered(phase="Loading"))
    whole = kept_run(tmp_path, END)
    runs = Runs(tmp_path, Shared(process), HOST)
    assert runs.record(orphan.id).status is RunStatus.INTERRUPTED
    assert runs.record(whole.id).status is RunStatus.FINISHED
    later = kept_run(tmp_path, PhaseEntered(phase="Loading"))
    assert runs.record(later.id).status is RunStatus.INTERRUPTED
    runs.close()


def test_a_run_of_another_living_process_goes_on_and_can_be_stopped(runs: Runs) -> None:
    directory = RunDirectory.create(runs.root / new_id(), LabConfig())
    directory.append(PhaseEntered(phase="Loading"))
    assert not runs.record(directory.id).status.over
    runs.stop(directory.id)
    assert directory.stop_requested()


def test_runs_beyond_what_is_kept_are_deleted_oldest_first(
    process: ProcessCompute, tmp_path: Path
) -> None:
    made = [kept_run(tmp_path, END, age=100 - number) for number in range(5)]
    busy = RunDirectory.create(tmp_path / new_id(), LabConfig())
    os.utime(busy.path / "config.json", (0, 0))
    (tmp_path / "not a run").mkdir()
    runs = Runs(tmp_path, Shared(process), replace(HOST, keep_runs=2))
    assert runs.recent() == (made[4].id, made[3].id, busy.id)
    assert (tmp_path / "not a run").is_dir()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        [made[4].id, made[3].id, busy.id, "not a run"]
    )
    runs.close()


def test_runs_are_kept_for_so_many_hours(process: ProcessCompute, tmp_path: Path) -> None:
    old = kept_run(tmp_path, END, age=3 * 3600)
    young = kept_run(tmp_path, END, age=3600)
    runs = Runs(tmp_path, Shared(process), replace(HOST, keep_hours=2))
    assert runs.recent() == (young.id,)
    with pytest.raises(RunNotFoundError, match="2 hours"):
        runs.record(old.id)
    runs.close()


def test_names_are_many_and_short() -> None:
    names = {new_id() for _ in range(1000)}
    assert len(names) == 1000
    assert all(len(name) == 12 and json.dumps(name) == f'"{name}"' for name in names)
