"""A run that was killed or paused goes on as if nothing had happened, bit for bit."""

from __future__ import annotations

import json
import random
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from sft_core import train as train_module
from sft_core.checkpoint import BEST, LAST, MODEL, NUMBERS, STATE, newest, saved_numbers, store
from sft_core.config import TrainConfig
from sft_core.data import write_jsonl
from sft_core.events import (
    ON_REQUEST,
    EvalLogged,
    Event,
    RunFailed,
    RunFinished,
    RunStarted,
    RunStopped,
    ScoreLogged,
    StepLogged,
)
from sft_core.jobs import SAFE_SHARE, TrainJob
from sft_core.learner import Learner
from sft_core.models import Opened
from sft_core.pace import Brake, never
from sft_core.record import RunStatus
from sft_core.resume import (
    State,
    digest,
    draw_from,
    drawn,
    load_state,
    moved,
    restore_folder,
    save_state,
    surroundings,
)
from sft_core.rundir import RunDirectory
from sft_core.tokenizer import load_tokenizer
from sft_core.types import ResumeError, StorageError
from tests.killed import (
    PROCESSES,
    Fate,
    a_run,
    die_at_a_move,
    equal,
    live,
    live_to_the_end,
    state,
    story,
    weights,
)
from tests.tensors import Row, pair, rows_of, tiny_model
from tests.test_checkpoint import files_no_longer_than

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The run that nobody disturbs."""
    folder = tmp_path_factory.mktemp("whole")
    directory = RunDirectory.create(folder / "run", a_run(folder))
    assert live(directory.path) == 0
    return directory


def another(whole: RunDirectory, folder: Path) -> RunDirectory:
    """A run of the same configuration, not yet begun."""
    return RunDirectory.create(folder / "run", whole.config())


def require_the_same(whole: RunDirectory, other: RunDirectory) -> None:
    record = other.read()
    assert record.status is RunStatus.FINISHED, record.events[-1]
    for name, expected in weights(whole.path).items():
        assert equal(weights(other.path)[name], expected), name
    assert story(record) == story(whole.read())
    ends = [it.read().last(RunFinished) for it in (whole, other)]
    assert ends[0]
    assert ends[1]
    assert ends[0].restored_step == ends[1].restored_step
    assert not (other.path / STATE).exists(), "a finished run needs no state"


def test_the_run_of_these_tests_has_its_best_weights_in_the_middle(whole: RunDirectory) -> None:
    end = whole.read().last(RunFinished)
    assert end
    assert 0 < end.restored_step < end.step == 14
    assert not (whole.path / STATE).exists()


@pytest.mark.parametrize("fate", [Fate(events=19), Fate(events=33), Fate(moves=60)], ids=repr)
def test_a_killed_run_ends_with_the_weights_of_one_that_was_not(
    whole: RunDirectory, tmp_path: Path, fate: Fate
) -> None:
    directory = another(whole, tmp_path)
    assert live(directory.path, fate=fate) == KILLED
    assert directory.resumable_from(RunStatus.INTERRUPTED) > 0
    live_to_the_end(directory.path)
    require_the_same(whole, directory)
    require_no_second_look(directory)


def require_no_second_look(directory: RunDirectory) -> None:
    """What was measured after a step before its state was saved is not measured again."""
    events = directory.tail(0)[0]
    began = max(at for at, event in enumerate(events) if isinstance(event, RunStarted))
    start = events[began]
    assert isinstance(start, RunStarted)
    looks = [event for event in events[began:] if isinstance(event, EvalLogged | ScoreLogged)]
    assert start.resumed_from > 0
    assert looks[0].step > start.resumed_from


def test_killed_over_and_over(whole: RunDirectory, tmp_path: Path) -> None:
    directory = another(whole, tmp_path)
    assert live(directory.path, fate=Fate(events=24)) == KILLED
    for _ in range(2):
        assert live(directory.path, resume=True, fate=Fate(events=11)) == KILLED
    live_to_the_end(directory.path)
    require_the_same(whole, directory)
    starts = [event.resumed_from for event in directory.tail(0)[0] if isinstance(event, RunStarted)]
    assert len(starts) == 4
    assert starts == sorted(starts)


def test_a_pause_in_the_middle_of_a_step_draws_nothing_twice(
    whole: RunDirectory, tmp_path: Path
) -> None:
    """Step 8 was broken off after its first micro-batch, in which dropout had drawn; the other run
    was killed on its way to the same place."""
    paused = another(whole, tmp_path)
    assert live(paused.path, fate=Fate(paused_after=7, asked=2)) == 0
    end = paused.read().last(RunStopped)
    assert end
    assert end.step == 7
    assert end.reason == ON_REQUEST

    (tmp_path / "b").mkdir()
    killed = another(whole, tmp_path / "b")
    assert live(killed.path, fate=Fate(events=19)) == KILLED
    assert live(killed.path, resume=True, fate=Fate(paused_after=7)) == 0
    assert equal(state(paused.path), state(killed.path)), "weights, moments, random generators"

    live_to_the_end(paused.path)
    require_the_same(whole, paused)


def test_a_pause_while_the_last_answers_are_asked(whole: RunDirectory, tmp_path: Path) -> None:
    """The best weights are back in the model by then, and no step is left."""
    directory = another(whole, tmp_path)
    assert live(directory.path, fate=Fate(paused_after=14, asked=4)) == 0
    end, undisturbed = directory.read().last(RunStopped), whole.read().last(RunFinished)
    assert end
    assert undisturbed
    assert end.step == undisturbed.restored_step
    assert directory.resumable_from(RunStatus.STOPPED) == 14
    live_to_the_end(directory.path)
    require_the_same(whole, directory)


def test_best_weights_that_were_found_after_the_state_are_found_again(
    whole: RunDirectory, tmp_path: Path
) -> None:
    directory = another(whole, tmp_path)
    assert live(directory.path, fate=Fate(events=20)) == KILLED
    place = newest(directory.path / STATE)
    assert place
    of_the_state = load_file(place / "best" / "model.safetensors")
    assert not equal(load_file(directory.path / BEST / "model.safetensors"), of_the_state)
    assert live(directory.path, resume=True, fate=Fate(events=5)) == KILLED
    assert equal(load_file(directory.path / BEST / "model.safetensors"), of_the_state)


def test_a_resumed_run_has_weights_at_every_moment(whole: RunDirectory, tmp_path: Path) -> None:
    directory = another(whole, tmp_path)
    assert live(directory.path, fate=Fate(paused_after=7)) == 0
    assert directory.weights() == directory.path / MODEL
    assert live(directory.path, resume=True, fate=Fate(events=5)) == KILLED
    assert not (directory.path / MODEL).exists(), "a result of the pause is no result of the run"
    assert directory.weights() is not None


# -- what cannot go on ------------------------------------------------------------------------


def test_other_rows_are_refused(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", a_run(tmp_path))
    assert live(directory.path, fate=Fate(paused_after=2)) == 0
    file = Path(directory.config().data.source)
    kept = file.read_text()
    write_jsonl([pair(f"Colour {at}?", "beige.", f"c{at}") for at in range(16)], file)
    assert live(directory.path, resume=True) == 0
    end = directory.read().last(RunFailed)
    assert end
    assert end.kind == "ResumeError"
    assert "not those that this run began with" in end.message
    file.write_text(kept)
    assert directory.resumable_from(RunStatus.FAILED) == 2, "the state is as it was"


def test_what_has_nothing_to_go_on_from_says_so(tmp_path: Path) -> None:
    directory = RunDirectory.create(tmp_path / "run", a_run(tmp_path, "max_minutes=2"))
    with pytest.raises(ResumeError, match="going on"):
        directory.resumable_from(RunStatus.RUNNING)
    with pytest.raises(ResumeError, match="finished"):
        directory.resumable_from(RunStatus.FINISHED)
    with pytest.raises(ResumeError, match="has nothing to resume from"):
        directory.resumable_from(RunStatus.STOPPED)
    with pytest.raises(ResumeError, match="has nothing to resume from"):
        load_state(directory.path)
    save_state(directory.path, State(numbers={"step": 3, "seconds": 119.0}), has_best=False)
    assert directory.resumable_from(RunStatus.STOPPED) == 3
    save_state(directory.path, State(numbers={"step": 4, "seconds": 120.5}), has_best=False)
    with pytest.raises(ResumeError, match=r"time limit of 2 minutes \(max_minutes\)"):
        directory.resumable_from(RunStatus.STOPPED)


def test_a_damaged_state_is_a_sentence(tmp_path: Path) -> None:
    save_state(tmp_path, some_state(1), has_best=False)
    place = newest(tmp_path / STATE)
    assert place
    (place / "state.safetensors").write_bytes(b"half")
    with pytest.raises(ResumeError, match="damaged"):
        load_state(tmp_path)
    (place / NUMBERS).write_text('{"version": 0, "step": 1}')
    with pytest.raises(ResumeError, match="another version of the lab"):
        load_state(tmp_path)
    (place / NUMBERS).write_text("{")
    assert saved_numbers(tmp_path) is None


# -- one moment -------------------------------------------------------------------------------


def some_state(number: int) -> State:
    return State({"weights/w": torch.full((4,), float(number))}, {"step": number, "seconds": 1.0})


def best_of(run_dir: Path, number: int) -> None:
    def write(folder: Path) -> None:
        (folder / "model.safetensors").write_text(f"best of {number}")
        (folder / "config.json").write_text("{}")

    store(run_dir / BEST, write)


def save_twice(run_dir: Path, moves: int) -> None:
    """A state after another, by a process that dies before one of the moves of the second."""
    best_of(run_dir, 1)
    save_state(run_dir, some_state(1), has_best=True)
    die_at_a_move(moves)
    best_of(run_dir, 2)
    save_state(run_dir, some_state(2), has_best=True)


def test_a_process_killed_between_any_two_moves_leaves_one_whole_moment(tmp_path: Path) -> None:
    found = []
    for moves in range(1, 100):
        run_dir = tmp_path / str(moves)
        process = PROCESSES.Process(target=save_twice, args=(run_dir, moves))
        process.start()
        process.join()
        kept = load_state(run_dir)
        restore_folder(run_dir, has_best=True)
        step = kept.numbers["step"]
        assert kept.tensors["weights/w"].tolist() == [float(step)] * 4
        assert (run_dir / BEST / "model.safetensors").read_text() == f"best of {step}"
        assert not list((run_dir / LAST).parent.glob(".*"))
        found.append(step)
        if process.exitcode == 0:
            break
    assert found == sorted(found)
    assert len(found) > 6
    assert found[0] == 1
    assert found[-1] == 2


def test_best_weights_of_a_future_that_never_was_are_dropped(tmp_path: Path) -> None:
    save_state(tmp_path, some_state(1), has_best=False)
    best_of(tmp_path, 2)
    restore_folder(tmp_path, has_best=False)
    assert not (tmp_path / BEST).exists()


def test_a_full_disk_leaves_the_state_before(tmp_path: Path) -> None:
    save_state(tmp_path, some_state(1), has_best=False)
    with files_no_longer_than(20), pytest.raises(StorageError):
        save_state(tmp_path, some_state(2), has_best=False)
    assert load_state(tmp_path).numbers["step"] == 1
    assert [place.name for place in (tmp_path / STATE).iterdir()] == ["1"]


# -- limits -----------------------------------------------------------------------------------


def test_time_is_lent_to_a_process_and_allowed_to_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock on which each step takes a minute: a GPU that is taken away after two of them
    leaves a state, and the run's own limit of three counts both parts."""
    directory = RunDirectory.create(tmp_path / "run", a_run(tmp_path, "max_minutes=3"))
    ticks = 0.0
    monkeypatch.setattr(train_module, "Brake", partial(Brake, now=lambda: ticks))

    def end_of(job: TrainJob) -> RunStopped:
        nonlocal ticks
        event: Event | None = None
        for event in job.perform(never):
            ticks += 60.0 * isinstance(event, StepLogged)
        assert isinstance(event, RunStopped), event
        return event

    job = TrainJob(directory.path, directory.config())
    lent = end_of(job.within(2 * 60 / SAFE_SHARE))
    assert (lent.step, lent.reason) == (2, "The time limit of 2 minutes was reached.")
    assert directory.resumable_from(RunStatus.STOPPED) == 2
    over = end_of(replace(job, resume=True))
    assert (over.step, over.reason) == (3, "The time limit of 3 minutes was reached.")
    with pytest.raises(ResumeError, match="used up its time limit of 3 minutes"):
        directory.resumable_from(RunStatus.STOPPED)


# -- pieces -----------------------------------------------------------------------------------


def learner_of(model: PreTrainedModel) -> Learner:
    rows = rows_of((2, 3), (1, 4), (3, 3), (2, 2), (4, 3))
    config = TrainConfig(max_steps=7, batch_size=2, learning_rate=0.01, warmup_steps=2)
    opened = Opened(model, load_tokenizer("bytes"), (), 0, 0, 64)
    return Learner(opened, config, rows)


def test_a_learner_goes_on_with_what_it_trains_and_with_the_next_rows() -> None:
    """As with adapters: most weights stand still, and are in no state."""

    def frozen() -> PreTrainedModel:
        model = tiny_model(vocab_size=300)
        for name, parameter in model.named_parameters():
            parameter.requires_grad = "q_proj" in name
        return model

    one, other = learner_of(frozen()), learner_of(frozen())
    whole = [one.optimise(plan) for plan in one.steps()]
    early = learner_of(frozen())
    first = [early.optimise(plan) for plan, _ in zip(early.steps(), range(4), strict=False)]
    kept = early.state()
    assert {name.partition("/")[0] for name in kept.tensors} == {"weights", "optimizer"}
    assert all("q_proj" in name for name in kept.tensors)
    other.restore(State(dict(kept.tensors), json.loads(json.dumps(dict(kept.numbers)))))
    rest = [other.optimise(plan) for plan in other.steps()]
    assert first + rest == whole
    with pytest.raises(ResumeError, match="another shape"):
        learner_of(tiny_model(vocab_size=300)).restore(kept)


def test_random_generators_go_on_where_they_were(tmp_path: Path) -> None:
    def draw() -> list[float]:
        return [torch.rand(3).sum().item(), random.gauss(), np.random.normal(), random.random()]

    draw()
    save_state(tmp_path, drawn() | State(numbers={"step": 1}), has_best=False)
    first = draw()
    assert draw() != first
    draw_from(load_state(tmp_path))
    assert draw() == first


def test_rows_have_a_digest_of_their_own() -> None:
    rows = [Row((1, 2, 3), (-100, 2, 3)), Row((4, 5), (-100, 5))]
    found = {
        digest(rows, []),
        digest([], rows),
        digest(rows[:1], rows[1:]),
        digest(rows[::-1], []),
        digest([Row((1, 2, 3), (-100, -100, 3)), rows[1]], []),
    }
    assert len(found) == 5
    assert digest(list(rows), []) in found


def test_other_surroundings_are_told() -> None:
    here = surroundings(torch.device("cpu"), "fp32")
    before = State(numbers={"surroundings": json.loads(json.dumps(here))})
    assert moved(before, here) is None
    told = moved(before, {**here, "threads": here["threads"] + 1})
    assert told
    assert f"threads was {here['threads']} and is {here['threads'] + 1}" in told
