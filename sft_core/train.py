"""Training: a configuration becomes an iterator of events, and weights in the run's folder.

Rows become tokens in ``prepare``, weights change in ``learner`` and reach the disk in
``checkpoint``; what is left here is the order of things and what may interrupt them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate.utils import set_seed

from sft_core import fitting, heap
from sft_core.adapters import attach, lora_notes
from sft_core.config import LabConfig, TrainOn
from sft_core.dealing import Plan
from sft_core.encode import end_of_turn, stop_sequences
from sft_core.evaluate import grade
from sft_core.events import (
    EvalLogged,
    PhaseEntered,
    RunEvent,
    RunFinished,
    RunStarted,
    RunStopped,
    SampleGenerated,
    Score,
    Scored,
    ScoreLogged,
    Side,
    StepLogged,
    Warned,
)
from sft_core.generate import ON_REQUEST, Voice, answer_batch, prompt_ids
from sft_core.keeping import Keeper
from sft_core.learner import Learner, Learnt
from sft_core.microbatch import is_out_of_memory
from sft_core.models import Opened, open_model, threads_for
from sft_core.pace import (
    Brake,
    Clock,
    Done,
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
from sft_core.schedule import warmup_steps
from sft_core.settings import HOST
from sft_core.shapes import foresee
from sft_core.smoothing import Smoothed
from sft_core.types import LimitError, NonFiniteLossError, TrainingError


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
    yield from _foreseen(config, prepared)
    yield PhaseEntered(phase="Loading the model")
    with _memory_explained(config):
        opened = open_model(config.model, prepared.template, config.train.seed)
        if config.train.method == "lora":
            opened = attach(opened, config.lora, config.train.seed)
        learner = Learner(opened, config.train, prepared.train)
    if learner.total > HOST.max_steps:
        raise LimitError(
            f"This run would take {learner.total:,} steps, but this host allows "
            f"{HOST.max_steps:,} (SFT_MAX_STEPS). Lower epochs, or set max_steps."
        )
    if learner.leads:
        keep(prepared, run_dir)
    yield from _Run(config, run_dir, run, prepared, opened, learner, brake).events(resume)


def _foreseen(config: LabConfig, prepared: Prepared) -> Iterator[RunEvent]:
    """What the run will need of memory, and a warning where that is not there. Never a refusal:
    an estimate errs, and a process that dies costs its own run alone."""
    found = foresee(config, [len(row.ids) for row in prepared.train])
    if found is None:
        return
    yield fitting.event(found)
    if message := fitting.warning(found):
        yield Warned(code="memory", message=message)


class _Halted(Exception):  # noqa: N818  (no error: it leads out of the middle of a run)
    """The brake holds."""


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
        self.voice = Voice(Side.TUNED, learner.bare, opened.tokenizer, opened.context)
        self.end = end_of_turn(prepared.template, opened.tokenizer)
        self.keeper = Keeper(config, run_dir, prepared, opened, learner)
        self.stops = stop_sequences(
            prepared.template, opened.tokenizer, config.generate.stop_tokens
        )
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
        # Whoever asks the model: one process for all, or all of them where each holds a part.
        self.asks = learner.leads or learner.sharded

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
            with _memory_explained(self.config), threads_for(self.learner.bare), heap.kept():
                if resume:
                    yield from self.keeper.take_up(self)
                    self.step = self.resumed_from = self.learner.done
                yield self._started()
                yield from self._notes()
                if self.looked != self.step < self.learner.total:
                    yield from self._look(self.step)
                for micro_batches in self.learner.steps():
                    yield from self._advance(micro_batches)
                yield from self._close()
        except NonFiniteLossError as error:
            forget_state(self.run_dir)  # it would lead to the same end
            raise NonFiniteLossError(f"{error} {self.keeper.kept()}") from None
        except _Halted:
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
            raise _Halted
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
        yield from self._score()
        yield from self._sample()
        forget_state(self.run_dir)
        yield RunFinished(
            step=finished,
            restored_step=self.step,
            seconds=self.spent + self.clock.elapsed(),
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
            yield from self._score()
        if due(config.sample_every):
            yield from self._sample()
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

    def _notes(self) -> Iterator[RunEvent]:
        if self.learner.note:
            yield Warned(code="compile", message=self.learner.note)
        wanted, total = self.config.train.warmup_steps, self.learner.total
        warmup = warmup_steps(self.config.train, total)
        if warmup < wanted:
            yield Warned(
                code="warm-up",
                message=f"The warm-up of {wanted} steps is cut to {warmup}, half of this run's "
                f"{total}.",
            )
        yield from lora_notes(self.config)
        policy = self.config.policy
        if not self.end:
            yield Warned(
                code="no-end",
                message="The template prints nothing after an answer, so the model will not learn "
                "to stop. Choose one that ends each answer with a token of its own.",
            )
        elif not policy.end_of_turn and policy.train_on is not TrainOn.ALL:
            yield Warned(
                code="no-end",
                message="The mask policy leaves ends of turn out, so the model will not learn to "
                "stop. Turn policy.end_of_turn on.",
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
            raise _Halted
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

    def _score(self) -> Iterator[RunEvent]:
        """Exact match on the test rows."""
        if not self.prepared.test or not self.asks:
            return
        yield PhaseEntered(phase=f"Asking {len(self.prepared.test):,} test rows")
        with self.clock.timing("score"), self.learner.processes.in_step(self.learner.bare):
            score = self._graded()
        if score is None:
            raise _Halted
        yield ScoreLogged(step=self.step, score=score)

    def _graded(self) -> Score | None:
        seen = self.prepared.facts or None
        rows, template = self.prepared.test, self.prepared.template
        for event in grade(self.voice, rows, seen, template, self.config.generate, self.halt):
            if isinstance(event, Scored):
                return event.score
        return None

    def _sample(self) -> Iterator[RunEvent]:
        """Greedy answers to the fixed prompts, so that only the weights make a difference."""
        examples = self.prepared.samples
        if not examples or not self.asks:
            return
        template, limit = self.prepared.template, self.config.generate.max_new_tokens
        with self.clock.timing("sample"), self.learner.processes.in_step(self.learner.bare):
            prompts = [prompt_ids(example, template, self.voice.tokenizer) for example in examples]
            answers = answer_batch(self.voice, prompts, self.stops, limit, self.halt)
        if self.halt():
            raise _Halted
        for example, answer in zip(examples, answers, strict=True):
            yield SampleGenerated(
                step=self.step,
                prompt=example.prompt[-1].text,
                text=answer.text,
                stopped=answer.stopped,
                tokens=len(answer.ids),
            )


@contextmanager
def _memory_explained(config: LabConfig) -> Iterator[None]:
    """Turns a lack of memory into a sentence that names the knobs."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        train = config.train
        raise TrainingError(
            f"Memory ran out. Lower batch_size (now {train.batch_size}; raise accumulation to "
            f"keep the size of a step) or max_length (now {train.max_length})"
            + ("" if train.gradient_checkpointing else ", turn gradient_checkpointing on")
            + ", or choose a smaller model. What was saved until then is kept."
        ) from error
