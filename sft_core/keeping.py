"""What becomes of a run's weights: the newest, the best, the result, and the state to go on from.

One of all processes writes; where each holds a part of the weights, all must ask together.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from torch import Tensor

from sft_core.adapters import load_adapter, merged, save_adapter
from sft_core.checkpoint import ADAPTER, BEST, LAST, MODEL, Rhythm, share, store
from sft_core.config import LabConfig
from sft_core.encode import end_of_turn
from sft_core.events import CheckpointSaved, RunEvent, Warned
from sft_core.learner import Learner
from sft_core.models import Opened, save
from sft_core.prepare import Prepared
from sft_core.resume import (
    FIRST_SECONDS,
    Standing,
    digest,
    draw_from,
    drawn,
    load_state,
    moved,
    require_alone,
    require_same_rows,
    restore_folder,
    save_state,
    stand,
    standing,
    surroundings,
)
from sft_core.types import StorageError
from sft_core.weights import read_model


class Keeper:
    """Saves the weights of one run in its folder. ``saved`` is the step of the newest weights on
    disk, None before there are any."""

    def __init__(
        self,
        config: LabConfig,
        run_dir: Path,
        prepared: Prepared,
        opened: Opened,
        learner: Learner,
    ) -> None:
        self.config, self.run_dir = config, run_dir
        self.prepared, self.opened, self.learner = prepared, opened, learner
        self.saved: int | None = None
        self._end = end_of_turn(prepared.template, opened.tokenizer)
        self._has_adapter = config.train.method == "lora"
        self._rhythm = Rhythm()
        # Who gathers weights: one process for all, or all of them where each holds a part.
        self._asks = learner.leads or learner.sharded

    # -- the newest, the best, the result -----------------------------------------------------

    def due(self) -> bool:
        """Whether to save the newest weights now. All processes save where each holds a part."""
        due = self._rhythm.due()
        return self.learner.processes.told(due) if self.learner.sharded else due

    def save_last(self, run: Standing, step: int, seconds: float) -> Iterator[RunEvent]:
        """Saves the newest weights, and what a run of so many ``seconds`` needs to go on from
        them; what cannot be saved now is tried again later."""
        if not self._asks or not self.learner.finite():
            return
        with self._rhythm.saving():
            refusal = self._stored(LAST)
            yield from self._told_of(LAST, refusal, step, None)
            if refusal is None and seconds >= FIRST_SECONDS:
                yield from self.save_state(run, seconds)

    def save_best(self, step: int, loss: float) -> Generator[RunEvent, None, bool]:
        """Saves the weights with the lowest eval loss yet; returns whether the disk took them."""
        refusal = self.learner.processes.told(self._stored(BEST))
        yield from self._told_of(BEST, refusal, step, loss)
        return refusal is None

    def restore_best(self) -> None:
        """Takes the best weights back into the model."""
        self.learner.take(self._best_adapter if self._has_adapter else self._best_weights)

    def _best_weights(self) -> Mapping[str, Tensor]:
        state: Mapping[str, Tensor] = read_model(self.run_dir / BEST).state_dict()
        return state

    def _best_adapter(self) -> Mapping[str, Tensor]:
        """Puts the adapter in, and gives all weights: only this process's disk may have it."""
        load_adapter(self.learner.bare, self.run_dir / BEST / ADAPTER)
        state: Mapping[str, Tensor] = self.learner.bare.state_dict()
        return state

    def save_model(self, step: int, best: tuple[int, float] | None) -> Iterator[RunEvent]:
        """Leaves the weights in force, those of ``step``, as the run's result. ``best`` are step
        and eval loss of the best ones. Raises StorageError."""
        if step == 0 or not self._asks:
            return
        self.learner.require_finite()
        state = self.learner.gathered()
        loss = best[1] if best is not None and best[0] == step else None
        if self.learner.leads and loss is not None:
            share(self.run_dir / BEST, self.run_dir / MODEL)
        elif self.learner.leads:
            store(self.run_dir / MODEL, partial(self._write, state))
        if self._has_adapter and self.learner.leads:
            share(self.run_dir / MODEL / ADAPTER, self.run_dir / ADAPTER)
        yield from self._told_of(MODEL, None, step, loss)

    def kept(self) -> str:
        """What is on disk, in a sentence."""
        if self.saved is None:
            return "Nothing had been saved yet."
        return f"The weights after step {self.saved} are kept."

    def _stored(self, path: str) -> str | None:
        """Saves the weights in force; gives the sentence where the disk refuses."""
        state = self.learner.gathered()
        try:
            if self.learner.leads:
                store(self.run_dir / path, partial(self._write, state))
        except StorageError as error:
            return str(error)
        return None

    def _told_of(
        self, path: str, refusal: str | None, step: int, loss: float | None
    ) -> Iterator[RunEvent]:
        """Weights that were saved, or why they could not be."""
        if refusal is not None:
            yield Warned(code="not-saved", message=refusal)
            return
        self.saved = step
        yield CheckpointSaved(step=step, path=path, eval_loss=loss)

    def _write(self, state: Mapping[str, Tensor] | None, folder: Path) -> None:
        """A plain transformers folder; adapters are merged there, and stand alone in it as well."""
        model, template = self.learner.bare, self.prepared.template
        if self._has_adapter:
            state = merged(model)
            save_adapter(model, folder / ADAPTER, self.config.model)
        save(model, self.opened.tokenizer, template, folder, self._end, state=state)

    # -- going on another time ----------------------------------------------------------------

    @cached_property
    def _whose(self) -> str:
        """What tells these rows from others."""
        return digest(self.prepared.train, self.prepared.eval)

    @cached_property
    def _here(self) -> dict[str, Any]:
        """What the last digits of a sum depend on, as it was when first asked: in training."""
        return surroundings(self.learner.device, self.learner.precision)

    def begin(self) -> None:
        """Called where training begins, with the threads that it computes with."""
        _ = self._here

    def save_state(self, run: Standing, seconds: float) -> Iterator[RunEvent]:
        """Saves what another process needs to go on from here. Where several work together each
        draws numbers of its own, so there only the weights are kept."""
        learner = self.learner
        if not learner.done or learner.processes.count > 1 or not learner.finite():
            return
        state = learner.state() | drawn() | standing(run, seconds, self._whose, self._here)
        try:
            save_state(self.run_dir, state, has_best=run.best is not None)
        except StorageError as error:
            yield Warned(code="not-saved", message=str(error))

    def take_up(self, run: Standing) -> Iterator[RunEvent]:
        """Has learner and ``run`` go on from the saved state. Raises ResumeError where it is of
        other rows or another model."""
        state = load_state(self.run_dir)
        require_alone(self.learner.processes.count)
        require_same_rows(state, self._whose)
        self.learner.restore(state)
        draw_from(state)
        stand(run, state)
        self.saved = self.learner.done
        restore_folder(self.run_dir, has_best=run.best is not None)
        store(self.run_dir / LAST, partial(self._write, None))
        shutil.rmtree(self.run_dir / MODEL, ignore_errors=True)  # those of the stop
        if (note := moved(state, self._here)) is not None:
            yield Warned(code="resumed-elsewhere", message=note)
