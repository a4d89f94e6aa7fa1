"""What becomes of a run's weights when the disk takes them, and when it does not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch

from sft_core import keeping
from sft_core.checkpoint import BEST, LAST, MODEL, STATE, newest
from sft_core.config import LabConfig
from sft_core.events import CheckpointSaved, Warned
from sft_core.keeping import Keeper
from sft_core.learner import Learner
from sft_core.models import open_folder, open_model
from sft_core.prepare import Prepared, prepare
from sft_core.types import StorageError
from tests.tensors import SMALL


@dataclass
class Run:
    """What a keeper asks of a run."""

    lowest: float = 1.0
    untrained: float = 2.0
    best: tuple[int, float] | None = None
    evaluated: int | None = None
    looked: int | None = None
    spent: float = 0.0
    extras: dict[str, float] = field(default_factory=dict)


@pytest.fixture(scope="module")
def prepared() -> Prepared:
    work = prepare(config(), lambda: False)
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def config() -> LabConfig:
    settings = ["data.source=six-tasks", "data.rows=24", "template.name=inst-resp"]
    return LabConfig(model=SMALL).with_settings([*settings, "eval_rows=4", "max_steps=4"])


@pytest.fixture
def keeper(prepared: Prepared, tmp_path: Path) -> Keeper:
    opened = open_model(SMALL, prepared.template, 0)
    learner = Learner(opened, config().train, prepared.train)
    return Keeper(config(), tmp_path, prepared, opened, learner)


def step(keeper: Keeper) -> None:
    assert keeper.learner.optimise(next(iter(keeper.learner.steps()))) is not None


def test_the_newest_weights_are_on_disk_and_told(keeper: Keeper) -> None:
    step(keeper)
    assert keeper.kept() == "Nothing had been saved yet."
    events = list(keeper.save_last(Run(), 1, 0.0))
    assert [(e.step, e.path) for e in events if isinstance(e, CheckpointSaved)] == [(1, LAST)]
    saved = open_folder(keeper.run_dir / LAST).model.state_dict()
    here = keeper.learner.bare.state_dict()
    assert all(torch.equal(saved[name], here[name]) for name in saved)
    assert keeper.kept() == "The weights after step 1 are kept."
    assert newest(keeper.run_dir / STATE) is None, "a state is not worth it in the first seconds"


def test_later_a_state_goes_with_them(keeper: Keeper) -> None:
    step(keeper)
    list(keeper.save_last(Run(), 1, 3600.0))
    assert newest(keeper.run_dir / STATE) is not None


def test_a_disk_that_refuses_is_told_and_keeps_what_there_was(
    keeper: Keeper, monkeypatch: pytest.MonkeyPatch
) -> None:
    step(keeper)
    list(keeper.save_last(Run(), 1, 0.0))

    def full(*_: object) -> None:
        raise StorageError("The disk is full.")

    monkeypatch.setattr(keeping, "store", full)
    step(keeper)
    (event,) = keeper.save_last(Run(), 2, 3600.0)
    assert isinstance(event, Warned)
    assert event.message == "The disk is full."
    best = keeper.save_best(2, 0.5)
    assert isinstance(next(best), Warned)
    with pytest.raises(StopIteration) as end:
        next(best)
    assert end.value.value is False
    assert keeper.saved == 1
    assert open_folder(keeper.run_dir / LAST).parameters > 0


def test_the_best_weights_come_back_and_become_the_result(keeper: Keeper) -> None:
    step(keeper)
    list(keeper.save_best(1, 0.5))
    best = {name: w.clone() for name, w in keeper.learner.bare.state_dict().items()}
    step(keeper)
    assert not all(
        torch.equal(w, best[name]) for name, w in keeper.learner.bare.state_dict().items()
    )
    keeper.restore_best()
    assert all(torch.equal(w, best[name]) for name, w in keeper.learner.bare.state_dict().items())
    (event,) = keeper.save_model(1, (1, 0.5))
    assert isinstance(event, CheckpointSaved)
    assert (event.path, event.eval_loss) == (MODEL, 0.5)
    file = keeper.run_dir / MODEL / "model.safetensors"
    assert file.samefile(keeper.run_dir / BEST / "model.safetensors"), "one file, two names"


def test_before_the_first_step_there_is_nothing_to_save(keeper: Keeper) -> None:
    assert list(keeper.save_model(0, None)) == []
    assert list(keeper.save_state(Run(), 0.0)) == []
