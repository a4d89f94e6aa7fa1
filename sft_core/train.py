"""Training: a configuration becomes an iterator of events, and weights in the run's folder.

Rows become tokens in ``prepare``, weights change in ``learner`` and reach the disk in
``checkpoint``; what is left here is the order of things and what may interrupt them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

from accelerate.utils import set_seed

from sft_core import heap
from sft_core.adapters import attach
from sft_core.asking import Asker
from sft_core.config import LabConfig
from sft_core.dealing import Plan
from sft_core.encode import end_of_turn
from sft_core.events import (
    ON_REQUEST,
    EvalLogged,
    PhaseEntered,
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopped,
    StepLogged,
    Warned,
)
from sft_core.forewarning import foreseen, memory_explained, notes
from sft_core.keeping import Keeper
from sft_core.learner import Learner, Learnt
from sft_core.models import Opened, open_model, threads_for
from sft_core.pace import (
    Brake,
    Clock,
    Done,
    Halted,
    Meter,
    device_name,
    forget_peak,
    memory_mb,
    never,
    still_due,
)
from sft_core.peak import Utilisation
from sft_core.prepare import Prepared, keep, prepare
from sft_core.processes import Processes
from sft_core.resume import draw_from, drawn, forget_state, load_state, progress
from sft_core.settings import HOST
from sft_core.smoothing import Smoothed
from sft_core.types import ConfigError, LimitError, NonFiniteLossError


def train(
    config: LabConfig,
    run_dir: Path,
    *,
    run: str,
    should_stop: Callable[[], bool] = never,
    resume: bool = False,
    minutes: float = math.inf,
) -> Iterator[RunEvent]:
    """Trains as ``config`` says, yields what happens, and leaves weights in ``run_dir``.

    ``should_stop`` is asked at every micro-batch and every generated token; when it says so, what
    was learnt is saved and the last event is RunStopped, else it is RunFinished. With ``resume``
    the run in ``run_dir`` goes on from its state, as if nothing had happened. ``minutes`` and what
    the host allows bound this call, ``config.train.max_minutes`` the run in all its parts. Raises
    LabError with a sentence for whatever can be explained; weights saved until then stay.
    """
    HOST.check(config)
    done, spent = progress(load_state(run_dir)) if resume else (0, 0.0)
    left = (config.train.max_minutes or math.inf) - spent / 60
    limit = min(left, HOST.max_minutes, minutes)
    brake = Brake(should_stop, limit, told=config.train.max_minutes if limit == left else limit)
    prepared = yield from prepare(config, brake)
    # A process that was stopped here takes the others along, which would wait for it.
    if Processes().any(prepared is None) or prepared is None:
        yield RunStopped(step=done, reason=brake.reason or ON_REQUEST, run_dir=str(run_dir))
        return
    yield from foreseen(config, prepared)
    yield PhaseEntered(phase="Loading the model")
    with memory_explained(config):
        opened = open_model(config.model, prepared.template, config.train.seed)
        if config.train.method == "lora":
            if Processes().sharded:
                raise ConfigError(
                    "LoRA's adapters cannot be sharded (FSDP). Launch with DDP, or set method to "
                    "full."
                )
            opened = attach(opened, config.lora, config.train.seed)
        learner = Learner(opened, config.train, prepared.train, config.lora)
    if learner.total > HOST.max_steps:
        raise LimitError(
            f"This run would take {learner.total:,} steps, but this host allows "
            f"{HOST.max_steps:,} (SFT_MAX_STEPS). Lower epochs, or set max_steps."
        )
    if learner.leads:
        keep(prepared, run_dir)
    yield from _Run(config, run_dir, run, prepared, opened, learner, brake).events(resume)


class _Run:
    """One run: what is due after which step."""

    def __init__(
        self,
        config: LabConfig,
        run_dir: Path,
        run: str,
        prepared: Prepared,
        opened: Opened,
        learner: Learner,
        brake: Brake,
    ) -> None:
        self.config, self.run_dir, self.run = config, run_dir, run
        self.prepared, self.opened, self.learner, self.brake = prepared, opened, learner, brake
        self.end = end_of_turn(prepared.template, opened.tokenizer)
        self.keeper = Keeper(config, run_dir, prepared, opened, learner)
        self.clock, self.meter, self.smoothed = Clock(), Meter(), Smoothed()
        self.utilisation = Utilisation(
            learner.bare,
            learner.device,
            learner.precision,
            learner.accelerator.num_processes,
        )
        self.step = 0
        self.lowest = math.inf  # eval loss after any step of training
        self.untrained = math.inf  # and before the first
        self.best: tuple[int, float] | None = None  # step and eval loss of checkpoints/best
        self.evaluated: int | None = None  # the last step that the eval loss was computed after
        self.looked: int | None = None  # the last step after which all that was due is done
        self.spent = 0.0  # seconds, in the processes that carried this run before
        self.resumed_from = 0
        # A process that left the others alone inside a step would hang them; see Learner.
        self.halt: Callable[[], bool] = brake if learner.processes.alone else never
        self.asker = Asker(config, prepared, opened, learner, self.clock, self.halt)

    # -- the order of things ------------------------------------------------------------------

    @property
    def extras(self) -> dict[str, float]:
        """Figures of others that go on where they were."""
        return self.smoothed.state()

    @extras.setter
    def extras(self, figures: dict[str, float]) -> None:
        self.smoothed.restore(figures)

    def events(self, resume: bool) -> Iterator[RunEvent]:
        # numpy takes no larger seed; processes that share a batch drop different activations.
        set_seed((self.config.train.seed + self.learner.processes.rank) % 2**32)
        forget_peak(self.learner.device)
        try:
            with memory_explained(self.config), threads_for(self.learner.bare), heap.kept():
                self.keeper.begin()
                if resume:
                    yield from self.keeper.take_up(self)
                    self.step = self.resumed_from = self.learner.done
                yield self._started()
                yield from notes(self.config, self.learner, self.end)
                if self.looked != self.step < self.learner.total:
                    yield from self._look(self.step)
                for micro_batches in self.learner.steps():
                    yield from self._advance(micro_batches)
                yield from self._close()
        except NonFiniteLossError as error:
            forget_state(self.run_dir)  # it would lead to the same end
            raise NonFiniteLossError(f"{error} {self.keeper.kept()}") from None
        except Halted:
            yield from self.keeper.save_model(self.step, self.best)
            yield from self.keeper.save_state(self, self._seconds())
            reason = self.brake.reason or ON_REQUEST  # of another process
            yield RunStopped(step=self.step, reason=reason, run_dir=str(self.run_dir))

    def _advance(self, micro_batches: Plan) -> Iterator[RunEvent]:
        """One step and whatever is due after it."""
        before = drawn()
        with self.clock.timing("step"):
            learnt = self.learner.optimise(micro_batches, self.brake)
        if learnt is None:
            draw_from(before)  # what dropout drew in a step that was broken off is drawn again
            raise Halted
        self.step += 1
        self.meter.add(self._done(learnt, micro_batches), self.clock.last("step"))
        smoothed = self.smoothed.add(learnt.loss)
        if self.step % self.config.train.log_every == 0 or self.step == self.learner.total:
            yield self._logged(learnt, smoothed)
        if self.step < self.learner.total:
            yield from self._look(self.step)
        if self.keeper.due():
            yield from self.keeper.save_last(self, self.step, self._seconds())

    def _close(self) -> Iterator[RunEvent]:
        """The last evaluation, the best weights, the final folder, and what they can do."""
        finished = self.step
        yield from self._evaluate()
        if self.best is not None and self.best[0] != self.step:
            self.keeper.restore_best()
            self.step = self.best[0]
        yield from self.keeper.save_model(self.step, self.best)
        if self.untrained < self.lowest < math.inf:
            yield Warned(
                code="no-better",
                message=f"The eval loss never fell below what it was before training "
                f"({self.untrained:.3f}). Lower learning_rate, or train on more rows.",
            )
        yield from self.asker.score(self.step)
        yield from self.asker.sample(self.step)
        forget_state(self.run_dir)
        yield RunFinished(
            step=finished,
            restored_step=self.step,
            seconds=self._seconds(),
            run_dir=str(self.run_dir),
        )

    def _look(self, step: int) -> Iterator[RunEvent]:
        """Eval loss, score and samples, where they are due after ``step``; all before the first."""
        config = self.config.train

        def due(every: int) -> bool:
            return step == 0 or (every > 0 and step % every == 0)

        if due(config.eval_every):
            yield from self._evaluate()
        if due(config.score_every):
            yield from self.asker.score(self.step)
        if due(config.sample_every):
            yield from self.asker.sample(self.step)
        self.looked = step

    def _seconds(self) -> float:
        """What the run took so far, in all its processes."""
        return self.spent + self.brake.elapsed()

    # -- what is told -------------------------------------------------------------------------

    def _started(self) -> RunStarted:
        rows = self.prepared.train
        return RunStarted(
            run=self.run,
            model=self.config.model.name,
            device=device_name(self.learner.device),
            precision=self.learner.precision,
            parameters=self.opened.parameters,
            trainable=self.opened.trainable,
            train_rows=len(rows),
            eval_rows=len(self.prepared.eval),
            test_rows=len(self.prepared.test),
            bad_rows=self.prepared.bad_rows,
            truncated_rows=self.prepared.truncated,
            tokens=sum(len(row.ids) for row in rows),
            trained_tokens=sum(row.trained for row in rows),
            total_steps=self.learner.total,
            added_tokens=self.opened.added,
            resumed_from=self.resumed_from,
        )

    def _done(self, learnt: Learnt, micro_batches: Plan) -> Done:
        """What a step did in all processes together."""
        rows = self.prepared.train
        lengths = (len(rows[at].ids) for positions in micro_batches for at in positions)
        needed = self.utilisation.needed(lengths, learnt.trained)
        return Done(learnt.tokens, learnt.trained, needed)

    def _logged(self, learnt: Learnt, smoothed: float) -> StepLogged:
        rates = self.meter.read()
        return StepLogged(
            step=self.step,
            epoch=self.step / self.learner.steps_per_epoch,
            loss=learnt.loss,
            learning_rate=learnt.learning_rate,
            grad_norm=learnt.grad_norm,
            tokens=learnt.tokens,
            trained_tokens=learnt.trained,
            tokens_per_second=rates.tokens,
            seconds_left=self._seconds_left(),
            memory_mb=memory_mb(self.learner.device),
            smoothed_loss=smoothed,
            accuracy=learnt.accuracy,
            kinds=learnt.kinds,
            trained_tokens_per_second=rates.trained,
            peak_share=self.utilisation.share(rates.operations),
        )

    def _seconds_left(self) -> float:
        config, total = self.config.train, self.learner.total
        remaining = {
            "step": total - self.step,
            "eval": still_due(config.eval_every, self.step, total),
            "score": still_due(config.score_every, self.step, total),
            "sample": still_due(config.sample_every, self.step, total),
        }
        return min(self.clock.left(remaining), self.brake.seconds_left())

    # -- measuring ----------------------------------------------------------------------------

    def _evaluate(self) -> Iterator[RunEvent]:
        """The eval loss after this step, and a checkpoint where it is the lowest yet."""
        if not self.prepared.eval or self.evaluated == self.step:
            return
        with self.clock.timing("eval"):
            result = self.learner.mean_loss(self.prepared.eval, self.halt)
        if result is None:
            raise Halted
        loss, count = result
        self.evaluated = self.step
        best = self.step > 0 and loss < self.lowest
        yield EvalLogged(step=self.step, loss=loss, trained_tokens=count, best=best)
        if self.step == 0:
            self.untrained = loss
        elif best:
            self.lowest = loss
            if self.config.train.keep_best and (yield from self.keeper.save_best(self.step, loss)):
                self.best = (self.step, loss)
